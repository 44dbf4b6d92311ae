"""Words of errors: no pattern reaches a user, and a field is spelt as in what was given."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag

from generator.errors import SpecError
from generator.spec import recipe
from generator.spec.canonical import FrozenModel, validate
from generator.spec.patterns import words_of

ROOT = Path(__file__).parents[3]
MACHINE = ("^", "[0-9", "[a-z", "\\x", "(?:", "{0,", "Input should", "String should", "discriminator")


def test_every_pattern_in_the_code_has_words() -> None:
    found = 0
    for folder in ("generator", "workers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_bytes()
            for node in ast.walk(ast.parse(text)) if b"pattern" in text else ():
                if isinstance(node, ast.Call):
                    for keyword in node.keywords:
                        if keyword.arg == "pattern":
                            found += 1
                            assert not isinstance(keyword.value, ast.Constant), f"{path}:{node.lineno}: no words"
    assert found > 10
    assert words_of(r"^[0-9a-f]{20}$") == "20 digits of 0-9 and a-f"


class Png(FrozenModel):
    format: Literal["png"] = "png"
    level: int = Field(ge=0, le=9)


class Jpeg(FrozenModel):
    format: Literal["jpeg"] = "jpeg"
    jpeg: recipe.Name = "a"
    quality: int = 5


def number_or_fields(value: Any) -> str:
    return "(number)" if isinstance(value, int) else "(fields)"


class Outer(FrozenModel):
    name: recipe.Name = "a"
    image: Annotated[Png | Jpeg, Field(discriminator="format")] = Jpeg()
    either: Annotated[
        Annotated[int, Field(ge=10), Tag("(number)")] | Annotated[Jpeg, Tag("(fields)")],
        Discriminator(number_or_fields),
    ] = 10
    parts: tuple[Jpeg, ...] = ()
    named: dict[recipe.Name, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)
    size: int = Field(default=1, ge=1, le=100_000)
    text: str = Field(default="x", min_length=1, max_length=3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "A b"}, "name: expected lower-case letters, digits, - and _, with a letter or digit at both ends"),
        ({"image": {"format": "png", "level": 10}}, "image.level: expected at most 9, got 10"),
        ({"image": {"format": "png"}}, "image.level: expected a value (the field is required), got nothing"),
        ({"image": {"format": "jpeg", "jpeg": ".."}}, "image.jpeg: expected lower-case letters"),
        ({"image": {"format": "jpeg", "x": 1}}, "image.x: expected a known field of image, got unknown field 'x'"),
        ({"image": {"format": "jpeg", "jpeg": "a", "x": 1}}, "image.x: expected a known field of image"),
        ({"image": {}}, "image: expected a mapping of fields with format, got {}"),
        ({"image": {"format": "gif"}}, "image.format: expected one of 'png', 'jpeg', got 'gif'"),
        ({"either": {"quality": "x"}}, "either.quality: expected a whole number, got 'x'"),
        ({"either": 5}, "either: expected at least 10, got 5"),
        ({"parts": [{}, {"quality": 1.5}]}, "parts.1.quality: expected a whole number, got 1.5"),
        ({"parts": 5}, "parts: expected a list, got 5"),
        ({"named": {"a b": 1.0}}, "named.a b: expected lower-case letters"),
        ({"named": {"a": 0}}, "named.a: expected more than 0"),
        ({"size": 10**6}, "size: expected at most 100,000, got 1000000"),
        ({"text": ""}, "text: expected text of at least 1 character(s), got ''"),
        ({"text": "abcd"}, "text: expected text of at most 3 characters, got 'abcd'"),
        ({"text": 5}, "text: expected text, got 5"),
        ({"colour": 1}, "colour: expected one of the known fields (name, image, either, parts, named, size, text)"),
        ({"name": "size", "size": 0}, "size: expected at least 1, got 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_an_error_says_in_words_what_a_field_may_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        validate(Outer, given, field="", error=SpecError)
    text = str(caught.value)
    assert text.startswith(words), text
    assert not [part for part in MACHINE if part in text], text


@pytest.mark.parametrize(
    "kind", ["Digest", "BuildId", "Name", "ClassName", "License", "Citation"], ids=lambda kind: str(kind)
)
def test_a_hostile_value_of_a_field_with_a_pattern_is_refused_in_words(kind: str) -> None:
    class Holder(FrozenModel):
        value: getattr(recipe, kind)  # type: ignore[valid-type]

    for hostile in ("", "\x00", "../x\x00", "\x1b[31m", "\x7f" * 5):
        with pytest.raises(SpecError) as caught:
            validate(Holder, {"value": hostile}, field="", error=SpecError)
        text = f"{caught.value.field} {caught.value.expected} {caught.value.hint}"
        assert not [part for part in MACHINE if part in text], text
