"""Verify one build, shard by shard, while the next ones are read and hashed. Damage does not stop the verification."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import final

import numpy as np

from generator.datasets.builds import find_build, read_manifest
from generator.datasets.verification.findings import Findings, Verification
from generator.datasets.verification.objects import (
    LoadedObject,
    ShardObjects,
    hash_object,
    is_canonical,
    is_marked,
    load_ahead,
    load_object,
)
from generator.datasets.verification.shard_checker import ShardChecker
from generator.errors import DatasetError, IntegrityError, ObjectMissing
from generator.production.commit.epochs import MAX_EPOCH_BYTES, EpochOpening
from generator.production.commit.shard_index import index_bytes
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
    ListedSegment,
    Manifest,
    Receipt,
    StoredFile,
    check_segment,
    code_key,
    extra_keys,
    parse_manifest,
    receipt_key,
    segment_key,
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
_SHARD_KEY = re.compile(r"(?:shards|samples|receipts)/(?:.*-)?(\d{6})\.[a-z]+")
_DAMAGE = (ObjectMissing, IntegrityError, DatasetError)  # of a segment
_EPOCH_KEY = re.compile(r"(environments|epochs)/\d{3}\.json")
_READ_LIMIT = 2**28  # bytes read of a file at most, unless its stated size is larger
_UNCOMMITTED_PREFIXES = ("runs/", "reports/", SIGNATURES_PREFIX)  # not part of the commit: these objects may change


def verify_dataset(
    url: str,
    s3: S3Settings | None = None,
    on_shard: OnShard = lambda _: None,
    *,
    deep: bool = False,
    trusted: Sequence[PublicKey] | None = None,
) -> Verification:
    """Read the whole committed build at ``url`` (as for ``resolve_build``) and list all damage.

    Every byte is hashed. The samples of a shard whose digest is right are what its writer made; they are compared with
    plan and table, and decoded, with ``deep`` alone, which takes many times as long. Without it, that is done for
    the first sample of the build, and for damaged shards, to say what is wrong with them.
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
            manifest = parse_manifest(data, store)
    except DatasetError as broken:
        findings.add(MANIFEST_KEY, broken.field, broken.expected, broken.got)
        return Verification(store.url, findings.problems, 0, 0, 0)
    return _Verifier(store, manifest, findings, deep=deep).verify(on_shard)


