"""Takeover of an unfinished shard: replaces objects without a receipt that an earlier epoch's worker left.

Within one epoch different bytes are a conflict: a writer is not deterministic. In a later epoch they belong to a worker
of an earlier one, which is dead or still writing. The receipt's key decides who finishes the shard, because both
workers need it and only one can create it:

1. A *reservation* is created under the receipt's key. If a receipt is there already, the shard is finished by a worker
   of another epoch. After this step no other environment can finish the shard.
2. Archive, sidecars and table are created, or replaced by compare and swap.
3. The reservation is replaced by the receipt.

Workers of earlier epochs only create objects, and creating fails for a reserved key or a replaced object. Any other
worker that replaces objects of this shard holds the same reservation, so it has the same environment and writes the
same bytes. A reservation of another environment is never removed automatically, because its holder may only be paused
between two requests. An operator who knows that the holder is dead deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from generator.errors import (
    AlreadyExists,
    BuildConflict,
    Changed,
    DatasetError,
    IntegrityError,
    ObjectMissing,
    StoreUnavailable,
)
from generator.production.provenance.manifest import MAX_RECEIPT_BYTES, Receipt, receipt_key
from generator.spec.canonical import FrozenModel, digest_of, read_json, validate
from generator.spec.recipe import Digest
from generator.store.base import Store

_TRIES = 10


class Reservation(FrozenModel):
    """Stored under a receipt's key: only workers of ``environment`` may finish the shard."""

    kind: Literal["reserved"] = "reserved"
    environment: Digest


# All reservations have the same size; a receipt is larger, as it holds four digests. A listing can tell them apart.
RESERVATION_BYTES = len(Reservation(environment=digest_of(b"")).canonical())


def read_receipt_or_reservation(store: Store, number: int) -> Receipt | Reservation:
    """The object under a receipt's key. Raises ``ObjectMissing``, ``DatasetError``, ``IntegrityError``."""
    key = receipt_key(number)
    data = store.get(key, MAX_RECEIPT_BYTES)
    document = read_json(data, field=key, error=DatasetError)
    if len(data) == RESERVATION_BYTES:
        return validate(Reservation, document, field=key, error=DatasetError)
    receipt = validate(Receipt, document, field=key, error=DatasetError)
    if receipt.number != number:
        raise IntegrityError(key, f"the receipt of shard {number}", f"that of shard {receipt.number}")
    return receipt


def take_over(store: Store, receipt: Receipt, files: Mapping[str, bytes]) -> Receipt:
    """Store ``files`` and ``receipt`` in place of what an earlier epoch left. Returns the receipt that is stored.

    That is not ``receipt`` if the earlier worker was alive and finished first. Raises ``BuildConflict`` if the shard
    is reserved by another environment, ``StoreError``.
    """
    for _ in range(_TRIES):
        held = _reserve(store, receipt)
        if isinstance(held, Receipt):
            return held
        if all(_try_replace_file(store, key, data) for key, data in files.items()) and _try_replace_reservation(
            store, receipt
        ):
            return receipt
    where = f"{store.url}/{receipt_key(receipt.number)}"
    raise StoreUnavailable(
        where, "a shard that no other writer changes", f"{_TRIES} changes by others in {_TRIES} tries"
    )


def _reserve(store: Store, receipt: Receipt) -> Receipt | Reservation:
    ours = Reservation(environment=receipt.environment)
    try:
        store.create(receipt_key(receipt.number), ours.canonical())
    except AlreadyExists:
        held = read_receipt_or_reservation(store, receipt.number)
    else:
        held = ours
    if isinstance(held, Reservation) and held != ours:
        names = ", ".join((receipt_key(receipt.number), *(file.key for file in receipt.files)))
        raise BuildConflict(
            f"{store.url}/{receipt_key(receipt.number)}",
            "a shard that this environment may replace",
            f"a shard that environment {held.environment} began to replace in an earlier epoch",
            f"if no worker of that environment is running, delete {names} and resume the job",
        )
    return held


def _try_replace_file(store: Store, key: str, data: bytes) -> bool:
    """Store ``data`` under ``key``. Returns ``False`` if another writer changed the object at the same time."""
    info = store.head(key)
    try:
        if info is None:
            store.create(key, data)
        elif info.size != len(data) or store.get(key, len(data)) != data:
            store.replace(key, data, info.etag)
    except (AlreadyExists, Changed, ObjectMissing):
        return False
    return True


def _try_replace_reservation(store: Store, receipt: Receipt) -> bool:
    """Replace the reservation by the receipt. ``False`` may follow a lost answer, so the caller must look again."""
    key = receipt_key(receipt.number)
    info = store.head(key)
    if info is None or info.size != RESERVATION_BYTES:
        return False
    try:
        store.replace(key, receipt.canonical(), info.etag)
    except Changed:
        return False
    return True
