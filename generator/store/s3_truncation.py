"""Detects truncated S3 responses and turns them into errors that botocore retries.

A connection that closes in the middle of a response is not an error for botocore: it accepts the headers that arrived
as complete, takes a truncated list of objects for a short one or for bad XML, and waits for the rest of a
``100 Continue`` in an endless loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from botocore.exceptions import ConnectionClosedError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# Responses without a body whose length could be checked, and the fields that they have on success.
_REQUIRED_FIELDS = {"HeadObject": ("ETag", "LastModified", "ContentLength"), "PutObject": ("ETag",)}
_MD5 = re.compile(r"[0-9a-f]{32}")
_PAUSE = 0.2  # seconds before a retry of such a request


def retry_truncated_answers(client: S3Client, max_attempts: int) -> S3Client:
    """Make ``client`` retry requests with truncated responses, up to ``max_attempts`` in all."""
    events, endpoint = client.meta.events, client._endpoint  # type: ignore[attr-defined]
    endpoint.http_session = _LengthCheckedSession(endpoint.http_session)
    events.register_last("before-call.s3", _drop_expect_header)

    for operation, facts in _REQUIRED_FIELDS.items():
        events.register(f"needs-retry.s3.{operation}", _retry_handler(facts, max_attempts))  # type: ignore[arg-type]
    return client


def _retry_handler(facts: tuple[str, ...], max_attempts: int) -> Callable[..., float | None]:
    """A handler that retries a request while its successful response lacks one of the fields ``facts``."""

    def pause(response: Any, attempts: int, **_: object) -> float | None:
        if response is None or response[0].status_code != 200:
            return None
        if all(fact in response[1] for fact in facts):
            return None
        if attempts >= max_attempts:
            raise ConnectionClosedError(endpoint_url=response[0].url)
        return _PAUSE

    return pause


@final
class _LengthCheckedSession:
    """botocore's HTTP session; raises ``ConnectionClosedError`` for a response that is shorter than its headers say."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        answer = self._session.send(request)
        if not _is_complete(answer, bodiless=request.method == "HEAD", read=not request.stream_output):
            answer.raw.close()
            raise ConnectionClosedError(endpoint_url=request.url)
        return answer

    def close(self) -> None:
        self._session.close()


def _is_complete(answer: Any, *, bodiless: bool, read: bool) -> bool:
    """Whether a successful response has complete headers and, if its body was ``read``, a body of the stated length."""
    headers = answer.headers
    if not 200 <= answer.status_code < 300 or answer.status_code == 204:
        return True
    if not _is_whole_etag(headers) or not headers.get("last-modified", "GMT").endswith("GMT"):
        return False
    length = headers.get("content-length")
    if bodiless or not length:  # a chunked body marks its own end; without either, the end is unknown
        return bodiless or headers.get("transfer-encoding") is not None
    return not read or int(length) == len(answer.content)


def _is_whole_etag(headers: Any) -> bool:
    """Whether the etag, if there is one, has arrived to its end. Some services send it without quotes."""
    etag = headers.get("etag")
    if etag is None:
        return True
    value = etag.removeprefix("W/")
    if value.startswith('"'):
        return len(value) > 1 and value.endswith('"')
    # Only the last header that arrived can be a truncated one; the length of an MD5 is known.
    return bool(value) and (list(headers)[-1].lower() != "etag" or _MD5.fullmatch(value) is not None)


def _drop_expect_header(params: dict[str, Any], **_: object) -> None:
    """Send a body without waiting for ``100 Continue``."""
    params["headers"].pop("Expect", None)
