"""``brats-fl kit deploy``: a kit for the way in which a hospital runs its services."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from brats_fl.cases.datalists import find_datalist
from brats_fl.errors import DataListError, KitError
from brats_fl.files import write_whole
from brats_fl_tools.jobs.options import ForceOption
from brats_fl_tools.kit.container import (
    COMPOSE,
    DOCKERFILE,
    IGNORED,
    check_container,
    offered_gpus,
    render_compose,
    render_dockerfile,
    render_ignored,
)
from brats_fl_tools.kit.kits import Kit, read_kit
from brats_fl_tools.kit.prepared import RESOURCES, k8s_config, prepare, refuse_used, slurm_config
from brats_fl_tools.kit.results import CheckResult, fail
from brats_fl_tools.kit.service import Places, places_of
from brats_fl_tools.kit.site_files import read_rules_file, rules_file
from brats_fl_tools.one_writer import only_writer
from brats_fl_tools.own_folders import claim, emptied_on_failure, refuse_foreign


class Target(str, Enum):
    """Where a kit can run."""

    docker = "docker"
    k8s = "k8s"
    slurm = "slurm"


def deploy(
    target: Annotated[Target, typer.Argument(help="docker: one container. k8s, slurm: FLARE's own, a job each.")],
    folder: Annotated[Path, typer.Argument(metavar="KIT", help="Kit of a server or hospital that was set up.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder that gets it.")],
    image: Annotated[str, typer.Option("--image", help="k8s: image with the software in it.")] = "brats-fl",
    namespace: Annotated[str, typer.Option("--namespace", help="k8s: namespace of the release.")] = "default",
    claim_name: Annotated[
        str, typer.Option("--claim", help="k8s: volume claim that holds the prepared kit.")
    ] = "nvflws",
    partition: Annotated[
        str | None, typer.Option("--partition", help="slurm: partition of the jobs; default: the cluster's.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write to DIR what runs KIT as a container, on Kubernetes or by Slurm; KIT is left as it is.

    docker: Dockerfile and compose.yaml, which mount KIT where it lies and hold nothing secret. k8s, slurm: a copy of
    KIT, private key included, prepared by FLARE, with the site's own rules kept.
    """
    kit = read_kit(folder)
    if kit.kind == "admin":
        raise KitError(f"{folder}: this is an admin's kit; only the server and hospitals run as services")
    out = out.absolute()
    if out.is_relative_to(folder.absolute()):
        raise KitError(f"{out}: lies in the kit; choose another --out")
    config = slurm_config(kit, partition) if target is Target.slurm else k8s_config(image, namespace, claim_name)
    refuse_foreign(out, "deployment", force)
    refuse_used(out)
    with only_writer(out), emptied_on_failure(out):
        lines = write_container(kit, out) if target is Target.docker else prepare(kit, out, config)
        claim(out, "deployment")
    typer.echo("\n".join([str(out), *lines]))


def write_container(kit: Kit, out: Path) -> list[str]:
    """Write the files of an image and its service, and return how they are used."""
    texts = {COMPOSE: compose_of(kit), DOCKERFILE: render_dockerfile(), IGNORED: render_ignored()}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(out / name, text)
    return [f"BRATS_FL_WHEELHOUSE=WHEELHOUSE docker compose -f '{out / COMPOSE}' up --build --detach"]


def compose_of(kit: Kit) -> str:
    """The compose file of a kit as it is now."""
    return render_compose(
        kit, kit_places(kit), offered_gpus(read_rules_file(rules_file(kit.folder / "local" / RESOURCES)))
    )


def kit_places(kit: Kit) -> Places:
    """What a kit that was set up sees beyond itself."""
    return places_of(find_datalist(kit.name, kit.folder).resolve() if kit.kind == "client" else None)


def check_deployed(kit: Kit, folder: Path) -> CheckResult:
    """``check_container`` of a folder that ``deploy docker`` wrote."""
    try:
        return check_container(kit, folder, compose_of(kit), kit_places(kit))
    except (KitError, DataListError) as error:
        return fail("container", str(error), "mend that, then brats-fl kit deploy docker again")
