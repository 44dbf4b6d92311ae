"""The versions of recipes: which fields each has, and that a field that is added later changes no digest."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest

from generator.errors import SpecError
from generator.spec.canonical import validate
from generator.spec.recipe import JobSpec, Order, Recipe, Since

BUNDLE = "sha256:" + "ab" * 32


def test_the_digest_of_a_recipe_is_what_it_was() -> None:
    """The same recipe must identify the same build in every release."""
    recipe = Recipe(recipe_version=1, bundle=BUNDLE, classes=("a", "b"), counts=(3, 4), seed=5)
    assert recipe.digest == "sha256:4f6de7a46c7bb6bd195b602f4f0d431a21f04dc7752191a1dde783ca1983a2dd"
    recipe = Recipe(bundle=BUNDLE, classes=("a", "b"), counts=(3, 4), seed=5)
    assert recipe.digest == "sha256:1cf6a30d63e7c9319d8439c280a19e4b7c4ea0bf47f2ffd1976d0b2ae4e64e45"


VERSION_1_FIELDS = {
    *("batch", "bundle", "classes", "counts", "density_floor", "draw", "dtype", "image", "label_floor"),
    *("max_attempts", "novelty_floor", "recipe_version", "revision", "seed", "shard_size", "temperature"),
}


def test_each_version_has_its_own_fields() -> None:
    first, second = (Recipe(recipe_version=version, bundle=BUNDLE, counts=(3,)) for version in (1, 2))
    assert Recipe(bundle=BUNDLE, counts=(3,)) == second
    assert json.loads(first.canonical()).keys() == VERSION_1_FIELDS
    assert json.loads(second.canonical()).keys() == VERSION_1_FIELDS | {"latents", "label_floors"}
    spec = JobSpec(recipe=first, order=Order(destination="out", name="n"))  # as a schedule's run stores it
    assert json.loads(spec.canonical())["recipe"].keys() == VERSION_1_FIELDS
    assert JobSpec.model_validate_json(spec.canonical()).build_id == spec.build_id


@pytest.mark.parametrize(("field", "value"), [("latents", True), ("latents", False), ("label_floors", (0.5, None))])
def test_a_version_1_recipe_has_no_field_of_version_2(field: str, value: Any) -> None:
    wanted = {"recipe_version": 1, "bundle": BUNDLE, "classes": ("a", "b"), "counts": (3, 4), field: value}
    with pytest.raises(SpecError, match=rf"^{field}: expected .* in a recipe of version 1"):
        validate(Recipe, wanted, field="", error=SpecError)
    assert validate(Recipe, wanted | {"recipe_version": 2}, field="", error=SpecError)
    default = Recipe.model_fields[field].default
    assert validate(Recipe, wanted | {field: default}, field="", error=SpecError)


class LaterRecipe(Recipe):
    """A recipe of a later release, with a field that version 2 recipes lacked before."""

    tone: Annotated[int, Since(2, later=True)] = 7


def test_a_field_that_is_added_later_changes_no_digest_while_it_has_its_default() -> None:
    stored = Recipe(bundle=BUNDLE, counts=(3,))
    later = LaterRecipe(bundle=BUNDLE, counts=(3,))
    assert later.canonical() == stored.canonical()
    assert LaterRecipe.model_validate_json(stored.canonical()) == later
    changed = LaterRecipe(bundle=BUNDLE, counts=(3,), tone=8)
    assert json.loads(changed.canonical()) == json.loads(stored.canonical()) | {"tone": 8}
    assert LaterRecipe.model_validate_json(changed.canonical()) == changed
    with pytest.raises(SpecError, match=r"^tone: expected 7 or nothing in a recipe of version 1"):
        validate(
            LaterRecipe, {"recipe_version": 1, "bundle": BUNDLE, "counts": (3,), "tone": 8}, field="", error=SpecError
        )


@pytest.mark.parametrize("latents", [0, 1, 1.0, "yes", None])
def test_latents_are_auto_or_a_truth_value(latents: Any) -> None:
    with pytest.raises(SpecError, match=r"^latents: expected 'auto'"):
        validate(Recipe, {"bundle": BUNDLE, "counts": (3,), "latents": latents}, field="", error=SpecError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_floors": (0.5,)}, "2 entries, one per class, not 1"),
        ({"label_floors": (0.5, 0.5, 0.5)}, "2 entries, one per class, not 3"),
        ({"label_floors": (None, None)}, "a floor of at least one class"),
        ({"label_floors": (0.5, None), "label_floor": 0.5}, "either label_floor"),
        ({"label_floors": (0.5,), "classes": (), "counts": (3,)}, "0 entries, one per class"),
        ({"label_floors": (0.5, 1.0)}, "less than 1"),
        ({"label_floors": (0.0, None)}, "more than 0"),
    ],
)
def test_label_floors_that_say_nothing_or_too_much_are_refused(changes: dict[str, Any], words: str) -> None:
    recipe = {"bundle": BUNDLE, "classes": ("a", "b"), "counts": (3, 4), **changes}
    with pytest.raises(SpecError, match=rf"^label_floors.*: expected {words}"):
        validate(Recipe, recipe, field="", error=SpecError)


def test_the_floor_of_each_class() -> None:
    recipe = Recipe(bundle=BUNDLE, classes=("a", "b"), counts=(3, 4))
    assert recipe.class_floors is None
    assert recipe.model_copy(update={"label_floor": 0.5}).class_floors == (0.5, 0.5)
    assert recipe.model_copy(update={"label_floors": (0.5, None)}).class_floors == (0.5, None)
