"""Refused draws made again: every attempt before the one that was taken has a reason, the taken one has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.images import marked_build
from generator.production.pipeline.refusals import MAX_DRAWS, explain_draws
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.production.provenance.sample_table import read_rows
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(screened_bundle(tmp_path_factory.mktemp("bundle") / "b"))))


def maker_for(bundle: Bundle, **floors: float) -> ShardMaker:
    recipe = Recipe.model_validate(
        {
            "bundle": bundle.digest,
            "classes": bundle.info.classes,
            "counts": (40, 40, 40),
            "batch": 64,
            "published": "2026-03-01",
            **floors,
        }
    )
    location = locate_build(JobSpec(recipe=recipe, order=Order(destination="memory://refusals", name="n")))
    return open_shard_maker(location, bundle, ResidentDecoder(bundle, batch=64, dtype="float32", device="cpu"))


@pytest.mark.parametrize(
    ("floors", "checks"),
    [
        ({"density_floor": 0.4}, {"density floor"}),
        ({"label_floor": 0.3}, {"label floor"}),
        ({"novelty_floor": 0.05}, {"novelty floor"}),
        ({"density_floor": 0.6, "label_floor": 0.2}, {"density floor", "label floor"}),
    ],
)
def test_attempts_before_the_one_that_was_taken_have_reasons(
    bundle: Bundle, floors: dict[str, float], checks: set[str]
) -> None:
    maker = maker_for(bundle, **floors)
    rows = read_rows(maker.make(Plan(maker.recipe).shard(0), "n").table, field="t")
    again = [row for row in rows if row["attempt"] > 0]
    assert again
    seen = set()
    for row in again:
        attempts = list(range(min(row["attempt"] + 1, MAX_DRAWS)))
        draws = explain_draws(maker, row["index"], attempts, row["label"])
        assert [draw.attempt for draw in draws] == attempts
        for draw in draws[: row["attempt"]]:
            assert draw.reasons
            seen |= {reason.check for reason in draw.reasons}
            assert all(reason.got < reason.floor for reason in draw.reasons if reason.got is not None)
        if len(draws) > row["attempt"]:
            taken = draws[row["attempt"]]
            assert taken.reasons == ()
            assert taken.data == maker.remake(row["index"], row["attempt"], row["label"])
        assert marked_build(draws[0].data) is not None
    assert seen == checks


def test_their_number_is_bounded(bundle: Bundle, tmp_path: Path) -> None:
    assert len(explain_draws(maker_for(bundle), 3, list(range(90)), 0)) == MAX_DRAWS
