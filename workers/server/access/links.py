"""One-time links: a browser gets its session by a link that works once, without anybody typing a token.

``<root>/keys/links/<digest of the code>.json`` holds the token, added to a pad that follows from the link's code. The
code has 256 random bits and is used for one token, so the object tells nothing without it. The first use replaces the
object, by a conditional write: a second use, or one after the link has expired, finds nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, Field

from generator.errors import AccessRefused, AlreadyExists, Changed, ObjectMissing
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.patterns import pattern
from generator.store.base import Store
from generator.store.put_once import put_once

LINKS = "keys/links/"
MAX_LINK_BYTES = 4096
_CODE = re.compile(r"[A-Za-z0-9_-]{43}")


class Link(FrozenModel):
    """``sealed``: the token added to the pad, hexadecimal; empty once the link was used."""

    expires: AwareDatetime
    sealed: str = Field(default="", max_length=400, pattern=pattern(r"^[0-9a-f]*$", "digits of 0-9 and a-f"))


def add_link(root: Store, token: str, life: timedelta, now: datetime | None = None) -> str:
    """Store a link to a session with ``token``; returns its code."""
    code = secrets.token_urlsafe(32)
    link = Link(expires=(now or datetime.now(UTC)) + life, sealed=_add_pad(token.encode(), code).hex())
    put_once(root, _key(code), link.canonical())
    return code


def use_link(root: Store, code: str, now: datetime | None = None) -> str:
    """The token of the link, once. Raises ``AccessRefused``, ``StoreError``."""
    refused = AccessRefused("link", "a link that was not used and has not expired", "another one", "ask for a new one")
    if _CODE.fullmatch(code) is None:
        raise refused
    info = root.head(_key(code))
    if info is None:
        raise refused
    try:
        field = "link"
        document = read_json(root.get(_key(code), MAX_LINK_BYTES), field=field, error=AccessRefused)
        link = validate(Link, document, field=field, error=AccessRefused)
        if not link.sealed or link.expires <= (now or datetime.now(UTC)):
            raise refused
        root.replace(_key(code), link.model_copy(update={"sealed": ""}).canonical(), info.etag)
    except (Changed, AlreadyExists, ObjectMissing) as used:
        raise refused from used
    return _add_pad(bytes.fromhex(link.sealed), code).decode()


def _add_pad(data: bytes, code: str) -> bytes:
    pad = hashlib.shake_256(b"latentmill link pad " + code.encode()).digest(len(data))
    return bytes(left ^ right for left, right in zip(data, pad, strict=True))


def _key(code: str) -> str:
    return f"{LINKS}{hashlib.sha256(b'latentmill link name ' + code.encode()).hexdigest()}.json"
