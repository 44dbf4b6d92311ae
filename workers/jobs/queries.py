"""What workers are asked: a preview of a spec, refused or stored images made again, a draft resolved that needs torch.

The asking side imports no torch; ``workers.worker.query_handler`` answers.
"""

from __future__ import annotations

import threading
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

import generator.errors as errors
from generator.curation.diagnosis.report import DiagnosisReport, PictureName
from generator.errors import LatentmillError, QuotaExceeded, WorkerUnavailable
from generator.spec.canonical import FrozenModel, GrowingModel, Later, validate
from generator.spec.recipe import Digest, JobSpec, Name
from workers.jobs.pool import Pool
from workers.jobs.preview import MAX_PREVIEW, Base64Bytes, Preview
from workers.jobs.tickets import send_ticket

MAX_EXPLAINED = 32  # refused draws of a sample
PREVIEW_SECONDS = 30.0
RESOLVE_SECONDS = 60.0
DIAGNOSIS_SECONDS = 600.0  # until a worker begins it
MAX_ASKING = 12  # of one process: each holds a thread of a server until its answer comes
MAX_UPLOADED_IMAGES = 2  # a draw refers to at most two


class PreviewQuestion(FrozenModel):
    """The first ``count`` images of ``spec``, whose bundle is in the store root."""

    kind: Literal["preview"] = "preview"
    spec: JobSpec
    count: int = Field(ge=1, le=MAX_PREVIEW)


class RemakeSample(FrozenModel):
    """A sample of a build: its index, the attempt (also one that was refused), its label (0 without labels)."""

    index: int = Field(ge=0)
    attempt: int = Field(ge=0)
    label: int = Field(ge=0)


class RemakeQuestion(FrozenModel):
    """Images of the build ``name`` at ``url`` again, without a filter."""

    kind: Literal["remake"] = "remake"
    url: str = Field(max_length=2000)
    name: Name
    samples: tuple[RemakeSample, ...] = Field(min_length=1, max_length=MAX_PREVIEW)


class ExplainQuestion(FrozenModel):
    """The refused draws ``attempts`` of one sample of the build ``name`` at ``url``, again, with the reasons."""

    kind: Literal["explain"] = "explain"
    url: str = Field(max_length=2000)
    name: Name
    index: int = Field(ge=0)
    attempts: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1, max_length=MAX_EXPLAINED)
    label: int = Field(ge=0)


class RefusalReason(FrozenModel):
    """The filter that refused a draw; ``got`` and ``floor``: the number that it compared, where it compares one."""

    check: str
    got: float | None = None
    floor: float | None = None


class RefusedDraw(FrozenModel):
    """One attempt of a sample: its image file, its cluster, and why it was refused."""

    attempt: int
    cluster: int
    data: Base64Bytes
    reasons: tuple[RefusalReason, ...]


class RefusedDraws(FrozenModel):
    """The answer to an ``ExplainQuestion``, in its order."""

    draws: tuple[RefusedDraw, ...]


class ResolveQuestion(GrowingModel):
    """The job spec of a draft. ``images``: the files that the draft names, by that name. ``day``: of its publication,
    by default today (UTC)."""

    kind: Literal["resolve"] = "resolve"
    draft: dict[str, Any]
    images: dict[str, Base64Bytes] = Field(default_factory=dict, max_length=MAX_UPLOADED_IMAGES)
    day: Annotated[date | None, Later()] = None


class DiagnoseQuestion(FrozenModel):
    """Whether the codes of a bundle in the store root can be sampled. ``quick``: without flow, two-sample tests, round
    trip and t-SNE."""

    kind: Literal["diagnose"] = "diagnose"
    bundle: Digest
    quick: bool


Question = PreviewQuestion | RemakeQuestion | ExplainQuestion | ResolveQuestion | DiagnoseQuestion
AnyQuestion = Annotated[Question, Field(discriminator="kind")]
QUESTIONS: TypeAdapter[AnyQuestion] = TypeAdapter(AnyQuestion)


class RemadeImages(FrozenModel):
    """The image files of a ``RemakeQuestion``, in its order."""

    images: tuple[Base64Bytes, ...]


class Diagnosed(FrozenModel):
    """The answer to a ``DiagnoseQuestion``: the report, and its pictures, PNG files."""

    report: DiagnosisReport
    pictures: dict[PictureName, Base64Bytes]


