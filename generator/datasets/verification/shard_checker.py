"""Checks the samples of one shard: against the plan, against the rows of its table, and as images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from generator.datasets.verification.findings import Findings
from generator.errors import DatasetError, IntegrityError
from generator.production.images import decode_image, extension, is_marked_synthetic
from generator.production.provenance.manifest import ImageFacts
from generator.production.provenance.sample_table import read_rows, sample_key
from generator.production.shards import shard_format, sidecar_bytes
from generator.spec.canonical import digest_of, read_json, sha256_hex
from generator.spec.plan import ShardPlan
from generator.spec.recipe import Recipe, Sidecar

_MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
# Fields in both the JSON of a sample and its table row:
_DRAW_FIELDS = ("index", "attempt", "label", "class", "cluster", "log_density")
_SHARED_FIELDS = (*_DRAW_FIELDS, "label_confidence", "likely_labels", "likely_probabilities")
_COLUMNS = [*_SHARED_FIELDS, "key", "image_sha256"]
_COLUMNS_OF_VERSION_2 = ["offset", "size", "map_x", "map_y"]

_FIRST_BYTES = 2**17  # of an archive: more than its first sample, unless images are large

Files = dict[str, bytes]
Row = dict[str, Any]


@dataclass(frozen=True)
class ShardChecker:
    """The expected content of one shard, and the findings to which problems are added."""

    recipe: Recipe
    recipe_digest: str
    image: ImageFacts
    plan: ShardPlan
    findings: Findings

    def check_archive(self, key: str, data: bytes) -> list[tuple[str, Files]]:
        """Compare the archive with the plan. Returns the samples that can be read."""
        samples = self._read_samples(key, data)
        self.findings.expect(key, "number of samples", len(self.plan), len(samples))
        self._check_samples(key, samples)
        return samples

    def check_first(self, key: str, read: Callable[[int], bytes], size: int) -> None:
        """Compare the first sample of the archive ``key``, whose digest is right, with the plan.

        ``read``: the first bytes of the archive, as many as asked for, of ``size`` in all.
        """
        samples = shard_format(self.recipe).read_samples
        for length in (_FIRST_BYTES, size):
            try:
                self._check_samples(key, list(islice(samples(read(length), field=key), 1)))
                return
            except IntegrityError as broken:
                found = broken
        self.findings.add(key, "format", found.expected, found.got)

    def _check_samples(self, key: str, samples: list[tuple[str, Files]]) -> None:
        for (index, label), (name, files) in zip(self._planned_labels(), samples, strict=False):
            self.findings.expect(key, "sample key", sample_key(index), name)
            self.findings.expect(key, "files of a sample", self._extensions(), sorted(files), name)
            self._check_label(key, name, files, label)
            self._check_facts(key, name, files, index, label)
            self._check_image(key, name, files.get(extension(self.recipe.image.format), b""))

    def check_table(self, key: str, data: bytes) -> list[Row]:
        """Compare the table with the plan. Returns the rows; none if the table cannot be read."""
        try:
            rows = read_rows(data, field=key, columns=_COLUMNS + (_COLUMNS_OF_VERSION_2 if self._has_spans else []))
        except (IntegrityError, ValueError, NotImplementedError) as broken:  # what pyarrow raises for damaged pages
            self.findings.add(key, "format", "a Parquet table", broken)
            return []
        self.findings.expect(key, "number of rows", len(self.plan), len(rows))
        for (index, label), row in zip(self._planned_labels(), rows, strict=False):
            self.findings.expect_all(
                key, " of a row", self._expected_facts(index, label) | {"key": sample_key(index)}, row
            )
        return rows

    def check_sidecar(self, key: str, kind: Sidecar, data: bytes, archive: bytes) -> None:
        """Compare the sidecar ``key`` with the one that follows from the archive."""
        try:
            expected = digest_of(sidecar_bytes(kind, archive, field=key))
        except IntegrityError as broken:
            self.findings.add(key, "archive behind the sidecar", broken.expected, broken.got)
            return
        self.findings.expect(key, f"{kind} sidecar of its archive", expected, digest_of(data))

    def check_agreement(self, key: str, archive: bytes, samples: list[tuple[str, Files]], rows: list[Row]) -> None:
        """Compare each sample of the archive ``key`` with the table row at the same position."""
        for (name, files), row in zip(samples, rows, strict=False):
            image = files.get(extension(self.recipe.image.format), b"")
            digest = sha256_hex(image)
            self.findings.expect(key, "image sha256, as in the table", row["image_sha256"], digest, name)
            if self._has_spans and (found := _read_span(archive, row["offset"], row["size"])) != image:
                got = "no bytes of the archive" if found is None else sha256_hex(found)
                check = "sha256 of the bytes at offset, size of the table"
                self.findings.expect(key, check, row["image_sha256"], got, f"{name}, {row['offset']}, {row['size']}")
            if (facts := _parse_facts(files, key)) is not None:
                stated = {field: row[field] for field in _SHARED_FIELDS}
                self.findings.expect_all(key, " of a sample, as in the table", stated, facts, name)

    @property
    def _has_spans(self) -> bool:
        """Whether table rows say where in the archive the image file is."""
        return self.recipe.recipe_version > 1

    def _planned_labels(self) -> list[tuple[int, int]]:
        return list(zip(self.plan.indices_N.tolist(), self.plan.labels_N.tolist(), strict=True))

    def _read_samples(self, key: str, data: bytes) -> list[tuple[str, Files]]:
        samples = list[tuple[str, Files]]()
        try:
            samples.extend(shard_format(self.recipe).read_samples(data, field=key))
        except IntegrityError as broken:
            self.findings.add(key, "format", broken.expected, broken.got)
        return samples

    def _extensions(self) -> list[str]:
        return sorted([extension(self.recipe.image.format), "json", *(["cls"] if self.recipe.labelled else [])])

    def _expected_facts(self, index: int, label: int) -> dict[str, Any]:
        labelled = self.recipe.labelled
        return {
            "index": index,
            "label": label if labelled else None,
            "class": self.recipe.classes[label] if labelled else None,
        }

    def _check_label(self, key: str, name: str, files: Files, label: int) -> None:
        if self.recipe.labelled and "cls" in files:
            self.findings.expect(key, "label of a sample", str(label).encode(), files["cls"], name)

    def _check_facts(self, key: str, name: str, files: Files, index: int, label: int) -> None:
        facts = _parse_facts(files, key)
        if facts is None:
            self.findings.add(key, "facts of a sample", "a JSON object", f"none ({name})")
            return
        expected = self._expected_facts(index, label) | {"recipe": self.recipe_digest, "synthetic": True}
        self.findings.expect_all(key, " of a sample", expected, facts, name)

    def _check_image(self, key: str, name: str, data: bytes) -> None:
        try:
            shape, marked = decode_image(data, field=name).shape, is_marked_synthetic(data)
        except IntegrityError as broken:
            self.findings.add(key, "image", broken.expected, f"{broken.got} ({name})")
            return
        wanted = (self.image.height, self.image.width, self.image.channels)
        self.findings.expect(key, "height, width, channels", wanted, shape, name)
        self.findings.expect(key, f"{self.image.format} file", True, data.startswith(_MAGIC[self.image.format]), name)
        self.findings.expect(key, "marked synthetic", True, marked, name)


def _read_span(archive: bytes, offset: Any, size: Any) -> bytes | None:
    if not isinstance(offset, int) or not isinstance(size, int) or not 0 <= offset <= offset + size <= len(archive):
        return None
    return archive[offset : offset + size]


def _parse_facts(files: Files, key: str) -> dict[str, Any] | None:
    try:
        facts = read_json(files.get("json", b""), field=key, error=DatasetError)
    except DatasetError:
        return None
    return facts if isinstance(facts, dict) else None
