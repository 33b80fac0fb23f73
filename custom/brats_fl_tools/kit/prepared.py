"""A kit for Kubernetes or Slurm, by FLARE's own ``nvflare deploy prepare``, with the site's rules kept.

FLARE prepares from its default rules and removes the site's own: the policy, the door and the list of approved jobs
would be gone without a word. Here it prepares from the site's own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from brats_fl.cases.datalists import DATALIST_FILE
from brats_fl.errors import FolderError, KitError
from brats_fl.names import check_folder
from brats_fl_tools.kit.kits import Kit
from brats_fl_tools.kit.site_files import default_of, read_rules_file, rules_file

RESOURCES = "resources.json"

REPLACED = ("resource_manager", "resource_consumer", "process_launcher")
"""Components that start a job's process here and count its GPUs; the cluster does both."""

MOVED = ("job_manager", "snapshot_persistor")
"""What names the kit's own folder, and names the prepared one afterwards."""

HISTORY = ("local/approved_jobs.json", "local/egress.jsonl", "local/ledger.jsonl", "state")
"""What a prepared kit holds that cannot be written again, once it is in use."""


def refuse_used(out: Path) -> None:
    """Raise ``FolderError`` where a prepared kit is in use, so that it is not replaced."""
    if used := [name for name in HISTORY if (out / name).exists()]:
        raise FolderError(
            f"{out}: is a kit in use (it has {', '.join(used)}); choose another --out, and copy these there"
        )


def slurm_config(kit: Kit, partition: str | None) -> dict[str, Any]:
    """Jobs by ``sbatch`` with this environment's Python; of a hospital the client, too."""
    python = Path(sys.executable).parent
    where = {"sbatch_directives": {"partition": partition}} if partition else {}
    setup = f"export PATH={shlex.quote(str(python))}:$PATH\n"
    launcher = {"sandbox": "none", "python_path": str(python / "python3"), "setup": setup, **where}
    parent = {"environment_setup": setup, **where}
    return {"runtime": "slurm", "job_launcher": launcher, **({"parent": parent} if kit.kind == "client" else {})}


def k8s_config(image: str, namespace: str, claim: str) -> dict[str, Any]:
    """A chart for Helm whose pods run without rights, on an image of ``kit deploy docker``."""
    closed = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "runtime": "k8s",
        "namespace": namespace,
        "parent": {"docker_image": image, "workspace_pvc": claim, "pod_security_context": closed},
        "job_launcher": {"job_pod_security_context": closed},
    }


def prepare(kit: Kit, out: Path, config: dict[str, Any]) -> list[str]:
    """Write the prepared kit to ``out``, a new folder, and return the lines that say how it is started.

    Raises:
        KitError: The kit has no rules of its own yet, or FLARE refuses.
        FolderError: FLARE's processes would not start at ``out``.
    """
    rules = kit.folder / "local" / RESOURCES
    if not rules.is_file():
        raise KitError(f"{kit.folder}: has no policy yet; run brats-fl kit setup first")
    check_folder(out, "prepared kit")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".prepare-") as scratch:
        copy = Path(scratch) / kit.folder.name
        shutil.copytree(kit.folder, copy, symlinks=True, ignore=shutil.ignore_patterns("*.fl", "*log*.txt", "systemd"))
        (copy / "local" / DATALIST_FILE).unlink(missing_ok=True)  # FLARE would copy what it links to
        default = default_of(copy / "local" / RESOURCES)
        shutil.copyfile(rules_file(rules), default)
        (file := Path(scratch) / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        said = call_flare(copy, out, file)
    keep_rules(kit, out)
    return said


def call_flare(kit: Path, out: Path, config: Path) -> list[str]:
    """What ``nvflare deploy prepare`` says when it has written ``out``.

    Raises:
        KitError: It refuses, with what it said.
    """
    from nvflare.tool.deploy.deploy_commands import prepare_deployment

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            prepare_deployment(argparse.Namespace(kit=str(kit), output=str(out), config=str(config)))
    except SystemExit as error:
        raise KitError(f"{out}: FLARE does not prepare it: {' '.join(said.getvalue().split())}") from error
    return [line for line in said.getvalue().splitlines() if "command" in line]


def keep_rules(kit: Kit, out: Path) -> None:
    """Put the prepared rules where the site's own belong; FLARE's default and the data list's link are as they were.

    Raises:
        KitError: FLARE has taken a rule away.
    """
    rules = out / "local" / RESOURCES
    default_of(rules).rename(rules)
    shutil.copyfile(default_of(kit.folder / "local" / RESOURCES), default_of(rules))
    if lost := lost_rules(read_rules_file(kit.folder / "local" / RESOURCES), read_rules_file(rules)):
        shutil.rmtree(out)
        raise KitError(f"{out}: FLARE took {', '.join(lost)} out of the site's rules; nothing was written")
    link = kit.folder / "local" / DATALIST_FILE
    if link.is_symlink():
        (out / "local" / DATALIST_FILE).symlink_to(link.resolve())


def lost_rules(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the components and settings of a site that are no longer what they were, and should be."""
    own, prepared = ({**rules, **{part["id"]: part for part in rules["components"]}} for rules in (before, after))
    passed_over = ("components", *REPLACED, *MOVED)
    return sorted(name for name in own if name not in passed_over and own[name] != prepared.get(name))
