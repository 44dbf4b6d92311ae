"""Several processes that train one network together, one for each device, started by ``torchrun``.

Every process takes its share of each batch; gradients are added up before each step, so all have the same weights, and
a step is that of the whole batch on one device up to rounding (data-parallel training: Li et al., "PyTorch
distributed", VLDB 2020). Noise and augmentation differ from those of one process; batch norm sees the rows of its
process alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from generator.errors import SettingsError, SpecError
from generator.models.autoencoders.devices import resolve_device
from generator.spec.launch import launched_rank

T = TypeVar("T")

_PATIENCE = timedelta(hours=6)  # another process may read a large source meanwhile; if one fails, torchrun ends all
_MIN_SHARE = 2  # rows of a process, for batch norm


@dataclass(frozen=True)
class Replicas:
    """The place of this process among the ``count`` that train together; ``rank`` from 0."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes checkpoints and the bundle."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Raise ``SpecError`` if a batch is too small to be shared."""
        if self.count > 1 and batch < _MIN_SHARE * self.count:
            expected = f"at least {_MIN_SHARE * self.count} images for {self.count} processes"
            raise SpecError("train.batch", expected, batch)

    def share_of(self, rows_B: np.ndarray) -> np.ndarray:
        """The rows of this process."""
        return rows_B[self.rank :: self.count]

    def purpose(self, name: str) -> str:
        """``name`` of a seed, by process; unchanged where there is one."""
        return name if self.count == 1 else f"{name}, process {self.rank} of {self.count}"

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace ``tensors``, all of one dtype, by their sums over all processes."""
        found = list(tensors)
        if self.count == 1 or not found:
            return
        flat = torch.cat([tensor.flatten() for tensor in found])
        distributed.all_reduce(flat)
        for tensor, total in zip(found, torch.split(flat, [tensor.numel() for tensor in found]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def add_gradients(self, network: nn.Module) -> None:
        """Add up the gradients of all processes, each of which has that of its share of the loss."""
        self.add_up(parameter.grad for parameter in network.parameters() if parameter.grad is not None)

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Replace running statistics by their means over all processes."""
        if self.count > 1:
            found = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
            self.add_up(buffer.div_(self.count) for buffer in found)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in the first process; others wait for it."""
        if self.count == 1:
            return make()
        values = [make() if self.is_first else None]
        distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def part(self) -> None:
        """End the connection, in all processes at about the same time, as NCCL wants it; nothing can be shared then."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


ALONE = Replicas()


@contextmanager
def launched_replicas(device: str) -> Iterator[Replicas]:
    """This process among those that ``torchrun`` started, connected with each other as long as the block runs.

    ``device``: as in the settings; ``auto`` and ``cuda`` become one CUDA device for each process of a machine. Raises
    ``SpecError`` for a device that all of them would share, ``SettingsError`` if there are too few of them, or the
    processes do not reach each other.
    """
    rank, count = launched_rank()
    if count == 1:
        yield ALONE
        return
    if device.startswith("cuda:"):
        raise SpecError("train.device", f"auto, cpu or cuda for {count} processes", device)
    is_cuda = resolve_device(device).type == "cuda"
    if is_cuda:
        _take_device(int(os.environ.get("LOCAL_RANK", rank)))
    try:
        distributed.init_process_group("nccl" if is_cuda else "gloo", rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as refused:
        expected = f"{count} processes that reach each other, as torchrun starts them"
        raise SettingsError("MASTER_ADDR", expected, str(refused).splitlines()[0]) from refused
    replicas = Replicas(rank, count)
    try:
        yield replicas
    finally:
        replicas.part()


def _take_device(number: int) -> None:
    devices = torch.cuda.device_count()
    if number >= devices:
        raise SettingsError("device", "a CUDA device for each process of this machine", f"{devices} of them")
    torch.cuda.set_device(number)
