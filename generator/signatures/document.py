"""The signature as an object: ``signatures/<id>.json``, where ``id`` begins the digest of the public key."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import StringConstraints

from generator.signatures.keys import PublicKey
from generator.spec.canonical import FrozenModel, canonical_json
from generator.spec.patterns import pattern
from generator.spec.recipe import Digest

SIGNATURES_PREFIX = "signatures/"
MAX_SIGNATURE_BYTES = 64 * 1024
Subject = Literal["manifest.json", "bundle.json"]
Base64Signature = Annotated[
    str, StringConstraints(pattern=pattern(r"^[A-Za-z0-9+/]{86}==$", "64 bytes in base64"))
]  # of 64 bytes


class Signature(FrozenModel):
    """A signature by ``key`` (the digest of its 32 public bytes) over ``subject``, whose bytes have ``digest``."""

    kind: Literal["latentmill.signature"] = "latentmill.signature"
    signature_version: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key: Digest
    subject: Subject
    digest: Digest
    signature: Base64Signature

    @property
    def signature_bytes(self) -> bytes:
        return base64.b64decode(self.signature)


def signed_message(subject: Subject, digest: str) -> bytes:
    """The bytes that are signed: they say what is signed, so that no signature passes for one of something else."""
    return canonical_json({"kind": "latentmill.signed", "signature_version": 1, "subject": subject, "digest": digest})


def signature_key(key: PublicKey) -> str:
    """Where the signature by ``key`` lies, below the prefix of the build or bundle."""
    return f"{SIGNATURES_PREFIX}{key.id.removeprefix('sha256:')[:32]}.json"
