"""A bounded, evenly spaced subset of a build's images and table rows.

The choice depends only on the sizes of the shards and the limit, so the gates are deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import IntegrityError
from generator.production.images import decode_image, extension
from generator.production.provenance.manifest import Manifest, Receipt, StoredFile
from generator.production.provenance.sample_table import read_rows
from generator.production.shards import named_format
from generator.spec.canonical import digest_of, sha256_hex
from generator.store.base import Store

MAX_SHARDS = 20
MAX_BYTES = 256 * 2**20  # of images in memory
_MIN_IMAGES = 100  # images, however large
_COLUMNS = ["label", "label_confidence", "image_sha256"]


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """N images of a build, and columns of the table rows of all M images in the shards that were read."""

    images_NHWC: np.ndarray  # uint8
    labels_N: np.ndarray  # int64; 0 for all without labels
    confidence_M: np.ndarray  # float32, NaN for images without a label check
    labels_M: np.ndarray  # int64
    digests_M: np.ndarray  # uint64: the first 8 bytes of each image's sha256

    def __len__(self) -> int:
        return len(self.images_NHWC)


def read_subset(build: Store, manifest: Manifest, limit: int) -> ImageSubset:
    """Read about ``limit`` images of the build, from at most 20 of its shards, one shard at a time.

    Rounding up per shard may add a few images. Large images lower the limit, so that at most 256 MiB are in memory.

    Raises ``IntegrityError`` or ``ObjectMissing`` if a shard or its table is damaged or missing.
    """
    facts = manifest.image
    image_bytes = facts.height * facts.width * facts.channels
    limit = min(limit, max(_MIN_IMAGES, MAX_BYTES // image_bytes))
    chosen_receipts = [manifest.shards[number] for number in _evenly_spaced(len(manifest.shards), MAX_SHARDS)]
    parts = [_read_shard(build, manifest, receipt, -(-limit // len(chosen_receipts))) for receipt in chosen_receipts]
    return ImageSubset(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _read_shard(build: Store, manifest: Manifest, receipt: Receipt, limit: int) -> tuple[np.ndarray, ...]:
    rows = read_rows(_read_checked(build, receipt.table), field=receipt.table.key, columns=_COLUMNS)
    form = named_format(manifest.recipe.get("format", "webdataset"), manifest.image.format, manifest.classes)
    samples = list(form.read_samples(_read_checked(build, receipt.shard), field=receipt.shard.key))
    if not len(rows) == len(samples) == receipt.samples:
        got = f"{len(samples)} in the shard, {len(rows)} in its table"
        raise IntegrityError(receipt.shard.key, f"{receipt.samples} samples, as its receipt says", got)
    labels_M, confidence_M, digests_M = _parse_columns(rows, receipt)
    chosen_rows = _evenly_spaced(len(rows), limit)
    images = [
        _decode_checked(manifest, samples[row], rows[row]["image_sha256"], receipt.shard.key) for row in chosen_rows
    ]
    return np.stack(images), labels_M[chosen_rows], confidence_M, labels_M, digests_M


def _parse_columns(rows: list[dict[str, Any]], receipt: Receipt) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nan = float("nan")
    try:
        labels_M = np.array([row["label"] or 0 for row in rows], dtype=np.int64)
        confidences = [nan if row["label_confidence"] is None else row["label_confidence"] for row in rows]
        confidence_M = np.array(confidences, dtype=np.float32)
        digests_M = np.array([int(row["image_sha256"][:16], 16) for row in rows], dtype=np.uint64)
        counts = np.bincount(labels_M, minlength=len(receipt.counts)).tolist()
    except (ValueError, TypeError, OverflowError) as odd:
        raise IntegrityError(receipt.table.key, "labels, confidences and digests", f"others ({odd})"[:300]) from odd
    if counts != list(receipt.counts):
        raise IntegrityError(receipt.table.key, f"{list(receipt.counts)} images by class", counts[:100])
    return labels_M, confidence_M, digests_M


def _decode_checked(manifest: Manifest, sample: tuple[str, dict[str, bytes]], digest: str, field: str) -> np.ndarray:
    (key, files), facts = sample, manifest.image
    data = files.get(extension(facts.format))
    if data is None or sha256_hex(data) != digest:
        raise IntegrityError(f"{field}:{key}", "the image with the sha256 in the table", "another image, or none")
    image_HWC = decode_image(data, field=f"{field}:{key}")
    if image_HWC.shape != (facts.height, facts.width, facts.channels):
        raise IntegrityError(f"{field}:{key}", f"{(facts.height, facts.width, facts.channels)}", image_HWC.shape)
    return image_HWC


def _read_checked(build: Store, file: StoredFile) -> bytes:
    data = build.get(file.key, file.size)
    if (digest := digest_of(data)) != file.digest:
        raise IntegrityError(file.key, f"bytes with digest {file.digest}", digest)
    return data


def _evenly_spaced(size: int, limit: int) -> list[int]:
    """At most ``limit`` of ``0 .. size - 1``, evenly spaced, ascending."""
    count = min(size, limit)
    return [position * size // count for position in range(count)]
