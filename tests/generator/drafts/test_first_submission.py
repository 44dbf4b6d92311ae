"""The day of publication: fixed by the first submission, kept by later ones, refused where it differs."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from generator.drafts import parse_draft, resolve_draft
from generator.drafts.first_submission import fix_published
from generator.errors import DatasetError, SpecError
from generator.production.commit import begin_build, locate_build
from generator.spec.recipe import JobSpec
from generator.store import open_store
from tests.support.bundles import tiny_bundle

FIRST, LATER = date(2026, 3, 1), date(2026, 3, 2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "b")


def resolve(bundle: Path, home: Path, day: date | None = None, **fields: Any) -> JobSpec:
    wanted = {"bundle": str(bundle), "destination": str(home), "name": "n", "count": 9, **fields}
    return resolve_draft(parse_draft(wanted), day=day)[0]


def test_the_day_is_today_or_the_one_that_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC).date().isoformat()
    assert resolve(bundle, tmp_path).recipe.published in (before, datetime.now(UTC).date().isoformat())
    assert resolve(bundle, tmp_path, FIRST).recipe.published == "2026-03-01"
    assert resolve(bundle, tmp_path, FIRST, published="2025-01-01").recipe.published == "2025-01-01"
    assert resolve(bundle, tmp_path, FIRST, published=None).recipe.published is None
    assert resolve(bundle, tmp_path, FIRST, recipe_version=1).recipe.published is None


def test_the_first_submission_fixes_it(bundle: Path, tmp_path: Path) -> None:
    first = resolve(bundle, tmp_path, FIRST)
    begin_build(locate_build(first))
    assert resolve(bundle, tmp_path, LATER) == first
    begin_build(locate_build(resolve(bundle, tmp_path, LATER)))
    assert resolve(bundle, tmp_path, LATER, seed=1).recipe.published == "2026-03-02"  # another recipe
    assert resolve(bundle, tmp_path / "elsewhere", LATER).recipe.published == "2026-03-02"


def test_a_submission_that_differs_is_refused(bundle: Path, tmp_path: Path) -> None:
    first = resolve(bundle, tmp_path, FIRST)
    begin_build(locate_build(first))
    other = locate_build(resolve(bundle, tmp_path, published="2026-04-01"))
    with pytest.raises(SpecError) as caught:
        begin_build(other)
    assert caught.value.field == "published"
    assert caught.value.expected.startswith("2026-03-01, which the first submission")
    assert caught.value.got == "2026-04-01"
    assert other.store.head("recipe.json") is None
    begin_build(locate_build(resolve(bundle, tmp_path, published="2026-04-01", revision=1)))
    begin_build(locate_build(resolve(bundle, tmp_path, published="2026-03-01")))


def test_a_build_of_an_earlier_release_goes_on(bundle: Path, tmp_path: Path) -> None:
    earlier = resolve(bundle, tmp_path, published=None)
    begin_build(locate_build(earlier))
    assert resolve(bundle, tmp_path) == earlier
    stated = resolve(bundle, tmp_path, FIRST, license="MIT").recipe  # which an earlier release could not ask for
    assert (stated.published, stated.license) == ("2026-03-01", "MIT")
    assert not (tmp_path / "n" / "published").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"published": "tomorrow"}, "published"),
        ({"recipe": "sha256:" + "0" * 64}, "recipe"),
        ({"more": 1}, "more"),
    ],
)
def test_a_damaged_record_is_named(bundle: Path, tmp_path: Path, change: dict[str, Any], field: str) -> None:
    begin_build(locate_build(resolve(bundle, tmp_path, FIRST)))
    (record,) = (tmp_path / "n" / "published").iterdir()
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    with pytest.raises(DatasetError) as caught:
        resolve(bundle, tmp_path)
    assert caught.value.field == f"published/{record.name}.{field}"


def test_two_submissions_at_once_agree(bundle: Path, tmp_path: Path) -> None:
    """Both resolve before either begins, across midnight: one is refused, and finds the day when it tries again."""
    specs = [resolve(bundle, tmp_path, day) for day in (FIRST, LATER)]
    dataset = open_store(str(tmp_path / "n"))
    fix_published(dataset, specs[0].recipe)
    with pytest.raises(SpecError, match=r"^published: "):
        fix_published(dataset, specs[1].recipe)
    assert resolve(bundle, tmp_path, LATER) == specs[0]


def test_new_builds_have_a_page_unless_the_spec_says_no(bundle: Path, tmp_path: Path) -> None:
    assert resolve(bundle, tmp_path).recipe.page is True
    assert resolve(bundle, tmp_path, page=False).recipe.page is False
    assert resolve(bundle, tmp_path, page=True, published=None).recipe.page is True
    assert resolve(bundle, tmp_path, published=None).recipe.page is False
    assert resolve(bundle, tmp_path, recipe_version=1).recipe.page is False
    for wrong in (1, "yes", None):
        with pytest.raises(SpecError, match=r"^page: "):
            resolve(bundle, tmp_path, page=wrong)


@pytest.mark.parametrize("published", ["auto", "2026-03-01"])
def test_a_build_that_a_release_without_pages_began_goes_on_without_one(
    bundle: Path, tmp_path: Path, published: str
) -> None:
    earlier = resolve(bundle, tmp_path, FIRST, page=False, published=published)
    begin_build(locate_build(earlier))
    assert resolve(bundle, tmp_path, LATER, published=published) == earlier
    assert resolve(bundle, tmp_path, LATER, revision=1).recipe.page is True
    asked = resolve(bundle, tmp_path, LATER, page=True).recipe
    assert (asked.page, asked.published) == (True, "2026-03-02")


def test_a_page_stays_on_later_submissions(bundle: Path, tmp_path: Path) -> None:
    first = resolve(bundle, tmp_path, FIRST)
    begin_build(locate_build(first))
    begin_build(locate_build(resolve(bundle, tmp_path, FIRST, page=False)))
    assert resolve(bundle, tmp_path, LATER) == first
