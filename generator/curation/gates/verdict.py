"""The verdict of the gates on a build: stored beside the build, outside the commit, passed or not."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime

from generator.curation.gates.config import Gates
from generator.errors import DatasetError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.recipe import BuildId
from generator.store import pointers
from generator.store.base import Store

VERDICT_KEY = "reports/verdict.json"
MAX_VERDICT_BYTES = 4 * 2**20


class Check(FrozenModel):
    """The result of one gate. ``holds``: passed; ``None``: it was not measured and did not have to be."""

    gate: str
    holds: bool | None
    measured: float | None = None
    threshold: float | None = None
    words: str


class Verdict(FrozenModel):
    """The content of ``reports/verdict.json``. ``against``: the promoted build that drift was measured against.

    ``reasons``: why the build must not be promoted; empty if ``holds``.
    """

    kind: Literal["latentmill.verdict"] = "latentmill.verdict"
    verdict_version: Literal[1] = 1
    dataset: str
    build: BuildId
    logical_date: AwareDatetime | None
    against: BuildId | None
    holds: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    looked_at: int  # images
    gates: Gates
    judged: AwareDatetime


def read_verdict(build: Store) -> Verdict | None:
    """The verdict on the build; ``None`` without one. ``build`` is rooted at its prefix. Raises ``DatasetError``."""
    data = pointers.read(build, VERDICT_KEY, MAX_VERDICT_BYTES)
    if data is None:
        return None
    field = f"{build.url}/{VERDICT_KEY}"
    return validate(Verdict, read_json(data, field=field, error=DatasetError), field=field, error=DatasetError)
