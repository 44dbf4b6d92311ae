"""The client's service over HTTP: a server of latentmill, for the tenant of a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, final
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from generator.errors import ServerUnavailable
from generator.models.bundle.listing import BundleSummary, newest_first
from generator.production.pipeline.run_costs import Pace
from workers.client.http_connection import HttpConnection
from workers.client.http_drafts import body_of
from workers.client.service import Service, Submittable
from workers.jobs.job_status import JobStatus
from workers.jobs.preview import Preview

M = TypeVar("M", bound=BaseModel)
_PAGE = 200


@final
class HttpClient(Service):
    """The service behind a server. A build's ``url`` is an s3:// URL, or ``place/name/builds/id`` on the server."""

    def __init__(self, url: str, token: str | None) -> None:
        """Connects on first use. Raises ``SpecError`` for a URL that is none of a server."""
        self._server = HttpConnection(url, token)

    def submit(self, spec: Submittable) -> JobStatus:
        return _status(self._server.post("/jobs", body_of(spec, self._server)))

    def status(self, job: str) -> JobStatus:
        return _status(self._server.get(f"/jobs/{_segment(job)}"))

    def pace(self, job: str) -> Pace | None:
        found = self._server.get(f"/jobs/{_segment(job)}/pace")
        return None if found is None else _parse(Pace, found)

    def pause(self, job: str) -> JobStatus:
        return _status(self._server.post(f"/jobs/{_segment(job)}/pause"))

    def cancel(self, job: str) -> JobStatus:
        return _status(self._server.post(f"/jobs/{_segment(job)}/cancel"))

    def resume(self, job: str, *, tenant: str, new_environment: bool) -> JobStatus:  # noqa: ARG002
        body: dict[str, Any] = {"new_environment": new_environment}
        if "/" not in job:
            return _status(self._server.post(f"/jobs/{_segment(job)}/resume", body))
        return _status(self._server.post("/jobs/resume", body | {"build": job}))

    def jobs(self, *, tenant: str | None) -> list[JobStatus]:
        found = [_status(each) for each in self._items("/jobs")]
        return [status for status in found if tenant in (None, status.tenant)]

    def preview(self, spec: Submittable, count: int, seconds: float) -> Preview:  # noqa: ARG002
        body = {"spec": body_of(spec, self._server), "count": count}
        return _parse(Preview, self._server.post("/preview", body))

    def clone(self, job: str, changes: dict[str, Any]) -> JobStatus:
        return _status(self._server.post(f"/jobs/{_segment(job)}/clone", changes))

    def bundles(self) -> list[BundleSummary]:
        found = {each.bundle: each for each in (_known(BundleSummary, item) for item in self._items("/bundles"))}
        return [found[digest] for digest in newest_first({each.bundle: each.created for each in found.values()})]

    def _items(self, path: str) -> Iterator[Any]:
        """The items of a list, page by page."""
        after = ""
        while True:
            page = self._server.get(path, {"limit": str(_PAGE)} | ({"after": after} if after else {}))
            yield from page["items"]
            after = page["next"] or ""
            if not after:
                return


def _status(document: Any) -> JobStatus:
    return _known(JobStatus, document)


def _known(model: type[M], document: Any) -> M:
    """``document``, which may have more fields than ``model`` has in this release, as ``model``."""
    fields = document if isinstance(document, dict) else {}
    return _parse(model, {name: value for name, value in fields.items() if name in model.model_fields})


def _parse(model: type[M], document: Any) -> M:
    try:
        return model.model_validate(document)
    except ValidationError as other:
        got = f"something else ({len(other.errors())} field(s))"
        raise ServerUnavailable("server", f"a {model.__name__} of this release of latentmill", got) from other


def _segment(text: str) -> str:
    return quote(text, safe="")
