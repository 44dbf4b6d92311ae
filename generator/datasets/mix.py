"""Several datasets as one, by proportion: real images beside synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite
from typing import Any, Literal, Protocol, final

import numpy as np

from generator.datasets.epoch_order import Uneven
from generator.datasets.positioned_dataset import PositionedDataset, Share, find_share
from generator.errors import SpecError
from generator.spec.canonical import sha256_hex
from generator.spec.seeding import permutation

Stop = Literal["first", "last"]

_HELD_ORDERS = 2  # passes over a dataset whose order is held
_SLOTS_AT_ONCE = 64  # positions, if samples are not read in batches


class Indexed(Protocol):
    """Samples by index, such as ``open_dataset(url, map_style=True)``, a torchvision dataset, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def mix(
    shares: Mapping[Any, float] | Sequence[tuple[Indexed, float]],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    stop: Stop = "first",
    length: int | None = None,
    weights: Mapping[int, np.ndarray] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    uneven: Uneven = "drop",
) -> MixedDataset:
    """Samples of several datasets in fixed proportions, in every batch: ``mix([(real, 0.5), (synthetic, 0.5)])``.

    ``shares``: map-style datasets with their shares (above 0, scaled to 1), as pairs or as a mapping. The samples of a
    dataset come in the order of a permutation by ``seed``, epoch and pass. ``stop``: an epoch ends when the ``first``
    or the ``last`` dataset has been read once (others begin again); ``length`` states its samples instead. ``weights``:
    for datasets by their number, one weight for each sample: it is then drawn with replacement in proportion to them
    (such as a label confidence, or a function of the log-density). Ranks, ``batch_size``, ``uneven`` and states are as
    for ``open_dataset``. Samples of one batch are collated by PyTorch, so they must have the same fields: open builds
    with ``provenance=False`` beside ``source_samples(source, dataset.classes)``.

    Raises ``SpecError`` for shares, weights or datasets that cannot be.
    """
    pairs = list(shares.items()) if isinstance(shares, Mapping) else list(shares)
    parts = [_check_part(number, dataset, share) for number, (dataset, share) in enumerate(pairs)]
    if not parts:
        raise SpecError("shares", "at least one dataset", "none")
    if stop not in ("first", "last"):
        raise SpecError("stop", "'first' or 'last'", repr(stop))
    total_share = sum(share for _, share in parts)
    fractions = tuple(share / total_share for _, share in parts)
    passes = [len(dataset) / fraction for (dataset, _), fraction in zip(parts, fractions, strict=True)]
    chosen = length if length is not None else ceil(min(passes) if stop == "first" else max(passes))
    if chosen < 1:
        raise SpecError("length", "at least 1 sample", chosen)
    cumulated = {number: _cumulate(number, parts, weight) for number, weight in (weights or {}).items()}
    plan = _MixPlan(fractions, tuple(len(dataset) for dataset, _ in parts), seed, chosen, batch_size or _SLOTS_AT_ONCE)
    share = find_share(rank, world_size, batch_size, uneven)
    return MixedDataset([dataset for dataset, _ in parts], plan, cumulated, share)


def _check_part(number: int, dataset: Any, share: float) -> tuple[Indexed, float]:
    field = f"shares[{number}]"
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        hint = "Open builds with map_style=True."
        raise SpecError(field, "a dataset with a length and samples by index", type(dataset).__name__, hint)
    if not isinstance(share, int | float) or not isfinite(share) or share <= 0:
        raise SpecError(field, "a share above 0", share)
    if len(dataset) < 1:
        raise SpecError(field, "at least one sample", len(dataset))
    return dataset, float(share)


def _cumulate(number: int, parts: list[tuple[Indexed, float]], weights: np.ndarray) -> np.ndarray:
    field = f"weights[{number}]"
    if not 0 <= number < len(parts):
        raise SpecError(field, f"a dataset, 0 to {len(parts) - 1}", number)
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != (len(parts[number][0]),):
        raise SpecError(field, f"{len(parts[number][0])} weights, one for each sample", f"shape {found.shape}")
    if not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise SpecError(field, "finite weights of at least 0, not all of them 0", "others")
    return np.cumsum(found)


