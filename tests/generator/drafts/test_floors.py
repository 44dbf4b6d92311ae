"""The floors of a draft: what ``auto`` means for a bundle, and floors that a bundle does not support."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generator.drafts import parse_draft, resolve_draft
from generator.errors import SpecError
from generator.models.bundle import load_bundle, save_bundle
from generator.models.screening.config import PassRates
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle, tiny_contents


@pytest.fixture(scope="module")
def screening_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screened_bundle(tmp_path_factory.mktemp("screened") / "bundle")


@pytest.mark.parametrize(
    ("given", "label_floor", "novelty_floor"),
    [
        ({}, 0.5, 0.001),
        ({"label_floor": None, "novelty_floor": None}, None, None),
        ({"label_floor": 0.9, "novelty_floor": 0.01}, 0.9, 0.01),
        ({"label_floor": "auto", "novelty_floor": "auto"}, 0.5, 0.001),
    ],
)
def test_floors_are_what_the_bundle_can_tell(
    screening_bundle: Path, given: dict[str, Any], label_floor: float | None, novelty_floor: float | None
) -> None:
    draft = parse_draft({"bundle": str(screening_bundle), "count": 9, "destination": "out", "name": "n", **given})
    recipe = resolve_draft(draft)[0].recipe
    assert (recipe.label_floor, recipe.novelty_floor) == (label_floor, novelty_floor)


@pytest.mark.parametrize(("field", "part"), [("label_floor", "judge"), ("novelty_floor", "copy index")])
def test_a_floor_that_the_bundle_cannot_measure_is_refused(tmp_path: Path, field: str, part: str) -> None:
    plain = {"bundle": str(tiny_bundle(tmp_path / "b")), "count": 9, "destination": "out", "name": "n"}
    recipe = resolve_draft(parse_draft(plain))[0].recipe
    assert (recipe.label_floor, recipe.novelty_floor) == (None, None)
    with pytest.raises(SpecError, match=rf"^{field}: .*a bundle with a {part}.*got 0\.05"):
        resolve_draft(parse_draft({**plain, field: 0.05}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_floor": 1.0},
        {"label_floor": 0.0},
        {"label_floor": "high"},
        {"novelty_floor": 0.2},
        {"novelty_floor": -1},
    ],
)
def test_a_floor_outside_its_range_is_refused(screening_bundle: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        resolve_draft(
            parse_draft({"bundle": str(screening_bundle), "count": 9, "destination": "out", "name": "n", **wrong})
        )


def test_floors_that_would_refuse_most_samples_are_off_unless_asked_for(screening_bundle: Path, tmp_path: Path) -> None:
    store = open_store(str(screening_bundle))
    bundle = load_bundle(store)
    poor = PassRates(label=(0.9, 0.2, 0.9), novelty=0.3)
    screening = replace(bundle.screening, pass_rates=poor)
    save_bundle(tmp_path / "poor", replace(tiny_contents(), screening=screening))
    fields = {"bundle": str(tmp_path / "poor"), "count": 9, "destination": "out", "name": "n"}
    recipe = resolve_draft(parse_draft(fields))[0].recipe
    assert (recipe.label_floor, recipe.novelty_floor) == (None, None)
    assert resolve_draft(parse_draft({**fields, "label_floor": 0.5}))[0].recipe.label_floor == 0.5
