"""Sign a build or a bundle, and check that it is signed by a key that is trusted."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from generator.errors import DatasetError, IntegrityError, ObjectMissing
from generator.signatures.document import (
    MAX_SIGNATURE_BYTES,
    SIGNATURES_PREFIX,
    Signature,
    Subject,
    signature_key,
    signed_message,
)
from generator.signatures.keys import PrivateKey, PublicKey
from generator.spec.canonical import digest_of, read_json, validate
from generator.store.base import Store
from generator.store.put_once import put_once

MAX_COPIED = 100  # signatures of one bundle


def sign(store: Store, subject: Subject, data: bytes, key: PrivateKey) -> Signature:
    """Store the signature by ``key`` over ``data``, the bytes of ``subject`` in ``store``.

    Signing again changes nothing. Raises ``BuildConflict`` if another signature is stored under this key's name.
    """
    digest = digest_of(data)
    signed = key.sign(signed_message(subject, digest))
    signature = Signature(
        key=key.public.id, subject=subject, digest=digest, signature=base64.b64encode(signed).decode()
    )
    put_once(store, signature_key(key.public), signature.canonical())
    return signature


def check_signed(store: Store, subject: Subject, data: bytes, trusted: Sequence[PublicKey]) -> PublicKey:
    """The first of ``trusted`` that signed ``data``, the bytes of ``subject`` in ``store``.

    Only the signatures of trusted keys are read. Raises ``IntegrityError`` if none of them signed, or if what they
    signed is something else.
    """
    damage: IntegrityError | None = None
    for key in trusted:
        try:
            _check_signature(store, subject, data, key)
        except ObjectMissing:
            continue
        except IntegrityError as wrong:
            damage = damage or wrong
        else:
            return key
    if damage is not None:
        raise damage
    names = " or ".join(key.id for key in trusted) or "a trusted key, of which none is known"
    raise IntegrityError(f"{store.url}/{subject}", f"a signature by {names}", "none", "sign it: latentmill sign")


def copy_signatures(source: Store, target: Store) -> int:
    """Copy the signatures of a bundle to another place; returns how many. Existing ones are kept as they are."""
    copied = 0
    for info, _ in zip(source.list(SIGNATURES_PREFIX), range(MAX_COPIED), strict=False):
        if target.head(info.key) is None:
            put_once(target, info.key, source.get(info.key, MAX_SIGNATURE_BYTES))
            copied += 1
    return copied


def _check_signature(store: Store, subject: Subject, data: bytes, key: PublicKey) -> None:
    name = signature_key(key)
    stored = store.get(name, MAX_SIGNATURE_BYTES)
    where = f"{store.url}/{name}"
    try:
        document = read_json(stored, field=where, error=DatasetError)
        signature = validate(Signature, document, field=where, error=DatasetError)
    except DatasetError as broken:
        raise IntegrityError(broken.field, broken.expected, broken.got) from broken
    expected = {"key": key.id, "subject": subject, "digest": digest_of(data)}
    for field, value in expected.items():
        if (got := getattr(signature, field)) != value:
            hint = f"{subject} is not the one that was signed" if field == "digest" else ""
            raise IntegrityError(f"{where}.{field}", value, got, hint)
    if not key.verifies(signature.signature_bytes, signed_message(subject, signature.digest)):
        raise IntegrityError(f"{where}.signature", f"a signature by {key.id}", "one that does not verify")
