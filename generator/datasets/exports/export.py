"""Exports a committed build in another form, to a directory or S3. Every shard is read once, its digest is checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from generator.datasets.builds import find_build
from generator.datasets.exports.content_credentials import image_signer
from generator.datasets.exports.directory import (
    ExportDirectory,
    ExportIdentity,
    ShardFiles,
    ShardMark,
    Target,
    open_directory,
)
from generator.datasets.exports.energon import EnergonTarget
from generator.datasets.exports.image_folder import ImageFolderTarget
from generator.datasets.exports.lance_rows import LanceTarget, require_lance
from generator.datasets.exports.mds_files import MdsTarget
from generator.datasets.exports.object_store import StoreExport, open_export_store
from generator.datasets.exports.target import ExportTarget, SourceShard
from generator.errors import IntegrityError, SpecError
from generator.production.provenance.manifest import (
    MANIFEST_KEY,
    MAX_MANIFEST_BYTES,
    Manifest,
    Receipt,
    parse_manifest,
    read_recipe,
)
from generator.production.shards import shard_format
from generator.spec.canonical import digest_of
from generator.spec.recipe import MAX_MDS_BYTES
from generator.store import S3Settings, Store, is_below, is_remote

__all__ = ["Credentials", "Exported", "Target", "export_build"]

OnShard = Callable[[int], None]  # called after each shard with the number of shards done so far


@dataclass(frozen=True)
class Credentials:
    """Files for C2PA manifests: certificate chain and private key in PEM, and the algorithm of the key."""

    certificates: Path
    key: Path
    algorithm: str = "es256"


@dataclass(frozen=True)
class Exported:
    """A complete export. ``resumed``: shards that an interrupted one had made. ``existed``: it was complete before."""

    out: Path | str
    build: str
    samples: int
    shards: int
    resumed: int
    existed: bool


def export_build(
    url: str,
    target: Target,
    out: Path | str,
    s3: S3Settings | None = None,
    *,
    credentials: Credentials | None = None,
    on_shard: OnShard = lambda _: None,
) -> Exported:
    """Export the committed build at ``url`` (as for ``resolve_build``) to ``out``: a local directory, or a URL.

    A directory appears whole or not at all; in S3 the files that readers begin with are uploaded last. An interrupted
    export goes on where it stopped, and a complete one is checked.
    ``credentials``: each image file gets a C2PA manifest (``hf-folder`` only). Raises ``DatasetError`` if there is no
    committed build; ``SpecError`` for options that do not fit, a package that is missing, an ``out`` that holds
    something else; ``IntegrityError`` for damage of the build or of a complete export; ``StoreError``.
    """
    store = find_build(url, s3)
    if is_below(str(out), store.url):
        raise SpecError("out", f"a place outside of the build {store.url}", str(out))
    data = store.get(MANIFEST_KEY, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(data, store)
    form = _open_target(target, manifest, credentials)
    identity = ExportIdentity(
        target=target,
        build=manifest.build_id,
        recipe=manifest.recipe_digest,
        manifest=digest_of(data),
        signed=credentials is not None,
    )
    shards = len(manifest.shards)
    with _open_place(out, identity, s3) as directory:
        if directory.is_complete:
            return Exported(out, manifest.build_id, directory.check(shards), shards, shards, existed=True)
        directory.begin()
        resumed = _write_all(store, form, directory, on_shard)
        directory.complete()
    return Exported(out, manifest.build_id, manifest.samples, shards, resumed, existed=False)


def _open_place(
    out: Path | str, identity: ExportIdentity, s3: S3Settings | None
) -> AbstractContextManager[ExportDirectory | StoreExport]:
    if is_remote(str(out)):
        return open_export_store(str(out), identity, s3)
    return open_directory(Path(out).resolve(), identity)


def _open_target(target: Target, manifest: Manifest, credentials: Credentials | None) -> ExportTarget:
    recipe = read_recipe(manifest)
    if credentials is not None and target != "hf-folder":
        raise SpecError("c2pa-cert", "C2PA manifests for single image files, with --to hf-folder", f"--to {target}")
    if target == "hf-folder":
        sign = None
        if credentials is not None:
            sign = image_signer(credentials.certificates, credentials.key, credentials.algorithm, manifest)
        return ImageFolderTarget(manifest, recipe, sign)
    if target == "lance":
        require_lance()
        return LanceTarget(manifest, recipe)
    if target == "mds" and (largest := max(each.shard.size for each in manifest.shards)) > MAX_MDS_BYTES:
        raise SpecError("to", f"shards of at most {MAX_MDS_BYTES} bytes for MDS", f"one of {largest} bytes")
    return MdsTarget(manifest, recipe) if target == "mds" else EnergonTarget(manifest, recipe)


def _write_all(store: Store, form: ExportTarget, directory: ExportDirectory | StoreExport, on_shard: OnShard) -> int:
    """Write the shards that are not there yet, and the files of the whole. Returns how many shards were there."""
    numbers = range(len(form.manifest.shards))
    marks = {number: mark for number in numbers if (mark := directory.intact_mark(number)) is not None}
    resumed = len(marks)
    form.prepare(directory.root, list(marks.values()))
    for number in numbers:
        if number not in marks:
            marks[number] = _write_shard(store, form, directory, form.manifest.shards[number])
        on_shard(number + 1)
    whole = ShardFiles(directory.root)
    form.finish([marks[number] for number in numbers], whole)
    directory.finish_shard(None, 0, whole)
    return resumed


def _write_shard(
    store: Store, form: ExportTarget, directory: ExportDirectory | StoreExport, receipt: Receipt
) -> ShardMark:
    files = ShardFiles(directory.root)
    form.write_shard(_read_shard(store, form, receipt), files)
    return directory.finish_shard(receipt.number, receipt.samples, files)


def _read_shard(store: Store, form: ExportTarget, receipt: Receipt) -> SourceShard:
    field = f"{store.url}/{receipt.shard.key}"
    data = store.get(receipt.shard.key, receipt.shard.size)
    if (digest := digest_of(data)) != receipt.shard.digest:
        hint = "latentmill verify lists all damage"
        raise IntegrityError(field, f"bytes with digest {receipt.shard.digest}", digest, hint)
    samples = list(shard_format(form.recipe).read_samples(data, field=field))
    if len(samples) != receipt.samples:
        raise IntegrityError(field, f"{receipt.samples} samples", len(samples))
    return SourceShard(receipt, data, samples)
