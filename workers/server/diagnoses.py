"""Diagnoses of bundles: what a worker answered is kept beside the bundle, where workers themselves may not write."""

from __future__ import annotations

from generator.curation.diagnosis.report import MAX_PICTURE_BYTES, write_report
from generator.errors import IntegrityError
from generator.models.bundle import bundle_store
from generator.spec.recipe import Digest
from workers.jobs.queries import take_diagnosis
from workers.server.context import ServerContext


def take_and_keep(context: ServerContext, digest: Digest, query: str) -> bool:
    """Whether the answer to ``ask_diagnosis`` is there; it is kept beside the bundle then.

    Raises what the worker answered, ``IntegrityError`` for an answer about another bundle, ``BrokerUnavailable``,
    ``StoreError``.
    """
    found = take_diagnosis(context.pool, query)
    if found is None:
        return False
    if found.report.bundle != digest:
        raise IntegrityError("diagnosis", f"one of {digest}", found.report.bundle)
    pictures = {name: data for name, data in found.pictures.items() if len(data) <= MAX_PICTURE_BYTES}
    report = found.report.model_copy(update={"pictures": tuple(pictures)})
    write_report(bundle_store(context.root, digest), report, pictures)
    return True
