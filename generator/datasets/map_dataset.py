"""A committed build by index, for the samplers of training libraries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, final

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.epoch_order import EpochOrder
from generator.datasets.sample import Sample, SampleParser
from generator.datasets.sample_columns import read_columns
from generator.errors import SpecError
from generator.production.provenance.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 16


@final
class MapDataset(TorchDataset[Sample]):
    """``dataset[i]`` is sample ``i`` of the selected ones, in the order of the build.

    A sample is read by one ranged read of its bytes. Its image's sha256, its key, label and facts are checked against
    its row in the table, whose digest is in the manifest (of a version 1 build, the image alone). ``__getitem__`` may
    be called from several threads; ``__getitems__``, which PyTorch calls for a batch, reads at most 16 samples at a
    time where they come over a network.
    """

    def __init__(
        self,
        url: str,
        manifest: Manifest,
        reader: ArchiveReader,
        parser: SampleParser,
        order: EpochOrder,
        where: str | None,
    ) -> None:
        self.manifest, self.classes, self.url = manifest, manifest.classes, url
        self._reader, self._parser, self._order, self.where = reader, parser, order, where
        self._ends_S = np.cumsum(order.sizes_S)

    def __len__(self) -> int:
        return self._order.total

    def __repr__(self) -> str:
        return f"MapDataset({self.url!r}, {len(self)} samples)"

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``; negative ones count from the end.

        Raises ``IndexError``; ``SpecError`` for no integer; ``IntegrityError``.
        """
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            raise SpecError("index", "an integer", repr(index)[:100])
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        position = int(index) % len(self)
        shard = int(np.searchsorted(self._ends_S, position, side="right"))
        row = position - int(self._ends_S[shard] - self._order.sizes_S[shard])
        if self._order.selected is not None:
            row = int(self._order.selected[shard][row])
        key, files = self._reader.sample(shard, row)
        return self._parser(key, files, f"{self.url}/{self.manifest.shards[shard].shard.key}:{key}")

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """Several samples at once, in the order asked for."""
        if len(indices) < 2 or self.url.startswith("file://"):
            return [self[index] for index in indices]
        with ThreadPoolExecutor(min(_THREADS, len(indices))) as pool:
            return list(pool.map(self.__getitem__, indices))

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Columns of the selected samples, in their order, without images (``read_columns``)."""
        return read_columns(self._reader, self.manifest, columns, self.where)
