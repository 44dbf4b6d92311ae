"""Durations on the command line: ``90s``, ``20m``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Any

import click

_PATTERN = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = (3600.0, 60.0, 1.0)
_LONGEST = 30 * 24 * 3600.0


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, as a float, from hours, minutes and seconds in this order; above 0, at most 30 days."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``value``: the text, or seconds (a default)."""
        if isinstance(value, float):
            return value
        match = _PATTERN.fullmatch(str(value).strip())
        parts = match.groups() if match else (None, None, None)
        total = sum(float(part) * unit for part, unit in zip(parts, _SECONDS, strict=True) if part)
        if not 0.0 < total <= _LONGEST:
            self.fail(f"expected a duration such as 90s, 20m or 1h30m, got {value!r}", param, ctx)
        return total
