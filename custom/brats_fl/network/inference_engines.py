"""Inference on a CPU by ONNX Runtime or OpenVINO: the same weights and windows in float32, other kernels.

An engine answers a network's calls, so that windows, mirroring, post-processing and records are those of torch. Both
are given one ONNX graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brats_fl.digests import digest_of_model
from brats_fl.errors import ModelError, TrainingAborted
from brats_fl.failures import explain
from brats_fl.network.engine_packages import TORCH, import_openvino
from brats_fl.network.onnx_graph import TOLERANCE, as_onnx, difference_of

Windows = NDArray[np.float32]
Session = Callable[[Windows], Windows]
"""Windows (B, 4, H, W, D) to their logits (B, 3, H, W, D)."""

_converted: WeakKeyDictionary[nn.Module, Converted] = WeakKeyDictionary()
"""What was made of a network lasts as long as the network does, and as its weights stay what they are."""


@contextmanager
def answered_by(engine: str, network: Callable[..., Tensor]) -> Iterator[None]:
    """Meanwhile an engine answers what a network is called with; its hooks are called as ever.

    Raises:
        ModelError: The network cannot be converted, or computes something else when it is.
    """
    if engine == TORCH:
        yield
        return
    assert isinstance(network, nn.Module)  # torch calls anything, and only a network can be converted
    network.forward = _convert_once(network, engine)
    try:
        yield
    finally:
        del network.forward  # of the object; that of its class is there again


def _convert_once(network: nn.Module, engine: str) -> Converted:
    digest = digest_of_model({name: value.numpy(force=True) for name, value in network.state_dict().items()})
    known = _converted.get(network)
    if known is None or (known.engine, known.digest) != (engine, digest):
        known = _converted[network] = Converted(network, engine, digest)
    return known


class Converted:
    """A network's forward pass by an engine, from one graph in memory; held against torch once for each batch size.

    Args:
        network: On the CPU, in evaluation mode.
        engine: ``onnx`` or ``openvino``.
        digest: Of its weights.
    """

    def __init__(self, network: nn.Module, engine: str, digest: str) -> None:
        self.engine, self.digest = engine, digest
        # Beside the network: what is kept as long as the network must not keep it. Modules and weights are the same.
        self._plain = copy.copy(network)
        self._checked: set[torch.Size] = set()
        try:
            self._session = SESSIONS[engine](as_onnx(self._plain), torch.get_num_threads())
        except TrainingAborted:  # of a hook of the network: nobody waits for it any more
            raise
        except Exception as error:  # torch's exporter and the engines each raise their own
            raise ModelError(
                f"engine {engine}: the network could not be converted: {explain(error)}; leave the engine at {TORCH}"
            ) from error

    def __call__(self, windows: Tensor) -> Tensor:
        """Logits of windows."""
        if windows.device.type != "cpu":
            raise ModelError(f"engine {self.engine} runs on the CPU, not on {windows.device}; take {TORCH} there")
        logits = torch.from_numpy(self._session(windows.numpy()))
        if windows.shape not in self._checked:
            self._check(windows, logits)
            self._checked.add(windows.shape)
        return logits

    def _check(self, windows: Tensor, logits: Tensor) -> None:
        difference = difference_of(self._plain(windows), logits)
        if not difference < TOLERANCE:
            raise ModelError(
                f"engine {self.engine} computes logits that differ by {difference:.2g} from torch's, which must be "
                f"under {TOLERANCE:g}; leave the engine at {TORCH}"
            )


def _onnx_session(graph: bytes, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads sleep: the case before is being finished and the next one read on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(windows: Windows) -> Windows:
        logits: Windows = session.run(None, {"image": windows})[0]
        return logits

    return run


def _openvino_session(graph: bytes, threads: int) -> Session:
    core = import_openvino().Core()
    # On processors with bfloat16 OpenVINO would take it by itself.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    compiled: dict[tuple[int, ...], Any] = {}

    def run(windows: Windows) -> Windows:
        if windows.shape not in compiled:  # a graph of known sizes is the faster one
            model = core.read_model(graph)
            model.reshape(list(windows.shape))
            compiled[windows.shape] = core.compile_model(model, "CPU", settings)
        logits: Windows = compiled[windows.shape](windows)[0]
        return logits.copy()  # the engine's own memory, which its next answer is written to

    return run


SESSIONS: Final[Mapping[str, Callable[[bytes, int], Session]]] = {"onnx": _onnx_session, "openvino": _openvino_session}
