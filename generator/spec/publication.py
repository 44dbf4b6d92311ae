"""What a recipe says about the publication of its build: the day, the license, the creator, how to cite it.

These are fields of the recipe, since card and Croissant file state them, and both are functions of the recipe.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints

from generator.spec.canonical import FrozenModel
from generator.spec.patterns import pattern

MAX_CITATION_CHARS = 10_000
_ONE_LINE = pattern(
    r"^[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", "one line of text without spaces at its ends"
)


def _day_text(value: Any) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):  # YAML reads days without quotes so
        return value.isoformat()
    try:
        if isinstance(value, str) and date.fromisoformat(value).isoformat() == value:
            return value
    except ValueError:
        pass
    raise ValueError("a day as YYYY-MM-DD")


def _day_or_auto(value: Any) -> str:
    return "auto" if value == "auto" else _day_text(value)


Day = Annotated[str, BeforeValidator(_day_text)]  # ISO 8601, YYYY-MM-DD
DayOrAuto = Annotated[str, BeforeValidator(_day_or_auto)]
_Line = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=_ONE_LINE)]
License = _Line  # an SPDX or Hugging Face identifier, a URL, or a name
Citation = Annotated[  # BibTeX or plain text, of several lines
    str,
    StringConstraints(
        min_length=1,
        max_length=MAX_CITATION_CHARS,
        pattern=pattern(r"^[^\x00-\x08\x0b-\x1f\x7f]+$", "text without control characters"),
    ),
]
WebAddress = Annotated[
    str,
    StringConstraints(
        max_length=1000,
        pattern=pattern(r"^https?://[^\s\x00-\x1f\x7f<>\"]+$", "a web address (https://...) without spaces"),
    ),
]


class Creator(FrozenModel):
    """Who answers for a dataset: the name of an organization or a person, maybe with a web address."""

    name: _Line
    kind: Literal["organization", "person"] = "organization"
    url: WebAddress | None = None
