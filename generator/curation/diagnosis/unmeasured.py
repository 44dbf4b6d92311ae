"""What a measure gives where it cannot be taken."""

from __future__ import annotations

from typing import Literal

from generator.spec.canonical import FrozenModel


class Unmeasured(FrozenModel):
    """Not measurable, and why, in a few words for people."""

    measured: Literal[False] = False
    why: str
