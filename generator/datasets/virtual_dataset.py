"""A recipe as a PyTorch dataset: its images are made by the process that reads them, and never stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch.utils.data import get_worker_info

from generator.datasets.epoch_order import EpochOrder
from generator.datasets.positioned_dataset import PositionedDataset, check_epoch
from generator.datasets.sample import NO_LABEL, Sample
from generator.datasets.shares import Share
from generator.datasets.virtual_recipe import VirtualRecipe
from generator.errors import DatasetError, SettingsError
from generator.models.autoencoders.devices import resolve_device
from generator.models.bundle import Bundle, BundleCache, load_bundle
from generator.models.bundle.transfer import bundle_store
from generator.models.screening.soft_labels import soft_label
from generator.production.decoding import ResidentDecoder, build_settings
from generator.production.pipeline.batches import Batcher
from generator.production.pipeline.image_stream import ImageStream, StreamedImage
from generator.production.pipeline.shard_maker import open_shard_maker
from generator.spec.plan import Plan, ShardPlan
from generator.spec.recipe import Recipe

_HELD_EPOCHS = 2  # recipes whose sampler and screen are held: ``mix`` may read two passes at once


@dataclass(frozen=True)
class ReaderOptions:
    """How samples are handed out: as for a stored build."""

    transform: Callable[[np.ndarray], Any] | None = None
    soft_labels: bool = False
    provenance: bool = True


@dataclass
class _Resident:
    """What one process holds: bundle and decoder, and sampler, screen and encoder of the epochs that were read last."""

    process: int
    bundle: Bundle
    decoder: ResidentDecoder
    batchers: dict[int, Batcher] = field(default_factory=dict)


@final
class VirtualDataset(PositionedDataset):
    """The samples of a recipe, made when they are read; opened by ``open_dataset(recipe=...)``.

    Epoch 0 is the recipe, epoch ``e`` the recipe with a seed derived from its seed and ``e`` (``epoch_recipe``), so
    no image comes twice. The digest of that recipe is in the provenance: a build of it holds the same samples in the
    same order, with the same pixels in the same environment, and elsewhere with pixels that differ by a level at most.
    Order, ranks, batches and states are those of a stored build.

    Each process that reads holds the decoder and two of its batches. Images are numpy arrays in host memory, whatever
    the device is. Raises ``SettingsError`` in a forked worker if the device is a GPU, ``RejectionExhausted`` where a
    build would.
    """

    def __init__(
        self,
        source: VirtualRecipe,
        order: EpochOrder,
        share: Share,
        options: ReaderOptions,
        *,
        device: str,
        cache: BundleCache | None,
    ) -> None:
        super().__init__(share, order.total)
        self._source, self._order, self._options, self._device, self._cache = source, order, options, device, cache
        self.classes = source.recipe.classes
        self._process = os.getpid()  # that made this object or unpickled it
        self._resident: _Resident | None = None

    def __repr__(self) -> str:
        kind = "samples" if self._share.batches is None else "batches"
        return f"VirtualDataset({self._source.recipe.digest}, {len(self)} {kind} an epoch)"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_resident": None, "_process": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._process = os.getpid()

    def epoch_recipe(self, epoch: int) -> Recipe:
        """The recipe whose build holds the samples of an epoch. Raises ``SpecError``."""
        check_epoch(epoch)
        return self._source.epoch(epoch)

    def identity(self) -> dict[str, Any]:
        return {
            "state": 1,
            "recipe": self._source.recipe.digest,
            "seed": self._order.seed,
            "samples": self._order.total,
        }

    def _read(self, epoch: int, spans: Iterable[tuple[int, int]]) -> Iterator[Sample]:
        stream = ImageStream(self._batcher(self._open(), epoch))
        for image in stream.images(self._wanted(epoch, spans)):
            yield self._sample(image)

    def _wanted(self, epoch: int, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Index and label of the samples at some positions."""
        plan, shard = Plan(self._source.epoch(epoch)), None
        for begin, end in spans:
            for number, rows_N in self._order.slices(epoch, begin, end):
                if shard is None or shard.number != number:
                    shard = plan.shard(number)
                yield from _index_and_label(shard, rows_N)

    def _sample(self, image: StreamedImage) -> Sample:
        options, facts = self._options, dict(image.facts)
        labels, probabilities = (facts.pop(name, None) for name in ("likely_labels", "likely_probabilities"))
        pixels: Any = image.pixels if options.transform is None else options.transform(image.pixels)
        label: Any = image.label if self._source.recipe.labelled else NO_LABEL
        if options.soft_labels:
            label = soft_label(labels or [], probabilities or [], len(self.classes))
        return Sample(pixels, label, facts if options.provenance else {})

    def _open(self) -> _Resident:
        """The decoder of this process: one that was inherited by a fork is opened again, as its threads were not."""
        if self._resident is None or self._resident.process != os.getpid():
            device = str(resolve_device(self._device))
            if device.startswith("cuda") and self._process != os.getpid() and get_worker_info() is not None:
                hint = "Give the DataLoader multiprocessing_context='spawn', or num_workers=0."
                raise SettingsError(
                    "multiprocessing_context", "spawned workers, as CUDA does not survive a fork", "fork", hint
                )
            recipe = self._source.recipe
            bundle = self._load_bundle(recipe.bundle)
            with build_settings():
                decoder = ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=device)
            self._resident = _Resident(os.getpid(), bundle, decoder)
        return self._resident

    def _load_bundle(self, digest: str) -> Bundle:
        if self._cache is not None:
            return self._cache.load(digest, [self._source.root])
        return load_bundle(bundle_store(self._source.root, digest), digest)

    def _batcher(self, resident: _Resident, epoch: int) -> Batcher:
        held = resident.batchers
        if epoch not in held:
            while len(held) >= _HELD_EPOCHS:
                held.pop(next(iter(held)))
            location = self._source.location(epoch)
            with build_settings():
                held[epoch] = open_shard_maker(location, resident.bundle, resident.decoder).batcher
        return held[epoch]


def open_virtual(
    source: VirtualRecipe,
    seed: int | None,
    share: Share,
    options: ReaderOptions,
    *,
    device: str,
    cache: BundleCache | None,
) -> VirtualDataset:
    """The samples of ``source``, in its order or, with ``seed``, permuted as those of a stored build.

    Raises ``DatasetError`` for soft labels without a judge, ``SettingsError`` for a device that is not there.
    """
    resolve_device(device)
    if options.soft_labels and source.recipe.class_floors is None:
        expected = "a recipe whose labels a judge checks (label_floor or label_floors)"
        raise DatasetError("soft_labels", expected, "a recipe without", "a small label_floor refuses almost no images")
    plan = Plan(source.recipe)
    sizes_S = np.full(plan.shard_count, plan.size(plan.shard_count - 1), dtype=np.int64)
    sizes_S[: source.recipe.total % plan.shard_count] += 1
    return VirtualDataset(source, EpochOrder(sizes_S, seed), share, options, device=device, cache=cache)


def _index_and_label(shard: ShardPlan, rows_N: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(shard.indices_N[rows_N].tolist(), shard.labels_N[rows_N].tolist(), strict=True)
