"""The methods paragraph: what was done, in the words of a paper, from what the run recorded and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from brats_fl.constants import MISSED_HD95_MM, SPLITS
from brats_fl_tools.built_from import describe_commit
from brats_fl_tools.pages.formats import format_count, format_duration, list_words
from brats_fl_tools.report.bundle_settings import read_settings
from brats_fl_tools.report.evaluated_model import NOT_HERE, NOT_RECORDED, name_evaluated_model
from brats_fl_tools.report.facts import describe_machine
from brats_fl_tools.report.headline import describe_seen
from brats_fl_tools.report.metrics import Scores
from brats_fl_tools.report.participants import summarise_participation
from brats_fl_tools.report.privacy import spent_by_hospital
from brats_fl_tools.report.run_folder import RunFolder, finite

REFERENCES: Final = {
    "menze": "Menze et al. 2015. The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS). "
    "IEEE Transactions on Medical Imaging 34(10). doi:10.1109/TMI.2014.2377694",
    "bakas2017": "Bakas et al. 2017. Advancing The Cancer Genome Atlas glioma MRI collections with expert segmentation "
    "labels and radiomic features. Scientific Data 4. doi:10.1038/sdata.2017.117",
    "bakas2018": "Bakas et al. 2018. Identifying the Best Machine Learning Algorithms for Brain Tumor Segmentation, "
    "Progression Assessment, and Overall Survival Prediction in the BRATS Challenge. arXiv 1811.02629",
    "monai": "Cardoso et al. 2022. MONAI: An open-source framework for deep learning in healthcare. arXiv 2211.02701",
    "flare": "Roth et al. 2022. NVIDIA FLARE: Federated Learning from Simulation to Real-World. arXiv 2210.13291",
    "bonawitz": "Bonawitz et al. 2017. Practical Secure Aggregation for Privacy-Preserving Machine Learning. "
    "doi:10.1145/3133956.3133982",
    "fedavg": "McMahan et al. 2017. Communication-Efficient Learning of Deep Networks from Decentralized Data. "
    "arXiv 1602.05629",
    "unet3d": "Çiçek et al. 2016. 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation. "
    "doi:10.1007/978-3-319-46723-8_49",
    "residual": "Kerfoot et al. 2019. Left-Ventricle Quantification Using Residual U-Net. "
    "doi:10.1007/978-3-030-12029-0_40",
    "attention": "Oktay et al. 2018. Attention U-Net: Learning Where to Look for the Pancreas. arXiv 1804.03999",
    "nnunet": "Isensee et al. 2021. nnU-Net: a self-configuring method for deep learning-based biomedical image "
    "segmentation. doi:10.1038/s41592-020-01008-z",
    "adamw": "Loshchilov and Hutter 2019. Decoupled Weight Decay Regularization. arXiv 1711.05101",
    "dpsgd": "Abadi et al. 2016. Deep Learning with Differential Privacy. arXiv 1607.00133",
    "winner": "Isensee et al. 2020. nnU-Net for Brain Tumor Segmentation. arXiv 2011.00848",
}

DATA_REFERENCES: Final = ("menze", "bakas2017", "bakas2018")
"""What who uses BraTS 2020's cases is asked to cite; whether these are such cases, nothing here tells."""

NETWORKS: Final = {
    "UNet": "a 3D U-Net @unet3d",
    "brats_fl.network.networks.InstanceNormAttentionUnet": "a 3D Attention U-Net @attention with instance norm",
    "brats_fl.network.deep_supervision.DeeplySupervisedDynUNet": "nnU-Net's @nnunet 3D U-Net with deep supervision",
}
"""Class of the definition -> words."""

LOSSES: Final = {
    "brats_fl.network.losses.DiceBCELoss": "the sum of Dice loss, over the patches of a batch together @winner, and "
    "binary cross-entropy",
}
"""The same, of one with the class's own defaults."""

WRAPPED_LOSSES: Final = {
    "brats_fl.network.deep_supervision.StackedDeepSupervisionLoss": "{}, on each head of the decoder at its "
    "resolution, each of half the weight of the one above it",
}
"""The same, of one that is made of another, ``{}``."""

OPTIMISERS: Final = {"torch.optim.AdamW": "AdamW @adamw"}
COMPRESSIONS: Final = {
    "float16": "Weights travelled as float16, models sent whole and masked updates as they are.",
    "int8": "Weights travelled as int8 with a scale for each 256 values, models sent whole and masked updates as they "
    "are.",
}
ALGORITHMS: Final = {
    "fedavg": "federated averaging @fedavg, each hospital's weight its number of training cases",
    "dp": "federated averaging @fedavg of local DP-SGD @dpsgd by patients, each hospital's weight its number of cases",
}


@dataclass(frozen=True)
class Methods:
    """A paragraph with numbers for its references, and the references in that order."""

    text: str
    references: tuple[str, ...]
    data_references: tuple[str, ...]
    """What is to be cited besides, if the cases are BraTS 2020's."""


