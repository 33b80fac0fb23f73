"""Copies what all bundles share from ``brats_unet``; what is a bundle's own stays.

Own are ``metadata.json``, what stands in the model card before its section "Data", in every configuration the keys that
begin with ``network_def``, the ``loss`` of ``train.json``, and the rule of ``patch_size`` in ``settings.json``. A new
bundle needs of these ``metadata.json``, the top of ``docs/README.md`` and a ``train.json`` that holds its
``network_def``; ``make bundles`` writes the rest, with the source's loss and rule where it has none of its own. A test
holds all bundles together, so that a change made in one place only does not pass.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from brats_fl.bundle import bundle_names, read_config
from brats_fl_tools.repository import BUNDLES

SOURCE = "brats_unet"
OWN_CONFIG, NETWORK_KEYS = "metadata.json", "network_def"
OWN_KEYS = {"train.json": "loss", "settings.json": "patch_size"}
"""Configuration -> key of the network's own: how its outputs are trained, and which patches its strides allow."""
LONGEST_LIST = 80
COPIES = ("configs/logging.conf", "LICENSE", "docs/data_license.txt", "models/README.md")
MODEL_CARD = "docs/README.md"
SHARED_FROM = "## Data\n"
"""Heading of the model card from which on it is the same for all bundles."""


def other_bundles(bundles: Path = BUNDLES) -> list[str]:
    """Names of the bundles that are held to ``SOURCE``."""
    return [name for name in bundle_names(bundles) if name != SOURCE]


def shared_config(source: dict[str, Any], own: dict[str, Any], own_key: str | None = None) -> dict[str, Any]:
    """``source`` with the ``network_def`` keys of ``own`` where its own are, in the order of ``source``.

    The value of ``own_key`` is that of ``own``, too, where it has one.
    """
    network = {key: value for key, value in own.items() if key.startswith(NETWORK_KEYS)}
    merged: dict[str, Any] = {}
    for key, value in source.items():
        if key.startswith(NETWORK_KEYS):
            merged |= network
        else:
            merged[key] = own.get(key, value) if key == own_key else value
    return merged | network


def shared_model_card(source: str, own: str) -> str:
    """``own`` up to the section "Data", ``source`` from there."""
    return own.partition(SHARED_FROM)[0] + SHARED_FROM + source.partition(SHARED_FROM)[2]


def expected_files(bundle: str, bundles: Path = BUNDLES) -> dict[str, str]:
    """Relative path -> text that each shared file of a bundle should have."""
    configs = bundles / SOURCE / "configs"
    network = read_config(bundles / bundle / "configs" / "train.json")
    files: dict[str, str] = {}
    for name in sorted(path.name for path in configs.glob("*.json") if path.name != OWN_CONFIG):
        source = read_config(configs / name)
        own_path = bundles / bundle / "configs" / name
        own = read_config(own_path) if own_path.is_file() else {}
        if "network_def" in source:
            own["network_def"] = network["network_def"]
        files[f"configs/{name}"] = format_config(shared_config(source, own, OWN_KEYS.get(name)))
    for name in COPIES:
        files[name] = (bundles / SOURCE / name).read_text(encoding="utf-8")
    source_card, own_card = ((bundles / folder / MODEL_CARD).read_text(encoding="utf-8") for folder in (SOURCE, bundle))
    files[MODEL_CARD] = shared_model_card(source_card, own_card)
    return files


def format_config(config: dict[str, Any]) -> str:
    """JSON with four spaces and short flat lists on one line, so that a diff shows what changed."""

    def on_one_line(match: re.Match[str]) -> str:
        joined = f"[{' '.join(match.group(1).split())}]"
        return joined if len(joined) <= LONGEST_LIST and "$" not in joined else match.group(0)

    text = json.dumps(config, indent=4, ensure_ascii=False)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", on_one_line, text) + "\n"


def write_shared_files(bundles: Path = BUNDLES) -> list[Path]:
    """Write every shared file of the other bundles that is missing or differs, and return which."""
    written = []
    for bundle in other_bundles(bundles):
        for name, text in expected_files(bundle, bundles).items():
            path = bundles / bundle / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                written.append(path)
    return written


def main() -> None:
    """Write what differs, and say which files."""
    for path in write_shared_files():
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
