"""A committed build as a PyTorch dataset: to iterate over, or by index. Of the readers, only this file, ``map_dataset``
and ``replay`` import torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, overload

import numpy as np

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.builds import resolve_build
from generator.datasets.epoch_order import EpochOrder, ShardRows, Uneven
from generator.datasets.map_dataset import MapDataset
from generator.datasets.positioned_dataset import PositionedDataset
from generator.datasets.reader_options import OpenOptions, check_open_options
from generator.datasets.sample import NO_LABEL, Sample, SampleParser
from generator.datasets.sample_columns import read_columns, select_rows
from generator.datasets.shard_cache import ShardCache
from generator.datasets.shares import Share, find_share
from generator.datasets.virtual_dataset import ReaderOptions, VirtualDataset, open_virtual
from generator.datasets.virtual_recipe import RecipeLike, RootLike, find_virtual_recipe
from generator.errors import DatasetError, SpecError
from generator.models.bundle import BundleCache
from generator.production.images import extension
from generator.production.provenance.manifest import Manifest
from generator.store import S3Settings, Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NO_LABEL", "Dataset", "MapDataset", "Sample", "open_dataset"]

CACHE_BYTES = 100 * 2**30


@overload
def open_dataset(url: str | os.PathLike[str], *, map_style: Literal[True], **options: Any) -> MapDataset: ...


@overload
def open_dataset(url: str | os.PathLike[str], *, map_style: Literal[False] = False, **options: Any) -> Dataset: ...


@overload
def open_dataset(*, recipe: RecipeLike, root: RootLike, **options: Any) -> VirtualDataset: ...


def open_dataset(  # type: ignore[misc]
    url: str | os.PathLike[str] | None = None,
    *,
    recipe: RecipeLike | None = None,
    root: RootLike | None = None,
    device: str = "auto",
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
) -> Dataset | MapDataset | VirtualDataset:
    """Open the committed build at ``url`` for iteration: ``for image, label, provenance in open_dataset(url)``.

    ``url`` is a build (``.../builds/<id>``) or a dataset (``<destination>/<name>``), as for ``resolve_build``.
    ``map_style``: samples by index, in the order of the build, for samplers (``MapDataset``); order, ranks and batches
    are then the sampler's, so ``shuffle``, ``rank`` and ``batch_size`` are refused.

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
    ``cache_bytes`` (room for one at least), that all processes of a machine share.

    With ``recipe`` in place of ``url`` nothing is read: the images are made by the process that reads them, on
    ``device`` (``VirtualDataset``). It is a recipe, a job spec, or a draft (a mapping or the path of a YAML file); the
    bundle comes from the store ``root`` alone, and ``cache`` keeps it. ``where`` and ``map_style`` need stored samples.

    Raises ``DatasetError`` if there is no committed build, if ``where`` selects nothing, or for ``soft_labels`` if the
    build was made without a label check by a judge; ``SpecError`` for an option that cannot be, such as a
    ``batch_size`` of which an epoch has no batch.
    """
    options = check_open_options(
        {"url": url, "device": device, "map_style": map_style, "s3": s3, "shuffle": shuffle, "seed": seed}
        | {"rank": rank, "world_size": world_size, "batch_size": batch_size, "uneven": uneven, "where": where}
        | {"transform": transform, "soft_labels": soft_labels, "provenance": provenance}
        | {"cache": cache, "cache_bytes": cache_bytes}
    )
    if options.url is not None and recipe is None:
        return _open_build(options.url, options)
    if options.url is not None or recipe is None:
        got = "neither" if recipe is None else "both"
        raise SpecError("recipe", "either the URL of a build or a recipe", got)
    return _open_recipe(recipe, root, options)


def _open_recipe(recipe: RecipeLike, root: RootLike | None, options: OpenOptions) -> VirtualDataset:
    for field in ("where", "map_style"):
        if getattr(options, field):
            raise SpecError(field, "the URL of a build: samples of a recipe are not stored", "a recipe")
    share, source = find_share(options), find_virtual_recipe(recipe, root, options.s3)
    cache = None if options.cache is None else BundleCache(options.cache / "bundles", options.cache_bytes)
    handed = ReaderOptions(options.transform, options.soft_labels, options.provenance)
    return open_virtual(source, _seed(options), share, handed, device=options.device, cache=cache)


def _open_build(url: str, options: OpenOptions) -> Dataset | MapDataset:
    if options.map_style:
        options.check_map_style()
    share = find_share(options)
    store, manifest = resolve_build(url, options.s3)
    _check_manifest(store, manifest, soft_labels=options.soft_labels)
    reader = ArchiveReader(store, manifest, extension(manifest.image.format), _open_cache(manifest, options))
    where = options.where
    selected = None if where is None else select_rows(reader, manifest, where)
    sizes_S = manifest.shard_sizes() if selected is None else np.array([len(rows) for rows in selected], dtype=np.int64)
    order = EpochOrder(sizes_S, _seed(options), selected)
    if where is not None and not order.total:
        raise DatasetError("where", "a filter that selects samples", f"none of {manifest.samples} at {store.url}")
    parser = SampleParser(manifest, options.transform, options.soft_labels, options.provenance)
    if options.map_style:
        return MapDataset(store.url, manifest, reader, parser, order, where)
    return Dataset(store.url, manifest, reader, parser, order, share, where)


def _seed(options: OpenOptions) -> int | None:
    return options.seed if options.shuffle else None


def _open_cache(manifest: Manifest, options: OpenOptions) -> ShardCache | None:
    if options.cache is None:
        return None
    if len(manifest.shards) and options.cache_bytes < (size := manifest.shards[0].shard.size):
        raise SpecError("cache_bytes", f"at least {size}, the bytes of a shard", options.cache_bytes)
    return ShardCache(options.cache, options.cache_bytes)


def _check_manifest(store: Store, manifest: Manifest, *, soft_labels: bool) -> None:
    if manifest.samples != (stated := int(manifest.shard_sizes().sum())):
        raise DatasetError("manifest.json.samples", f"{stated}, as its shards have", manifest.samples)
    if soft_labels and manifest.recipe.get("label_floor") is None and manifest.recipe.get("label_floors") is None:
        raise DatasetError(
            "soft_labels",
            "a dataset whose labels a judge checked (its recipe has a label_floor or label_floors)",
            f"a recipe without label_floor at {store.url}",
            "a small label_floor, such as 0.01, refuses almost no images",
        )


@final
class Dataset(PositionedDataset):
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
        share: Share,
        where: str | None,
    ) -> None:
        super().__init__(share, order.total)
        self.manifest, self.classes, self.url = manifest, manifest.classes, url
        self._reader, self._parser, self._order, self._where = reader, parser, order, where

    def __repr__(self) -> str:
        return f"Dataset({self.url!r}, {len(self)} {'samples' if self._share.batches is None else 'batches'})"

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Columns of the selected samples, in the order of the build, without images (``read_columns``)."""
        return read_columns(self._reader, self.manifest, columns, self._where)

    def _read(self, epoch: int, spans: Iterable[tuple[int, int]]) -> Iterator[Sample]:
        held: dict[int, Any] = {}  # the shard that was read last, by number
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

    def identity(self) -> dict[str, Any]:
        return {
            "state": 1,
            "build": self.manifest.build_id,
            "seed": self._order.seed,
            "where": self._where,
            "samples": self._order.total,
        }
