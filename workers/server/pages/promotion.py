"""Forms that promote a build: what they send, what they answer, and why gates refused it, in sentences."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Form
from starlette.requests import Request

from generator.curation.gates import Check, Verdict, read_verdict
from generator.errors import BuildConflict, LatentmillError, SpecError
from generator.store.base import Store
from workers.server import decisions
from workers.server.callers import Caller
from workers.server.context import context_of
from workers.server.problems import Problem

BuildField = Annotated[str, Form(max_length=100)]
Confirmed = Annotated[bool, Form(description="Readers will get the build")]
_REASONS = {
    "older": "a build of an earlier date than the one that readers get",
    "withdrawn": "a build that was rolled back",
}
_HINTS = {
    "older": "roll back to it on the page of its dataset",
    "withdrawn": "its form on the page of its dataset promotes it again",
}


def promote_by_form(
    request: Request,
    caller: Caller,
    dataset: str,
    build: str,
    *,
    logical_date: datetime | None,
    again: bool,
    confirmed: bool,
) -> None:
    """Promote a build whose form was confirmed. Raises ``Problem`` (422) if it was not, ``BuildConflict`` if readers
    keep another build, and what ``decisions.promote_build`` raises."""
    if not confirmed:
        raise Problem(422, SpecError("confirm", "the confirmation that readers will get this build", "none"))
    done = decisions.promote_build(context_of(request), caller, dataset, build, logical_date=logical_date, again=again)
    if not done.is_current:
        expected = "a build of no earlier date than the one that readers get, and not rolled back"
        raise BuildConflict("promote", expected, f"{build}, {_REASONS[done.outcome]}", _HINTS[done.outcome])


def verdict_of(build: Store) -> Verdict | None:
    """What the gates found; ``None`` if it cannot be read: retention may have deleted the build."""
    try:
        return read_verdict(build)
    except LatentmillError:
        return None


def refusals(verdict: Verdict | None) -> list[str]:
    """A sentence for each gate that refused a build; none without a verdict."""
    return [_sentence(check) for check in (verdict.checks if verdict else ()) if check.holds is False]


def _sentence(check: Check) -> str:
    if check.gate == "images" and check.measured is not None and check.threshold is not None:
        return f"The gate images asks for at least {check.threshold:,.0f} images; this build has {check.measured:,.0f}."
    return f"The gate {check.gate} does not hold: {check.words}."
