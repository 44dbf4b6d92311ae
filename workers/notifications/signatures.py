"""Symmetric signatures (``v1``) of messages, as in Standard Webhooks 1.0 (https://www.standardwebhooks.com).

A signature covers the message id, the time of sending and the body, so that a receiver can detect altered, old and
repeated messages. Secrets are in a YAML file, by name; a name may have several secrets during a rotation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generator.drafts import parse_mapping
from generator.errors import SettingsError, SpecError

SECRETS_VARIABLE = "LATENTMILL_WEBHOOK_SECRETS_FILE"
MAX_FILE_BYTES = 256 * 1024
_PREFIX = "whsec_"
_MIN_SECRET_BYTES, _MAX_SECRET_BYTES = 24, 64  # bytes of a secret
_MAX_SECRETS = 4  # of one name


def signature(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one ``v1,<base64>`` per secret. ``timestamp`` is in seconds since the epoch."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def read_secrets(path: Path | None, name: str) -> tuple[bytes, ...]:
    """The secrets of ``name``, in the order of the file. Raises ``SettingsError``, which never shows a secret."""
    if path is None:
        raise SettingsError(
            SECRETS_VARIABLE, f"a file with the secret {name!r}", "nothing", "a YAML file: `name: whsec_...`"
        )
    found = _read_file(path).get(name)
    if found is None:
        raise SettingsError(f"{SECRETS_VARIABLE}: {name}", "a secret of this name", f"none in {path}")
    encoded = found if isinstance(found, list) else [found]
    if not 1 <= len(encoded) <= _MAX_SECRETS:
        raise SettingsError(f"{SECRETS_VARIABLE}: {name}", f"1 .. {_MAX_SECRETS} secrets", f"{len(encoded)} in {path}")
    return tuple(_decode_secret(each, name) for each in encoded)


def _read_file(path: Path) -> dict[str, Any]:
    expected = "a YAML file that can be read: `name: whsec_...`"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError as wrong:
        raise SettingsError(SECRETS_VARIABLE, expected, f"{path} ({wrong.strerror})") from wrong
    try:
        return parse_mapping(data, where=str(path))
    except SpecError:
        raise SettingsError(
            SECRETS_VARIABLE, expected, f"something else at {path}"
        ) from None  # the parser's message may quote a secret


def _decode_secret(encoded: object, name: str) -> bytes:
    try:
        secret = base64.b64decode(str(encoded).removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if (
        not isinstance(encoded, str)
        or not encoded.startswith(_PREFIX)
        or not _MIN_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES
    ):
        expected = f"{_PREFIX} and {_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} random bytes in base64"
        hint = (
            "for example: python3 -c 'import base64, os; print(\"whsec_\" + base64.b64encode(os.urandom(32)).decode())'"
        )
        raise SettingsError(f"{SECRETS_VARIABLE}: {name}", expected, "something else", hint)
    return secret
