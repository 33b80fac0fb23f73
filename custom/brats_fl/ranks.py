"""Several processes of one site, a GPU each, that train as one with the same batch, and nobody outside notices.

Rank 0 is the trainer that the job process knows: it alone has the pipe, and passes each task on. Every rank draws the
whole batch from the same seed, runs the network on its own patches, and hands the logits round, so that each computes
the loss of the whole batch, whatever in it couples patches; the gradients of all ranks then add up to those of one
process. Cases to validate are dealt out, and MONAI's metrics gather them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ignite.distributed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from brats_fl.errors import JobError
from brats_fl.tasks import LocalSettings, Task

RANK_DIED: Final = 3
"""Exit code of rank 0 where another rank is gone: the task ends as if the trainer had died, which it then has."""

LOOPBACK: Final = "lo"

VALIDATION_BY_RANK: Final = {
    "validate#sampler": {
        "_target_": "DistributedSampler",
        "dataset": "@validate#dataset",
        "even_divisible": False,
        "shuffle": False,
    },
    "validate#dataloader#sampler": "@validate#sampler",
}
"""Of a bundle's training configuration: each rank evaluates cases of its own."""


def dealt_out(cases: int, ranks: int) -> Mapping[str, Any]:
    """What to set in the configuration to deal cases out; of fewer cases than ranks every rank evaluates all."""
    return VALIDATION_BY_RANK if 1 < ranks <= cases else {}


class SharedInferer:
    """An inferer of patches (B, 4, H, W, D) whose batch is dealt out to the ranks; each gets the logits of all.

    Gradients flow through a rank's own patches alone.
    """

    def __init__(self, inferer: Any) -> None:
        self.inferer = inferer

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Logits of the whole batch.

        Raises:
            JobError: There are more ranks than patches.
        """
        ranks = dist.get_world_size()
        if len(inputs) < ranks:
            raise JobError(
                f"batch_size must be at least the number of the site's GPUs (got {len(inputs)} for {ranks}); build the "
                "job with a larger one, or let the site use fewer"
            )
        shares = inputs.tensor_split(ranks)
        own = self.inferer(shares[dist.get_rank()], network, *args, **kwargs)
        parts = []
        for rank, share in enumerate(shares):
            is_own = rank == dist.get_rank()
            part = own.detach().contiguous() if is_own else own.new_empty((len(share), *own.shape[1:]))
            dist.broadcast(part, src=rank)
            parts.append(own if is_own else part)
        return torch.cat(parts)


def add_gradients(network: nn.Module) -> None:
    """From now on each gradient becomes the sum over the ranks as soon as it is there, before it is clipped."""

    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)

    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(add)


def share_training(trainer: Any) -> None:
    """Let MONAI's trainer work on its share of each batch."""
    trainer.inferer = SharedInferer(trainer.inferer)
    add_gradients(trainer.network)


class Team:
    """The other ranks, as rank 0 sees them; they end with it, and it with any of them.

    Args:
        size: Ranks, this one counted.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.others: list[subprocess.Popen[bytes]] = []
        self.meeting = Path()

    def give(self, settings: LocalSettings, task: Task) -> None:
        """Pass a task on to all ranks, which are started where there are none."""
        if not self.others:
            self._start()
        dist.broadcast_object_list([(settings, task)], src=0)

    def _start(self) -> None:
        self.meeting = Path(tempfile.mkdtemp(prefix="brats-fl-ranks-")) / "meeting"
        self.others = [self._start_rank(rank, self.meeting) for rank in range(1, self.size)]
        for process in self.others:
            threading.Thread(target=self._watch, args=(process,), daemon=True, name="watch").start()
        join(0, self.size, self.meeting)

    def _start_rank(self, rank: int, meeting: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "brats_fl.rank_process", str(rank), str(self.size), str(meeting)],
            stdin=subprocess.PIPE,  # the rank leaves when this process is gone, and with it the other end
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu_of(rank)},
        )

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process in self.others:
            os._exit(RANK_DIED)

    def stop(self) -> None:
        """End the other ranks, whatever they are waiting for; the next task starts new ones."""
        others, self.others = self.others, []
        for process in others:
            process.kill()
            process.wait()
        if others:
            dist.destroy_process_group()
            ignite.distributed.sync()
            shutil.rmtree(self.meeting.parent, ignore_errors=True)  # a rank that is killed leaves it


def join(rank: int, size: int, meeting: Path) -> None:
    """Join the other ranks of this machine.

    Args:
        rank: Of this process.
        size: How many there are.
        meeting: File through which they find each other.
    """
    # Nothing listens but to this machine; each process sees one GPU, which is its first.
    os.environ.update({"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK, "LOCAL_RANK": "0"})
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=meeting.as_uri(), rank=rank, world_size=size)
    ignite.distributed.sync()  # what it knows of an earlier team would make it wait for ever


def gpu_of(rank: int) -> str:
    """The GPU of a rank, as CUDA_VISIBLE_DEVICES names it: the rank's own, of those that the site gave."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    listed = given.split(",") if given else []
    return listed[rank] if rank < len(listed) else str(rank)
