"""Tokens: ``lm_<key id>_<secret>``. A store holds only the sha256 of a token, whose secret has 256 random bits."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

TOKEN_PREFIX = "lm_"
MAX_TOKEN_LENGTH = 100
_TOKEN = re.compile(r"lm_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


def new_token() -> tuple[str, str]:
    """A new key id and its token."""
    key_id = secrets.token_hex(8)
    return key_id, f"{TOKEN_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(token: str) -> str | None:
    """The id of the key that ``token`` belongs to; ``None`` for text that is no token."""
    found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
    return found[1] if found else None


def token_digest(token: str) -> str:
    """What the store holds of a token."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def is_token_of(token: str, digest: str) -> bool:
    """Whether ``digest`` is that of ``token``, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(token_digest(token), digest)


def csrf_value(token: str) -> str:
    """What forms and scripts of a session send back, so that other sites cannot act for it: it follows from the token,
    and the token cannot be found from it."""
    return hmac.new(token.encode(), b"latentmill csrf", hashlib.sha256).hexdigest()
