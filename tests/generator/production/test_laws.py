"""Laws 1 and 2 on the whole pipeline: samples are functions of (index, attempt), shards of their number, bytewise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.datasets.replay import replay
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import BuildConflict, EnvironmentMismatch, RejectionExhausted, SpecError
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import (
    BuildLocation,
    begin_build,
    find_manifest,
    fix_environment,
    locate_build,
    publish_shard,
)
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build
from generator.production.pipeline.sampling import Sampler
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import ENVIRONMENT_KEY, MANIFEST_KEY, shard_key
from generator.production.provenance.sample_table import read_rows
from generator.production.shards import read_samples
from generator.spec.canonical import digest_of
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(tmp_path_factory.mktemp("b") / "tiny", size=16, channels=3))))


@pytest.fixture(scope="module")
def screening_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(screened_bundle(tmp_path_factory.mktemp("b") / "screened", size=16, channels=3))))


def screened(bundle: Bundle, **changes: object) -> Recipe:
    """A recipe that refuses a good share of what is decoded."""
    return recipe_for(bundle, **{"density_floor": None, "label_floor": 0.334, "novelty_floor": 0.1, **changes})


def recipe_for(bundle: Bundle, **changes: object) -> Recipe:
    fields = {"classes": bundle.info.classes, "counts": (40, 30, 33), "shard_size": 25, "batch": 16, "seed": 5}
    return Recipe.model_validate({"bundle": bundle.digest, "density_floor": 0.5, **fields, **changes})


def location_for(recipe: Recipe, name: str) -> BuildLocation:
    return locate_build(JobSpec(recipe=recipe, order=Order(destination=f"memory://{name}", name="laws")))


def maker_for(bundle: Bundle, recipe: Recipe, name: str = "maker") -> ShardMaker:
    decoder = ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device="cpu")
    return open_shard_maker(location_for(recipe, name), bundle, decoder)


@pytest.mark.slow
@given(st.permutations(range(24)), st.sampled_from([1, 3, 7, 24]))
def test_accepted_latents_do_not_depend_on_batching_or_order(bundle: Bundle, order: list[int], batch: int) -> None:
    sampler = Sampler(recipe_for(bundle), bundle.latents)
    indices, labels = np.arange(100, 124), np.arange(24) % 3
    whole = sampler.draw(indices, np.zeros(24, dtype=np.int64), labels)
    assert whole.refused > 0
    for start in range(0, 24, batch):
        rows = np.array(order[start : start + batch])
        part = sampler.draw(indices[rows], np.zeros(len(rows), dtype=np.int64), labels[rows])
        assert np.array_equal(part.z_BD, whole.z_BD[rows])
        assert np.array_equal(part.attempts_B, whole.attempts_B[rows])
        assert np.array_equal(part.log_density_B, whole.log_density_B[rows])


def test_latents_grouped_by_cluster_are_the_same(bundle: Bundle) -> None:
    sampler = Sampler(recipe_for(bundle), bundle.latents)
    indices, labels = np.arange(60), np.arange(60) % 3
    whole = sampler.draw(indices, np.zeros(60, dtype=np.int64), labels)
    for cluster in np.unique(whole.clusters_B):
        rows = np.flatnonzero(whole.clusters_B == cluster)
        part = sampler.draw(indices[rows], np.zeros(len(rows), dtype=np.int64), labels[rows])
        assert np.array_equal(part.z_BD, whole.z_BD[rows])


def test_accepted_samples_reach_the_floor(bundle: Bundle) -> None:
    sampler = Sampler(recipe_for(bundle), bundle.latents)
    labels = np.arange(200) % 3
    drawn = sampler.draw(np.arange(200), np.zeros(200, dtype=np.int64), labels)
    assert (drawn.log_density_B >= bundle.latents.density_floor(0.5)[labels]).all()
    again = sampler.draw_attempt(np.arange(200), drawn.attempts_B, labels)
    assert np.array_equal(again.z_BD, drawn.z_BD)
    earlier = drawn.attempts_B > 0
    before = sampler.draw_attempt(np.arange(200)[earlier], drawn.attempts_B[earlier] - 1, labels[earlier])
    assert (before.log_density_B < bundle.latents.density_floor(0.5)[labels[earlier]]).all()


def test_a_floor_that_nothing_reaches_is_an_error_with_the_rate(bundle: Bundle) -> None:
    sampler = Sampler(recipe_for(bundle, density_floor=0.99999, max_attempts=3), bundle.latents)
    with pytest.raises(RejectionExhausted, match=r"within 3 attempts.*acceptance rate \d"):
        sampler.draw(np.arange(50), np.zeros(50, dtype=np.int64), np.zeros(50, dtype=np.int64))


@pytest.mark.parametrize("form", [{}, {"format": "parquet"}, {"format": "mds"}, {"sidecars": ("dali",)}], ids=str)
@pytest.mark.parametrize("image", [{"format": "png"}, {"format": "jpeg", "quality": 80}])
def test_shards_are_the_same_in_any_order_and_with_any_threads(
    bundle: Bundle, image: dict[str, object], form: dict[str, object]
) -> None:
    recipe = recipe_for(bundle, image=image, **form)
    plan, threads = Plan(recipe), torch.get_num_threads()
    forward = [maker_for(bundle, recipe).make(shard, "laws") for shard in plan]
    try:
        torch.set_num_threads(1)
        maker = maker_for(bundle, recipe)
        backward = [maker.make(plan.shard(number), "laws") for number in reversed(range(plan.shard_count))]
    finally:
        torch.set_num_threads(threads)
    assert [made.files for made in forward] == [made.files for made in reversed(backward)]
    assert [made.receipt for made in forward] == [made.receipt for made in reversed(backward)]


@pytest.mark.parametrize("batch", [1, 3, 7, 16, 64])
def test_a_row_of_the_decoder_does_not_depend_on_its_neighbours(bundle: Bundle, batch: int) -> None:
    decoder = ResidentDecoder(bundle, batch=16, dtype="float32", device="cpu")
    z_BD = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    whole = decoder.decode(z_BD)
    parts = [decoder.decode(z_BD[start : start + batch]) for start in range(0, 16, batch)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_every_image_can_be_replayed_from_its_row(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    location = location_for(recipe, "replayed")
    manifest = build(location, bundle, device="cpu")
    row = next(
        row for row in read_rows(location.store.get(manifest.shards[2].table.key), field="t") if row["attempt"] > 0
    )
    for index in (0, row["index"], recipe.total - 1):
        again = replay(location.url, index, bundle, device="cpu")
        assert again.identical
        assert again.environment_differences == ""
        archive = location.store.get(manifest.shards[Plan(recipe).shard_of(index)].shard.key)
        stored = dict(read_samples(archive, field="shard"))[f"{index:09d}"]
        assert again.data == stored["png"]


@pytest.mark.parametrize(
    "draw",
    [
        {"mode": "cluster", "cluster": 1},
        {"mode": "around", "code": (0.5, 0.1, -1.0, 2.0), "distance": 0.4},
        {"mode": "between", "start": (0.5, 0.1, -1.0, 2.0), "end": (1, 0, 1, 0), "distance": 0.1},
    ],
    ids=lambda draw: str(draw["mode"]),
)
def test_every_way_to_draw_is_built_verified_and_replayed(bundle: Bundle, draw: dict[str, object]) -> None:
    recipe = recipe_for(bundle, draw=draw, temperature=0.8, density_floor=0.01)
    location = location_for(recipe, f"drawn-{draw['mode']}")
    manifest = build(location, bundle, device="cpu")
    assert not verify_dataset(location.url, deep=True).problems
    rows = [row for made in manifest.shards for row in read_rows(location.store.get(made.table.key), field="t")]
    plain = build(location_for(recipe_for(bundle), "plain"), bundle, device="cpu")
    assert not {row["image_sha256"] for row in rows} & {
        row["image_sha256"]
        for made in plain.shards
        for row in read_rows(location_for(recipe_for(bundle), "plain").store.get(made.table.key), field="t")
    }
    again = [maker_for(bundle, recipe).make(shard, "laws").receipt for shard in reversed(list(Plan(recipe)))]
    assert tuple(reversed(again)) == manifest.shards
    assert all(replay(location.url, index, bundle, device="cpu").identical for index in (0, 50, recipe.total - 1))


@pytest.mark.parametrize("form", [{}, {"format": "parquet"}, {"format": "mds"}, {"sidecars": ("dali",)}], ids=str)
def test_a_build_resumes_and_ends_with_the_same_bytes(bundle: Bundle, form: dict[str, object]) -> None:
    recipe = recipe_for(bundle, **form)
    whole, broken = (location_for(recipe, f"{name}-{recipe.digest[7:20]}") for name in ("whole", "broken"))
    build(whole, bundle, device="cpu")
    maker = maker_for(bundle, recipe)
    begin_build(broken)
    fix_environment(broken, maker.environment)
    made = maker.make(Plan(recipe).shard(2), "laws")
    broken.store.create(made.receipt.shard.key, made.archive)  # the writer died before table and receipt
    publish_shard(broken, maker.make(Plan(recipe).shard(0), "laws"))
    assert find_manifest(broken) is None
    build(broken, bundle, device="cpu")
    stored = [
        {info.key: location.store.get(info.key) for info in location.store.list() if not info.key.startswith("runs/")}
        for location in (whole, broken)
    ]
    assert stored[0] == stored[1]


def test_foreign_bytes_are_a_conflict(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    location = location_for(recipe, "conflict")
    location.store.create(shard_key("laws", 1), b"what is this?")
    with pytest.raises(BuildConflict, match="environment") as caught:
        build(location, bundle, device="cpu")
    assert shard_key("laws", 1) in caught.value.field
    assert location.store.head(MANIFEST_KEY) is None
    assert location.store.get(shard_key("laws", 1)) == b"what is this?"


def test_another_environment_writes_nothing(bundle: Bundle) -> None:
    location = location_for(recipe_for(bundle), "elsewhere")
    other = Environment(device="cuda/other", dtype="float32", libraries={})
    location.store.create(ENVIRONMENT_KEY, other.canonical())
    with pytest.raises(EnvironmentMismatch, match="cuda/other"):
        build(location, bundle, device="cpu")
    assert list(location.store.list("shards/")) == []


def test_a_revision_is_another_build_of_the_same_images(bundle: Bundle) -> None:
    first, second = (
        build(location_for(recipe_for(bundle, revision=number), "revisions"), bundle, device="cpu") for number in (0, 1)
    )
    assert first.build_id != second.build_id
    tables = [
        read_rows(
            location_for(recipe_for(bundle, revision=number), "revisions").store.get(made.shards[0].table.key),
            field="t",
        )
        for number, made in enumerate((first, second))
    ]
    assert tables[0] == tables[1]


def test_manifest_and_extras_name_no_time_and_no_place(bundle: Bundle) -> None:
    recipe = recipe_for(bundle)
    here, there = location_for(recipe, "here"), location_for(recipe, "there")
    assert build(here, bundle, device="cpu").canonical() == build(there, bundle, device="cpu").canonical()
    for key in ("README.md", "croissant.json", "preview.jpg"):
        assert here.store.get(key) == there.store.get(key)


def test_the_golden_latents(bundle: Bundle) -> None:
    """Guards refactoring: ``recipe_version`` 1 promises which attempt of which index gives which code."""
    labels, first = np.arange(64) % 3, np.zeros(64, dtype=np.int64)
    drawn = Sampler(recipe_for(bundle), bundle.latents).draw(np.arange(64), first, labels)
    assert "".join(map(str, drawn.attempts_B)) == GOLDEN_ATTEMPTS
    assert digest_of(np.round(drawn.z_BD, 9).tobytes()) == GOLDEN_LATENTS


GOLDEN_ATTEMPTS = "0000000000011010000000110000000010010000000000001000000000000000"
GOLDEN_LATENTS = "sha256:b7420149f2a7d5a5c7cd2d642f5368571fbe6bd0880f02e9a9aa174db66a9452"


def test_screened_shards_are_the_same_in_any_order(screening_bundle: Bundle) -> None:
    recipe = screened(screening_bundle)
    plan = Plan(recipe)
    forward = [maker_for(screening_bundle, recipe).make(shard, "laws") for shard in plan]
    maker = maker_for(screening_bundle, recipe)
    backward = [maker.make(plan.shard(number), "laws") for number in reversed(range(plan.shard_count))]
    assert [made.archive for made in forward] == [made.archive for made in reversed(backward)]
    assert [made.table for made in forward] == [made.table for made in reversed(backward)]
    assert sum(made.receipt.refused for made in forward) > recipe.total / 4


@pytest.mark.slow
def test_what_is_screened_passes_at_the_first_attempt_that_does(screening_bundle: Bundle) -> None:
    recipe = screened(screening_bundle)
    location = location_for(recipe, "screened")
    manifest = build(location, screening_bundle, device="cpu")
    maker, refused = maker_for(screening_bundle, recipe), 0
    for receipt in manifest.shards:
        for row in read_rows(location.store.get(receipt.table.key), field="t"):
            label = np.array([row["label"]])
            for attempt in range(row["attempt"] + 1):
                draw = maker.sampler.draw_attempt(np.array([row["index"]]), np.array([attempt]), label)
                images_BHWC = maker.decoder.decode(draw.z_BD.astype(np.float32))
                result = maker.screen.check(images_BHWC, label)
                assert result.passed_B[0] == (attempt == row["attempt"])
                refused += not result.passed_B[0]
            assert row["label_confidence"] == pytest.approx(result.confidence_B[0])
            assert row["label_confidence"] >= recipe.label_floor
            likely = dict(zip(row["likely_labels"], row["likely_probabilities"], strict=True))
            assert likely[row["label"]] == pytest.approx(row["label_confidence"], abs=1e-4)
            assert sorted(likely.values(), reverse=True) == row["likely_probabilities"]
            assert not screening_bundle.screening.copy_index.is_copy(images_BHWC, 0.1)[0]
    assert refused == manifest.refused
    for _, target_C, provenance in open_dataset(location.url, soft_labels=True):
        assert target_C.sum() == pytest.approx(1.0)
        assert target_C[provenance["label"]] == pytest.approx(provenance["label_confidence"], abs=1e-3)
    assert not verify_dataset(location.url, deep=True).problems
    assert replay(location.url, row["index"], screening_bundle, device="cpu").identical


def test_each_class_has_its_own_label_floor(screening_bundle: Bundle) -> None:
    floors = (0.36, None, 0.32)
    recipe = screened(screening_bundle, label_floor=None, label_floors=floors)
    location = location_for(recipe, "floors")
    manifest = build(location, screening_bundle, device="cpu")
    maker = maker_for(screening_bundle, recipe)
    rows = [row for made in manifest.shards for row in read_rows(location.store.get(made.table.key), field="t")]
    lowest = [min(row["label_confidence"] for row in rows if row["label"] == label) for label in range(3)]
    assert lowest[0] >= 0.36
    assert lowest[1] < 0.32
    assert 0.32 <= lowest[2] < 0.36
    for row in rows[::5]:
        for attempt in range(row["attempt"] + 1):
            draw = maker.sampler.draw_attempt(np.array([row["index"]]), np.array([attempt]), np.array([row["label"]]))
            result = maker.screen.check(maker.decoder.decode(draw.z_BD.astype(np.float32)), np.array([row["label"]]))
            assert result.passed_B[0] == (attempt == row["attempt"])
    assert all(len(row["likely_labels"]) == 3 for row in rows)
    for _, target_C, _ in open_dataset(location.url, soft_labels=True):
        assert target_C.sum() == pytest.approx(1.0)
    assert not verify_dataset(location.url, deep=True).problems
    assert replay(location.url, rows[3]["index"], screening_bundle, device="cpu").identical


def test_equal_floors_by_class_refuse_what_the_common_one_refuses(screening_bundle: Bundle) -> None:
    common = screened(screening_bundle)
    by_class = screened(screening_bundle, label_floor=None, label_floors=(0.334,) * 3)
    first, second = (
        maker_for(screening_bundle, recipe).make(Plan(recipe).shard(0), "laws") for recipe in (common, by_class)
    )
    assert read_rows(first.table, field="t") == read_rows(second.table, field="t")
    assert first.receipt.refused == second.receipt.refused


def test_refused_samples_fill_the_batches_that_follow(
    screening_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = screened(screening_bundle, counts=(100, 100, 100), shard_size=300)
    maker, sizes = maker_for(screening_bundle, recipe), list[int]()
    decode = maker.decoder.decode
    monkeypatch.setattr(
        maker.decoder, "decode", lambda z_BD, labels_B: sizes.append(len(z_BD)) or decode(z_BD, labels_B)
    )
    made = maker.make(Plan(recipe).shard(0), "laws")
    full = (300 + made.receipt.refused) // recipe.batch
    assert sum(sizes) == 300 + made.receipt.refused
    assert sizes[: full - 8] == [recipe.batch] * (full - 8)


def test_a_screen_that_nothing_passes_is_an_error_with_the_rate(screening_bundle: Bundle) -> None:
    recipe = screened(screening_bundle, label_floor=0.999, max_attempts=3)
    with pytest.raises(RejectionExhausted, match=r"within 3 attempts.*acceptance rate 0\.00%"):
        maker_for(screening_bundle, recipe).make(Plan(recipe).shard(0), "laws")


@pytest.mark.parametrize(("floor", "part"), [("label_floor", "judge"), ("novelty_floor", "copy index")])
def test_a_floor_that_the_bundle_cannot_measure_is_refused(bundle: Bundle, floor: str, part: str) -> None:
    with pytest.raises(SpecError, match=rf"{floor}.*a bundle with a {part}"):
        maker_for(bundle, recipe_for(bundle, **{floor: 0.05}))
