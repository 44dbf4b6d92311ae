"""Ed25519 keys in PEM files: PKCS #8 for private keys (RFC 8410), SubjectPublicKeyInfo for public ones.

``openssl genpkey -algorithm ed25519`` makes such keys too. The only file that imports ``cryptography``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from generator.errors import KeyFileError
from generator.spec.canonical import digest_of

MAX_KEY_BYTES = 64 * 1024
_PRIVATE = "an unencrypted Ed25519 private key in PEM (PKCS #8)"
_PUBLIC = "an Ed25519 public key in PEM (SubjectPublicKeyInfo)"


@dataclass(frozen=True)
class PublicKey:
    """A public key: 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """The digest of the 32 bytes: the name of the key everywhere."""
        return digest_of(self.raw)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) was made over ``message`` with the private key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A private key. ``repr`` shows nothing of it."""

    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.public.id})"

    @property
    def public(self) -> PublicKey:
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return PublicKey(raw)

    def sign(self, message: bytes) -> bytes:
        """64 bytes, a pure function of key and ``message`` (RFC 8032, 5.1.6)."""
        return self._key.sign(message)


def make_key(path: Path) -> PublicKey:
    """Write a new private key to ``path`` (mode 0600) and its public key to ``<path>.pub``.

    Raises ``KeyFileError`` if one of them exists already or cannot be written.
    """
    key, public_path = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    for each in (path, public_path):
        if each.exists() or each.is_symlink():
            raise KeyFileError("make-key", "a path that does not exist yet", each, "keys are never overwritten")
    encoding, private_format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write_new(path, key.private_bytes(encoding, private_format, serialization.NoEncryption()), 0o600)
    public_format = serialization.PublicFormat.SubjectPublicKeyInfo
    _write_new(public_path, key.public_key().public_bytes(encoding, public_format), 0o644)
    return PrivateKey(key).public


def read_private_key(path: Path, field: str = "key") -> PrivateKey:
    """The private key in a PEM file. Raises ``KeyFileError`` naming ``field``; no message shows the file's content."""
    data = _read(path, field, _PRIVATE)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as encrypted:
        raise KeyFileError(field, _PRIVATE, f"an encrypted key in {path}") from encrypted
    except (ValueError, UnsupportedAlgorithm) as broken:
        got = f"a public key in {path}" if b"PUBLIC KEY" in data else f"something else in {path}"
        raise KeyFileError(field, _PRIVATE, got) from broken
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(field, _PRIVATE, f"a key of another kind in {path}")
    return PrivateKey(key)


def read_public_key(path: Path, field: str = "key") -> PublicKey:
    """The public key in a PEM file. Raises ``KeyFileError`` naming ``field``."""
    data = _read(path, field, _PUBLIC)
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as broken:
        got = f"a private key in {path}" if b"PRIVATE KEY" in data else f"something else in {path}"
        raise KeyFileError(field, _PUBLIC, got) from broken
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(field, _PUBLIC, f"a key of another kind in {path}")
    return PublicKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def _read(path: Path, field: str, expected: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as missing:
        raise KeyFileError(field, expected, f"{path} ({missing.strerror})") from missing
    if len(data) > MAX_KEY_BYTES:
        raise KeyFileError(field, f"at most {MAX_KEY_BYTES} bytes", f"more in {path}")
    return data


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as failed:
        raise KeyFileError("make-key", "a path that can be written", f"{path} ({failed.strerror})") from failed
