"""The slots of a shard: what a batch leaves in the rows of its table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from generator.models.latents.code_map import CodeMap
from generator.models.screening.soft_labels import SoftLabels
from generator.production.pipeline.filters import ScreenResult
from generator.production.pipeline.sampling import Draw
from generator.production.pipeline.slots import SampleSlots
from generator.production.shards import MdsFormat, Member, ShardFormat
from generator.production.shards.parquet import ParquetFormat
from generator.production.shards.webdataset import WebdatasetFormat
from generator.spec.plan import Plan
from generator.spec.recipe import Recipe


def slots_for(dims: int, code_map: CodeMap | None = None, **changes: Any) -> SampleSlots:
    recipe = Recipe(bundle="sha256:" + "0" * 64, counts=(4,), **changes)
    return SampleSlots(recipe, Plan(recipe).shard(0), dims, code_map)


def record(slots: SampleSlots, z_BD: np.ndarray) -> None:
    count = len(z_BD)
    zeros = np.zeros(count, dtype=np.int64)
    draw = Draw(z_BD, zeros, zeros.astype(np.int32), np.zeros(count), 0)
    passed = ScreenResult(np.ones(count, dtype=bool), np.full(count, np.nan, np.float32), SoftLabels.empty(count))
    slots.record_batch(slots.next_slots(), draw, passed)


def test_large_latent_points_are_float16_within_its_range() -> None:
    slots, z_BD = slots_for(600, latents=True), np.zeros((4, 600))
    z_BD[0, :4] = 1e6, -1e6, 65504.0, 0.1
    record(slots, z_BD)
    latents_ND = slots.rows.latents_ND
    assert latents_ND is not None
    assert latents_ND.dtype == np.float16
    assert latents_ND[0, :4].tolist() == [65504.0, -65504.0, 65504.0, float(np.float16(0.1))]


@pytest.mark.parametrize(("dims", "latents"), [(600, "auto"), (600, False), (4, False)])
def test_latent_points_that_are_not_stored_take_no_memory(dims: int, latents: Any) -> None:
    slots = slots_for(dims, latents=latents)
    record(slots, np.zeros((4, dims)))
    assert slots.rows.latents_ND is None


def test_coordinates_are_those_of_the_points_as_drawn() -> None:
    code_map, z_BD = CodeMap(np.zeros(600), np.ones((2, 600))), np.full((4, 600), 1e5 / 3)
    slots = slots_for(600, code_map, latents=True)
    record(slots, z_BD)
    assert slots.rows.map_N2 == pytest.approx(600 * 1e5 / 3, rel=1e-6)


@pytest.mark.parametrize(
    "form",
    [WebdatasetFormat(), ParquetFormat("png", ()), MdsFormat("png", "png", labelled=False)],
    ids=lambda form: type(form).__name__,
)
def test_offsets_count_from_the_beginning_of_the_archive(form: ShardFormat) -> None:
    slots, writer = slots_for(2), form.writer()
    record(slots, np.zeros((4, 2)))
    files = [bytes([number]) * size for number, size in enumerate((1, 511, 512, 5000))]
    for slot in slots.writable_slots():
        facts = b'{"class":"%s"}' % (b"x" * 400 * slot)
        writer.append(form.pack(f"{slot}", [Member("png", files[slot]), Member("json", facts)]))
        slots.record_hash(f"{slot}")
    finished = writer.finish()
    slots.record_places(finished)
    archive = finished.data
    spans = zip(slots.rows.offsets_N.tolist(), slots.rows.sizes_N.tolist(), strict=True)
    assert [archive[offset : offset + size] for offset, size in spans] == files
    assert slots.hashes == ["0", "1", "2", "3"]
