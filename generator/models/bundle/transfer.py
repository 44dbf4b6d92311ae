"""Bundles in a store root: push and pull ``<root>/bundles/<digest>/``, which is written once."""

from __future__ import annotations

from pathlib import Path

from generator.errors import BuildConflict, BundleError
from generator.models.bundle.format import INFO_FILE, BundleInfo
from generator.models.bundle.load import load_bundle, parse_info, read_file, read_info_bytes
from generator.models.bundle.save import check_new_directory, write_atomically
from generator.signatures import copy_signatures
from generator.spec.canonical import digest_of
from generator.store import open_store
from generator.store.base import Store
from generator.store.put_once import put_once


def bundle_store(root: Store, digest: str) -> Store:
    """The location of the bundle ``digest`` in a store root."""
    return root.at(f"bundles/{digest.removeprefix('sha256:')}")


def push(bundle: Store, root: Store) -> str:
    """Copy a verified bundle into a store root, ``bundle.json`` last; returns its digest.

    Existing objects are verified: pushing an intact bundle again changes nothing, and objects that are missing or
    altered are written again. Signatures are copied too. Raises ``BundleError``, naming the altered object if
    ``bundle`` is damaged itself.
    """
    document = read_info_bytes(bundle)
    digest, info = digest_of(document), parse_info(document)
    target = bundle_store(root, digest)
    faults = _find_faults(target, info, document)
    if faults:
        try:
            load_bundle(bundle, digest)
            files = fetch(bundle, digest)
        except BundleError as error:
            raise _repair_error(target, faults, error) from error
        for name, altered in faults.items():
            _write(target, name, files[name], altered=altered)
    copy_signatures(bundle, target)
    return digest


def pull(root: Store, digest: str, directory: Path) -> None:
    """Copy the bundle ``digest`` from a store root to ``directory``, which must not exist yet; all files are
    verified, and signatures copied.

    Raises ``BundleMissing`` if the root has no such bundle, and ``BundleError``.
    """
    check_new_directory(directory)
    stored = bundle_store(root, digest)
    write_atomically(directory, fetch(stored, digest))
    copy_signatures(stored, open_store(str(directory)))


def fetch(bundle: Store, digest: str) -> dict[str, bytes]:
    """All files of the bundle ``digest`` in ``bundle``, verified, ``bundle.json`` last. Raises as ``pull`` does."""
    document = read_info_bytes(bundle, digest)
    info = parse_info(document)
    files: dict[str, bytes] = {name: read_file(bundle, info, name) for name in info.files}
    return {**files, INFO_FILE: document}


def _find_faults(target: Store, info: BundleInfo, document: bytes) -> dict[str, bool]:
    """The objects that must be written, in order: ``True`` for altered objects, ``False`` for missing ones."""
    wanted = {str(name): (entry.size, entry.digest) for name, entry in info.files.items()}
    wanted[INFO_FILE] = (len(document), digest_of(document))
    faults = {}
    for name, (size, digest) in wanted.items():
        stored = target.head(name)
        if stored is None:
            faults[name] = False
        elif stored.size != size or digest_of(target.get(name, size)) != digest:
            faults[name] = True
    return faults


def _repair_error(target: Store, faults: dict[str, bool], error: BundleError) -> BundleError:
    altered = [f"{target.url}/{name}" for name, is_altered in faults.items() if is_altered]
    if not altered:
        return error
    hint = f"delete it and push an intact bundle: the given one is damaged ({error})"
    return BundleError(altered[0], "the bytes stated in bundle.json", "altered bytes", hint)


def _write(target: Store, name: str, data: bytes, *, altered: bool) -> None:
    if altered:
        target.put(name, data)
        return
    try:
        put_once(target, name, data)
    except BuildConflict as conflict:
        hint = "another client wrote different bytes there: delete it and push again"
        raise BundleError(conflict.field, conflict.expected, conflict.got, hint) from conflict
