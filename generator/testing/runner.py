"""Run the contract and the state machine without pytest: one result for each check."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from unittest import SkipTest

from hypothesis.configuration import set_hypothesis_home_dir

from generator.errors import StoreError
from generator.store import Store
from generator.testing.contract import StoreContract
from generator.testing.expectations import Violation
from generator.testing.states import check_states
from generator.testing.states_run import SHRINK_SECONDS, StatesViolation
from generator.testing.temporary_prefix import remove_all

Part = Literal["contract", "states"]
PARTS: tuple[Part, ...] = ("contract", "states")
_CHILDREN_CHECK = "test_a_directory_without_objects_is_not_a_child"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    part: Part
    check: str  # the promise, in words
    status: Literal["ok", "failed", "skipped"]
    found: str  # what the store did, or why the check was skipped; may be empty for ok
    seconds: float
    steps: tuple[str, ...] = ()  # the operations of a failed sequence

    def facts(self) -> dict[str, Any]:
        """The result as plain JSON."""
        facts = {"part": self.part, "check": self.check, "status": self.status, "found": self.found}
        return facts | {"seconds": round(self.seconds, 3)} | ({"steps": list(self.steps)} if self.steps else {})


def run_checks(
    store: Store,
    open_url: Callable[[str], Store],
    *,
    parts: Sequence[Part] = PARTS,
    examples: int = 25,
    shrink_seconds: float = SHRINK_SECONDS,
) -> Iterator[CheckResult]:
    """Run ``parts`` on an empty ``store``; ``open_url`` opens a store of its kind. Yields each result as it is there.

    If the contract has found children without objects, the state machine does not compare these again, so that it can
    find other faults.
    """
    failed = set[str]()
    if "contract" in parts:
        for name, result in _run_contract(store, open_url):
            failed |= {name} if result.status == "failed" else set()
            yield result
    if "states" in parts:
        yield _run_states(store.at("states"), examples, shrink_seconds, failed)


def _run_contract(store: Store, open_url: Callable[[str], Store]) -> Iterator[tuple[str, CheckResult]]:
    class Contract(StoreContract):
        def open(self, url: str) -> Store:
            return open_url(url)

    contract = Contract()
    for number, name in enumerate(_check_names()):
        below = store.at(f"check-{number:02d}")
        yield name, _run_check("contract", _title(name), partial(getattr(contract, name), below))
        _clear(below)


def _run_states(store: Store, examples: int, shrink_seconds: float, failed: set[str]) -> CheckResult:
    title = f"{examples} random sequences of operations, with interrupted writers"

    def run() -> str:
        exact = _CHILDREN_CHECK not in failed
        counts = check_states(store, examples=examples, exact_children=exact, shrink_seconds=shrink_seconds)
        return _counts_text(counts, ["children"] * (not exact))

    with TemporaryDirectory() as home:  # by default Hypothesis creates .hypothesis in the working directory
        set_hypothesis_home_dir(home)
        try:
            return _run_check("states", title, run)
        finally:
            set_hypothesis_home_dir(None)
            _clear(store)


def _run_check(part: Part, title: str, check: Callable[[], object]) -> CheckResult:
    began = time.monotonic()
    status: Literal["ok", "failed", "skipped"] = "ok"
    found, steps = "", tuple[str, ...]()
    try:
        found = str(check() or "")
    except SkipTest as skipped:
        status, found = "skipped", str(skipped)
    except StatesViolation as violation:
        status, found, steps = "failed", violation.found, violation.steps
    except Violation as violation:
        status, found = "failed", str(violation)
    except Exception as raised:
        status, found = "failed", f"{_call_of(raised)} raised {type(raised).__name__}: {raised}"
    return CheckResult(part, title, status, found, time.monotonic() - began, steps)


def _check_names() -> list[str]:
    """The tests of the contract, in the order of its classes and their definitions."""
    homes = [*StoreContract.__mro__[1:], StoreContract]
    return [name for home in homes for name in vars(home) if name.startswith("test_")]


def _title(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _call_of(raised: Exception) -> str:
    """The source line of the check in which the error was raised."""
    here = Path(__file__).parent
    frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if Path(frame.filename).parent == here]
    lines = [frame.line.partition("  #")[0] for frame in frames if frame.line]
    return lines[-1] if lines else "a check"


def _counts_text(counts: dict[str, int], not_compared: list[str]) -> str:
    killed = counts.get("writers killed", 0)
    text = f"{counts.get('steps', 0)} operations"
    if killed:
        text += f", {killed} writers killed in the middle of a write"
    if lost := counts.get("answers lost", 0):
        text += f", {lost} answers lost"
    if not_compared:
        text += f"; not compared, because it failed above: {' and '.join(not_compared)}"
    return text


def _clear(store: Store) -> None:
    try:
        remove_all(store)
    except StoreError:  # temporary_prefix removes the rest, and reports what it cannot remove
        return
