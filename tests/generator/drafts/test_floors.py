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
    assert (recipe.label_floor, recipe.label_floors, recipe.novelty_floor) == (None, (0.5, None, 0.5), None)
    asked = resolve_draft(parse_draft({**fields, "label_floor": 0.5}))[0].recipe
    assert (asked.label_floor, asked.label_floors) == (0.5, None)
    first = resolve_draft(parse_draft({**fields, "recipe_version": 1}))[0].recipe
    assert (first.label_floor, first.label_floors, first.novelty_floor) == (None, None, None)


@pytest.fixture(scope="module")
def poor_bundle(screening_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose judge confirms hardly any samples of its second class."""
    screening = replace(
        load_bundle(open_store(str(screening_bundle))).screening,
        pass_rates=PassRates(label=(0.9, 0.2, 0.9), novelty=0.9),
    )
    directory = tmp_path_factory.mktemp("poor") / "bundle"
    save_bundle(directory, replace(tiny_contents(), screening=screening))
    return directory


@pytest.mark.parametrize(
    ("given", "label_floor", "label_floors"),
    [
        ({"label_floors": {"cat": 0.3}}, None, (0.3, None, 0.5)),
        ({"label_floors": {"cat": 0.3, "dog": 0.1, "owl": None}}, None, (0.3, 0.1, None)),
        ({"label_floors": {"dog": 0.5}}, 0.5, None),
        ({"label_floors": {"dog": None}, "label_floor": 0.7}, None, (0.7, None, 0.7)),
        ({"label_floors": {"dog": 0.2}, "label_floor": None}, None, (None, 0.2, None)),
        ({"label_floors": {"dog": 0.7}, "label_floor": 0.7}, 0.7, None),
        ({"label_floors": {"cat": None, "owl": None}}, None, None),
    ],
)
def test_floors_by_class_take_the_place_of_the_common_one(
    poor_bundle: Path, given: dict[str, Any], label_floor: float | None, label_floors: tuple[float | None, ...] | None
) -> None:
    draft = parse_draft({"bundle": str(poor_bundle), "count": 9, "destination": "out", "name": "n", **given})
    recipe = resolve_draft(draft)[0].recipe
    assert (recipe.label_floor, recipe.label_floors) == (label_floor, label_floors)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label_floors": {"cow": 0.3}}, r"^label_floors\.cow: expected a class of the bundle \(cat, dog, owl\)"),
        ({"label_floors": {"cat": 1.0}}, r"^label_floors\.cat.*less than 1"),
        ({"label_floors": {"cat": "high"}}, r"^label_floors\.cat"),
        ({"label_floors": {}}, r"^label_floors"),
        ({"label_floors": {"cat": 0.3}, "recipe_version": 1}, r"^label_floors: .*in a recipe of version 1"),
        ({"latents": True, "recipe_version": 1}, r"^latents: .*in a recipe of version 1"),
    ],
)
def test_floors_by_class_that_cannot_be_are_refused(poor_bundle: Path, given: dict[str, Any], words: str) -> None:
    fields = {"bundle": str(poor_bundle), "count": 9, "destination": "out", "name": "n", **given}
    with pytest.raises(SpecError, match=words):
        resolve_draft(parse_draft(fields))


def test_a_bundle_without_a_judge_or_without_classes_has_no_floors_by_class(tmp_path: Path) -> None:
    fields = {"count": 9, "destination": "out", "name": "n", "label_floors": {"cat": 0.3}}
    plain = tiny_bundle(tmp_path / "plain")
    with pytest.raises(SpecError, match=r"^label_floors: .*a bundle with a judge"):
        resolve_draft(parse_draft({**fields, "bundle": str(plain)}))
    unlabelled = tiny_bundle(tmp_path / "unlabelled", classes=())
    with pytest.raises(SpecError, match=r"^label_floors\.cat: .*unlabelled"):
        resolve_draft(parse_draft({**fields, "bundle": str(unlabelled)}))
