"""Verify one build, shard by shard. Damage does not stop the verification."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from generator.datasets.builds import find_build, read_manifest
from generator.datasets.verification.findings import Findings, Problem
from generator.datasets.verification.shard_checker import ShardChecker
from generator.errors import DatasetError, IntegrityError, ObjectMissing
from generator.production.commit.epochs import MAX_EPOCH_BYTES, EpochOpening
from generator.production.commit.shard_index import index_bytes
from generator.production.images import decode_image, is_marked_synthetic
from generator.production.provenance.environment import Environment
from generator.production.provenance.manifest import (
    CARD_KEY,
    CROISSANT_KEY,
    ENVIRONMENT_KEY,
    INDEX_KEY,
    MANIFEST_KEY,
    MAX_MANIFEST_BYTES,
    MAX_RECEIPT_BYTES,
    MAX_RECIPE_BYTES,
    PREVIEW_KEY,
    RECIPE_KEY,
    Manifest,
    Receipt,
    StoredFile,
    code_key,
    extra_keys,
    parse_manifest,
    receipt_key,
    shard_keys,
    sidecar_keys,
)
from generator.signatures import SIGNATURES_PREFIX, PublicKey, check_signed
from generator.spec.canonical import FrozenModel, canonical_json, digest_of, read_json, validate
from generator.spec.plan import Plan, ShardPlan
from generator.spec.recipe import Recipe, build_id_of
from generator.store import S3Settings, Store

OnShard = Callable[[int], None]  # called after each shard with the number of shards checked so far

_DOCUMENTS = {MANIFEST_KEY: MAX_MANIFEST_BYTES, RECIPE_KEY: MAX_RECIPE_BYTES}
_EPOCH_KEY = re.compile(r"(environments|epochs)/\d{3}\.json")
_READ_LIMIT = 2**28  # bytes read of a file at most, unless its stated size is larger
_UNCOMMITTED_PREFIXES = ("runs/", "reports/", SIGNATURES_PREFIX)  # not part of the commit: these objects may change


@dataclass(frozen=True)
class Verification:
    """The result of a verification: the build's URL, all problems, and the shards, samples and bytes that were read."""

    url: str
    problems: tuple[Problem, ...]
    shards: int
    samples: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems

    def facts(self) -> dict[str, Any]:
        """The result as JSON values, for ``--json``."""
        return {
            "url": self.url,
            "ok": self.ok,
            "shards": self.shards,
            "samples": self.samples,
            "bytes": self.bytes,
            "problems": [problem.facts() for problem in self.problems],
        }


def verify_dataset(
    url: str,
    s3: S3Settings | None = None,
    on_shard: OnShard = lambda _: None,
    *,
    trusted: Sequence[PublicKey] | None = None,
) -> Verification:
    """Read the whole committed build at ``url`` (as for ``resolve_build``) and list all damage.

    ``trusted``: keys of which one must have signed the manifest; what is compared then is the manifest that was signed.
    Raises ``DatasetError`` if there is no committed build, ``IntegrityError`` if no trusted key signed it,
    ``StoreError`` if the store does not answer. Damage never raises.
    """
    store = find_build(url, s3)
    findings = Findings()
    try:
        if trusted is None:
            manifest = read_manifest(store)
        else:
            data = store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
            check_signed(store, MANIFEST_KEY, data, trusted)
            manifest = parse_manifest(data)
    except DatasetError as broken:
        findings.add(MANIFEST_KEY, broken.field, broken.expected, broken.got)
        return Verification(store.url, findings.problems, 0, 0, 0)
    return _Verifier(store, manifest, findings).verify(on_shard)


