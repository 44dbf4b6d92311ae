"""The per-sample table: the columns of each version, the type of latent points, and the guard against large tables."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generator.errors import IntegrityError
from generator.models.screening.soft_labels import SoftLabels
from generator.production.provenance.sample_table import SampleRows, latent_type, read_rows, table_bytes
from generator.spec.recipe import Recipe

COLUMNS = [
    *("index", "attempt", "key", "label", "class", "cluster", "log_density", "label_confidence", "likely_labels"),
    *("likely_probabilities", "image_sha256"),
]
PLACES = ["offset", "size", "map_x", "map_y"]


def rows(count: int = 3, **changes: Any) -> SampleRows:
    made = SampleRows(
        indices_N=np.arange(count),
        attempts_N=np.zeros(count, dtype=np.int64),
        labels_N=np.arange(count) % 2,
        clusters_N=np.zeros(count, dtype=np.int32),
        log_density_N=np.zeros(count),
        confidence_N=np.full(count, np.nan, dtype=np.float32),
        likely_NK=SoftLabels.empty(count),
        latents_ND=np.linspace(-1, 1, 4 * count, dtype=np.float32).reshape(count, 4),
        offsets_N=512 + 4096 * np.arange(count),
        sizes_N=np.arange(count) + 100,
        map_N2=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
    )
    return replace(made, **changes)


def made_table(version: int, made: SampleRows) -> tuple[bytes, pa.Table]:
    data = table_bytes(made, ["0" * 64] * len(made.indices_N), ("a", "b"), version)
    return data, pq.read_table(io.BytesIO(data))


def test_a_version_1_table_has_the_columns_that_it_had() -> None:
    _, table = made_table(1, rows())
    assert table.column_names == [*COLUMNS, "latent"]
    assert table.schema.field("latent").type == pa.list_(pa.float32(), 4)


def test_a_version_2_table_says_where_each_image_is() -> None:
    data, table = made_table(2, rows())
    assert table.column_names == [*COLUMNS, *PLACES, "latent"]
    assert [str(table.schema.field(name).type) for name in PLACES] == ["int64", "int64", "float", "float"]
    found = read_rows(data, field="table")
    assert [(row["offset"], row["size"]) for row in found] == [(512, 100), (4608, 101), (8704, 102)]
    assert [(row["map_x"], row["map_y"]) for row in found] == [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)]


def test_without_a_map_there_are_no_coordinates() -> None:
    data, table = made_table(2, rows(map_N2=np.full((3, 2), np.nan, dtype=np.float32)))
    assert [table[name].null_count for name in ("map_x", "map_y")] == [3, 3]
    assert {row["map_x"] for row in read_rows(data, field="table")} == {None}


@pytest.mark.parametrize(
    ("version", "latents", "dims", "expected"),
    [
        (1, "auto", 4, np.float32),
        (1, "auto", 4096, np.float32),
        (2, "auto", 512, np.float32),
        (2, "auto", 513, None),
        (2, True, 512, np.float32),
        (2, True, 513, np.float16),
        (2, True, 65_536, np.float16),
        (2, False, 4, None),
    ],
)
def test_the_type_of_latent_points(version: int, latents: Any, dims: int, expected: type | None) -> None:
    recipe = Recipe(recipe_version=version, bundle="sha256:" + "0" * 64, counts=(1,), latents=latents)
    assert latent_type(recipe, dims) is expected


def test_rows_are_read_without_latent_points() -> None:
    latents_ND = np.ones((3, 600), dtype=np.float16)
    data, table = made_table(2, rows(latents_ND=latents_ND))
    assert table.schema.field("latent").type == pa.list_(pa.float16(), 600)
    assert list(read_rows(data, field="table")[0]) == [*COLUMNS, *PLACES]
    with pytest.raises(IntegrityError, match="latent"):
        read_rows(data, field="table", columns=["index", "latent"])
    _, table = made_table(2, rows(latents_ND=None))
    assert table.column_names == [*COLUMNS, *PLACES]


def test_a_table_may_hold_large_latent_points() -> None:
    noise_ND = np.random.default_rng(0).integers(0, 2**15, (40, 65_536)).astype(np.uint16).view(np.float16)
    data, _ = made_table(2, rows(40, latents_ND=noise_ND))
    assert len(data) > 4 * 2**20
    assert len(read_rows(data, field="table")) == 40


@pytest.mark.parametrize("columns", [None, ["index"]])
@pytest.mark.parametrize(
    "table",
    [
        {"index": [1], "other": ["y" * 2**24]},
        {"index": [1], "latent": ["y" * 2**24]},
        {"index": [1], "latent": pa.array([np.arange(2e6, dtype=np.float32)], pa.list_(pa.float32(), 2_000_000))},
        {"index": [1], "latent": pa.array([[f"{n}" * 2**20 for n in range(8)]], pa.list_(pa.string(), 8))},
    ],
    ids=["another column", "latents that are a text", "latents beyond any code", "latents of texts"],
)
def test_tables_that_state_too_large_a_size_are_refused(table: dict[str, Any], columns: list[str] | None) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table(table), out, compression="zstd")
    with pytest.raises(IntegrityError, match="at most"):
        read_rows(out.getvalue(), field="table", columns=columns)


@pytest.mark.slow
def test_rows_that_are_larger_in_memory_than_in_the_file_are_refused() -> None:
    """Parquet stores a text once that stands in every row, so the size that it states is small."""
    out = io.BytesIO()
    pq.write_table(pa.table({"index": ["y" * 2**16] * 5000}), out, compression="zstd")
    assert len(out.getvalue()) < 100_000
    with pytest.raises(IntegrityError, match="bytes in all"):
        read_rows(out.getvalue(), field="table")