@final
class _Verifier:
    def __init__(self, store: Store, manifest: Manifest, findings: Findings, *, deep: bool) -> None:
        self._store, self._manifest, self._findings, self._deep = store, manifest, findings, deep
        self._listed = {} if manifest.segments else {receipt.number: receipt for receipt in manifest.shards}
        self._segments = {each.first: each for each in manifest.segments}
        self._shards = self._samples = self._bytes = 0

    def verify(self, on_shard: OnShard) -> Verification:
        recipe = self._parse_recipe()
        if recipe is None:
            self._check_documents()
            self._check_extras()
        else:
            plan = Plan(recipe)
            with closing(load_ahead(partial(self._load_shard, recipe), range(plan.shard_count))) as read:
                next(read)  # the first shards are read from here on
                self._check_documents()
                self._check_extras()
                self._check_totals(plan)
                for shard, objects in zip(plan, read, strict=True):
                    assert objects is not None
                    self._check_segment(shard.number)
                    self._check_shard(shard, recipe, objects)
                    on_shard(shard.number + 1)
            self._check_unknown_objects(plan)
        return Verification(self._store.url, self._findings.problems, self._shards, self._samples, self._bytes)

    def _check_documents(self) -> None:
        expect, manifest = self._findings.expect, self._manifest
        stored = {key: self._read_object(key, limit) for key, limit in _DOCUMENTS.items()}
        for key, data in stored.items():  # no object stores the manifest's digest, but it must be canonical JSON
            expect(key, "canonical JSON", True, data is None or is_canonical(data))
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
            expect(key, "canonical JSON", True, is_canonical(data))
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
                self._check_index(data)
            if data is not None and key in codes:
                self._findings.expect(key, "digest, as in the recipe", codes[key], digest_of(data))
            if data is not None and key == PREVIEW_KEY:
                self._findings.expect(key, "marked synthetic", True, is_marked(data))

    def _check_index(self, data: bytes) -> None:
        with suppress(*_DAMAGE):  # of a segment, which is found when its shards are checked
            expected = digest_of(index_bytes(self._manifest))
            self._findings.expect(INDEX_KEY, "digest, as the receipts say", expected, digest_of(data))

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
        manifest, recipe = self._manifest, plan.recipe
        parts: Sequence[ListedSegment | Receipt] = manifest.segments or [*manifest.shards]
        expected = {
            "shard numbers": list(range(plan.shard_count)),
            "classes": recipe.classes,
            "counts": recipe.counts,
            "samples": recipe.total,
            "bytes": sum(part.bytes for part in parts),
            "refused": sum(part.refused for part in parts),
            "bundle": recipe.bundle,
            "image format": recipe.image.format,
        }
        got = {
            "shard numbers": [number for part in parts for number in _numbers(part)],
            "classes": manifest.classes,
            "counts": manifest.counts,
            "samples": manifest.samples,
            "bytes": manifest.bytes,
            "refused": manifest.refused,
            "bundle": manifest.provenance.bundle,
            "image format": manifest.image.format,
        }
        self._findings.expect_all(MANIFEST_KEY, "", expected, got)

    def _stated(self, number: int) -> Receipt | None:
        """What the manifest says of a shard: nothing where it names none, or the segment is damaged."""
        if not self._manifest.segments:
            return self._listed.get(number)
        try:
            return self._manifest.shards[number]
        except (*_DAMAGE, IndexError):
            return None

    def _check_segment(self, first: int) -> None:
        """Check the segment that begins with this shard, if one does."""
        if (listed := self._segments.get(first)) is None:
            return
        data = self._read_file(listed.key, listed)
        if data is None or digest_of(data) != listed.digest:
            return
        try:
            check_segment(data, self._manifest.recipe_digest, listed, field=listed.key)
        except (IntegrityError, DatasetError) as broken:
            self._findings.add(listed.key, broken.field, broken.expected, broken.got)

    def _load_shard(self, recipe: Recipe, number: int) -> ShardObjects:
        stated, name = self._stated(number), self._manifest.name
        receipt = load_object(self._store, receipt_key(number), MAX_RECEIPT_BYTES) if stated else None
        keys = shard_keys(name, number, recipe)[:2]
        if stated is not None and not self._deep:
            limits = max(stated.shard.size, _READ_LIMIT), max(stated.table.size, _READ_LIMIT)
            archive, table = (hash_object(self._store, *each) for each in zip(keys, limits, strict=True))
            if (archive.digest, table.digest) == (stated.shard.digest, stated.table.digest):
                return ShardObjects(archive, table, receipt)
        files = (stated.shard, stated.table) if stated else (None, None)
        archive, table = (self._load_file(*each) for each in zip(keys, files, strict=True))
        return ShardObjects(archive, table, receipt)

    def _load_file(self, key: str, stated: StoredFile | None) -> LoadedObject:
        return load_object(self._store, key, max(stated.size, _READ_LIMIT) if stated is not None else _READ_LIMIT)

    def _check_shard(self, shard: ShardPlan, recipe: Recipe, objects: ShardObjects) -> None:
        stated = self._stated(shard.number)
        # A receipt missing from the manifest was already reported with the shard numbers, or with its segment.
        if stated is not None and objects.receipt is not None:
            self._check_receipt(shard, stated, recipe, objects.receipt)
        self._check_file(objects.archive, stated.shard if stated else None)
        self._check_file(objects.table, stated.table if stated else None)
        checker = ShardChecker(recipe, self._manifest.recipe_digest, self._manifest.image, shard, self._findings)
        self._shards += objects.archive.found
        self._check_sidecars(checker, shard, stated, objects.archive.data)
        if not objects.hashed_only:
            self._samples += self._check_samples(checker, objects)
            return
        self._samples += len(shard)
        if shard.number == 0:
            key = objects.archive.key
            checker.check_first(key, partial(self._store.read, key, 0), objects.archive.size)

    def _check_samples(self, checker: ShardChecker, objects: ShardObjects) -> int:
        """Compare all samples with plan and table. Returns the number of samples that can be read."""
        key, archive, table = objects.archive.key, objects.archive.data, objects.table.data
        samples = checker.check_archive(key, archive) if archive is not None else []
        rows = checker.check_table(objects.table.key, table) if table is not None else []
        checker.check_agreement(key, archive or b"", samples, rows)
        return len(samples)

    def _check_sidecars(
        self, checker: ShardChecker, shard: ShardPlan, stated: Receipt | None, archive: bytes | None
    ) -> None:
        files = {file.key: file for file in stated.sidecars} if stated is not None else {}
        for kind, key in sidecar_keys(self._manifest.name, shard.number, checker.recipe.sidecars).items():
            data = self._read_file(key, files.get(key))
            if data is not None and archive is not None:
                checker.check_sidecar(key, kind, data, archive)

    def _check_receipt(self, shard: ShardPlan, stated: Receipt, recipe: Recipe, stored: LoadedObject) -> None:
        key, name = stored.key, self._manifest.name
        if (data := self._take(stored)) is not None:
            self._findings.expect(key, "canonical JSON", True, is_canonical(data))
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
        known |= {segment_key(each.start) for each in plan.segments()} | {each.key for each in self._manifest.segments}
        unknown = [
            info.key
            for info in self._store.list()
            if info.key not in known
            and not info.key.startswith(_UNCOMMITTED_PREFIXES)
            and not _EPOCH_KEY.fullmatch(info.key)
            and not self._belongs_to_shard(info.key, plan)
        ]
        for key in sorted(unknown):
            self._findings.add(key, "object", "no object: the build does not contain this key", "an object")

    def _belongs_to_shard(self, key: str, plan: Plan) -> bool:
        found = _SHARD_KEY.fullmatch(key)
        number = plan.shard_count if found is None else int(found[1])
        if number >= plan.shard_count:
            return False
        return key in (*shard_keys(self._manifest.name, number, plan.recipe), receipt_key(number))

    def _read_file(self, key: str, stated: StoredFile | None) -> bytes | None:
        return self._check_file(self._load_file(key, stated), stated)

    def _check_file(self, found: LoadedObject, stated: StoredFile | None) -> bytes | None:
        data = self._take(found)
        if found.found and stated is not None:
            self._findings.expect(found.key, "size", stated.size, found.size)
            self._findings.expect(found.key, "digest", stated.digest, found.digest)
        return data

    def _read_object(self, key: str, limit: int) -> bytes | None:
        return self._take(load_object(self._store, key, limit))

    def _take(self, found: LoadedObject) -> bytes | None:
        if found.problem is not None:
            self._findings.add(found.key, *found.problem)
        self._bytes += found.size
        return found.data


def _numbers(part: ListedSegment | Receipt) -> range:
    """The numbers of the shards of a part of a manifest."""
    first, count = (part.first, part.shards) if isinstance(part, ListedSegment) else (part.number, 1)
    return range(first, first + count)