@final
class _Verifier:
    def __init__(self, store: Store, manifest: Manifest, findings: Findings) -> None:
        self._store, self._manifest, self._findings = store, manifest, findings
        self._receipts = {receipt.number: receipt for receipt in manifest.shards}
        self._shards = self._samples = self._bytes = 0

    def verify(self, on_shard: OnShard) -> Verification:
        self._check_documents()
        self._check_extras()
        recipe = self._parse_recipe()
        if recipe is not None:
            plan = Plan(recipe)
            self._check_totals(plan)
            for done, shard in enumerate(plan, start=1):
                self._check_shard(shard, recipe)
                on_shard(done)
            self._check_unknown_objects(plan)
        return Verification(self._store.url, self._findings.problems, self._shards, self._samples, self._bytes)

    def _check_documents(self) -> None:
        expect, manifest = self._findings.expect, self._manifest
        stored = {key: self._read_object(key, limit) for key, limit in _DOCUMENTS.items()}
        for key, data in stored.items():  # no object stores the manifest's digest, but it must be canonical JSON
            expect(key, "canonical JSON", True, data is None or _is_canonical(data))
        self._check_environments()
        expect(MANIFEST_KEY, "digest of recipe", manifest.recipe_digest, digest_of(canonical_json(manifest.recipe)))
        expect(MANIFEST_KEY, "build_id", build_id_of(manifest.recipe_digest), manifest.build_id)
        if (recipe := stored[RECIPE_KEY]) is not None:
            expect(RECIPE_KEY, "digest", manifest.recipe_digest, digest_of(recipe))

    def _check_environments(self) -> None:
        """Every environment in the manifest must be stored. An environment that wrote no shard may be stored too."""
        expect, named = self._findings.expect, self._manifest.environments
        for digest, environment in named.items():
            expect(MANIFEST_KEY, "digest of environment", digest, digest_of(canonical_json(environment)))
        stored = {
            key: data for key in self._epoch_keys() if (data := self._read_object(key, MAX_EPOCH_BYTES)) is not None
        }
        digests = {key: digest_of(data) for key, data in stored.items()}
        missing = sorted(named.keys() - set(digests.values()))
        if missing and named.keys() >= {digest for key, digest in digests.items() if key.startswith("env")}:
            self._findings.add(MANIFEST_KEY, "stored environments", missing, "nothing")
        for key, data in stored.items():
            expect(key, "canonical JSON", True, _is_canonical(data))
            if key.startswith("epochs/"):
                self._check_parses(EpochOpening, key, data)
            elif digests[key] not in named:
                expect(key, "digest", f"one of {missing}" if missing else digests[key], digests[key])
                self._check_parses(Environment, key, data)

    def _epoch_keys(self) -> list[str]:
        """The keys of the environment that every build has, and of the other stored environments and epochs."""
        stored = (info.key for folder in ("environments/", "epochs/") for info in self._store.list(folder))
        return [ENVIRONMENT_KEY, *sorted(key for key in stored if _EPOCH_KEY.fullmatch(key))]

    def _check_parses(self, model: type[FrozenModel], key: str, data: bytes) -> None:
        try:
            validate(model, read_json(data, field=key, error=DatasetError), field=key, error=DatasetError)
        except DatasetError as broken:
            self._findings.add(key, broken.field, broken.expected, broken.got)

    def _check_extras(self) -> None:
        listed = {file.key: file for file in self._manifest.extras}
        codes, keys = self._code_keys(), self._extra_keys()
        self._findings.expect(MANIFEST_KEY, "extras", sorted(keys), sorted(file.key for file in listed.values()))
        for key in keys:
            data = self._read_file(key, listed.get(key))
            if data is not None and key == INDEX_KEY:
                self._findings.expect(
                    key, "digest, as the receipts say", digest_of(index_bytes(self._manifest)), digest_of(data)
                )
            if data is not None and key in codes:
                self._findings.expect(key, "digest, as in the recipe", codes[key], digest_of(data))
            if data is not None and key == PREVIEW_KEY:
                self._findings.expect(key, "marked synthetic", True, _is_marked(data))

    def _code_keys(self) -> dict[str, str]:
        """The keys of the codes that the recipe names, and their digests; none if the recipe does not parse."""
        recipe = self._find_recipe()
        return {} if recipe is None else {code_key(digest): digest for digest in recipe.stored_codes}

    def _extra_keys(self) -> tuple[str, ...]:
        """The keys of the extras of this recipe; if it does not parse, those that every build has."""
        recipe = self._find_recipe()
        return (CARD_KEY, CROISSANT_KEY, PREVIEW_KEY) if recipe is None else extra_keys(recipe)

    def _find_recipe(self) -> Recipe | None:
        try:
            return validate(Recipe, self._manifest.recipe, field="recipe", error=DatasetError)
        except DatasetError:
            return None

    def _parse_recipe(self) -> Recipe | None:
        try:
            return validate(Recipe, self._manifest.recipe, field="recipe", error=DatasetError)
        except DatasetError as broken:
            self._findings.add(MANIFEST_KEY, broken.field, broken.expected, broken.got)
            return None

    def _check_totals(self, plan: Plan) -> None:
        manifest, recipe, shards = self._manifest, plan.recipe, self._manifest.shards
        expected = {
            "shard numbers": list(range(plan.shard_count)),
            "classes": recipe.classes,
            "counts": recipe.counts,
            "samples": recipe.total,
            "bytes": sum(receipt.bytes for receipt in shards),
            "refused": sum(receipt.refused for receipt in shards),
            "bundle": recipe.bundle,
            "image format": recipe.image.format,
        }
        got = {
            "shard numbers": [receipt.number for receipt in shards],
            "classes": manifest.classes,
            "counts": manifest.counts,
            "samples": manifest.samples,
            "bytes": manifest.bytes,
            "refused": manifest.refused,
            "bundle": manifest.provenance.bundle,
            "image format": manifest.image.format,
        }
        self._findings.expect_all(MANIFEST_KEY, "", expected, got)

    def _check_shard(self, shard: ShardPlan, recipe: Recipe) -> None:
        stated = self._receipts.get(shard.number)
        if stated is not None:  # a receipt missing from the manifest was already reported with the shard numbers
            self._check_receipt(shard, stated, recipe)
        archive_key, rows_key, *_ = shard_keys(self._manifest.name, shard.number, recipe)
        archive = self._read_file(archive_key, stated.shard if stated else None)
        table = self._read_file(rows_key, stated.table if stated else None)
        checker = ShardChecker(recipe, self._manifest.recipe_digest, self._manifest.image, shard, self._findings)
        samples = checker.check_archive(archive_key, archive) if archive is not None else []
        rows = checker.check_table(rows_key, table) if table is not None else []
        checker.check_agreement(archive_key, archive or b"", samples, rows)
        self._check_sidecars(checker, shard, stated, archive)
        self._shards += archive is not None
        self._samples += len(samples)

    def _check_sidecars(
        self, checker: ShardChecker, shard: ShardPlan, stated: Receipt | None, archive: bytes | None
    ) -> None:
        files = {file.key: file for file in stated.sidecars} if stated is not None else {}
        for kind, key in sidecar_keys(self._manifest.name, shard.number, checker.recipe.sidecars).items():
            data = self._read_file(key, files.get(key))
            if data is not None and archive is not None:
                checker.check_sidecar(key, kind, data, archive)

    def _check_receipt(self, shard: ShardPlan, stated: Receipt, recipe: Recipe) -> None:
        key, name = receipt_key(shard.number), self._manifest.name
        if (data := self._read_object(key, MAX_RECEIPT_BYTES)) is not None:
            self._findings.expect(key, "canonical JSON", True, _is_canonical(data))
            self._findings.expect(key, "the manifest's copy", stated, self._parse_receipt(key, data))
        expected = {
            "recipe": self._manifest.recipe_digest,
            "environment": True,
            "samples": len(shard),
            "counts": tuple(np.bincount(shard.labels_N, minlength=len(recipe.counts)).tolist()),
            "files": shard_keys(name, shard.number, recipe),
        }
        got = {
            "recipe": stated.recipe,
            "environment": stated.environment in self._manifest.environments,
            "samples": stated.samples,
            "counts": stated.counts,
            "files": tuple(file.key for file in stated.files),
        }
        self._findings.expect_all(MANIFEST_KEY, f" of shard {shard.number}", expected, got)

    def _parse_receipt(self, key: str, data: bytes) -> Receipt | None:
        try:
            return validate(Receipt, read_json(data, field=key, error=DatasetError), field=key, error=DatasetError)
        except DatasetError:
            return None

    def _check_unknown_objects(self, plan: Plan) -> None:
        known = {*_DOCUMENTS, *self._extra_keys(), ENVIRONMENT_KEY}
        for number in range(plan.shard_count):
            known |= {*shard_keys(self._manifest.name, number, plan.recipe), receipt_key(number)}
        for info in sorted(self._store.list(), key=lambda info: info.key):
            if (
                info.key not in known
                and not info.key.startswith(_UNCOMMITTED_PREFIXES)
                and not _EPOCH_KEY.fullmatch(info.key)
            ):
                self._findings.add(info.key, "object", "no object: the build does not contain this key", "an object")

    def _read_file(self, key: str, stated: StoredFile | None) -> bytes | None:
        data = self._read_object(key, max(stated.size, _READ_LIMIT) if stated is not None else _READ_LIMIT)
        if data is not None and stated is not None:
            self._findings.expect(key, "size", stated.size, len(data))
            self._findings.expect(key, "digest", stated.digest, digest_of(data))
        return data

    def _read_object(self, key: str, limit: int) -> bytes | None:
        try:
            data = self._store.get(key, limit)
        except ObjectMissing:
            self._findings.add(key, "object", "an object", "nothing")
            return None
        except IntegrityError as large:
            self._findings.add(key, "size", large.expected, large.got)
            return None
        self._bytes += len(data)
        return data


def _is_canonical(data: bytes) -> bool:
    try:
        return canonical_json(read_json(data, field="", error=DatasetError)) == data
    except (DatasetError, ValueError):  # ValueError: canonical JSON has no NaN
        return False


def _is_marked(data: bytes) -> bool:
    try:
        decode_image(data, field=PREVIEW_KEY)
    except IntegrityError:
        return False
    return is_marked_synthetic(data)
