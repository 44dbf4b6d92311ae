"""OpenLineage run events as documents (OpenLineage 2-0-2): a START and a COMPLETE or FAIL for each attempt of a run.

Standard facets: ``nominalTime`` of the run (its logical date), ``version`` of bundle and build, ``errorMessage``.
Facets of our own on the build: ``latentmill_gates`` (each gate, whether it holds, why) and ``latentmill_promotion``.
Datasets are named as https://openlineage.io/docs/spec/naming says.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from generator.curation.gates import Verdict
from generator.store import is_remote

PRODUCER = "urn:latentmill"
EventType = Literal["START", "COMPLETE", "FAIL"]
_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"
_FACET_SCHEMAS = {
    "nominalTime": f"{_FACETS}/1-0-1/NominalTimeRunFacet.json#/$defs/NominalTimeRunFacet",
    "errorMessage": f"{_FACETS}/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
    "version": f"{_FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
}
_BASE_FACET = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/BaseFacet"  # of facets of our own
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)


@dataclass(frozen=True)
class RunFacts:
    """One attempt of a scheduled run.

    ``name``: unique among all attempts; ``dataset``, ``bundle_url``: URLs; ``recipe``, ``bundle``: digests. All but the
    first three are empty where no job could be resolved.
    """

    name: str
    schedule: str
    logical_date: datetime
    dataset: str = ""
    recipe: str = ""
    bundle: str = ""
    bundle_url: str = ""


def event_document(
    kind: EventType,
    run: RunFacts,
    at: datetime,
    *,
    verdict: Verdict | None = None,
    promotion: str = "",
    reason: str = "",
) -> dict[str, Any]:
    """The event as plain JSON. ``promotion``: ``promoted``, ``kept`` or ``refused``; ``reason``: in words, why."""
    facets = {"nominalTime": _facet("nominalTime", nominalStartTime=_iso(run.logical_date))}
    if kind == "FAIL":
        facets["errorMessage"] = _facet("errorMessage", message=reason or "failed", programmingLanguage="PYTHON")
    inputs = [_dataset(run.bundle_url, {"version": _version(run.bundle)})] if run.bundle_url else []
    outputs = [_dataset(run.dataset, _build_facets(run, verdict, promotion, reason))] if run.dataset else []
    return {
        "eventType": kind,
        "eventTime": _iso(at),
        "producer": PRODUCER,
        "schemaURL": _SCHEMA,
        "run": {"runId": str(uuid.uuid5(_NAMESPACE, run.name)), "facets": facets},
        "job": {"namespace": "latentmill", "name": run.schedule},
        "inputs": inputs,
        "outputs": outputs,
    }


def _build_facets(run: RunFacts, verdict: Verdict | None, promotion: str, reason: str) -> dict[str, Any]:
    facets = {"version": _version(run.recipe)}
    if verdict is not None:
        checks = [{"gate": each.gate, "holds": each.holds, "words": each.words} for each in verdict.checks]
        facets["latentmill_gates"] = _facet("gates", holds=verdict.holds, checks=checks)
    if promotion:
        facets["latentmill_promotion"] = _facet("promotion", state=promotion, reason=reason)
    return facets


def _version(digest: str) -> dict[str, Any]:
    return _facet("version", datasetVersion=digest)


def _facet(name: str, **fields: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": _FACET_SCHEMAS.get(name, _BASE_FACET), **fields}


def _dataset(url: str, facets: dict[str, Any]) -> dict[str, Any]:
    parts = urlsplit(url)
    remote = is_remote(url)
    name = parts.path.lstrip("/") if remote else parts.path
    return {
        "namespace": f"{parts.scheme}://{parts.netloc}" if remote else "file",
        "name": name or "/",
        "facets": facets,
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
