"""Draws of a sample that were refused, made again, with the reasons: what a build left out, beside what it took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.production.pipeline.filters import valid_images
from generator.production.pipeline.shard_maker import ShardMaker
from generator.spec.recipe import Recipe

MAX_DRAWS = 32  # that are made again at once


@dataclass(frozen=True)
class Reason:
    """Why a draw was refused. ``check``: the name of the filter; ``got`` and ``floor``: the number that it compared,
    where it compares one."""

    check: str
    got: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class ExplainedDraw:
    """One attempt of a sample: its image file, marked as synthetic, and the reasons for which it was refused; none for
    an attempt that every filter lets pass."""

    attempt: int
    cluster: int
    data: bytes
    reasons: tuple[Reason, ...]


def explain_draws(maker: ShardMaker, index: int, attempts: list[int], label: int) -> list[ExplainedDraw]:
    """Make the draws ``attempts`` of sample ``index`` again, and look at each with every filter of the recipe.

    At most ``MAX_DRAWS`` of them, which are one batch. Raises ``DeviceExhausted``.
    """
    attempts_B = np.array(attempts[: min(MAX_DRAWS, maker.recipe.batch)], dtype=np.int64)
    indices_B, labels_B = np.full(len(attempts_B), index), np.full(len(attempts_B), label)
    draw = maker.sampler.draw_attempt(indices_B, attempts_B, labels_B)
    images_BHWC = maker.decoder.decode(draw.z_BD.astype(np.float32), labels_B)
    screened = maker.screen.check(images_BHWC, labels_B)
    found = [list[Reason]() for _ in attempts_B]
    floor_B = maker.sampler.density_floors(labels_B)
    for row in np.flatnonzero(draw.log_density_B < floor_B).tolist():
        found[row].append(Reason("density floor", float(draw.log_density_B[row]), float(floor_B[row])))
    for row in np.flatnonzero(~valid_images(images_BHWC)).tolist():
        found[row].append(Reason("one value everywhere"))
    _add_label_reasons(maker.recipe, label, screened.confidence_B, found)
    if maker.screen.copy_index is not None and maker.recipe.novelty_floor is not None:
        for row in np.flatnonzero(maker.screen.copy_index.is_copy(images_BHWC, maker.recipe.novelty_floor)).tolist():
            found[row].append(Reason("novelty floor"))
    files = maker.batcher.encoder.encode_many(images_BHWC)
    return [
        ExplainedDraw(attempt, cluster, data, tuple(reasons))
        for attempt, cluster, data, reasons in zip(
            attempts_B.tolist(), draw.clusters_B.tolist(), files, found, strict=True
        )
    ]


def _add_label_reasons(recipe: Recipe, label: int, confidence_B: np.ndarray, found: list[list[Reason]]) -> None:
    floor = None if recipe.class_floors is None else recipe.class_floors[label]
    if floor is None:
        return
    for row in np.flatnonzero(confidence_B < np.float32(floor)).tolist():
        found[row].append(Reason("label floor", float(confidence_B[row]), floor))
