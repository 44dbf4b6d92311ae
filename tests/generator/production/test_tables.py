"""The tables of whole builds: each row says where its image is, and where its code lies on the bundle's map."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generator.datasets.replay import replay
from generator.datasets.verification import verify_dataset
from generator.models.bundle import Bundle, load_bundle, save_bundle
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.commit import BuildLocation, locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build
from generator.production.pipeline.sampling import Sampler
from generator.production.pipeline.shard_maker import open_shard_maker
from generator.production.shards import read_samples
from generator.spec.canonical import sha256_hex
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_contents

PLACES = {"offset", "size", "map_x", "map_y"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a map."""
    directory, contents = tmp_path_factory.mktemp("b") / "mapped", tiny_contents(size=16, channels=3)
    save_bundle(directory, replace(contents, code_map=fit_code_map(contents.codes)))
    return load_bundle(open_store(str(directory)))


def location_for(bundle: Bundle, name: str, **changes: object) -> BuildLocation:
    fields = {"classes": bundle.info.classes, "counts": (40, 30, 33), "shard_size": 25, "batch": 16, "seed": 5}
    recipe = Recipe.model_validate({"bundle": bundle.digest, "density_floor": 0.5, **fields, **changes})
    return locate_build(JobSpec(recipe=recipe, order=Order(destination=f"memory://tables-{name}", name="tables")))


def stored_table(location: BuildLocation, number: int = 0) -> pa.Table:
    return pq.read_table(io.BytesIO(location.store.get(f"samples/tables-{number:06d}.parquet")))


def croissant_columns(location: BuildLocation) -> set[str]:
    samples = json.loads(location.store.get("croissant.json"))["recordSet"][-1]
    return {field["@id"].removeprefix("samples/") for field in samples["field"]}


def test_a_row_says_where_its_image_is_and_where_its_code_lies(bundle: Bundle) -> None:
    location = location_for(bundle, "rows")
    manifest, sampler = build(location, bundle, device="cpu"), Sampler(location.recipe, bundle.latents)
    for receipt in manifest.shards:
        archive = location.store.get(receipt.shard.key)
        images = {key: files["png"] for key, files in read_samples(archive, field="shard")}
        for row in stored_table(location, receipt.number).to_pylist():
            data = archive[row["offset"] : row["offset"] + row["size"]]
            assert data == images[row["key"]]
            assert sha256_hex(data) == row["image_sha256"]
            drawn = sampler.draw_attempt(*(np.array([row[name]]) for name in ("index", "attempt", "label")))
            assert np.array_equal(drawn.z_BD[0].astype(np.float32), np.array(row["latent"], dtype=np.float32))
            assert bundle.code_map is not None
            assert bundle.code_map.coordinates(drawn.z_BD)[0].tolist() == [row["map_x"], row["map_y"]]


def test_coordinates_do_not_depend_on_the_decode_batch(bundle: Bundle) -> None:
    columns = ["index", "attempt", "map_x", "map_y", "latent"]
    found = []
    for batch in (7, 16):
        location = location_for(bundle, "batches", batch=batch)
        decoder = ResidentDecoder(bundle, batch=batch, dtype="float32", device="cpu")
        made = open_shard_maker(location, bundle, decoder).make(Plan(location.recipe).shard(1), "tables")
        found.append(pq.read_table(io.BytesIO(made.table)).select(columns))
    assert found[0].equals(found[1])


@pytest.mark.parametrize("latents", [True, False, "auto"])
def test_latent_points_are_stored_as_asked_and_change_nothing_else(bundle: Bundle, latents: bool | str) -> None:
    location, plain = location_for(bundle, str(latents), latents=latents), location_for(bundle, "plain")
    for place in (location, plain):
        build(place, bundle, device="cpu")
    ours, others = stored_table(location), stored_table(plain)
    assert ("latent" in ours.column_names) == (latents is not False)
    common = [name for name in ours.column_names if name not in ("latent", "offset")]
    assert ours.select(common).equals(others.select(common))
    assert verify_dataset(location.url, deep=True).problems == ()
    assert replay(location.url, 40, bundle, device="cpu").identical
    assert croissant_columns(location) >= PLACES
    assert ("latent" in croissant_columns(location)) == (latents is not False)
    card = location.store.get("README.md").decode()
    assert ("latent point, sha256" in card) == (latents is not False)
    assert all(f"`{name}`" in card for name in PLACES)


def test_a_version_1_build_has_the_columns_and_words_that_it_had(bundle: Bundle) -> None:
    location = location_for(bundle, "version-1", recipe_version=1)
    build(location, bundle, device="cpu")
    assert not PLACES & set(stored_table(location).column_names)
    assert not PLACES & croissant_columns(location)
    assert "latent" in croissant_columns(location)
    assert "map_x" not in location.store.get("README.md").decode()
    assert b"recipe_version 1" in location.store.get("preview.jpg")
    assert verify_dataset(location.url, deep=True).problems == ()
    assert replay(location.url, 40, bundle, device="cpu").identical


def test_both_versions_have_the_same_pixels(bundle: Bundle) -> None:
    places = [location_for(bundle, f"pixels-{version}", recipe_version=version) for version in (1, 2)]
    for place in places:
        build(place, bundle, device="cpu")
    columns = ["index", "attempt", "label", "cluster", "log_density", "latent"]
    first, second = (stored_table(place).select(columns) for place in places)
    assert first.equals(second)
