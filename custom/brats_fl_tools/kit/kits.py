"""Startup kits: FLARE's provisioning of a project file, and what a kit says of itself."""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from brats_fl.errors import KitError
from brats_fl.failures import explain
from brats_fl.files import is_passed_over, write_whole
from brats_fl.names import check_site_names
from brats_fl.reading import Reader, check_plain
from brats_fl.typed import shorten
from brats_fl_tools.one_writer import writes

Kind = Literal["server", "client", "admin"]
CONFIG_FILES: Mapping[Kind, str] = {
    "server": "fed_server.json",
    "client": "fed_client.json",
    "admin": "fed_admin.json",
}

READER = Reader(KitError, "ask for the kit again")
PROJECT_READER = Reader(
    KitError,
    "mend it, or start from poc_workspace/project.yml",
    "no such project file; start from poc_workspace/project.yml",
)

LAST_PORT = 65535
_PORT = re.compile("[0-9]{1,5}")
LONGEST_HOST = 253
"""Characters of a name in DNS (RFC 1035)."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_PROJECT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""It becomes a folder and the name of the authority."""


@dataclass(frozen=True)
class Kit:
    """A startup kit: what one participant needs to take part."""

    folder: Path
    kind: Kind
    name: str
    host: str
    """Name or address of the server."""
    port: int

    @property
    def certificate(self) -> Path:
        """The participant's own certificate."""
        return self.folder / "startup" / ("server.crt" if self.kind == "server" else "client.crt")

    @property
    def private_key(self) -> Path:
        """Key of the participant's own certificate."""
        return self.certificate.with_suffix(".key")

    @property
    def authority(self) -> Path:
        """Certificate of the authority that signed all of the federation's certificates."""
        return self.folder / "startup" / "rootCA.pem"


@dataclass(frozen=True)
class Federation:
    """The kits of one provisioning, all in one folder."""

    folder: Path
    server: Kit
    clients: tuple[Kit, ...]
    admins: tuple[Kit, ...]


def read_kit(folder: Path) -> Kit:
    """What a startup kit says of itself.

    Raises:
        KitError: The folder is no startup kit, or a file in it is damaged.
    """
    for kind, file in CONFIG_FILES.items():
        path = folder / "startup" / file
        if path.is_file():
            return _read_kit(folder, kind, path)
    raise KitError(
        f"{folder}: no startup kit there; it must hold startup/ with one of {', '.join(CONFIG_FILES.values())}"
    )


def _read_kit(folder: Path, kind: Kind, path: Path) -> Kit:
    config = READER.json_object(path)
    if kind == "admin":
        name, host = (READER.at(str, config, ["admin", key], path) for key in ("username", "host"))
        port = str(READER.at(object, config, ["admin", "port"], path))
    else:
        name = "server" if kind == "server" else READER.at(str, config, ["client", "fqsn"], path)
        host, _, port = READER.at(str, config, ["servers", 0, "service", "target"], path).rpartition(":")
    number = int(port) if _PORT.fullmatch(port) else 0
    if not 1 <= number <= LAST_PORT:
        READER.refuse(path, f"the server's port must be 1 to {LAST_PORT} (got {shorten(port)})")
    return Kit(folder, kind, name, host, number)


def read_federation(folder: Path) -> Federation:
    """All kits in a folder.

    Raises:
        KitError: There is no server's kit or no hospital's.
    """
    found = sorted(path.parent for path in folder.glob("*/startup") if path.is_dir())
    kits = [read_kit(kit) for kit in found if not is_passed_over(kit.name)]
    servers = [kit for kit in kits if kit.kind == "server"]
    clients = tuple(kit for kit in kits if kit.kind == "client")
    if len(servers) != 1 or not clients:
        raise KitError(
            f"{folder}: holds {len(servers)} server kits and {len(clients)} hospitals' kits; give a folder of "
            "kits as provisioning writes it (.../PROJECT/prod_00)"
        )
    return Federation(folder, servers[0], clients, tuple(kit for kit in kits if kit.kind == "admin"))


def read_project(path: Path) -> dict[str, Any]:
    """A project file.

    Raises:
        KitError: It is missing, no YAML, or its participants are not stated as they must be.
        SiteNameError: FLARE does not bear the name of a hospital.
    """
    project = _read_yaml(path)
    if not isinstance(project, dict) or not isinstance(project.get("participants"), list):
        raise KitError(f"{path}: must hold `name` and a list of `participants`; start from poc_workspace/project.yml")
    if not isinstance(project.get("name"), str) or not _PROJECT_NAME.fullmatch(project["name"]):
        raise KitError(f"{path}: name must be letters, digits, - and _ (got {shorten(project.get('name'))}); mend it")
    for entry in project["participants"]:
        if not isinstance(entry, dict) or not {"name", "type", "org"} <= set(entry):
            raise KitError(f"{path}: each participant must have a name, a type and an org (got {shorten(entry)})")
        if not all(isinstance(entry[key], str) for key in ("name", "type", "org")):
            raise KitError(f"{path}: name, type and org of a participant must be text (got {shorten(entry)})")
        for key in ("fed_learn_port", "admin_port"):
            if key in entry and not (type(entry[key]) is int and 1 <= entry[key] <= LAST_PORT):
                raise KitError(f"{path}: {key} must be a whole number, 1 to {LAST_PORT} (got {shorten(entry[key])})")
        if entry["type"] not in CONFIG_FILES:
            raise KitError(
                f"{path}: {entry['name']}: type must be {', '.join(CONFIG_FILES)} (got {shorten(entry['type'])})"
            )
    check_site_names((str(entry["name"]) for entry in project["participants"] if entry["type"] == "client"), str(path))
    types = [entry["type"] for entry in project["participants"]]
    if types.count("server") != 1 or "client" not in types:
        raise KitError(f"{path}: participants must hold one server and at least one client (got {', '.join(types)})")
    return project


