"""Bundles in a store root: ``<root>/bundles/<digest>/``, written once, found by digest alone."""

from __future__ import annotations

from pathlib import Path

from generator.errors import BuildConflict, BundleError
from generator.models.bundle.format import INFO_FILE, BundleInfo
from generator.models.bundle.load import load_bundle, parse_info, read_file, read_info_bytes
from generator.models.bundle.save import check_new_directory, write_atomically
from generator.spec.canonical import digest_of
from generator.store.base import Store
from generator.store.put_once import put_once


def bundle_store(root: Store, digest: str) -> Store:
    """Where the bundle ``digest`` lies below a store root."""
    return root.at(f"bundles/{digest.removeprefix('sha256:')}")


def push(bundle: Store, root: Store) -> str:
    """Copy a verified bundle into a store root, ``bundle.json`` last; its digest.

    What is there already is verified: pushing an intact bundle again changes nothing, an object that was lost or
    altered is written again. Raises ``BundleError``, which names the altered object where ``bundle`` cannot mend it.
    """
    document = read_info_bytes(bundle)
    digest, info = digest_of(document), parse_info(document)
    target = bundle_store(root, digest)
    faults = _find_faults(target, info, document)
    if faults:
        try:
            load_bundle(bundle, digest)
            files = fetch(bundle, digest)
        except BundleError as ours:
            raise _repair_error(target, faults, ours) from ours
        for name, altered in faults.items():
            _write(target, name, files[name], altered=altered)
    return digest


def pull(root: Store, digest: str, directory: Path) -> None:
    """Copy the bundle ``digest`` from a store root to ``directory``, which must not exist yet; verified on the way.

    Raises ``BundleMissing`` where the root has no such bundle, and ``BundleError``.
    """
    check_new_directory(directory)
    write_atomically(directory, fetch(bundle_store(root, digest), digest))


def fetch(bundle: Store, digest: str) -> dict[str, bytes]:
    """All files of the bundle ``digest`` in ``bundle``, verified, ``bundle.json`` last. Raises as ``pull`` does."""
    document = read_info_bytes(bundle, digest)
    info = parse_info(document)
    files: dict[str, bytes] = {name: read_file(bundle, info, name) for name in info.files}
    return {**files, INFO_FILE: document}


def _find_faults(target: Store, info: BundleInfo, document: bytes) -> dict[str, bool]:
    """The objects that have to be written, in order: is it there, but altered (``True``), or missing (``False``)?"""
    wanted = {str(name): (entry.size, entry.digest) for name, entry in info.files.items()}
    wanted[INFO_FILE] = (len(document), digest_of(document))
    faults = {}
    for name, (size, digest) in wanted.items():
        held = target.head(name)
        if held is None:
            faults[name] = False
        elif held.size != size or digest_of(target.get(name, size)) != digest:
            faults[name] = True
    return faults


def _repair_error(target: Store, faults: dict[str, bool], ours: BundleError) -> BundleError:
    altered = [f"{target.url}/{name}" for name, there in faults.items() if there]
    if not altered:
        return ours
    hint = f"delete it and push an intact bundle: the one given cannot mend it ({ours})"
    return BundleError(altered[0], "the bundle's own bytes", "altered ones", hint)


def _write(target: Store, name: str, data: bytes, *, altered: bool) -> None:
    if altered:
        target.put(name, data)
        return
    try:
        put_once(target, name, data)
    except BuildConflict as conflict:
        hint = "something else was written there meanwhile: delete it and push again"
        raise BundleError(conflict.field, conflict.expected, conflict.got, hint) from conflict
