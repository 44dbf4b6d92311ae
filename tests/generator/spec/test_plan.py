"""Law: a plan assigns every sample to exactly one shard, evenly by class, as a pure function of the recipe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import SpecError
from generator.spec.canonical import validate
from generator.spec.plan import Plan
from generator.spec.recipe import MAX_SAMPLES, MAX_SHARDS, Recipe

BUNDLE = "sha256:" + "0" * 64

recipes = st.builds(
    lambda counts, shard_size, seed: Recipe(
        bundle=BUNDLE,
        classes=tuple(f"c{n}" for n in range(len(counts))) if len(counts) > 1 else (),
        counts=tuple(counts),
        shard_size=shard_size,
        seed=seed,
    ),
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 0),
    shard_size=st.integers(1, 50),
    seed=st.integers(0, 2**63 - 1),
)


@given(recipes)
def test_indices_are_gapless_and_each_once(recipe: Recipe) -> None:
    indices = np.concatenate([shard.indices_N for shard in Plan(recipe)])
    assert indices.tolist() == list(range(recipe.total))


@given(recipes)
def test_class_totals_are_the_recipes(recipe: Recipe) -> None:
    labels = np.concatenate([shard.labels_N for shard in Plan(recipe)])
    assert np.bincount(labels, minlength=len(recipe.counts)).tolist() == list(recipe.counts)


@given(recipes)
def test_any_two_shards_differ_by_at_most_one_sample_of_each_class(recipe: Recipe) -> None:
    counts = np.array([np.bincount(shard.labels_N, minlength=len(recipe.counts)) for shard in Plan(recipe)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    sizes = counts.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.max() <= recipe.shard_size


@given(recipes, st.randoms())
def test_a_shard_does_not_depend_on_the_others(recipe: Recipe, random: object) -> None:
    plan = Plan(recipe)
    number = random.randrange(plan.shard_count)  # type: ignore[attr-defined]
    alone, in_turn = Plan(recipe).shard(number), list(plan)[number]
    assert alone.labels_N.tolist() == in_turn.labels_N.tolist()
    assert alone.indices_N.tolist() == in_turn.indices_N.tolist()


@given(recipes)
def test_shard_of_finds_every_index(recipe: Recipe) -> None:
    plan = Plan(recipe)
    for shard in plan:
        assert {plan.shard_of(int(index)) for index in shard.indices_N} == {shard.number}
        assert plan.start(shard.number) == shard.indices_N[0]
        assert plan.size(shard.number) == len(shard)


def test_the_seed_permutes_labels_inside_a_shard() -> None:
    def labels(seed: int) -> list[int]:
        recipe = Recipe(bundle=BUNDLE, classes=("a", "b"), counts=(50, 50), seed=seed)
        found: list[int] = Plan(recipe).shard(0).labels_N.tolist()
        return found

    assert labels(1) == labels(1)
    assert labels(1) != labels(2)
    assert labels(1) != sorted(labels(1))


def test_a_billion_samples_are_planned_in_no_memory() -> None:
    recipe = Recipe(bundle=BUNDLE, classes=("a", "b"), counts=(500_000_000, 500_000_000), shard_size=2000)
    last = Plan(recipe).shard(Plan(recipe).shard_count - 1)
    assert last.indices_N[-1] == 999_999_999
    assert np.bincount(last.labels_N).tolist() == [1000, 1000]


@given(st.integers(1, MAX_SAMPLES), st.integers(1, 100_000))
def test_shards_have_six_digits_and_a_refusal_names_the_least_size_that_would_do(total: int, shard_size: int) -> None:
    recipe = {"bundle": BUNDLE, "counts": (total,)}
    if -(-total // shard_size) > MAX_SHARDS:
        with pytest.raises(SpecError) as caught:
            validate(Recipe, recipe | {"shard_size": shard_size}, field="", error=SpecError)
        assert caught.value.field == "shard_size"
        minimum = next(int(word) for word in caught.value.expected.replace(",", "").split() if word.isdigit())
        assert minimum > shard_size
        with pytest.raises(SpecError, match="shard_size"):
            validate(Recipe, recipe | {"shard_size": minimum - 1}, field="", error=SpecError)
        shard_size = minimum
    plan = Plan(validate(Recipe, recipe | {"shard_size": shard_size}, field="", error=SpecError))
    assert len(plan.shard(plan.shard_count - 1).padded_number) == 6


def test_the_default_shard_size_is_checked_as_well() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Recipe, {"bundle": BUNDLE, "counts": (MAX_SAMPLES,)}, field="", error=SpecError)
    assert (caught.value.field, caught.value.got) == ("shard_size", "1000")
    assert "at least 1001" in caught.value.expected
