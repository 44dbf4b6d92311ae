"""Templates in the job of a schedule: text with fields in braces, filled in from the logical date.

``{date}`` is the logical date in the schedule's time zone, as ``2026-03-01``; after a colon, a format of ``strftime``
may follow: ``{date:%Y%m%d-%H%M}``. ``{schedule}`` is the schedule's name. Doubled braces are literal braces. Text
that contained a field and is a whole number afterwards becomes a number, where the job takes one:
``count: "{date:%d}000"``.
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
_DIRECTIVES = "YymdHMSjUVGuz%"  # only those that do not depend on the locale
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_TEXT_FIELDS = frozenset({"bundle", "channel", "destination", "name", "tenant", "dtype"})


def fill_templates(fields: Mapping[str, Any], *, schedule: str, date: datetime) -> dict[str, Any]:
    """``fields`` with all their templates filled in, at any depth. Raises ``SpecError`` naming the field."""
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
    except ValueError as error:
        raise SpecError(where, "text with fields such as {date}", f"{short_repr(value)} ({error})") from error
    filled = "".join(
        literal + _field_text(name, form, conversion, where, schedule, date)
        for literal, name, form, conversion in parts
    )
    number = not text and any(name is not None for _, name, _, _ in parts) and _NUMBER.fullmatch(filled)
    return int(filled) if number else filled


def _field_text(
    name: str | None, form: str | None, conversion: str | None, where: str, schedule: str, date: datetime
) -> str:
    if name is None:
        return ""
    if conversion or name not in TEMPLATE_FIELDS:
        known = ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
        got = f"{{{name}{'!' + conversion if conversion else ''}}}"
        raise SpecError(where, f"one of the fields {known}", short_repr(got), "double the braces for literal ones")
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
