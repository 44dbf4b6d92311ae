"""The fields of publication: which values a recipe takes, and that recipes without them keep their digests."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pytest

from generator.drafts import parse_draft
from generator.errors import SpecError
from generator.spec.canonical import validate
from generator.spec.recipe import Recipe

BUNDLE = "sha256:" + "ab" * 32
FIELDS = ("published", "license", "creator", "citation")


def recipe(**fields: Any) -> Recipe:
    return validate(Recipe, {"bundle": BUNDLE, "counts": (3,), **fields}, field="", error=SpecError)


def test_a_recipe_without_them_is_what_it_was() -> None:
    plain = recipe()
    assert recipe(**dict.fromkeys(FIELDS)).canonical() == plain.canonical()
    assert not set(FIELDS) & json.loads(plain.canonical()).keys()


def test_they_are_part_of_the_digest_and_read_back() -> None:
    stated = recipe(published="2026-03-01", license="MIT", creator={"name": "Us"}, citation="a\nb")
    document = json.loads(stated.canonical())
    assert document["published"] == "2026-03-01"
    assert document["creator"] == {"name": "Us", "kind": "organization", "url": None}
    assert Recipe.model_validate_json(stated.canonical()) == stated
    assert len({recipe(published=f"2026-03-0{day}").digest for day in (1, 2)} | {recipe().digest}) == 3
    assert recipe(published=date(2026, 3, 1)).published == "2026-03-01"  # as YAML reads it without quotes


@pytest.mark.parametrize(
    "value", ["2026-3-1", "2026-02-30", "20260301", "today", "", 20260301, datetime(2026, 3, 1), "2026-03-01T00:00:00"]
)
def test_a_day_is_a_day(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^published: expected a day as YYYY-MM-DD, got "):
        recipe(published=value)
    with pytest.raises(SpecError, match=r"^published: expected a day as YYYY-MM-DD, got "):
        parse_draft({"bundle": "b", "destination": "out", "name": "n", "count": 3, "published": value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("license", ""),
        ("license", " MIT"),
        ("license", "MIT\n"),
        ("license", "x" * 301),
        ("license", 3),
        ("creator.name", {"name": ""}),
        ("creator.name", {"kind": "person"}),
        ("creator.kind", {"name": "Us", "kind": "robot"}),
        ("creator.url", {"name": "Us", "url": "javascript:alert(1)"}),
        ("creator.url", {"name": "Us", "url": "https://a b"}),
        ("creator.mail", {"name": "Us", "mail": "a@b"}),
        ("citation", ""),
        ("citation", "a\x00b"),
        ("citation", "x" * 10_001),
    ],
)
def test_what_is_not_a_value_is_named(field: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        recipe(published="2026-03-01", **{field.partition(".")[0]: value})
    assert caught.value.field == field


@pytest.mark.parametrize("field", FIELDS[1:])
def test_without_a_day_there_is_nothing_to_state_them(field: str) -> None:
    value = {"name": "Us"} if field == "creator" else "MIT"
    with pytest.raises(SpecError, match=rf"^{field}: expected no {field} in a recipe without published"):
        recipe(**{field: value})


@pytest.mark.parametrize("field", FIELDS)
def test_version_1_has_none_of_them(field: str) -> None:
    value = {"published": "2026-03-01", "creator": {"name": "Us"}}.get(field, "MIT")
    with pytest.raises(SpecError, match=rf"^{field}: expected "):
        recipe(recipe_version=1, **{field: value})


def test_a_draft_takes_a_name_as_creator() -> None:
    draft = parse_draft({"bundle": "b", "destination": "out", "name": "n", "count": 3, "creator": "Us"})
    assert draft.creator is not None
    assert (draft.creator.name, draft.creator.kind) == ("Us", "organization")