def write_methods(run: RunFolder, scores: Scores | None) -> Methods:
    """What was done, as far as the run tells; a sentence that it does not bear out is not written.

    Args:
        run: A run, or an evaluation alone.
        scores: Figures of its split; None where the hospitals kept their tables.
    """
    evaluated = (*_describe_evaluation(run, scores), *_describe_engine(run))
    text = " ".join((*_describe_training(run), *evaluated, *_describe_software(run)))
    numbered, cited = number_citations(text)
    others = [REFERENCES[key] for key in DATA_REFERENCES if key not in cited]
    return Methods(numbered, tuple(REFERENCES[key] for key in cited), tuple(others))


def number_citations(text: str) -> tuple[str, tuple[str, ...]]:
    """A text with ``@key`` replaced by ``[1]`` and so on in the order of appearance, and the keys in that order."""
    known = re.compile(f"@({'|'.join(REFERENCES)})\\b")  # a processor's name may hold an @, too
    keys = tuple(dict.fromkeys(known.findall(text)))
    return known.sub(lambda found: f"[{keys.index(found.group(1)) + 1}]", text), keys


def _describe_training(run: RunFolder) -> Iterator[str]:
    if run.is_evaluation:
        return
    yield summarise_participation(run)
    if run.counts:
        cases = [sum(counts.get(split) or 0 for counts in run.counts.values()) for split in SPLITS]
        numbers = [f"{number} for {split}" for number, split in zip(cases, SPLITS, strict=True)]
        yield f"Together they listed {format_count(sum(cases), 'case')}: {list_words(numbers)}."
    settings = read_settings(run)
    yield from _describe_network(run, settings)
    if digest := run.info.get("start_sha256"):
        yield f"Training started from a given model (SHA-256 {digest}), not from random weights."
    yield from _describe_rounds(run, settings)


def _describe_network(run: RunFolder, settings: Mapping[str, Any]) -> Iterator[str]:
    definition = settings.get("network_def")
    if not isinstance(definition, Mapping):
        yield f"The network is that of the bundle {run.info.get('bundle')}; its settings are not in the run's folder."
        return
    target = str(definition.get("_target_"))
    text = f"The network is {NETWORKS.get(target, target)}"
    if definition.get("num_res_units"):
        text += " with residual units @residual"
    if isinstance(channels := definition.get("channels", definition.get("filters")), list):
        text += f" and {list_words([str(number) for number in channels])} channels on its levels"
    if isinstance(parameters := run.info.get("parameters"), int):
        text += f", {parameters:,} parameters"
    yield (
        f"{text}. Its {definition.get('in_channels')} inputs are T1 with contrast agent, T1, T2 and FLAIR; its "
        f"{definition.get('out_channels')} outputs are tumour core, whole tumour and enhancing tumour @menze."
    )


def _describe_rounds(run: RunFolder, settings: Mapping[str, Any]) -> Iterator[str]:
    options = run.info.get("options")
    algorithm = str(options.get("algorithm")) if isinstance(options, Mapping) else ""
    if algorithm in ALGORITHMS:
        yield f"The algorithm is {ALGORITHMS[algorithm]}."
    elif algorithm:
        yield f"The algorithm is {algorithm}."
    if isinstance(options, Mapping) and (words := COMPRESSIONS.get(str(options.get("compression")))):
        yield words
    yield from _describe_masks(run)
    yield from _describe_noise(run)
    epochs = run.info.get("local_epochs")
    steps, batch, patch, spacing_mm = (
        settings.get(name) for name in ("steps_per_epoch", "batch_size", "patch_size", "spacing_mm")
    )
    if not (isinstance(epochs, int) and isinstance(steps, int) and isinstance(batch, int) and patch and spacing_mm):
        return
    text = (
        f"In each round a hospital trained for {format_count(epochs, 'epoch')} of {format_count(steps, 'step')} with "
        f"batches of {format_count(batch, 'patch', 'patches')} of {_times(patch)} voxels of {_times(spacing_mm)} mm"
    )
    text += f", minimising {_describe_loss(settings.get('loss'))}, with {_describe_optimiser(settings)}"
    if (rate := finite(settings.get("learning_rate"))) is not None:
        text += f", learning rate {rate:g}{' at the start' * ('lr_decay' in settings)}"
    if isinstance(seed := run.info.get("seed"), int):
        text += f", seed {seed}"
    yield f"{text}."


def _describe_masks(run: RunFolder) -> Iterator[str]:
    """How the updates were hidden from the server, if they were."""
    found = [mean.unmasking for mean in run.means if mean.unmasking]
    if not found:
        return
    keys = "keys that the hospitals' certificates signed" if all(one.keys_signed for one in found) else "unsigned keys"
    yield (
        f"Updates left the hospitals masked @bonawitz, with {keys}: of each round the server learnt the sum alone, of "
        f"{found[0].threshold} updates or more."
    )


