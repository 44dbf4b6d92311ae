"""A committed build as a PyTorch ``IterableDataset``. Of the readers, only this file and ``replay`` import torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from generator.datasets.builds import resolve_build
from generator.errors import DatasetError, IntegrityError, SpecError
from generator.models.screening.soft_labels import soft_label
from generator.production.images import decode_image, extension
from generator.production.provenance.manifest import Manifest
from generator.production.shards import read_samples
from generator.spec.canonical import digest_of
from generator.spec.seeding import permutation
from generator.store import S3Settings, Store

NO_LABEL = -1


class Sample(NamedTuple):
    """One image of a build. PyTorch's default collate function makes batches of samples.

    ``image`` is uint8 HWC with 1 (grey) or 3 (RGB) channels, or the result of ``transform``. ``label`` is ``NO_LABEL``
    (-1) in a dataset without labels; with ``soft_labels`` it is the probability of each class, float32 (C,).
    ``provenance`` says how to regenerate the image: ``key``, ``index``, ``attempt``, ``cluster``, ``log_density``,
    ``label_confidence``, ``recipe`` (digest), ``synthetic`` and, in a labelled dataset, ``label`` and ``class``.
    """

    image: Any
    label: Any
    provenance: dict[str, Any]


def open_dataset(
    url: str,
    *,
    s3: S3Settings | None = None,
    shuffle: bool = False,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    transform: Callable[[np.ndarray], Any] | None = None,
    soft_labels: bool = False,
) -> Dataset:
    """Open the committed build at ``url`` for iteration: ``for image, label, provenance in open_dataset(url)``.

    ``url`` is a build (``.../builds/<id>``) or a dataset (``<destination>/<name>``), as for ``resolve_build``.
    Without ``shuffle`` samples come in the order of the build. With it, the shards and the samples of each shard are
    permuted by ``seed`` and epoch (``set_epoch``). Each ``rank`` of ``world_size`` processes gets its share of every
    epoch. Shares differ by at most one sample, so a distributed loop must expect that some ranks miss the last step.
    ``transform`` is called with every image (uint8 HWC). ``soft_labels`` replaces the label by the judge's probability
    of each class, for a loss that takes probabilities, such as ``torch.nn.CrossEntropyLoss``.

    Raises ``DatasetError`` if there is no committed build, or for ``soft_labels`` if the build was made without a label
    check by a judge; ``SpecError`` for a rank outside ``0 .. world_size - 1``.
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise SpecError("rank", "0 <= rank < world_size", f"rank {rank} of {world_size}")
    store, manifest = resolve_build(url, s3)
    if manifest.samples != sum(receipt.samples for receipt in manifest.shards):
        stated = sum(receipt.samples for receipt in manifest.shards)
        raise DatasetError("manifest.json.samples", f"{stated}, as its shards have", manifest.samples)
    if soft_labels and manifest.recipe.get("label_floor") is None and manifest.recipe.get("label_floors") is None:
        raise DatasetError(
            "soft_labels",
            "a dataset whose labels a judge checked (its recipe has a label_floor or label_floors)",
            f"a recipe without label_floor at {store.url}",
            "a small label_floor, such as 0.01, refuses almost no images",
        )
    order = _EpochOrder(np.array([receipt.samples for receipt in manifest.shards]), seed if shuffle else None)
    return Dataset(store, manifest, order, _range_part((0, manifest.samples), rank, world_size), transform, soft_labels)


