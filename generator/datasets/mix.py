"""Several datasets as one, by proportion: real images beside synthetic ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, isfinite
from typing import Any, final

import numpy as np

from generator.datasets.epoch_order import Uneven
from generator.datasets.mix_parts import Indexed, IterablePart, Part, Repeatable, interleave, is_indexed, open_part
from generator.datasets.mix_plan import MixPlan
from generator.datasets.mix_samples import as_sample, describe
from generator.datasets.mix_weights import cumulate_weights
from generator.datasets.positioned_dataset import PositionedDataset
from generator.datasets.reader_options import Per, Stop, check_mix_options
from generator.datasets.shares import Share, find_share
from generator.errors import SpecError
from generator.spec.canonical import short_repr

Weights = Mapping[int, "str | np.ndarray"]

_SLOTS_AT_ONCE = 64  # positions in which the proportions hold, if samples are not read in batches
_SLOTS_OF_AN_EPOCH = 2**16  # the same, if they are to hold over the epoch alone


def mix(
    shares: Mapping[Any, float] | Sequence[tuple[Indexed | Repeatable, float]],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    per: Per = "batch",
    stop: Stop = "first",
    length: int | None = None,
    weights: Weights | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    uneven: Uneven = "drop",
) -> MixedDataset:
    """Samples of several datasets in fixed proportions: ``mix([(real, 0.5), (synthetic, 0.5)])``.

    ``shares``: datasets with their shares (above 0, scaled to 1), as pairs or as a mapping. A dataset with samples by
    index comes in the order of a permutation by ``seed``, epoch and pass; one that ``open_dataset`` or ``mix`` made, or
    any other iterable one, in its own order. ``per``: the proportions hold in every ``batch``, to a sample or two, or
    over the ``epoch``, where batches differ by chance. ``stop``: an epoch ends when the ``first`` or the ``last`` of
    the datasets of known length has been read once (others begin again); ``length`` states its samples instead.

    ``weights``: for datasets by their number, one weight for each sample, or the name of a column of a build
    (``label_confidence``; ``log_density`` stands for the density): samples are then drawn with replacement in
    proportion to them. Such datasets need samples by index. Ranks, ``batch_size``, ``uneven`` and states are as for
    ``open_dataset``; those of the datasets themselves do not matter. Samples of one batch are collated by PyTorch, so
    they must have the same form: images of one size and type (images of Pillow become uint8 HWC), numbers as labels,
    and the same fields: open builds with ``provenance=False`` beside ``source_samples(source, classes)`` or pairs
    ``(image, label)`` such as torchvision's.

    Raises ``SpecError`` for shares, weights or datasets that cannot be, and while reading for samples of several forms.
    """
    options = check_mix_options(
        {"seed": seed, "batch_size": batch_size, "per": per, "stop": stop, "length": length, "uneven": uneven}
        | {"rank": rank, "world_size": world_size}
    )
    share, pairs = find_share(options), _pairs(shares)
    fractions, parts = _fractions(pairs), _open_parts(pairs, options.seed, weights or {})
    total = options.length or _epoch_length(fractions, parts, stop)
    block = _SLOTS_OF_AN_EPOCH if per == "epoch" else options.batch_size or _SLOTS_AT_ONCE
    return MixedDataset(parts, MixPlan(fractions, options.seed, total, block), share)


def _pairs(shares: Any) -> list[Any]:
    if isinstance(shares, Mapping):
        return list(shares.items())
    if isinstance(shares, str) or not isinstance(shares, Sequence):
        raise SpecError("shares", "pairs of a dataset and its share, or a mapping", type(shares).__name__)
    return list(shares)


def _fractions(pairs: Sequence[tuple[Any, float]]) -> tuple[float, ...]:
    if not pairs:
        raise SpecError("shares", "at least one dataset", "none")
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise SpecError(f"shares[{number}]", "a dataset and its share, (dataset, 0.5)", type(pair).__name__)
        share = pair[1]
        if isinstance(share, bool) or not isinstance(share, int | float) or not isfinite(share) or share <= 0:
            raise SpecError(f"shares[{number}]", "a share above 0", share)
    total = sum(share for _, share in pairs)
    return tuple(share / total for _, share in pairs)


def _open_parts(pairs: Sequence[tuple[Any, float]], seed: int, weights: Weights) -> list[Part]:
    if not isinstance(weights, Mapping):
        raise SpecError("weights", "a mapping from the number of a dataset to its weights", type(weights).__name__)
    for number in weights:
        if not isinstance(number, int):
            raise SpecError("weights", f"datasets by number, 0 to {len(pairs) - 1}", short_repr(number))
        if not 0 <= number < len(pairs):
            raise SpecError(f"weights[{number}]", f"a dataset, 0 to {len(pairs) - 1}", number)
        if not is_indexed(pairs[number][0]):
            hint = "Open builds with map_style=True."
            raise SpecError(f"weights[{number}]", "weights of a dataset with samples by index", "an iterable one", hint)
    cumulated = {number: cumulate_weights(number, pairs[number][0], each) for number, each in weights.items()}
    return [open_part(number, dataset, seed, cumulated.get(number)) for number, (dataset, _) in enumerate(pairs)]


def _epoch_length(fractions: tuple[float, ...], parts: Sequence[Part], stop: Stop) -> int:
    known = [(part.length, share) for part, share in zip(parts, fractions, strict=True) if part.length is not None]
    if not known:
        raise SpecError("length", "the samples of an epoch, as no dataset states its length", "none")
    passes = [samples / share for samples, share in known]
    return ceil(min(passes) if stop == "first" else max(passes))


@final
class MixedDataset(PositionedDataset):
    """The samples of several datasets; made by ``mix``. It yields batches if it has a batch size, else samples."""

    def __init__(self, parts: Sequence[Part], plan: MixPlan, share: Share) -> None:
        super().__init__(share, plan.total)
        self._parts, self._plan = tuple(parts), plan
        for number, part in enumerate(parts):
            part.passes = -(-plan.rows(number) // (part.length or 1))

    def __repr__(self) -> str:
        return f"MixedDataset({len(self._parts)} datasets, {self._plan.total} samples)"

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """As for other datasets. Without ``consumed``, with the states of iterable datasets that have a
        ``state_dict`` of their own; all others are gone on from by their positions, or by skipping."""
        state = super().state_dict(consumed)
        if consumed is not None:
            return state
        own = {str(number): part.state() for number, part in self._iterables()}
        return state | {"own": {number: each for number, each in own.items() if each is not None}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        own = state.get("own", {})
        if not isinstance(own, dict):
            raise SpecError("state.own", "states of datasets by their number", type(own).__name__)
        for number, part in self._iterables():
            if str(number) in own:
                part.restore(own[str(number)], state["epoch"])

    def _iterables(self) -> list[tuple[int, IterablePart]]:
        return [(number, part) for number, part in enumerate(self._parts) if isinstance(part, IterablePart)]

    def identity(self) -> dict[str, Any]:
        return {
            "state": 2,
            "mix": [list(self._plan.fractions), [part.length for part in self._parts]],
            "parts": [part.identity for part in self._parts],
            "block": self._plan.block,
            "seed": self._plan.seed,
            "samples": self._plan.total,
        }

    def _read(self, epoch: int, spans: Iterable[tuple[int, int]]) -> Iterator[Any]:
        slots = (slot for begin, end in spans for slot in self._plan.slots(epoch, begin, end))
        return map(as_sample, interleave(slots, self._parts, epoch))

    def _collate(self, batch: list[Any]) -> Any:
        try:
            return super()._collate(batch)
        except (TypeError, RuntimeError, KeyError, ValueError) as different:
            forms = "; ".join(sorted({describe(sample) for sample in batch}))
            hint = (
                "Give datasets images of one size and type, numbers as labels, and open builds with provenance=False."
            )
            raise SpecError(
                "shares", "samples of one form, which PyTorch can collate", forms[:500], hint
            ) from different
