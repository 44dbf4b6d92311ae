"""Which settings an S3 service of another dialect needs: found by trying those that could help."""

from __future__ import annotations

import secrets
from itertools import combinations
from typing import Any

from generator.errors import AccessDenied, ClockSkewed, CredentialsExpired, LatentmillError, StoreError
from generator.store import S3Settings, Store, open_store
from workers.settings import ENV_PREFIX, Settings

RIGHTS_HINT = "give this user the rights to list the bucket, and to get, put and delete objects below the root"
CONDITIONS_HINT = "use a service, or a version of it, with atomic conditional writes (If-None-Match and If-Match)"

_WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed")


def remedy(root: str, settings: Settings, away: LatentmillError) -> str:
    """How to correct a write below ``root`` that failed with ``away``."""
    if isinstance(away, ClockSkewed | CredentialsExpired):
        return away.hint
    if root.startswith("s3://") and _was_answered(away, settings.s3):
        for changes in _alternatives(settings.s3):
            if _accepts_writes(open_store(root, settings.s3.model_copy(update=changes | {"max_attempts": 1}))):
                named = " and ".join(f"{ENV_PREFIX}S3_{name.upper()}={value}" for name, value in changes.items())
                return f"set {named}, with which this service accepts a write"
    if isinstance(away, AccessDenied) and away.expected != "credentials":
        return RIGHTS_HINT
    return away.hint or "check the endpoint and the network"


def replacement_remedy(root: str, settings: Settings) -> str:
    """How to correct a service that refuses a replacement of the version that is there."""
    other = "bare" if settings.s3_if_match == "quoted" else "quoted"
    if root.startswith("s3://"):
        store = open_store(root, settings.s3.model_copy(update={"if_match": other})).at("doctor")
        key = f"{secrets.token_hex(8)}-replacement"
        try:
            store.replace(key, b"two", store.put(key, b"one"))
            return f"set {ENV_PREFIX}S3_IF_MATCH={other}, with which this service accepts a replacement"
        except StoreError:
            pass
        finally:
            _remove(store, key)
    return CONDITIONS_HINT


def _was_answered(away: LatentmillError, s3: S3Settings) -> bool:
    """Whether a service refused a request, and not for its keys.

    A host name of virtual style may be one that nobody has.
    """
    if any(code in away.got for code in _WRONG_KEYS):
        return False
    return "HTTP " in away.got or away.expected == "a bucket" or s3.addressing_style == "virtual"


def _alternatives(s3: S3Settings) -> list[dict[str, Any]]:
    """Settings that could help, one of them or two, the fewest and most harmless first."""
    options: dict[str, list[str]] = {
        "addressing_style": ["path" if s3.addressing_style == "virtual" else "virtual"],
        "checksums": [value for value in ("md5", "when_required") if value != s3.checksums],
        "encryption": ["aws:kms", "AES256"] if s3.encryption is None else [],
    }
    singles = [{name: value} for name, values in options.items() for value in values]
    pairs = [one | other for one, other in combinations(singles, 2) if one.keys() != other.keys()]
    return singles + pairs


def _accepts_writes(store: Store) -> bool:
    below, key = store.at("doctor"), f"{secrets.token_hex(8)}-dialect"
    try:
        below.put(key, b"x")
    except LatentmillError:
        return False
    _remove(below, key)
    return True


def _remove(store: Store, key: str) -> None:
    try:
        store.delete(key)
    except StoreError:  # a finding of the permissions
        return
