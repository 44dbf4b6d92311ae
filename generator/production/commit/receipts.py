"""Receipts as the commit reads them: compared with the plan, and with the objects that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from generator.errors import IntegrityError
from generator.production.commit.publish import BuildLocation, read_receipt
from generator.production.provenance.manifest import Receipt, receipt_key, shard_keys
from generator.spec.plan import Plan

MAX_READERS = 16  # parallel reads of receipts


def read_planned(location: BuildLocation, plan: Plan, number: int) -> Receipt:
    """The stored receipt of a shard. Raises as ``read_receipt``, and ``IntegrityError`` if the plan is another."""
    receipt = read_receipt(location, number)
    check_planned(location, plan, receipt)
    return receipt


def check_planned(location: BuildLocation, plan: Plan, receipt: Receipt) -> None:
    """Raise ``IntegrityError`` unless samples and keys of ``receipt`` are those of the plan."""
    number, planned = receipt.number, plan.size(receipt.number)
    if receipt.samples != planned or sum(receipt.counts) != planned:
        raise IntegrityError(receipt_key(number), f"{planned} samples, as planned", receipt.samples)
    named, expected = tuple(file.key for file in receipt.files), shard_keys(location.name, number, location.recipe)
    if named != expected:
        raise IntegrityError(receipt_key(number), " and ".join(expected), " and ".join(named))


def check_stored(location: BuildLocation, receipt: Receipt, sizes: Mapping[str, int]) -> None:
    """Raise ``IntegrityError`` unless the files of the shard are stored with the sizes that its receipt states.

    ``sizes``: the bytes of the stored objects by key.
    """
    for file in receipt.files:
        if sizes.get(file.key) != file.size:
            raise IntegrityError(
                file.key,
                f"{file.size} bytes, as its receipt says",
                f"{sizes[file.key]} bytes" if file.key in sizes else "no object",
                f"delete {location.url}/{receipt_key(receipt.number)} and {file.key}, and submit again to remake the"
                " shard",
            )


def first_shards(receipts: Iterable[Receipt]) -> dict[str, int]:
    """The digests of the environments that wrote ``receipts``, each with the first shard that it wrote."""
    first = dict[str, int]()
    for receipt in receipts:
        first.setdefault(receipt.environment, receipt.number)
    return first
