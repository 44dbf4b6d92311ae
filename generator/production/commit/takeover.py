"""Replacing what a worker of an earlier epoch left: bytes of a shard without a receipt, made in another environment.

Within one epoch such bytes are a conflict: somebody is not deterministic. After an epoch was opened they are what a
dead worker of the one before left, or what a living one is still writing. The receipt's key decides between the two,
because both need it and only one can create it:

1. A *reservation* is created under the receipt's key. Who finds a receipt there instead has come too late: the shard
   is done, by a worker of another epoch. From here on no other environment can finish the shard.
2. Archive and table are created, or replaced by compare and swap.
3. The reservation is replaced by the receipt.

Workers of earlier epochs only create objects, and nothing is created over a reservation or a replaced object. Whoever
else replaces objects of this shard holds the same reservation, so is of the same environment and writes the same
bytes. A reservation of another environment is never lifted: its holder may be asleep between two requests. A person
who knows that it is dead removes it.
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
    """Under a receipt's key: the shard belongs to workers of ``environment``, and has no receipt yet."""

    kind: Literal["reserved"] = "reserved"
    environment: Digest


# All reservations have one size, and a receipt, which names four digests, is larger: a listing tells the two apart.
RESERVATION_BYTES = len(Reservation(environment=digest_of(b"")).canonical())


def read_receipt_or_reservation(store: Store, number: int) -> Receipt | Reservation:
    """What stands under the key of a receipt. Raises ``ObjectMissing``, ``DatasetError``, ``IntegrityError``."""
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
    """Store ``files`` and ``receipt`` in place of what an earlier epoch left; the receipt that stands in the end.

    That is another one than ``receipt`` where its worker was alive, and faster. Raises ``BuildConflict`` where the
    shard is reserved by another environment, ``StoreError``.
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
    raise StoreUnavailable(where, "a shard that holds still", f"{_TRIES} changes by others while we tried")


def _reserve(store: Store, receipt: Receipt) -> Receipt | Reservation:
    ours = Reservation(environment=receipt.environment)
    try:
        store.create(receipt_key(receipt.number), ours.canonical())
    except AlreadyExists:
        held = read_receipt_or_reservation(store, receipt.number)
    else:
        held = ours
    if isinstance(held, Reservation) and held != ours:
        names = ", ".join((receipt_key(receipt.number), receipt.shard.key, receipt.table.key))
        raise BuildConflict(
            f"{store.url}/{receipt_key(receipt.number)}",
            "a shard that this environment may replace",
            f"one that environment {held.environment} began to replace in an earlier epoch",
            f"when none of its workers is left, delete {names}, and resume the job",
        )
    return held


def _try_replace_file(store: Store, key: str, data: bytes) -> bool:
    """Whether ``key`` holds ``data`` now; if not, somebody moved at the same time."""
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
    """Whether the receipt stands in place of the reservation; if not, look again: it may, by a lost answer."""
    key = receipt_key(receipt.number)
    info = store.head(key)
    if info is None or info.size != RESERVATION_BYTES:
        return False
    try:
        store.replace(key, receipt.canonical(), info.etag)
    except Changed:
        return False
    return True
