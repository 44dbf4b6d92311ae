"""What the shard formats have in common: samples as they are packed, the writer and the reader of a shard.

A sample has a key and files: the image (``png`` or ``jpg``), ``json`` (its facts, as canonical JSON) and, in a labelled
build, ``cls`` (the number of its class in decimal digits). Every format stores these, so every reader of this project
gets the same samples from each of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Files = dict[str, bytes]  # of one sample, by extension


class Member(NamedTuple):
    """One file of a sample: ``<key>.<extension>``."""

    extension: str
    data: bytes


class PackedSample(NamedTuple):
    """One sample as a writer takes it: ``block`` holds the image file at ``offset``, of ``size`` bytes."""

    key: str
    block: bytes
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class FinishedArchive:
    """The bytes of a shard, their sha256 (64 hex digits), and where each image file lies in them.

    ``offsets_N``, ``sizes_N``: int64, bytes, in the order of the samples.
    """

    data: bytes
    sha256: str
    offsets_N: np.ndarray
    sizes_N: np.ndarray


class ShardWriter(ABC):
    """Collects the samples of one shard in memory. It needs as much memory as the shard, or twice that at its end."""

    @abstractmethod
    def append(self, sample: PackedSample) -> None:
        """Append one sample."""

    @abstractmethod
    def finish(self) -> FinishedArchive:
        """The shard. Must be called only once. Raises ``InvalidOutput`` if the format cannot hold so many bytes."""


class ShardFormat(ABC):
    """One format of shards, for the images and classes of one recipe.

    The parts of a sample may be spread over the shard; then only its image file can be read alone.
    """

    media_type: str

    @abstractmethod
    def pack(self, key: str, members: list[Member]) -> PackedSample:
        """One sample; ``members``: image, label if the build is labelled, facts. Safe to call from several threads."""

    @abstractmethod
    def writer(self) -> ShardWriter:
        """A writer for one shard."""

    @abstractmethod
    def read_samples(self, data: bytes, *, field: str) -> Iterator[tuple[str, Files]]:
        """Key and files of all samples of a shard, in order. Raises ``IntegrityError`` naming ``field``."""


class ContiguousFormat(ShardFormat):
    """A format in which a sample is one part of the shard, and can be read alone.

    ``lead``: bytes of a sample before its image file.
    """

    lead: int

    @abstractmethod
    def read_sample(self, block: bytes, *, field: str) -> tuple[str, Files]:
        """Key and files of the sample in ``block``, the bytes from its beginning to that of the next one.

        Raises ``IntegrityError`` naming ``field``.
        """
