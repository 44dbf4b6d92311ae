"""What iterable datasets have in common: shares of ranks and workers, epochs, and states to go on from."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from generator.datasets.epoch_order import even_part
from generator.datasets.shares import Share
from generator.errors import SpecError
from generator.spec.canonical import short_repr

_SHARED = ("epoch", "position", "loads", "iteration", "workers")
_EPOCH, _POSITION, _LOADS, _ITERATION, _WORKERS = range(len(_SHARED))


def check_epoch(epoch: int) -> None:
    """Raises ``SpecError`` for an epoch that has no order."""
    if not 0 <= epoch < 2**31:
        raise SpecError("epoch", "0 or more, below 2**31", epoch)


class PositionedDataset(IterableDataset[Any]):
    """An iterable dataset whose epochs have positions ``0 .. total - 1``, in an order that every process knows."""

    def __init__(self, share: Share, total: int) -> None:
        share.check_samples(total)
        self._share, self._total = share, total
        # Shared memory: persistent workers must see the epoch and the position that the main process sets.
        self._shared = torch.zeros(len(_SHARED), dtype=torch.int64, device="cpu")
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._loads_used = 0  # states that this process has gone on from
        self._start = 0  # position at which the running iteration began
        self._yielded = 0  # by this process in the running iteration
        self._own_state: tuple[int, int, int] | None = None  # epoch, position, yielded: of this process alone

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a state must agree with."""

    @abstractmethod
    def _read(self, epoch: int, spans: Iterable[tuple[int, int]]) -> Iterator[Any]:
        """The samples at some spans of positions, in order. It may ask for spans ahead of the samples that it gives."""

    @property
    def samples(self) -> int:
        """Samples of an epoch, of all ranks together."""
        return self._total

    def read_positions(self, epoch: int, positions: Iterable[int]) -> Iterator[Any]:
        """The samples at some positions (``0 .. samples - 1``) of an epoch, in the order asked for: for ``mix``.

        It neither depends on nor changes epoch and state of this dataset. Positions may be asked for ahead of the
        samples that were given.
        """
        return self._read(epoch, ((position, position + 1) for position in positions))

    def __len__(self) -> int:
        start = int(self._shared[_POSITION]) if int(self._shared[_ITERATION]) == 0 else 0
        if self._share.batches is not None:
            return self._share.batches.count(self._total - start)
        begin, end = even_part((start, self._total), self._share.rank, self._share.world_size)
        return end - begin

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the permutation of the next iterations, from its beginning.

        Setting the epoch of a state that was just loaded changes nothing. Raises ``SpecError``.
        """
        check_epoch(epoch)
        if epoch != int(self._shared[_EPOCH]):
            self._shared[_EPOCH], self._shared[_POSITION], self._own_state = epoch, 0, None

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """A place in an epoch, of less than a kilobyte of JSON.

        ``consumed``: samples of the running epoch that the whole world has consumed since its beginning. Without it,
        the place of this process alone: of a process without DataLoader workers or, inside a worker, of that worker
        (as ``StatefulDataLoader`` asks it). Raises ``SpecError`` in a process whose workers have read: they are ahead.
        """
        state = {**self.identity(), "epoch": int(self._shared[_EPOCH])}
        if consumed is not None:
            return state | {"position": self._position_of(consumed)}
        if get_worker_info() is None and int(self._shared[_WORKERS]):
            hint = "Count the samples that the training has consumed, or use torchdata's StatefulDataLoader."
            raise SpecError("consumed", "the number of samples consumed, as workers read ahead", "none", hint)
        return state | {"position": self._start, "yielded": self._yielded, "reader": self._reader_place()}

    def _position_of(self, consumed: Any) -> int:
        """``consumed`` as a position. The last batches of all ranks may hold padding: with it, they end the epoch."""
        try:
            whole = None if isinstance(consumed, bool) else operator.index(consumed)
        except TypeError:
            whole = None
        if whole is None:
            raise SpecError("consumed", "a whole number of samples", short_repr(consumed))
        batches = self._share.batches
        most = self._total if batches is None else self._total + batches.size * self._share.world_size
        if not 0 <= whole <= most:
            raise SpecError("consumed", f"0 to {self._total} samples", whole)
        return min(whole, self._total)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next iteration begins there. Raises ``SpecError`` for one of another dataset."""
        if not isinstance(state, dict):
            raise SpecError("state", "what state_dict gave", type(state).__name__)
        for name, value in self.identity().items():
            if state.get(name) != value:
                raise SpecError(f"state.{name}", value, state.get(name))
        epoch, position = _count_in(state, "epoch"), _count_in(state, "position")
        if position > self._total:
            raise SpecError("state.position", f"0 to {self._total}", position)
        if "reader" not in state:
            self._shared[_EPOCH], self._shared[_POSITION], self._shared[_ITERATION] = epoch, position, 0
            self._shared[_LOADS] += 1
            self._own_state = None
            return
        if state["reader"] != self._reader_place():
            hint = "A state for another number of workers or ranks is made by state_dict(consumed=n)."
            raise SpecError("state.reader", self._reader_place(), state["reader"], hint)
        yielded = _count_in(state, "yielded")
        if get_worker_info() is None:
            self._shared[_EPOCH] = epoch
        self._own_state = (epoch, position, yielded)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        part, parts = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            self._shared[_WORKERS] = 1
        epoch, self._start, self._yielded = self._begin()
        read = self._samples if self._share.batches is None else self._batches
        for item in read(epoch, self._start, part, parts, self._yielded):
            self._yielded += 1
            yield item
        self._start = self._yielded = 0

    def _begin(self) -> tuple[int, int, int]:
        """Epoch, position and what this process has already yielded of the iteration that begins.

        A position that was loaded holds for one iteration of all readers. Workers that live for one iteration know it
        by the seed that they have in common, persistent ones and the main process by the states they have gone on from.
        """
        info, loads = get_worker_info(), int(self._shared[_LOADS])
        if self._own_state is not None:
            state, self._own_state, self._loads_used = self._own_state, None, loads
            return state
        iteration = 1 if info is None else (info.seed - info.id) or 1
        first = int(self._shared[_ITERATION]) in (0, iteration) and self._loads_used != loads
        if first:
            self._shared[_ITERATION] = iteration
        self._loads_used = loads
        return int(self._shared[_EPOCH]), int(self._shared[_POSITION]) if first else 0, 0

    def _samples(self, epoch: int, start: int, part: int, parts: int, skip: int) -> Iterator[Any]:
        share = even_part((start, self._total), self._share.rank, self._share.world_size)
        begin, end = even_part(share, part, parts)
        yield from self._read(epoch, [(begin + skip, end)])

    def _batches(self, epoch: int, start: int, part: int, parts: int, skip: int) -> Iterator[Any]:
        assert self._share.batches is not None
        sizes, batch = deque[int](), list[Any]()
        planned = islice(self._share.batches.spans(start, self._total, part, parts), skip, None)

        def spans() -> Iterator[tuple[int, int]]:
            for each in planned:
                sizes.append(sum(end - begin for begin, end in each))
                yield from each

        for sample in self._read(epoch, spans()):
            batch.append(sample)
            if len(batch) == sizes[0]:
                sizes.popleft()
                yield self._collate(batch)
                batch = []

    def _collate(self, batch: list[Any]) -> Any:
        return default_collate(batch)

    def _reader_place(self) -> list[int]:
        """Worker and number of workers, rank and number of ranks of this reader."""
        info = get_worker_info()
        workers = [0, 1] if info is None else [info.id, info.num_workers]
        return [*workers, self._share.rank, self._share.world_size]


def _count_in(state: dict[str, Any], name: str) -> int:
    """A number of a state. Raises ``SpecError``."""
    found = state.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise SpecError(f"state.{name}", "a whole number of at least 0", "none" if found is None else short_repr(found))
    return found
