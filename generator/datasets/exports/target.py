"""What every export target does: it writes the files of one shard after another, and then those of the whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.datasets.exports.directory import ShardFiles, ShardMark
from generator.production.images import extension
from generator.production.provenance.manifest import Manifest, Receipt
from generator.production.shards import Files
from generator.spec.recipe import Recipe


@dataclass(frozen=True, eq=False)
class SourceShard:
    """One shard of the build, whose digest was checked: its bytes, and its samples in order (key, files)."""

    receipt: Receipt
    data: bytes
    samples: Sequence[tuple[str, Files]]


@dataclass(frozen=True, eq=False)
class ExportTarget(ABC):
    """One form of an export, of the build of ``manifest`` with its ``recipe``."""

    manifest: Manifest
    recipe: Recipe

    @property
    def extension(self) -> str:
        """The extension of the image files."""
        return extension(self.recipe.image.format)

    def prepare(self, root: Path, marks: Sequence[ShardMark]) -> None:  # noqa: B027 - most have nothing to prepare
        """Called before shards are written to ``root``; ``marks``: the shards that are there already."""

    @abstractmethod
    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        """Write the files of one shard."""

    @abstractmethod
    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:
        """Write the files of the whole export, after all shards, which ``marks`` describe in order."""


def shard_stem(receipt: Receipt) -> str:
    """The file name of a shard without folder and suffix: ``<name>-000123``."""
    return receipt.shard.key.rpartition("/")[2].rpartition(".")[0]
