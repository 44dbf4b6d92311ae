"""Export to single image files with ``metadata.jsonl``, which ``datasets`` reads without arguments, also streaming.

Format: https://huggingface.co/docs/datasets/image_dataset, "ImageFolder". The files are those of the build, byte for
byte, unless they are signed: then each has a C2PA manifest of its own, and its metadata the sha256 of the unsigned
file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import yaml

from generator.datasets.exports.directory import ShardFiles, ShardMark, discard
from generator.datasets.exports.target import ExportTarget, SourceShard
from generator.spec.canonical import canonical_json, sha256_hex

_CARD = "README.md"
_TYPES = {
    "attempt": {"dtype": "int64"},
    "class": {"dtype": "string"},
    "cluster": {"dtype": "int64"},
    "image_sha256": {"dtype": "string"},
    "index": {"dtype": "int64"},
    "label_confidence": {"dtype": "float64"},
    "likely_labels": {"list": "int64"},
    "likely_probabilities": {"list": "float64"},
    "log_density": {"dtype": "float64"},
    "recipe": {"dtype": "string"},
    "synthetic": {"dtype": "bool"},
}


@final
@dataclass(frozen=True, eq=False)
class ImageFolderTarget(ExportTarget):
    """``data/000123/<key>.png`` beside ``data/000123/metadata.jsonl``, and a card.

    ``sign``: adds a C2PA manifest to an image file.
    """

    sign: Callable[[bytes], bytes] | None = None

    def write_shard(self, shard: SourceShard, files: ShardFiles) -> None:
        folder, rows = f"data/{shard.receipt.number:06d}", list[bytes]()
        discard(files.root, folder)
        for key, sample in shard.samples:
            image, name = sample[self.extension], f"{key}.{self.extension}"
            files.write(f"{folder}/{name}", image if self.sign is None else self.sign(image))
            rows.append(canonical_json({"file_name": name, **self._row(sample, image)}))
        files.write(f"{folder}/metadata.jsonl", b"".join(row + b"\n" for row in rows))

    def finish(self, marks: Sequence[ShardMark], files: ShardFiles) -> None:  # noqa: ARG002
        front = {
            "pretty_name": self.manifest.name,
            "tags": ["synthetic", "latentmill"],
            "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]}],
            "dataset_info": {"features": self._features()},
        }
        text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
        body = (
            f"# {self.manifest.name}\n\nSingle image files of the build `{self.manifest.build_id}`"
            f" (recipe `{self.manifest.recipe_digest}`): {self.manifest.samples:,} **synthetic** images."
        )
        files.write(_CARD, f"---\n{text}---\n\n{body}\n".encode())

    def _row(self, sample: dict[str, bytes], image: bytes) -> dict[str, Any]:
        facts = json.loads(sample["json"])
        label = {"label": facts["label"]} if self.recipe.labelled else {}
        return {name: facts.get(name) for name in _TYPES} | {"image_sha256": sha256_hex(image), **label}

    def _features(self) -> list[dict[str, Any]]:
        names = {str(label): name for label, name in enumerate(self.recipe.classes)}
        label = [{"name": "label", "dtype": {"class_label": {"names": names}}}] if names else []
        return [{"name": "image", "dtype": "image"}, *label, *({"name": name, **kind} for name, kind in _TYPES.items())]
