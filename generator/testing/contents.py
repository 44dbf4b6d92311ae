"""Contents of test objects: a function of two numbers, the same in every process."""

from __future__ import annotations

from hashlib import shake_128


def content_of(number: int, size: int) -> bytes:
    """``size`` bytes; contents of two numbers differ in every part of 64 bytes."""
    block = shake_128(b"%d" % number).digest(64)
    return (block * (size // 64 + 1))[:size]
