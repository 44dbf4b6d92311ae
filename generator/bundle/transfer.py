"""Bundles in a store root: ``<root>/bundles/<digest>/``, written once, found by digest alone."""

from __future__ import annotations

from pathlib import Path

from generator.bundle.format import INFO_FILE
from generator.bundle.load import load_bundle, read_info
from generator.bundle.save import check_free, write_whole
from generator.canonical import digest_of
from generator.errors import BundleError
from generator.store.base import Store
from generator.store.once import put_once


def bundle_store(root: Store, digest: str) -> Store:
    """Where the bundle ``digest`` lies below a store root."""
    return root.at(f"bundles/{digest.removeprefix('sha256:')}")


def push(bundle: Store, root: Store) -> str:
    """Copy a verified bundle into a store root, ``bundle.json`` last; its digest. Pushing again changes nothing."""
    digest, info = read_info(bundle)
    target = bundle_store(root, digest)
    if target.head(INFO_FILE) is not None:
        return digest
    load_bundle(bundle, digest)
    for name in (*info.files, INFO_FILE):
        put_once(target, name, bundle.get(name))
    return digest


def pull(root: Store, digest: str, directory: Path) -> None:
    """Copy the bundle ``digest`` from a store root to ``directory``, which must not exist yet; verified on the way."""
    check_free(directory)
    source = bundle_store(root, digest)
    _, info = read_info(source, digest)
    files: dict[str, bytes] = {name: source.get(name) for name in info.files}
    for name, entry in info.files.items():
        if digest_of(files[name]) != entry.digest:
            raise BundleError(name, f"content with digest {entry.digest}", digest_of(files[name]))
    write_whole(directory, {**files, INFO_FILE: source.get(INFO_FILE)})
