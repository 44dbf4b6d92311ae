"""One server over HTTP: requests with the key, and problem documents as the errors that they describe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, final

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

import generator.errors as errors
from generator.errors import AccessRefused, LatentmillError, ServerUnavailable, SpecError

MAX_ANSWER_BYTES = 64 * 2**20
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 60.0
_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/-]*)?")
_API = "/api/v1"
# Every request may be sent twice: submitting the same spec is the same job, and decisions are what they are.
_RETRIES = Retry(
    total=3,
    connect=3,
    read=2,
    redirect=0,
    other=0,
    backoff_factor=0.2,
    allowed_methods=None,
    respect_retry_after_header=False,  # the caller decides, by the error
)


@final
class HttpConnection:
    """Requests to one server. Every method raises the error that the answer describes, or ``ServerUnavailable``."""

    def __init__(self, url: str, token: str | None) -> None:
        """Raises ``SpecError`` for a URL that is none of a server."""
        if _URL.fullmatch(url) is None:
            raise SpecError(
                "server", "https://host or http://host:port", repr(url.partition("?")[0].rpartition("@")[2])[:100]
            )
        if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
            raise SpecError("token", "the token of a key, as latentmill keys add shows it", "other text")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = urllib3.PoolManager(retries=_RETRIES, timeout=Timeout(_CONNECT_SECONDS, _READ_SECONDS))

    def __repr__(self) -> str:
        return f"HttpConnection({self.url!r})"

    def get(self, path: str, query: dict[str, str] | None = None) -> Any:
        """The JSON of an answer."""
        return self._json(self._request("GET", path, fields=query))

    def exists(self, path: str) -> bool:
        """Whether the server has what ``path`` names."""
        try:
            self.get(path)
        except (errors.BundleMissing, errors.DatasetError):
            return False
        return True

    def post(self, path: str, document: Any = None) -> Any:
        """The JSON of the answer to a document (plain values); ``None`` sends no body."""
        body = None if document is None else json.dumps(document).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._json(self._request("POST", path, body=body, headers=headers))

    def upload(self, path: str, body: Iterable[bytes], size: int, content_type: str) -> Any:
        """The JSON of the answer to a body of ``size`` bytes. It is sent once: it cannot be begun again."""
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        return self._json(self._request("POST", path, body=body, headers=headers, retries=False))

    def _request(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
        try:
            return self._http.request(
                method,
                self.url + _API + path,
                headers=self._headers | (headers or {}),
                redirect=False,
                preload_content=False,
                **options,
            )
        except HTTPError as down:
            raise ServerUnavailable("server", f"an answer of {self.url}", _reason(down)) from down

    def _json(self, answer: Any) -> Any:
        try:
            data = answer.read(MAX_ANSWER_BYTES + 1, decode_content=True)
        except HTTPError as down:
            raise ServerUnavailable("server", f"an answer of {self.url}", _reason(down)) from down
        finally:
            answer.release_conn()
        if len(data) > MAX_ANSWER_BYTES:
            raise ServerUnavailable("server", f"an answer of at most {MAX_ANSWER_BYTES} bytes", "more")
        try:
            document = json.loads(data) if data else None
        except (ValueError, RecursionError):
            document = None if answer.status >= 400 else _NOTHING
        if answer.status >= 300 or document is _NOTHING:
            raise self._error(answer.status, document)
        return document

    def _error(self, status: int, document: Any) -> LatentmillError:
        if isinstance(document, dict) and "error" in document:
            kind = getattr(errors, str(document["error"]), None)
            texts = [str(document.get(name, "")) for name in ("field", "expected", "got", "hint")]
            if isinstance(kind, type) and issubclass(kind, LatentmillError):
                return kind(*texts)
        if status in (401, 403):
            return AccessRefused("key", f"a key that {self.url} accepts", f"an answer with status {status}")
        return ServerUnavailable("server", f"a server of latentmill at {self.url}", f"an answer with status {status}")


_NOTHING = object()


def _reason(down: HTTPError) -> str:
    cause: BaseException = getattr(down, "reason", None) or down
    return type(cause).__name__