def _describe_noise(run: RunFolder) -> Iterator[str]:
    """What protects the patients of a private run."""
    spent, options = spent_by_hospital(run), run.info.get("options")
    if not spent or not isinstance(options, Mapping):
        return
    rate, norm, noise = (options.get(name) for name in ("sampling_rate", "clipping_norm", "noise_multiplier"))
    yield (
        f"Each step drew each patient with probability {rate}, clipped a patient's gradient to an L2 norm of {norm} "
        f"and added Gaussian noise of {noise} times that norm to their sum. By the end a patient's privacy loss was at "
        f"most epsilon {max(one.epsilon for one in spent):.2f} at delta {spent[0].delta:g}, composed from privacy loss "
        "distributions; losses, metrics and times were withheld."
    )


def _describe_loss(definition: object) -> str:
    target = _target({"loss": definition}, "loss")
    if definition == {"_target_": target}:
        return LOSSES.get(target, target)
    if isinstance(definition, Mapping) and set(definition) == {"_target_", "loss"} and target in WRAPPED_LOSSES:
        return WRAPPED_LOSSES[target].format(_describe_loss(definition["loss"]))
    return f"{target} with settings of its own"


def _describe_optimiser(settings: Mapping[str, Any]) -> str:
    target = _target(settings, "optimizer")
    return OPTIMISERS.get(target, target)


def _target(settings: Mapping[str, Any], name: str) -> str:
    definition = settings.get(name)
    return str(definition.get("_target_")) if isinstance(definition, Mapping) else str(definition)


def _times(sizes: Any) -> str:
    if not isinstance(sizes, list):
        return str(sizes)
    return " x ".join(f"{size:g}" if isinstance(size, float) else str(size) for size in sizes)


def _describe_evaluation(run: RunFolder, scores: Scores | None) -> Iterator[str]:
    if scores is None and spent_by_hospital(run):
        yield "No figure of the model was computed on cases and sent: it would have left without noise."
        return
    if scores is None:
        yield "Each hospital that reported evaluated the final model on its own validation cases and sent means alone."
        return
    model = name_evaluated_model(run)
    which = {
        NOT_RECORDED: "Which model was evaluated was not recorded",
        NOT_HERE: "The model evaluated is not the run's",
    }
    dice = scores.overall.dice["mean"]
    spread = "" if dice.sd is None else f", standard deviation {dice.sd:.3f}"
    subject = f"{which.get(model, f'The model evaluated is: {model}')}. It was"
    if run.is_rescored:
        subject = f"Masks that were given (SHA-256 {run.evaluation.get('masks_sha256')}) were"
    yield (
        f"{subject} scored on {scores.overall.cases} "
        f"{run.case_noun}{'s' * (scores.overall.cases != 1)} of {_count_scored(scores)} {describe_seen(run)}, by the "
        "Dice coefficient and the 95th percentile of the distances between the surfaces, the larger of the two "
        "directions (HD95), of each region. A region in neither mask scores Dice 1 and HD95 0 mm, one in only one of "
        f"them Dice 0 and HD95 {MISSED_HD95_MM} mm. Mean Dice over cases and regions: {dice.mean:.3f}{spread}."
    )


def _count_scored(scores: Scores) -> str:
    return format_count(sum(summary.cases > 0 for summary in scores.sites.values()), "hospital")


SOFTWARE: Final = {
    "monai": "MONAI {} @monai",
    "nvflare": "NVIDIA FLARE {} @flare",
    "torch": "PyTorch {}",
    "python": "Python {}",
}


ENGINES: Final = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""Packages of other engines than torch, which is named as software anyway."""


def _describe_engine(run: RunFolder) -> Iterator[str]:
    """What computed the masks that were scored, where it was not torch."""
    package, _, version = str(run.evaluation.get("engine", "")).partition(" ")
    if package in ENGINES:
        yield f"The masks were computed in float32 by {ENGINES[package]} {version} on the CPU."


def _describe_software(run: RunFolder) -> Iterator[str]:
    facts = run.evaluation if run.is_evaluation else run.info
    versions = facts.get("versions")
    if isinstance(versions, Mapping) and versions:
        own = f"brats-fl {versions.get('brats_fl', 'of an unknown version')}"
        if commit := facts.get("commit"):
            own += f" (commit {describe_commit(str(commit))})"
        shown = {name: words for name, words in SOFTWARE.items() if not (run.is_evaluation and name == "nvflare")}
        yield f"Software: {list_words([own, *(w.format(versions[n]) for n, w in shown.items() if n in versions)])}."
    if machine := describe_machine(facts.get("machine")):
        whose = (
            "The run"
            if run.info.get("mode") == "simulator"
            else "The evaluation"
            if run.is_evaluation
            else "The server"
        )
        seconds = finite(facts.get("seconds"))
        took = f"; it took {format_duration(seconds)}" if seconds and run.info.get("mode") == "simulator" else ""
        yield f"{whose} had {machine}{took}."
