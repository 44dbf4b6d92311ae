"""The S3 rights of each role in docs/security.md, and a proxy before S3 that refuses everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults.s3_proxy import Fault, Request, S3Proxy
from tests.support.servers import S3Server

SECURITY_PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_NEEDED = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "delete"}


class RolePermissions:
    """The rights of one role, for a root and a destination at these URLs. Any bucket may be listed."""

    def __init__(self, role: str, root: str, destination: str) -> None:
        heads, *rows = re.findall(r"^\| (.+?) \|$", SECURITY_PAGE.read_text().partition("## S3:")[2], re.MULTILINE)
        column = [head.strip() for head in heads.split("|")].index(role)
        self._allowed: list[tuple[str, set[str]]] = []
        for row in rows:
            cells = [cell.strip() for cell in row.split("|")]
            if cells[0].startswith("`<"):
                place = cells[0].strip("`").replace("<root>", root).replace("<destination>", destination)
                self._allowed.append((place, set(cells[column].split(", ")) - {""}))
        self.refused: list[str] = []

    def __call__(self, request: Request) -> Fault | None:
        """The fault plan of an ``S3Proxy``: FORBIDDEN for a request without the right, else ``None``."""
        where = urlsplit(request.path)
        bucket, _, key = unquote(where.path).lstrip("/").partition("/")
        if not key:
            allowed = request.method == "HEAD" or (request.method == "GET" and "list-type" in parse_qs(where.query))
        else:
            url, needed = f"s3://{bucket}/{key}", _NEEDED.get(request.method, request.method)
            allowed = any(needed in rights and fnmatchcase(url, place) for place, rights in self._allowed)
        if allowed:
            return None
        self.refused.append(f"{request.method} {request.path}")
        return Fault.FORBIDDEN


@contextmanager
def restricted_s3(server: S3Server, role: str, root: str, destination: str) -> Iterator[tuple[str, RolePermissions]]:
    """The URL of an S3 that grants ``role`` only the rights of the page, and those rights with the refused requests."""
    with S3Proxy(server.port) as proxy:
        proxy.plan = rights = RolePermissions(role, root, destination)
        yield proxy.endpoint_url, rights
