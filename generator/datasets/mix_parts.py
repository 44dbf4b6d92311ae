"""The datasets of a mixture, each read at the rows that a reader wants of it, in ascending order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol, final

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from generator.datasets.mix_plan import Slot, stream_of
from generator.datasets.positioned_dataset import PositionedDataset, check_epoch
from generator.errors import SpecError
from generator.spec.canonical import canonical_json, sha256_hex
from generator.spec.seeding import permutation

_HELD_ORDERS = 2  # passes over a dataset whose order is held


class Indexed(Protocol):
    """Samples by index, such as ``open_dataset(url, map_style=True)``, a torchvision dataset, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Repeatable(Protocol):
    """Samples in an order, again from the beginning at every ``iter``, such as an ``IterableDataset``."""

    def __iter__(self) -> Iterator[Any]: ...


class Part(ABC):
    """One dataset. ``length``: samples of a pass over it, ``None`` where only its end will tell."""

    length: int | None

    passes: int = 1  # begun in an epoch of the mixture, at most

    @abstractmethod
    def read(self, epoch: int, rows: Iterator[int]) -> Iterator[Any]:
        """The samples at ``rows``, ascending, counted over the passes of an epoch of the mixture. ``rows`` may be asked
        for ahead of the samples that are given."""

    @property
    def identity(self) -> str | None:
        """A digest of what the samples are, as far as it is known: a state must agree with it."""
        return None


@final
class IndexedPart(Part):
    """Samples by index, in the order of a permutation by seed, epoch and pass, or drawn by weights (cumulated)."""

    def __init__(self, number: int, dataset: Indexed, seed: int, weights: np.ndarray | None) -> None:
        self.length = len(dataset)
        self._number, self._dataset, self._seed, self._weights = number, dataset, seed, weights
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def identity(self) -> str | None:
        manifest = getattr(self._dataset, "manifest", None)
        build = getattr(manifest, "build_id", None)
        facts = [] if build is None else [build, getattr(self._dataset, "where", None)]
        facts += [] if self._weights is None else [sha256_hex(self._weights.tobytes())]
        return _digest(facts) if facts else None

    def read(self, epoch: int, rows: Iterator[int]) -> Iterator[Any]:
        assert self.length is not None
        for row in rows:
            number, place = divmod(row, self.length)
            yield self._dataset[int(self._order(epoch, number, self.length)[place])]

    def _order(self, epoch: int, number: int, size: int) -> np.ndarray:
        """The order of one pass."""
        key = (epoch, number)
        if key not in self._orders:
            while len(self._orders) >= _HELD_ORDERS:
                self._orders.pop(next(iter(self._orders)))
            stream = stream_of("pass", epoch, self._number, number)
            if self._weights is None:
                self._orders[key] = permutation(self._seed, stream=stream, size=size)
            else:
                drawn = np.random.Generator(np.random.Philox(key=[self._seed, stream])).random(size)
                places = np.searchsorted(self._weights, drawn * self._weights[-1], side="right")
                self._orders[key] = places.clip(max=size - 1)
        return self._orders[key]