def _read_yaml(path: Path) -> Any:
    text = PROJECT_READER.text(path)
    try:
        content = yaml.safe_load(text)
        check_plain(content)
    except Exception as error:  # YAML's own, and whatever its makers of numbers and dates run into
        said = " ".join(str(error).split()) or type(error).__name__
        PROJECT_READER.refuse(path, f"cannot be read as YAML ({said})")
    return content


@writes("out")
def provision(project_file: Path, out: Path, host: str | None = None, port: int | None = None) -> Path:
    """Write the kits of a project and return their folder, ``out/PROJECT/prod_NN``.

    The certificate authority is kept in ``out/PROJECT/state``: provisioning again with one more hospital in the project
    file leaves the certificates of the others as they are.

    Args:
        project_file: FLARE's project file.
        out: Folder of the provisioning; holds the authority's private key, keep it as safe as a password.
        host: Name or address by which the sites reach the server; default: the project file's.
        port: The server's port; default: the project file's.

    Raises:
        KitError: The project file is wrong.
    """
    from nvflare.lighter.prov_utils import prepare_builders
    from nvflare.lighter.provision import prepare_project
    from nvflare.lighter.provisioner import Provisioner

    project = read_project(project_file)
    for participant in project["participants"]:
        if participant.get("type") == "server":
            participant.update({"default_host": host} if host is not None else {})
            check_host(participant.get("default_host", participant["name"]), project_file if host is None else "--host")
            participant.update({"fed_learn_port": port, "admin_port": port} if port else {})
    out.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with _undone_on_failure(out / project["name"]):
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):  # FLARE prints its tracebacks
                context = Provisioner(str(out), prepare_builders(project)).provision(prepare_project(project))
        except OSError:
            raise
        except Exception as error:  # FLARE raises what it runs into in a project file
            raise KitError(f"{project_file}: cannot be provisioned: {explain(error)}; mend it") from error
        folder = context.get_result_location() if context is not None else None
        if not folder or context.get("build_error"):
            raise _provisioning_error(project_file, out, said.getvalue())
        # FLARE leaves the private keys of the authority and of all kits readable by everyone on the machine.
        (Path(folder).parent / "state" / "cert.json").chmod(0o600)
    return Path(folder)


def check_host(host: object, place: Path | str) -> None:
    """Raise ``KitError`` unless a server can have this as its host: a DNS name (RFC 1123), or an IPv4 address."""
    is_name = isinstance(host, str) and len(host) <= LONGEST_HOST and bool(_HOST.fullmatch(host))
    try:
        if is_name and re.fullmatch("[0-9.]+", str(host)):
            ipaddress.IPv4Address(str(host))
    except ValueError:
        is_name = False
    if not is_name:
        raise KitError(
            f"{place}: the server's host must be a name of letters a-z, digits, '-' and dots, or an IPv4 address (got "
            f"{shorten(host)}), without port and scheme; give the one by which the hospitals reach it"
        )


def _provisioning_error(project_file: Path, out: Path, said: str) -> Exception:
    """Why FLARE could not provision, from what it printed."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        if f"[Errno {number}]" in said:
            return OSError(number, os.strerror(number), str(out))
    told = re.search(r"Exception (.*?) raised during provision", said, re.DOTALL)
    reason = " ".join((told[1] if told else said).split()[-40:]) or "FLARE does not say why"
    return KitError(f"{project_file}: cannot be provisioned ({reason}); mend the file, or what is said of {out}")


@contextlib.contextmanager
def _undone_on_failure(folder: Path) -> Iterator[None]:
    """Where the block fails, leave a project's folder as it was: no half of a kit, and the authority that it had."""
    before = {path: path.read_bytes() for path in folder.glob("state/*") if path.is_file()}
    there = set(folder.glob("*"))
    try:
        yield
    except BaseException:
        for path in set(folder.glob("*")) - there:
            shutil.rmtree(path, ignore_errors=True)
        for path, content in before.items():
            if not path.is_file() or path.read_bytes() != content:
                write_whole(path, content)
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was there before
        raise
