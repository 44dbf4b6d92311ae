"""Patterns of strings, each with its words: error messages show the words, never the pattern."""

from __future__ import annotations

_WORDS: dict[str, str] = {}


def pattern(regex: str, words: str) -> str:
    """``regex``, for a field of a model. ``words`` describe it after "expected": "20 digits of 0-9 and a-f"."""
    assert _WORDS.setdefault(regex, words) == words, regex
    return regex


def words_of(regex: str) -> str | None:
    """What ``pattern`` was told about ``regex``; ``None`` for a pattern without words."""
    return _WORDS.get(regex)
