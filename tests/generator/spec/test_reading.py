"""How a source is read, as it is stored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from generator.spec.reading import Reading


def test_defaults_are_left_out() -> None:
    assert Reading().model_dump(mode="json") == {}
    reading = Reading(label="fine_label", white=4095, classes=("a", "b"))
    assert reading.model_dump(mode="json") == {"label": "fine_label", "white": 4095.0, "classes": ["a", "b"]}
    assert Reading.model_validate(reading.model_dump(mode="json")) == reading


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ()},
        {"classes": ("a", "a")},
        {"classes": ("",)},
        {"black": 1},
        {"white": 1, "black": 1},
        {"white": 0},
        {"white": float("nan")},
        {"white": float("inf")},
        {"resize": "zoom"},
        {"label": ""},
        {"image": "x" * 201},
        {"colour": "blue"},
    ],
)
def test_what_cannot_be_meant(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Reading(**fields)
