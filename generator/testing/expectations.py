"""Assertions of the checks: a violation states the call, what the store did, and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from generator.errors import LatentmillError
from generator.store import ObjectInfo

_SHORT_BYTES = 24
_SHORT_TEXT = 300
_PATIENCE_SECONDS = 30.0


class Violation(AssertionError):
    """A store did not do what ``generator.store.base.Store`` promises; the text says what it did."""


class Refusal:
    """The error that ``expect_refusal`` caught."""

    error: LatentmillError


def expect(condition: bool, found: str) -> None:
    """Raises ``Violation(found)`` unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        raise Violation(found)


def expect_equal(call: str, got: object, expected: object) -> None:
    """Raises ``Violation`` unless ``call`` gave what was expected."""
    __tracebackhide__ = True
    if got != expected:
        raise Violation(f"{call} gave {describe(got)}, expected {describe(expected)}")


def expect_object(call: str, info: ObjectInfo | None) -> ObjectInfo:
    """``info`` of an object that exists. Raises ``Violation`` for ``None``."""
    __tracebackhide__ = True
    if info is None:
        raise Violation(f"{call} gave None, expected the metadata of an object")
    return info


@contextmanager
def expect_refusal(error: type[LatentmillError], call: str) -> Iterator[Refusal]:
    """Raises ``Violation`` unless the block raises ``error``; ``call`` describes the block."""
    __tracebackhide__ = True
    refusal = Refusal()
    try:
        yield refusal
    except error as raised:
        refusal.error = raised
        return
    except Exception as other:
        found = f"{call} raised {type(other).__name__} ({other}), expected {error.__name__}"
        raise Violation(found) from other
    raise Violation(f"{call} was not refused, expected {error.__name__}")


def within_patience(call: str, act: Callable[[], str]) -> str:
    """What ``act`` returns. Raises ``Violation`` if it fails, or has not returned after half a minute."""
    given: list[str | Exception] = []

    def attempt() -> None:
        try:
            given.append(act())
        except Exception as error:
            given.append(error)

    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    if not given:
        raise Violation(f"{call} did not return within {_PATIENCE_SECONDS:.0f} s")
    if isinstance(given[0], Exception):
        raise Violation(f"{call} raised {type(given[0]).__name__}: {given[0]}") from given[0]
    return given[0]


def describe(value: object) -> str:
    """``value`` for a message: long byte strings by their length, long lists by their beginning."""
    if isinstance(value, bytes) and len(value) > _SHORT_BYTES:
        return f"{len(value):,} bytes"
    text = repr(value)
    return text if len(text) <= _SHORT_TEXT else f"{text[:_SHORT_TEXT]}..."
