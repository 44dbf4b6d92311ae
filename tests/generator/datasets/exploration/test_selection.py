"""Columns hold what the tables hold, and a view selects what the same filter on the tables selects."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.page_build import CLASSES, make_build
from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import resolve_build
from generator.datasets.exploration.column_cache import ColumnCache
from generator.datasets.exploration.columns import INFO_FILE, Columns, open_columns
from generator.datasets.exploration.gather import check_size, gather_columns
from generator.datasets.exploration.selection import select
from generator.datasets.exploration.summary import GRID, MAX_POINTS, map_bytes, summarize
from generator.datasets.exploration.view import View, parse_view
from generator.errors import IntegrityError, SpecError
from generator.production.provenance.manifest import Manifest
from generator.store.base import Store
from tests.support.small_builds import SmallBuild

SAMPLES = 5003


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_build(str(tmp_path_factory.mktemp("build")), "some", SAMPLES, 6)


@pytest.fixture(scope="module")
def table(url: str) -> pa.Table:
    store, manifest = resolve_build(url)
    return pa.concat_tables(pq.read_table(io.BytesIO(store.get(each.table.key))) for each in manifest.shards)


@pytest.fixture(scope="module")
def columns(url: str, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    folder = tmp_path_factory.mktemp("columns")
    gather_columns(*opened(url)[1:], folder)
    return open_columns(folder)


def opened(url: str) -> tuple[Store, ArchiveReader, Manifest]:
    store, manifest = resolve_build(url)
    return store, ArchiveReader(store, manifest, "png", None), manifest


def test_columns_are_those_of_the_tables(columns: Columns, table: pa.Table) -> None:
    for name in ("label", "cluster", "attempt", "log_density", "label_confidence", "map_x", "map_y", "offset", "size"):
        assert np.array_equal(columns[name], table[name].to_numpy()), name
    assert columns["image_sha256"][7].tobytes().hex() == table["image_sha256"][7].as_py()
    assert columns.classes == CLASSES
    assert np.array_equal(columns["by_density"], np.argsort(table["log_density"].to_numpy(), kind="stable"))


@pytest.mark.parametrize(
    ("query", "filtered"),
    [
        ([], pc.scalar(True)),
        ([("class", "class 3")], pc.field("label") == 3),
        ([("class", "class 3"), ("class", "class 9")], pc.field("label").isin([3, 9])),
        ([("cluster", "1")], pc.field("cluster") == 1),
        ([("cluster", "0"), ("cluster", "2"), ("cluster", "99")], pc.field("cluster").isin([0, 2])),
        ([("confidence", "0.5..0.9")], (pc.field("label_confidence") >= 0.5) & (pc.field("label_confidence") <= 0.9)),
        ([("density", "..-90")], pc.field("log_density") <= -90),
        ([("density", "-90..")], pc.field("log_density") >= -90),
        ([("refused", "before")], pc.field("attempt") > 0),
        ([("refused", "never"), ("class", "class 0")], (pc.field("attempt") == 0) & (pc.field("label") == 0)),
        ([("where", "class in ('class 1', 'class 2')")], pc.field("label").isin([1, 2])),
        ([("where", "not attempt > 1")], pc.field("attempt") <= 1),
        ([("where", "index < 10 or class == 'class 5'")], (pc.field("index") < 10) | (pc.field("label") == 5)),
        ([("where", "label_confidence is null")], pc.scalar(False)),
    ],
)  # fmt: skip
def test_a_view_selects_what_a_filter_of_the_tables_selects(
    columns: Columns, table: pa.Table, query: list[tuple[str, str]], filtered: pc.Expression
) -> None:
    found = select(columns, parse_view(query, CLASSES))
    assert np.array_equal(found.indices, table.filter(filtered)["index"].to_numpy())
    summary = summarize(found)
    assert summary.count == found.count == len(found.indices)
    assert summary.classes is not None
    assert summary.classes.selected_K.tolist() == np.bincount(columns["label"][found.indices], minlength=10).tolist()
    assert summary.clusters.all_K.sum() == SAMPLES
    assert summary.confidence is not None
    assert summary.confidence.selected_B.sum() + summary.confidence.missing == found.count
    assert summary.draws_refused == columns["attempt"][found.indices].sum()


def test_pages_follow_the_order(columns: Columns) -> None:
    for order, name in (("confidence", "label_confidence"), ("density", "log_density")):
        up = select(columns, parse_view([("order", order), ("class", "class 2")], CLASSES))
        views = [View(classes=("class 2",), order=up.view.order, page=page) for page in range(1, 8)]
        rising = np.concatenate([select(columns, view).page(100) for view in views])
        assert len(rising) == up.count == len(set(rising.tolist()))
        assert (np.diff(columns[name][rising]) >= 0).all()
        down = select(columns, parse_view([("order", f"-{order}"), ("class", "class 2")], CLASSES)).page(1000)
        assert columns[name][down].tolist() == columns[name][rising].tolist()[::-1]
    assert select(columns, View(page=1000)).page(48).tolist() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class", "another"),
        ("cluster", "-1"),
        ("cluster", "x"),
        ("confidence", "0.5"),
        ("confidence", "a..b"),
        ("density", "1e..2"),
        ("refused", "maybe"),
        ("order", "size"),
        ("colour", "red"),
        ("page", "0"),
        ("page", "9" * 30),
        ("region", "1,2"),
        ("where", "x" * 5000),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_view([(name, value)], CLASSES)
    assert caught.value.field == name
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["label_confidence >", "file = 1", "label_confidence > 'a'", "__import__('os')"])
def test_a_filter_that_does_not_fit_is_named(columns: Columns, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        select(columns, View(where=text))
    assert caught.value.field == "where"


def test_more_values_than_one_are_refused() -> None:
    with pytest.raises(SpecError, match=r"^page: "):
        parse_view([("page", "1"), ("page", "2")], CLASSES)
    with pytest.raises(SpecError, match=r"^cluster: "):
        parse_view([("cluster", str(number)) for number in range(300)], CLASSES)


def test_a_link_reopens_the_same_view() -> None:
    query = [
        *(("class", "class 1"), ("class", "class 4"), ("cluster", "2"), ("confidence", "0.25..0.75")),
        *(("density", "..-80.5"), ("region", "0,0 1.5,0 1,2.25"), ("refused", "before"), ("where", "index < 7")),
        *(("order", "-density"), ("colour", "cluster"), ("page", "3")),
    ]
    view = parse_view(query, CLASSES)
    assert sorted(view.query()) == sorted(query)
    assert parse_view(view.query(), CLASSES) == view
    assert View().query() == []
    assert parse_view([("class", ""), ("density", " "), ("other", "x")], CLASSES) == View()


def test_a_map_holds_the_selected_points(columns: Columns, table: pa.Table) -> None:
    found = select(columns, parse_view([("class", "class 6"), ("colour", "confidence")], CLASSES))
    head, _, rest = map_bytes(found).partition(b"\n")
    facts = json.loads(head)
    assert (facts["points"], facts["selected"], facts["grid"]) == (found.count, found.count, GRID)
    grid, points = np.frombuffer(rest[: GRID * GRID], np.uint8), rest[GRID * GRID :]
    count = found.count
    x_P, y_P, value_P = (np.frombuffer(points, "<u2", count, 2 * count * place) for place in range(3))
    index_P = np.frombuffer(points, "<u4", count, 6 * count)
    assert index_P.tolist() == found.indices.tolist()
    frame = facts["frame"]
    back = frame["left"] + x_P / 65535 * (frame["right"] - frame["left"])
    assert np.allclose(back, table["map_x"].to_numpy()[index_P], atol=(frame["right"] - frame["left"]) / 65000)
    assert np.allclose(value_P / 65535, table["label_confidence"].to_numpy()[index_P], atol=1e-4)
    assert len(y_P) == count
    assert 0 < np.count_nonzero(grid) <= count
    assert grid.max() == 255


def test_a_map_has_a_bounded_number_of_points(columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    from generator.datasets.exploration import summary

    monkeypatch.setattr(summary, "MAX_POINTS", 100)
    head, _, rest = map_bytes(select(columns, View())).partition(b"\n")
    assert b'"points": 100' in head
    assert len(rest) == GRID * GRID + 100 * 10
    assert MAX_POINTS == 50_000


@pytest.mark.parametrize("build", [SmallBuild(), SmallBuild(recipe_version=1), SmallBuild(classes=(), counts=(11,))])
def test_builds_without_labels_map_or_judge(build: SmallBuild, tmp_path: Path) -> None:
    location, manifest = build.commit(str(tmp_path / "out"))
    folder = tmp_path / "columns"
    folder.mkdir()
    gather_columns(ArchiveReader(location.store, manifest, "png", None), manifest, folder)
    columns = open_columns(folder)
    found = select(columns, View(where="label_confidence is null"))
    assert found.count == manifest.samples
    summary = summarize(found)
    assert (summary.confidence, summary.count) == (None, manifest.samples)
    assert (summary.classes is None) == (not build.classes)
    if build.recipe_version == 1:  # its tables have no coordinates
        assert b'"grid": 0' in map_bytes(found)
        with pytest.raises(SpecError, match=r"^region: "):
            select(columns, parse_view([("region", "0,0 1,1 0,1")], build.classes))
    assert select(columns, View(order="-confidence")).page(50).tolist() == list(range(manifest.samples))


def test_a_damaged_table_is_named(url: str, tmp_path: Path) -> None:
    _, reader, manifest = opened(url)
    shards = list(manifest.shards)
    shards[1], shards[2] = (
        shards[1].model_copy(update={"table": shards[2].table}),
        shards[2].model_copy(update={"table": shards[1].table}),
    )
    swapped = manifest.model_copy(update={"shards": tuple(shards)})
    (tmp_path / "c").mkdir()
    with pytest.raises(IntegrityError, match="index"):
        gather_columns(ArchiveReader(reader._store, swapped, "png", None), swapped, tmp_path / "c")


def test_too_many_samples_are_refused_before_any_work(url: str) -> None:
    manifest = opened(url)[2].model_copy(update={"samples": 10_000_001})
    with pytest.raises(SpecError, match=r"^build: "):
        check_size(manifest)


def test_the_cache_gathers_once_and_stays_bounded(tmp_path: Path) -> None:
    builds = [opened(make_build(str(tmp_path / "out"), "some", 300, 1, seed=seed)) for seed in range(3)]
    cache, calls = ColumnCache(tmp_path / "cache", 70_000), list[int]()
    for _, reader, manifest in builds:
        assert cache.find(manifest) is None
        cache.get(reader, manifest, calls.append)
        cache.get(reader, manifest, calls.append)
    assert calls == [1, 1, 1]
    kept = [cache.find(manifest) is not None for _, _, manifest in builds]
    assert kept[2]
    assert not kept[0]
    assert sum(each.stat().st_size for each in (tmp_path / "cache").rglob("*.bin")) <= 70_000


def test_damaged_columns_are_gathered_again(url: str, tmp_path: Path) -> None:
    _, reader, manifest = opened(url)
    cache = ColumnCache(tmp_path, 2**30)
    first = cache.get(reader, manifest)
    (folder,) = (tmp_path / "columns").iterdir()
    with (folder / "cluster.bin").open("ab") as file:
        file.write(b"x")
    assert cache.find(manifest) is None
    again = cache.get(reader, manifest)
    assert np.array_equal(again["cluster"], first["cluster"])
    (folder / INFO_FILE).write_text("{}")
    assert cache.find(manifest) is None


def test_two_processes_that_ask_at_once_gather_once(url: str, tmp_path: Path) -> None:
    cache, calls, found = ColumnCache(tmp_path, 2**30), list[int](), list[Any]()

    def ask() -> None:
        _, reader, manifest = opened(url)
        found.append(cache.get(reader, manifest, calls.append))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(calls) == 6
    assert len(list((tmp_path / "columns").iterdir())) == 1
