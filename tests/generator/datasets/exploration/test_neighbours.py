"""The nearest real images of a sample, by the codes that its bundle keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generator.datasets.exploration.neighbours import RealCodes, read_latent, read_real_codes
from generator.errors import IntegrityError
from generator.models.bundle import load_bundle, read_info, save_bundle
from generator.models.bundle.thumbnails import make_thumbnails
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_contents


def test_the_nearest_are_found_and_ordered() -> None:
    rng = np.random.default_rng(0)
    codes_ND, point_D = rng.normal(size=(9000, 6)).astype(np.float32), rng.normal(size=6)
    found = RealCodes(codes_ND, np.arange(9000) % 3, ("a", "b", "c"), None).nearest(point_D, 5)
    distance_N = np.linalg.norm(codes_ND - point_D, axis=1)
    assert [each.row for each in found] == np.argsort(distance_N)[:5].tolist()
    assert [each.distance for each in found] == pytest.approx(np.sort(distance_N)[:5].tolist())
    assert found[0].label == found[0].row % 3


def test_of_a_sample_of_a_build(tmp_path: Path) -> None:
    contents = tiny_contents(size=16)
    pictures = make_thumbnails(np.zeros((30, 16, 16, 1), dtype=np.uint8))
    save_bundle(tmp_path / "b", replace(contents, thumbnails=pictures))
    store = open_store(str(tmp_path / "b"))
    bundle = load_bundle(store)
    recipe = Recipe(bundle=bundle.digest, classes=bundle.info.classes, counts=(5, 5, 5), batch=16)
    location = locate_build(JobSpec(recipe=recipe, order=Order(destination=str(tmp_path / "out"), name="n")))
    manifest = build(location, bundle, device="cpu")
    table = location.store.get(manifest.shards[0].table.key)
    point_D = read_latent(table, 3, field="t")
    assert point_D is not None
    codes = read_real_codes(store, read_info(store)[1])
    assert codes is not None
    found = codes.nearest(point_D)
    assert len(found) == 8
    assert codes.thumbnails is not None
    assert codes.thumbnails.find(found[0].row)
    with pytest.raises(IntegrityError, match=r"^t: "):
        read_latent(table, 99, field="t")
    with pytest.raises(IntegrityError, match=r"^t: "):
        read_latent(table[:100], 0, field="t")


def test_a_table_without_latent_points_has_none(tmp_path: Path) -> None:
    save_bundle(tmp_path / "b", tiny_contents(size=16))
    bundle = load_bundle(open_store(str(tmp_path / "b")))
    recipe = Recipe(bundle=bundle.digest, classes=bundle.info.classes, counts=(2, 2, 2), batch=16, latents=False)
    location = locate_build(JobSpec(recipe=recipe, order=Order(destination=str(tmp_path / "out"), name="n")))
    manifest = build(location, bundle, device="cpu")
    assert read_latent(location.store.get(manifest.shards[0].table.key), 0, field="t") is None
