"""Draws around codes of a bundle with a map: the recipe holds the base point that the map carries to the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.drafts import parse_draft, resolve_draft
from generator.errors import SpecError
from generator.models.bundle import Bundle, load_bundle, load_codes
from generator.models.latents.map_inversion import MAX_ERROR
from generator.models.latents.transport_map import to_codes
from generator.production.pipeline.sampling import Sampler
from generator.spec.recipe import JobSpec
from generator.store import open_store
from tests.support.bundles import mapped_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mapped_bundle(tmp_path_factory.mktemp("mapped") / "bundle")


@pytest.fixture(scope="module")
def bundle(path: Path) -> Bundle:
    return load_bundle(open_store(str(path)))


def resolve(path: Path, draw: dict[str, Any], **counts: int) -> JobSpec:
    fields = {"bundle": str(path), "destination": str(path.parent), "name": "near", "counts": counts, "draw": draw}
    return resolve_draft(parse_draft(fields))[0]


def test_samples_near_a_training_image_have_nearly_its_code(path: Path, bundle: Bundle) -> None:
    codes = load_codes(open_store(str(path)), bundle.info)
    assert codes.labels_N is not None
    row = int(np.flatnonzero(codes.labels_N == 1)[0])
    spec = resolve(path, {"mode": "around", "reference": row, "distance": 0.001}, dog=5)
    drawn = Sampler(spec.recipe, bundle.latents).draw(np.arange(5), np.zeros(5, dtype=np.int64), np.ones(5, dtype=int))
    found_BD = to_codes(bundle.latents, drawn.z_BD, np.ones(5, dtype=np.int64))
    spread_D = codes.codes_ND.std(axis=0)
    error = np.sqrt(np.mean(((found_BD - codes.codes_ND[row]) / spread_D) ** 2))
    assert error < 3 * MAX_ERROR
    assert np.abs((drawn.z_BD[0] - codes.codes_ND[row]) / spread_D).max() > 10 * MAX_ERROR  # the map does something


def test_a_draw_for_several_classes_is_refused(path: Path) -> None:
    with pytest.raises(SpecError, match="draw: expected counts for one class"):
        resolve(path, {"mode": "around", "code": [0.0] * 64, "distance": 0.5}, cat=2, dog=3)


def test_a_code_that_the_map_cannot_reach_is_refused(path: Path) -> None:
    with pytest.raises(SpecError, match="reaches within"):
        resolve(path, {"mode": "around", "code": [1e6, -1e6] * 32, "distance": 0.5}, dog=3)
