"""A committed build as a PyTorch dataset: to iterate over, or by index. Of the readers, only this file, ``map_dataset``
and ``replay`` import torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, overload

import numpy as np
import torch
from torch import distributed
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import resolve_build
from generator.datasets.epoch_order import BatchPlan, EpochOrder, ShardRows, Uneven, check_rank, even_part
from generator.datasets.map_dataset import MapDataset
from generator.datasets.sample import NO_LABEL, Sample, SampleParser
from generator.datasets.sample_columns import read_columns, select_rows
from generator.datasets.shard_cache import ShardCache
from generator.errors import DatasetError, SpecError
from generator.production.images import extension
from generator.production.provenance.manifest import Manifest
from generator.store import S3Settings, Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NO_LABEL", "Dataset", "MapDataset", "Sample", "open_dataset"]

CACHE_BYTES = 100 * 2**30
_SHARED = ("epoch", "position", "loads", "iteration", "workers")
_EPOCH, _POSITION, _LOADS, _ITERATION, _WORKERS = range(len(_SHARED))
_UNEVEN: tuple[Uneven, ...] = ("drop", "pad", "keep")


@overload
def open_dataset(url: str, *, map_style: Literal[True], **options: Any) -> MapDataset: ...


@overload
def open_dataset(url: str, *, map_style: Literal[False] = False, **options: Any) -> Dataset: ...


def open_dataset(  # type: ignore[misc]
    url: str,
    *,
    map_style: bool = False,
    s3: S3Settings | None = None,
    shuffle: bool = False,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    batch_size: int | None = None,
    uneven: Uneven = "drop",
    where: str | None = None,
    transform: Callable[[np.ndarray], Any] | None = None,
    soft_labels: bool = False,
    provenance: bool = True,
    cache: str | Path | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Dataset | MapDataset:
    """Open the committed build at ``url`` for iteration: ``for image, label, provenance in open_dataset(url)``.

    ``url`` is a build (``.../builds/<id>``) or a dataset (``<destination>/<name>``), as for ``resolve_build``.
    ``map_style``: samples by index, in the order of the build, for samplers (``MapDataset``); order, ranks and batches
    are then the sampler's.

    Without ``shuffle`` samples come in the order of the build. With it, the shards and the samples of each shard are
    permuted by ``seed`` and epoch (``set_epoch``). ``where`` selects samples by columns of their tables
    (``label_confidence > 0.9 and class in ('cat', 'dog')``) before an image is read.

    Each ``rank`` of ``world_size`` processes gets its share of every epoch; by default they are those of
    ``torch.distributed``, else of the variables RANK and WORLD_SIZE. With ``batch_size`` the dataset yields whole
    batches (give the DataLoader ``batch_size=None``), which are dealt to ranks and workers in turn: all ranks get
    equally many, and ``len`` is exact. ``uneven``: what becomes of the batches at the end that do not divide:
    ``drop`` them, ``pad`` with samples from the beginning of the epoch, or ``keep`` (short, and one more on some
    ranks). Without ``batch_size``, shares differ by at most one sample.

    ``transform`` is called with every image (uint8 HWC). ``soft_labels`` replaces the label by the judge's probability
    of each class, for a loss that takes probabilities, such as ``torch.nn.CrossEntropyLoss``. ``provenance=False``
    leaves it empty, for loaders that cannot collate text. ``cache``: a directory for shards, of at most
    ``cache_bytes``, that all processes of a machine share.

    Raises ``DatasetError`` if there is no committed build, if ``where`` selects nothing, or for ``soft_labels`` if the
    build was made without a label check by a judge; ``SpecError`` for an option that cannot be.
    """
    rank, world_size = _find_rank(rank, world_size)
    if batch_size is not None and batch_size < 1:
        raise SpecError("batch_size", "1 or more", batch_size)
    if uneven not in _UNEVEN:
        raise SpecError("uneven", "'drop', 'pad' or 'keep'", repr(uneven))
    store, manifest = resolve_build(url, s3)
    _check_manifest(store, manifest, soft_labels=soft_labels)
    shard_cache = None if cache is None else ShardCache(Path(cache), cache_bytes)
    reader = ArchiveReader(store, manifest, extension(manifest.image.format), shard_cache)
    selected = None if where is None else select_rows(reader, manifest, where)
    sizes = [len(rows) for rows in selected] if selected is not None else [each.samples for each in manifest.shards]
    order = EpochOrder(np.array(sizes, dtype=np.int64), seed if shuffle and not map_style else None, selected)
    if where is not None and not order.total:
        raise DatasetError("where", "a filter that selects samples", f"none of {manifest.samples} at {store.url}")
    parser = SampleParser(manifest, transform, soft_labels, provenance)
    if map_style:
        return MapDataset(store.url, manifest, reader, parser, order, where)
    plan = None if batch_size is None else BatchPlan(batch_size, rank, world_size, uneven)
    return Dataset(store.url, manifest, reader, parser, order, _Share(rank, world_size, plan), where)


def _check_manifest(store: Store, manifest: Manifest, *, soft_labels: bool) -> None:
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


def _find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise SpecError("rank", "rank and world_size together, or neither", "one of them")
    if rank is None or world_size is None:
        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            stated = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
            try:
                rank, world_size = int(stated[0]), int(stated[1])
            except ValueError as error:
                raise SpecError("rank", "RANK and WORLD_SIZE as integers", f"{stated[0]} of {stated[1]}") from error
    check_rank(rank, world_size)
    return rank, world_size


@dataclass(frozen=True)
class _Share:
    rank: int
    world_size: int
    batches: BatchPlan | None


@final
class Dataset(IterableDataset[Any]):
    """The samples of one build, each exactly once per epoch, with any number of DataLoader workers.

    Without ``batch_size`` it yields samples, and an epoch is divided among workers by samples, not by shards, so all
    workers get an equal share; ``len`` is the number of samples of this rank, and ``len`` of a DataLoader an upper
    bound of what comes in whole batches, because each worker ends with its own short batch. With ``batch_size`` it
    yields batches, and ``len`` is their exact number, also of ``DataLoader(dataset, batch_size=None)``.

    A worker holds one shard in memory and checks its sha256 before it reads samples from it (``IntegrityError``).

    ``state_dict(consumed=n)`` is the place of the whole world after ``n`` samples of an epoch, on any number of ranks
    and workers; going on from it, no sample is lost or repeated if the samples were consumed in batches.
    """

    def __init__(
        self,
        url: str,
        manifest: Manifest,
        reader: ArchiveReader,
        parser: SampleParser,
        order: EpochOrder,
        share: _Share,
        where: str | None,
    ) -> None:
        self.manifest, self.classes, self.url = manifest, manifest.classes, url
        self._reader, self._parser, self._order, self._share, self._where = reader, parser, order, share, where
        # Shared memory: persistent workers must see the epoch and the position that the main process sets.
        self._shared = torch.zeros(len(_SHARED), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._loads_used = 0  # states that this process has gone on from
        self._start = 0  # position at which the running iteration began
        self._yielded = 0  # by this process in the running iteration
        self._own_state: tuple[int, int, int] | None = None  # epoch, position, yielded: of this process alone

    def __len__(self) -> int:
        start = int(self._shared[_POSITION]) if int(self._shared[_ITERATION]) == 0 else 0
        if self._share.batches is not None:
            return self._share.batches.count(self._order.total - start)
        begin, end = even_part((start, self._order.total), self._share.rank, self._share.world_size)
        return end - begin

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self)} {'samples' if self._share.batches is None else 'batches'})"

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Columns of the selected samples, in the order of the build, without images (``read_columns``)."""
        return read_columns(self._reader, self.manifest, columns, self._where)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the permutation of the next iterations, from its beginning.

        Setting the epoch of a state that was just loaded changes nothing. Raises ``SpecError``.
        """
        if not 0 <= epoch < 2**31:
            raise SpecError("epoch", "0 or more, below 2**31", epoch)
        if epoch != int(self._shared[_EPOCH]):
            self._shared[_EPOCH], self._shared[_POSITION], self._own_state = epoch, 0, None

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """A place in an epoch, of less than a kilobyte of JSON.

        ``consumed``: samples of the running epoch that the whole world has consumed since its beginning. Without it,
        the place of this process alone: of a process without DataLoader workers or, inside a worker, of that worker
        (as ``StatefulDataLoader`` asks it). Raises ``SpecError`` in a process whose workers have read: they are ahead.
        """
        state = {**self._identity(), "epoch": int(self._shared[_EPOCH])}
        if consumed is not None:
            if not 0 <= consumed <= self._order.total:
                raise SpecError("consumed", f"0 to {self._order.total} samples", consumed)
            return state | {"position": consumed}
        if get_worker_info() is None and int(self._shared[_WORKERS]):
            hint = "Count the samples that the training has consumed, or use torchdata's StatefulDataLoader."
            raise SpecError("consumed", "the number of samples consumed, as workers read ahead", "none", hint)
        return state | {"position": self._start, "yielded": self._yielded, "reader": self._reader_place()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state: the next iteration begins there. Raises ``SpecError`` for one of another dataset."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise SpecError(f"state.{name}", value, state.get(name))
        epoch, position, yielded = (state.get(name, 0) for name in ("epoch", "position", "yielded"))
        if not all(isinstance(each, int) and each >= 0 for each in (epoch, position, yielded)):
            raise SpecError("state", "an epoch and a position of at least 0", (epoch, position, yielded))
        if position > self._order.total:
            raise SpecError("state.position", f"0 to {self._order.total}", position)
        if "reader" not in state:
            self._shared[_EPOCH], self._shared[_POSITION], self._shared[_ITERATION] = epoch, position, 0
            self._shared[_LOADS] += 1
            self._own_state = None
            return
        if state["reader"] != self._reader_place():
            hint = "A state for another number of workers or ranks is made by state_dict(consumed=n)."
            raise SpecError("state.reader", self._reader_place(), state["reader"], hint)
        if get_worker_info() is None:
            self._shared[_EPOCH] = epoch
        self._own_state = (epoch, position, yielded)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        part, parts = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            self._shared[_WORKERS] = 1
        epoch, self._start, self._yielded = self._begin()
        read = self._samples if self._share.batches is None else self._batches
        for item in read(epoch, self._start, part, parts, self._yielded):
            self._yielded += 1
            yield item
        self._start = self._yielded = 0

    def _begin(self) -> tuple[int, int, int]:
        """Epoch, position and what this process has already yielded of the iteration that begins.

        A position that was loaded holds for one iteration of all readers. Workers that live for one iteration know it
        by the seed that they have in common, persistent ones and the main process by the states they have gone on from.
        """
        info, loads = get_worker_info(), int(self._shared[_LOADS])
        if self._own_state is not None:
            state, self._own_state, self._loads_used = self._own_state, None, loads
            return state
        iteration = 1 if info is None else (info.seed - info.id) or 1
        first = int(self._shared[_ITERATION]) in (0, iteration) and self._loads_used != loads
        if first:
            self._shared[_ITERATION] = iteration
        self._loads_used = loads
        return int(self._shared[_EPOCH]), int(self._shared[_POSITION]) if first else 0, 0

    def _samples(self, epoch: int, start: int, part: int, parts: int, skip: int) -> Iterator[Sample]:
        share = even_part((start, self._order.total), self._share.rank, self._share.world_size)
        begin, end = even_part(share, part, parts)
        yield from self._read(epoch, [(begin + skip, end)], {})

    def _batches(self, epoch: int, start: int, part: int, parts: int, skip: int) -> Iterator[Any]:
        assert self._share.batches is not None
        held: dict[int, Any] = {}
        for number, spans in enumerate(self._share.batches.spans(start, self._order.total, part, parts)):
            if number >= skip:
                yield default_collate(list(self._read(epoch, spans, held)))

    def _read(self, epoch: int, spans: list[tuple[int, int]], held: dict[int, Any]) -> Iterator[Sample]:
        """The samples at some positions. ``held``: the shard that was read last, by number."""
        for begin, end in spans:
            for rows in self._order.slices(epoch, begin, end):
                yield from self._read_rows(rows, held)

    def _read_rows(self, wanted: ShardRows, held: dict[int, Any]) -> Iterator[Sample]:
        if wanted.shard not in held:
            held.clear()
            held[wanted.shard] = self._reader.shard(wanted.shard)
        samples = held[wanted.shard]
        field = f"{self.url}/{self.manifest.shards[wanted.shard].shard.key}"
        for row in wanted.rows.tolist():
            key, files = samples[row]
            yield self._parser(key, files, f"{field}:{key}")

    def _reader_place(self) -> list[int]:
        """Worker and number of workers, rank and number of ranks of this reader."""
        info = get_worker_info()
        workers = [0, 1] if info is None else [info.id, info.num_workers]
        return [*workers, self._share.rank, self._share.world_size]

    def _identity(self) -> dict[str, Any]:
        """What a state must agree with."""
        return {
            "state": 1,
            "build": self.manifest.build_id,
            "seed": self._order.seed,
            "where": self._where,
            "samples": self._order.total,
        }
