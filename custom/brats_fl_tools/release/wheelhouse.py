"""A folder from which a house without internet installs: every wheel, each with its SHA-256, and how."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_fl.errors import FolderError
from brats_fl.files import write_whole
from brats_fl.provenance import hash_file
from brats_fl.reading import Reader
from brats_fl_tools.one_writer import writes
from brats_fl_tools.release.wheel import ReleaseError, pip, run

REQUIREMENTS, GUIDE, PLAN = "requirements.txt", "install.md", ".plan.json"

SIZE_SECONDS = 30.0
"""An index answers a question for a size within a second; a proxy of a hospital may take longer."""


@dataclass(frozen=True)
class Package:
    """What pip chose to install."""

    name: str
    version: str
    url: str
    extras: tuple[str, ...] = ()
    sha256: str = ""
    """As the index states it; of a package that comes as source it is not that of the wheel."""

    @property
    def pin(self) -> str:
        """The line of a requirements file, without its hash."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}=={self.version}"


@writes("out")
def make_wheelhouse(wheel: Path, extra: str, out: Path, constraints: Path, options: Sequence[str] = ()) -> None:
    """Fill ``out`` with a wheel and the wheels of all that it needs, for this Python and this kind of machine.

    Args:
        wheel: Our own.
        extra: Of it, whose packages come along.
        out: Folder that is new or empty.
        constraints: Versions to take.
        options: More words for pip, such as an index.

    Raises:
        FolderError: ``out`` holds something.
        ReleaseError: pip finds or builds something not.
    """
    if out.exists() and any(out.iterdir()):
        raise FolderError(f"{out}: is not empty; remove it, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    packages = plan(f"{wheel}[{extra}]", out / PLAN, constraints, options)
    size = sum(size_of(package.url) for package in packages)
    print(f"{out}: {len(packages)} packages, {size / 1e6:,.0f} MB", flush=True)
    pins = out / REQUIREMENTS
    # What pip finds is held to what it has just chosen by version; by hash below.
    write_whole(pins, "".join(f"{one.pin}\n" for one in packages))
    find = ["--find-links", str(wheel.parent)]
    run([*pip(), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), *find, *options, "-r", str(pins)])
    hashes = {name_of(path): hash_file(path) for path in out.glob("*.whl")}
    refuse_others(packages, hashes)
    write_whole(pins, "".join(f"{one.pin} --hash=sha256:{hashes[normal(one.name)]}\n" for one in packages))
    write_whole(out / GUIDE, guide(out, wheel))


def plan(requirement: str, report: Path, constraints: Path, options: Sequence[str] = ()) -> list[Package]:
    """What pip would install in an empty environment, by name."""
    choose = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
    run([*pip(), *choose, "-c", str(constraints), *options, requirement])
    chosen = Reader(ReleaseError, "see pip's lines above").json_object(report)["install"]
    report.unlink()
    return sorted((read_package(entry) for entry in chosen), key=lambda package: package.name)


def read_package(entry: dict[str, Any]) -> Package:
    """One of pip's report, whose form PyPA specifies (version 1)."""
    known, source = entry["metadata"], entry["download_info"]
    sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256", "")
    return Package(known["name"], known["version"], source["url"], tuple(entry.get("requested_extras", ())), sha256)


def size_of(url: str) -> int:
    """Bytes of a package, asked of the index without fetching it; 0 where it does not say."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return Path(urllib.parse.unquote(parts.path)).stat().st_size
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SIZE_SECONDS) as answer:
        return int(answer.headers.get("Content-Length", 0))


def normal(name: str) -> str:
    """A package's name as wheels carry it, in lower case."""
    return name.lower().replace("-", "_").replace(".", "_")


def name_of(wheel: Path) -> str:
    """Package of a wheel's file."""
    return normal(wheel.name.partition("-")[0])


def refuse_others(packages: Sequence[Package], hashes: dict[str, str]) -> None:
    """Raise ``ReleaseError`` unless every package is there, and each that came as a wheel is the one of the index."""
    for package in packages:
        got = hashes.get(normal(package.name))
        if got is None:
            raise ReleaseError(f"{package.pin}: pip has left no wheel of it; see its lines above")
        if package.url.endswith(".whl") and package.sha256 not in ("", got):
            raise ReleaseError(
                f"{package.pin}: its wheel has SHA-256 {got}, the index states {package.sha256}; try again"
            )


def guide(out: Path, wheel: Path) -> str:
    """How to install from the folder, for whoever finds it on a disk."""
    import platform
    import sysconfig

    version = ".".join(platform.python_version_tuple()[:2])
    return (
        f"# {'-'.join(wheel.name.split('-')[:2])}, offline\n\n"
        f"For Python {version} on {sysconfig.get_platform()}. Nothing is fetched; each file is held to its SHA-256.\n\n"
        "```\n"
        "python3 -m venv /opt/brats-fl && source /opt/brats-fl/bin/activate\n"
        f"pip install --no-index --find-links {out.name} --require-hashes -r {out.name}/{REQUIREMENTS}\n"
        "```\n\n"
        f"The SHA-256 of `{REQUIREMENTS}` stands for the whole folder: compare it with the sender's, another way.\n"
    )