@dataclass(frozen=True)
class _MixPlan:
    """Which dataset, and which of its samples in the order of its passes, stands at each position."""

    fractions: tuple[float, ...]
    lengths: tuple[int, ...]
    seed: int
    total: int
    block: int  # positions in which the proportions hold to one sample

    @cached_property
    def before(self) -> np.ndarray:
        """int64: samples of each dataset before each block of positions."""
        blocks = -(-self.total // self.block)
        counts = np.zeros((blocks + 1, len(self.fractions)), dtype=np.int64)
        fractions = np.array(self.fractions)
        for number in range(blocks):
            due = fractions * self.block * (number + 1) - counts[number]
            given = np.maximum(np.floor(due), 0).astype(np.int64)
            for part in np.argsort(given - due, kind="stable")[: max(0, self.block - int(given.sum()))]:
                given[part] += 1
            while given.sum() > self.block:  # some datasets are ahead, and are due less than none
                given[int(np.argmax(np.where(given > 0, given - due, -np.inf)))] -= 1
            counts[number + 1] = counts[number] + given
        return counts

    def slots(self, epoch: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Number of the dataset and of its sample, counted over its passes, at positions ``begin .. end - 1``."""
        for number in range(begin // self.block, -(-end // self.block)):
            before, after = self.before[number], self.before[number + 1]
            slots = [(part, row) for part in range(len(before)) for row in range(before[part], after[part])]
            order = permutation(self.seed, stream=_stream("block", epoch, number), size=len(slots))
            first = number * self.block
            for place in range(max(begin, first), min(end, first + len(slots))):
                yield slots[int(order[place - first])]


@final
class MixedDataset(PositionedDataset):
    """The samples of several datasets; made by ``mix``. It yields batches if it has a batch size, else samples."""

    def __init__(self, parts: Sequence[Indexed], plan: _MixPlan, weights: dict[int, np.ndarray], share: Share) -> None:
        super().__init__(share)
        self._parts, self._plan, self._weights = tuple(parts), plan, weights
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}

    def __repr__(self) -> str:
        return f"MixedDataset({len(self._parts)} datasets, {self._plan.total} samples)"

    @property
    def _total(self) -> int:
        return self._plan.total

    def _identity(self) -> dict[str, Any]:
        return {
            "state": 1,
            "mix": [list(self._plan.fractions), list(self._plan.lengths)],
            "seed": self._plan.seed,
            "samples": self._plan.total,
        }

    def _read(self, epoch: int, spans: list[tuple[int, int]], held: dict[int, Any]) -> Iterator[Any]:
        del held
        for begin, end in spans:
            for part, row in self._plan.slots(epoch, begin, end):
                number, place = divmod(row, self._plan.lengths[part])
                yield self._parts[part][int(self._order(epoch, part, number)[place])]

    def _order(self, epoch: int, part: int, number: int) -> np.ndarray:
        """The order of a dataset in one of its passes; drawn by its weights if it has some."""
        key = (epoch, part, number)
        if key not in self._orders:
            while len(self._orders) >= _HELD_ORDERS * len(self._parts):
                self._orders.pop(next(iter(self._orders)))
            size = self._plan.lengths[part]
            stream = _stream("pass", epoch, part, number)
            if part in self._weights:
                cumulated = self._weights[part]
                generator = np.random.Generator(np.random.Philox(key=[self._plan.seed, stream]))
                drawn = np.searchsorted(cumulated, generator.random(size) * cumulated[-1], side="right")
                self._orders[key] = drawn.clip(max=size - 1)
            else:
                self._orders[key] = permutation(self._plan.seed, stream=stream, size=size)
        return self._orders[key]


def _stream(*words: object) -> int:
    """A number of 60 bits for the numbers that are drawn under ``words``."""
    return int(sha256_hex("/".join(map(str, words)).encode())[:15], 16)