def preview(pool: Pool, spec: JobSpec, count: int, seconds: float = PREVIEW_SECONDS) -> Preview:
    """The first ``count`` images of ``spec``. Raises ``WorkerUnavailable``, and what making them may raise."""
    return validate(Preview, _ask(pool, PreviewQuestion(spec=spec, count=count), seconds), **_ANSWER)


def remake(
    pool: Pool, url: str, name: str, samples: list[RemakeSample], seconds: float = PREVIEW_SECONDS
) -> list[bytes]:
    """Image files of the build at ``url`` made again from index and attempt, also of attempts that were refused.

    Raises ``WorkerUnavailable``, and what making them may raise.
    """
    question = RemakeQuestion(url=url, name=name, samples=tuple(samples))
    return list(validate(RemadeImages, _ask(pool, question, seconds), **_ANSWER).images)


def explain(
    pool: Pool,
    url: str,
    name: str,
    *,
    index: int,
    attempts: list[int],
    label: int,
    seconds: float = PREVIEW_SECONDS,
) -> list[RefusedDraw]:
    """Refused draws of a sample made again, at most ``MAX_EXPLAINED``, with the reasons. Raises as ``remake`` does."""
    question = ExplainQuestion(url=url, name=name, index=index, attempts=tuple(attempts), label=label)
    return list(validate(RefusedDraws, _ask(pool, question, seconds), **_ANSWER).draws)


def resolve(
    pool: Pool,
    draft: dict[str, Any],
    images: dict[str, bytes],
    seconds: float = RESOLVE_SECONDS,
    *,
    day: date | None = None,
) -> JobSpec:
    """The job spec of a draft whose draw needs an encoder or a map. Raises as ``remake`` does."""
    return validate(JobSpec, _ask(pool, ResolveQuestion(draft=draft, images=images, day=day), seconds), **_ANSWER)


def ask_diagnosis(pool: Pool, bundle: Digest, *, quick: bool) -> str:
    """Have a worker diagnose a bundle, which may take minutes; returns the id for ``take_diagnosis``.

    Raises ``WorkerUnavailable`` if there is no worker, ``QuotaExceeded``, ``BrokerUnavailable``.
    """
    return _send(pool, DiagnoseQuestion(bundle=bundle, quick=quick), DIAGNOSIS_SECONDS)


def take_diagnosis(pool: Pool, query: str) -> Diagnosed | None:
    """The answer to ``ask_diagnosis``, ``None`` until a worker has given it; it is given once, and kept for a minute.

    Raises what the worker answered, ``BrokerUnavailable``.
    """
    answer = pool.queries.take_answer(query)
    return None if answer is None else validate(Diagnosed, _result_of(answer), **_ANSWER)


def error_from(facts: dict[str, Any]) -> LatentmillError:
    """The error that ``LatentmillError.facts`` describes; one of an unknown type becomes ``WorkerUnavailable``."""
    kind = getattr(errors, str(facts.get("error")), None)
    found = kind if isinstance(kind, type) and issubclass(kind, LatentmillError) else WorkerUnavailable
    return found(*(str(facts.get(name, "")) for name in ("field", "expected", "got", "hint")))


_ANSWER: dict[str, Any] = {"field": "answer", "error": errors.SpecError}


_asking = threading.BoundedSemaphore(MAX_ASKING)


def _ask(pool: Pool, question: Question, seconds: float) -> Any:
    if not _asking.acquire(blocking=False):
        raise QuotaExceeded(
            "queries", f"at most {MAX_ASKING} at a time of one process", "more", "try again in a moment"
        )
    try:
        return _result_of(pool.queries.wait(_send(pool, question, seconds), seconds))
    finally:
        _asking.release()


def _send(pool: Pool, question: Question, seconds: float) -> str:
    if pool.ledger.slots() == 0:
        raise WorkerUnavailable("worker", "a worker", "none that has announced itself lately", "start one")
    query = pool.queries.ask(question.model_dump(mode="json"), seconds)
    send_ticket(pool.app, pool.settings)
    return query


def _result_of(answer: Any) -> Any:
    if "error" in answer:
        raise error_from(answer["error"])
    return answer["result"]
