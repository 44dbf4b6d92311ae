"""Export to a Lance dataset: one row a sample, the image file in a binary column. Needs the package ``pylance``.

Each shard becomes fragments, which are committed together at the end: readers see all rows or no dataset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from generator.datasets.exports.directory import ShardFiles, ShardMark, discard, remove_strays
from generator.datasets.exports.target import ExportTarget, SourceShard
from generator.errors import SpecError
from generator.production.shards import facts_schema
from generator.spec.canonical import sha256_hex

if TYPE_CHECKING:
    import pyarrow as pa

_STORAGE_VERSION = "2.1"


def require_lance() -> Any:
    """The package ``lance``. Raises ``SpecError`` if it is not installed."""
    try:
        import lance
    except ImportError as missing:
        hint = "pip install 'latentmill[exports]'"
        raise SpecError("to", "a target whose package is installed", "lance without pylance", hint) from missing
    return lance


@final
class LanceTarget(ExportTarget):
    """``<name>.lance``, with the columns ``key``, ``image`` (binary), ``label``, ``image_sha256`` and the facts."""

    @property
    def folder(self) -> str:
        return f"{self.manifest.name}.lance"

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        label = [pa.field("label", pa.int64())] if self.recipe.labelled else []
        head = [pa.field("key", pa.string()), pa.field("image", pa.binary()), *label]
        return pa.schema([*head, pa.field("image_sha256", pa.string()), *facts_schema()])

    def prepare(self, root: Path, marks: Sequence[ShardMark]) -> None:
        require_lance()
        remove_strays(root, self.folder, {path: digest for mark in marks for path, digest in mark.files.items()})
        for folder in ("_versions", "_transactions"):  # of an interrupted end
            discard(root, f"{self.folder}/{folder}")

    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        import pyarrow as pa
        from lance.fragment import write_fragments

        rows = [self._row(key, sample) for key, sample in shard.samples]
        place = files.root / self.folder
        fragments = write_fragments(
            pa.Table.from_pylist(rows, schema=self.schema),
            str(place),
            schema=self.schema,
            mode="create",
            data_storage_version=_STORAGE_VERSION,
        )
        found = [fragment.to_json() for fragment in fragments]
        for path in (file["path"] for fragment in found for file in fragment["files"]):
            files.add(f"{self.folder}/data/{path}")
        files.facts |= {"fragments": found}

    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:
        lance = require_lance()
        from lance.fragment import FragmentMetadata

        found = [fragment for mark in marks for fragment in mark.facts["fragments"]]
        fragments = [FragmentMetadata.from_json(json.dumps(fragment)) for fragment in found]
        place = files.root / self.folder
        lance.LanceDataset.commit(str(place), lance.LanceOperation.Overwrite(self.schema, fragments))
        for path in sorted(place.rglob("*")):
            if path.is_file() and path.parent.name != "data":
                files.add(path.relative_to(files.root).as_posix())

    def _row(self, key: str, sample: dict[str, bytes]) -> dict[str, Any]:
        image = sample[self.extension]
        return {"key": key, "image": image, "image_sha256": sha256_hex(image), **json.loads(sample["json"])}
