"""Copies what the two bundles share from ``brats_unet``; what is a bundle's own stays.

Own are ``metadata.json``, the note in ``models``, what stands in the model card before its section "Data" and, in every
configuration, the keys that begin with ``network_def``. A test holds the bundles together, so a change made in one
place only does not pass.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from brats_fl_tools.repository import BUNDLES

SOURCE = "brats_unet"
OTHERS = ("brats_attention_unet",)
CONFIGS = (
    "train.json",
    "evaluate.json",
    "inference.json",
    "multi_gpu_train.json",
    "federated.json",
    "small.json",
)
LONGEST_LIST = 80
COPIES = ("configs/logging.conf", "LICENSE", "docs/data_license.txt")
MODEL_CARD = "docs/README.md"
SHARED_FROM = "## Data\n"
"""Heading of the model card from which on it is the same for all bundles."""


def shared_config(source: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """``source`` with its ``network_def`` keys replaced by those of ``own``, in the order of ``source``."""
    merged: dict[str, Any] = {}
    for key, value in source.items():
        if not key.startswith("network_def"):
            merged[key] = value
        elif key in own:
            merged[key] = own[key]
    return merged


def shared_model_card(source: str, own: str) -> str:
    """``own`` up to the section "Data", ``source`` from there."""
    head, heading, _ = own.partition(SHARED_FROM)
    return head + heading + source.partition(SHARED_FROM)[2]


def expected_files(bundle: str, bundles: Path = BUNDLES) -> dict[str, str]:
    """Relative path -> text that each shared file of a bundle should have."""
    configs = bundles / SOURCE / "configs"
    network = json.loads((bundles / bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    files: dict[str, str] = {}
    for name in CONFIGS:
        source = json.loads((configs / name).read_text(encoding="utf-8"))
        own_path = bundles / bundle / "configs" / name
        own = json.loads(own_path.read_text(encoding="utf-8")) if own_path.is_file() else {}
        if "network_def" in source:
            own["network_def"] = network["network_def"]
        files[f"configs/{name}"] = format_config(shared_config(source, own))
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


def main() -> None:
    """Write every shared file of the other bundles."""
    for bundle in OTHERS:
        for name, text in expected_files(bundle).items():
            path = BUNDLES / bundle / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                print(f"wrote {path}")


if __name__ == "__main__":
    main()
