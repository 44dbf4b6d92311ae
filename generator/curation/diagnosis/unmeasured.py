"""The value of a measure that could not be taken, with the reason."""

from __future__ import annotations

from typing import Literal

from generator.spec.canonical import FrozenModel


class Unmeasured(FrozenModel):
    """Not measured. ``why``: the reason, for people."""

    measured: Literal[False] = False
    why: str
