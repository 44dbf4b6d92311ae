"""Values of a job that differ from date to date: text with fields in braces, filled in from the logical date.

``{date}`` is the logical date in the schedule's time zone, as ``2026-03-01``; after a colon stand the directives of
``strftime``: ``{date:%Y%m%d-%H%M}``. ``{schedule}`` is the schedule's name. Braces are doubled to mean themselves. Text
that held a field and reads as a whole number then is a number, where the job takes one: ``count: "{date:%d}000"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from string import Formatter
from typing import Any

from generator.errors import SpecError
from generator.spec.canonical import short_repr

TEMPLATE_FIELDS = ("date", "schedule")
_DIRECTIVES = "YymdHMSjUVGuz%"  # none that depends on the language of the machine
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_TEXT_FIELDS = frozenset({"bundle", "channel", "destination", "name", "tenant", "dtype"})


def fill_templates(fields: Mapping[str, Any], *, schedule: str, date: datetime) -> dict[str, Any]:
    """``fields`` with every template in them filled in, at any depth. Raises ``SpecError`` naming the field."""
    return {name: _fill(value, name, schedule, date, name in _TEXT_FIELDS) for name, value in fields.items()}


def _fill(value: Any, where: str, schedule: str, date: datetime, text: bool) -> Any:
    if isinstance(value, str):
        return _fill_text(value, where, schedule, date, text)
    if isinstance(value, Mapping):
        return {name: _fill(inner, f"{where}.{name}", schedule, date, False) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fill(inner, f"{where}.{at}", schedule, date, False) for at, inner in enumerate(value)]
    return value


def _fill_text(value: str, where: str, schedule: str, date: datetime, text: bool) -> str | int:
    if "{" not in value and "}" not in value:
        return value
    try:
        parts = list(Formatter().parse(value))
    except ValueError as broken:
        raise SpecError(where, "text with fields such as {date}", f"{short_repr(value)} ({broken})") from broken
    made = "".join(
        literal + _field_text(name, form, turn, where, schedule, date) for literal, name, form, turn in parts
    )
    number = not text and any(name is not None for _, name, _, _ in parts) and _NUMBER.fullmatch(made)
    return int(made) if number else made


def _field_text(name: str | None, form: str | None, turn: str | None, where: str, schedule: str, date: datetime) -> str:
    if name is None:
        return ""
    if turn or name not in TEMPLATE_FIELDS:
        known = ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
        got = f"{{{name}{'!' + turn if turn else ''}}}"
        raise SpecError(where, f"one of the fields {known}", short_repr(got), "double the braces to mean braces")
    if name == "schedule":
        if form:
            raise SpecError(where, "{schedule} without a format", short_repr(f"{{schedule:{form}}}"))
        return schedule
    form = form or "%Y-%m-%d"
    unknown = [each for each in re.findall(r"%(.?)", form, re.DOTALL) if each == "" or each not in _DIRECTIVES]
    if unknown or "{" in form:
        allowed = " ".join(f"%{each}" for each in _DIRECTIVES)
        raise SpecError(where, f"a format of {allowed}", short_repr(f"{{date:{form}}}"))
    return date.strftime(form)