@final
class PositionedPart(Part):
    """A dataset of ours: any position of any epoch can be read. Each pass is an epoch of its own that comes only once,
    so a virtual dataset gives new images in every pass."""

    def __init__(self, dataset: PositionedDataset) -> None:
        self.length, self._dataset = dataset.samples, dataset

    @property
    def identity(self) -> str | None:
        return _digest(self._dataset.identity())

    def read(self, epoch: int, rows: Iterator[int]) -> Iterator[Any]:
        length = self._dataset.samples
        for number, group in groupby(rows, key=lambda row: row // length):
            check_epoch(own := epoch * self.passes + number)
            yield from self._dataset.read_positions(own, (row % length for row in group))


@final
class IterablePart(Part):
    """Any other dataset that can be iterated again and again, and gives the same samples in the same order each time.

    Every reader reads all of it and keeps its own rows; so a state is gone on from by skipping, or by the dataset's own
    ``state_dict`` where the state was taken in the process that reads. ``set_epoch`` is called if there is one.
    """

    def __init__(self, number: int, dataset: Repeatable) -> None:
        self.length = len(dataset) if hasattr(type(dataset), "__len__") else None  # type: ignore[arg-type]
        self._field, self._dataset = f"shares[{number}]", dataset
        self._row, self._pass = 0, 0  # samples read in the running epoch, and the pass of the last one
        self._resumed: tuple[int, int, int, Any] | None = None  # epoch, row and pass, and the state of the dataset

    def read(self, epoch: int, rows: Iterator[int]) -> Iterator[Any]:
        info = get_worker_info()
        if info is not None and info.num_workers > 1:
            hint = "Give the DataLoader num_workers=1 or 0, or a dataset that has samples by index."
            raise SpecError(
                self._field, "at most one worker for a dataset that can only be iterated", info.num_workers, hint
            )
        self._row, self._pass = 0, 0
        resumed, self._resumed = self._resumed, None
        if resumed is not None and resumed[0] == epoch:
            _, self._row, self._pass, state = resumed
            self._dataset.load_state_dict(state)  # type: ignore[attr-defined]
        stream = self._passes(epoch)
        for row in rows:
            while self._row < row:
                next(stream)
                self._row += 1
            sample = next(stream)
            self._row += 1
            yield sample

    def state(self) -> dict[str, Any] | None:
        """The place of this process, if the dataset has a state of its own."""
        if not (hasattr(self._dataset, "state_dict") and hasattr(self._dataset, "load_state_dict")):
            return None
        return {"row": self._row, "pass": self._pass, "dataset": self._dataset.state_dict()}

    def restore(self, state: dict[str, Any], epoch: int) -> None:
        """Go on from ``state`` in the next ``read`` if it is one of ``epoch``. Raises ``SpecError``."""
        place = (state.get("row"), state.get("pass")) if isinstance(state, dict) else (None, None)
        if not all(isinstance(each, int) and each >= 0 for each in place) or "dataset" not in state:
            raise SpecError(f"state.{self._field}", "the state of a dataset, with its row and pass", str(state)[:100])
        if not hasattr(self._dataset, "load_state_dict"):
            raise SpecError(f"state.{self._field}", "no state, as this dataset takes none", "one")
        self._resumed = epoch, *place, state["dataset"]  # type: ignore[assignment]

    def _passes(self, epoch: int) -> Iterator[Any]:
        """The samples of one pass after the other, from the pass that is running."""
        resumed = self._row > 0
        while True:
            if hasattr(self._dataset, "set_epoch") and not resumed:
                self._dataset.set_epoch(epoch + self._pass)
            found = 0
            for found, sample in enumerate(self._dataset, start=1):  # noqa: B007 - the last number is used
                yield sample
            if not found and not resumed:
                raise SpecError(self._field, "a dataset that gives samples whenever it is iterated", "none")
            self._pass, resumed = self._pass + 1, False


def open_part(number: int, dataset: Any, seed: int, weights: np.ndarray | None) -> Part:
    """The part that fits the kind of ``dataset``. Raises ``SpecError`` for one of no kind that can be mixed."""
    field = f"shares[{number}]"
    if isinstance(dataset, PositionedDataset):
        part: Part = PositionedPart(dataset)
    elif is_indexed(dataset):
        part = IndexedPart(number, dataset, seed, weights)
    elif hasattr(dataset, "__iter__"):
        if iter(dataset) is iter(dataset):
            hint = "Wrap it in a class whose __iter__ begins anew."
            raise SpecError(field, "a dataset that can be iterated again, to resume it", type(dataset).__name__, hint)
        part = IterablePart(number, dataset)
    else:
        expected = "a dataset with a length and samples by index, or one that can be iterated"
        raise SpecError(field, expected, type(dataset).__name__)
    if part.length is not None and part.length < 1:
        raise SpecError(field, "at least one sample", part.length)
    return part


def is_indexed(dataset: Any) -> bool:
    """Whether samples come by index. PyTorch's iterable datasets have the method, too, but it raises."""
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)


def interleave(slots: Iterator[Slot], parts: Sequence[Part], epoch: int) -> Iterator[Any]:
    """The samples at ``slots``; a part may ask for its rows ahead, so that it can make or fetch several at once."""
    turns, rows = deque[int](), [deque[int]() for _ in parts]

    def advance() -> bool:
        if (slot := next(slots, None)) is None:
            return False
        turns.append(slot.part)
        rows[slot.part].append(slot.row)
        return True

    def rows_of(part: int) -> Iterator[int]:
        while True:
            while not rows[part]:
                if not advance():
                    return
            yield rows[part].popleft()

    streams = [part.read(epoch, rows_of(number)) for number, part in enumerate(parts)]
    while turns or advance():
        yield next(streams[turns.popleft()])


def _digest(value: Any) -> str:
    return sha256_hex(canonical_json(value))[:16]
