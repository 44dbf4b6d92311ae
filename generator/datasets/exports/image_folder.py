"""Export to single image files with ``metadata.parquet``, which ``datasets`` reads without arguments, also streaming.

Format: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder". The files are those of the build, byte for
byte, unless they are signed: then each has a C2PA manifest of its own, and its metadata the sha256 of the unsigned
file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import yaml

from generator.datasets.exports.directory import ShardFiles, ShardMark, discard
from generator.datasets.exports.target import ExportTarget, SourceShard
from generator.production.shards import facts_schema, hugging_face_features
from generator.spec.canonical import sha256_hex

_CARD = "README.md"


@final
@dataclass(frozen=True, eq=False)
class ImageFolderTarget(ExportTarget):
    """``data/000123/<key>.png`` beside ``data/000123/metadata.parquet``, and a card.

    ``sign``: adds a C2PA manifest to an image file.
    """

    sign: Callable[[bytes], bytes] | None = None

    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        folder, rows = f"data/{shard.receipt.number:06d}", list[dict[str, Any]]()
        discard(files.root, folder)
        for key, sample in shard.samples:
            image, name = sample[self.extension], f"{key}.{self.extension}"
            files.write(f"{folder}/{name}", image if self.sign is None else self.sign(image))
            rows.append({"file_name": name, "image_sha256": sha256_hex(image), **json.loads(sample["json"])})
        files.write(f"{folder}/metadata.parquet", self._table(rows))

    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:  # noqa: ARG002
        front = {
            "pretty_name": self.manifest.name,
            "tags": ["synthetic", "latentmill"],
            "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]}],
        }
        text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
        body = (
            f"# {self.manifest.name}\n\nSingle image files of the build `{self.manifest.build_id}`"
            f" (recipe `{self.manifest.recipe_digest}`): {self.manifest.samples:,} **synthetic** images."
        )
        files.write(_CARD, f"---\n{text}---\n\n{body}\n".encode())

    def _table(self, rows: list[dict[str, Any]]) -> bytes:
        """The metadata of a folder. Its schema says what ``datasets`` cannot guess: the names of the classes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        head = [pa.field("file_name", pa.string()), pa.field("image_sha256", pa.string())]
        label = [pa.field("label", pa.int64())] if self.recipe.labelled else []
        features = hugging_face_features(self.recipe.classes, {"file_name": "string", "image_sha256": "string"})
        schema = pa.schema([*head, *label, *facts_schema()], {"huggingface": features})
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
        return out.getvalue()