@final
class Dataset(IterableDataset[Sample]):
    """The samples of one build, each exactly once per epoch, with any number of DataLoader workers.

    An epoch is divided among workers by samples, not by shards, so all workers get an equal share. A worker holds one
    shard in memory and checks its sha256 before it reads samples from it (``IntegrityError``). ``len`` is the number of
    samples of this rank. ``len`` of a DataLoader assumes one stream of batches; with several workers there are a few
    more batches, because each worker ends with its own short batch.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        order: _EpochOrder,
        share: tuple[int, int],
        transform: Callable[[np.ndarray], Any] | None,
        soft_labels: bool,
    ) -> None:
        self.manifest, self.classes, self.url = manifest, manifest.classes, store.url
        self._store, self._order, self._range, self._transform = store, order, share, transform
        self._use_soft_labels = soft_labels
        # Shared memory: persistent workers must see the epoch that the main process sets.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        start, end = self._range
        return end - start

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self)} samples)"

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the permutation of the next iterations. Raises ``SpecError``."""
        if not 0 <= epoch < 2**31:
            raise SpecError("epoch", "0 or more, below 2**31", epoch)
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        share = _range_part(self._range, info.id, info.num_workers) if info else self._range
        for shard, rows_N in self._order.shard_slices(int(self._epoch), *share):
            yield from self._read_shard(shard, rows_N)

    def _read_shard(self, shard: int, rows_N: np.ndarray) -> Iterator[Sample]:
        file = self.manifest.shards[shard].shard
        field = f"{self.url}/{file.key}"
        data = self._store.get(file.key, file.size)
        if (digest := digest_of(data)) != file.digest:
            raise IntegrityError(
                field, f"bytes with digest {file.digest}", digest, "latentmill verify lists all damage"
            )
        samples = list(read_samples(data, field=field))
        if len(samples) != self.manifest.shards[shard].samples:
            raise IntegrityError(field, f"{self.manifest.shards[shard].samples} samples", len(samples))
        for row in rows_N.tolist():
            key, files = samples[row]
            yield self._parse_sample(key, files, f"{field}:{key}")

    def _parse_sample(self, key: str, files: dict[str, bytes], field: str) -> Sample:
        name = extension(self.manifest.image.format)
        try:
            data, facts, label = files[name], dict(json.loads(files["json"])), int(files.get("cls", NO_LABEL))
        except (KeyError, ValueError, TypeError, RecursionError) as broken:
            raise IntegrityError(field, f"{name}, json and cls", f"{sorted(files)} ({broken!r:.100})") from broken
        image: Any = decode_image(data, field=field)
        if self._transform is not None:
            image = self._transform(image)
        # Default collate rejects None. In a dataset without labels, some fields are None in every sample.
        provenance = {"key": key} | {name: value for name, value in facts.items() if value is not None}
        labels, probabilities = (provenance.pop(name, None) for name in ("likely_labels", "likely_probabilities"))
        return Sample(
            image, self._soft_label(labels, probabilities, field) if self._use_soft_labels else label, provenance
        )

    def _soft_label(self, labels: Any, probabilities: Any, field: str) -> np.ndarray:
        try:
            return soft_label(labels, probabilities, len(self.classes))
        except (ValueError, TypeError, IndexError, OverflowError) as broken:
            raise IntegrityError(
                field, "the most likely classes of an image, with probabilities", f"{broken!r:.200}"
            ) from broken


@dataclass(frozen=True)
class _EpochOrder:
    """The order of the samples of S shards in an epoch. ``seed`` ``None``: the order of the build."""

    sizes_S: np.ndarray  # int64
    seed: int | None

    def shard_slices(self, epoch: int, start: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Positions ``start .. end - 1`` of the epoch, as pairs of a shard number and rows_N (int64) in that shard."""
        if start == end:
            return
        shards_S = self._permutation(epoch, 0, len(self.sizes_S))
        ends_S = np.cumsum(self.sizes_S[shards_S])
        for position in range(int(np.searchsorted(ends_S, start, side="right")), len(shards_S)):
            shard, stop = int(shards_S[position]), int(ends_S[position])
            size = int(self.sizes_S[shard])
            first = stop - size
            if first >= end:
                return
            rows_N = self._permutation(epoch, 1 + shard, size)
            yield shard, rows_N[max(start - first, 0) : end - first]

    def _permutation(self, epoch: int, stream_offset: int, size: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(size)
        return permutation(
            self.seed, stream=(1 + epoch) << 32 | stream_offset, size=size
        )  # differs from the streams of the plan


def _range_part(span: tuple[int, int], part: int, parts: int) -> tuple[int, int]:
    """Part number ``part`` of the positions ``span[0] .. span[1] - 1``, divided into ``parts`` almost equal parts."""
    start, end = span
    return start + (end - start) * part // parts, start + (end - start) * (part + 1) // parts
