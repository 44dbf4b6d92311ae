"""Finds the files at a location, and which kind of source they are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from generator.errors import SourceError, SpecError
from generator.sources.files.archives import ZIP_SUFFIXES, list_zip
from generator.sources.files.directory import has_wildcards, list_directory, list_file, list_pattern
from generator.sources.files.file_set import FileSet, SourceFile
from generator.sources.files.object_store import list_objects
from generator.sources.kinds.image_labels import is_label_file
from generator.sources.kinds.parquet import SUFFIX as PARQUET
from generator.sources.kinds.parquet import holds_images
from generator.sources.kinds.webdataset import is_tar
from generator.sources.pixels.formats import SUFFIXES, is_image, is_pointer
from generator.store.s3_settings import S3Settings
from generator.store.url import is_remote

Kind = Literal["digits", "folder", "parquet", "npz", "webdataset"]

DIGITS: Literal["digits"] = "digits"
_ARRAYS = (".npz", ".npy")
_FILE_URL = "file://"
_MANIFEST = "manifest.json"
_IMAGES_BESIDE = 20  # images beside one tar that are no more than a preview or a logo
KINDS = (
    "'digits', a folder of class folders, .parquet files, .tar files (WebDataset), a .zip of images or a .npz file: a"
    " path, a pattern, or a URL (s3://, gs://, az://)"
)


def find_files(location: str, *, follow_links: bool = False, s3: S3Settings | None = None) -> FileSet:
    """The files at a location: a path, a pattern, a ``file://`` URL or one of a service. Raises ``SourceError``,
    ``StoreError``."""
    if is_remote(location):
        try:
            found = list_objects(location, s3)
        except SpecError as error:
            raise SourceError(location, error.expected, error.got) from error
    else:
        found = _find_local(location, follow_links=follow_links)
    if found.single and found.files[0].suffix in ZIP_SUFFIXES:
        return list_zip(_checked(found), found.name)
    return found


def kind_of_files(location: str, found: FileSet) -> Kind:
    """Which kind of source files are. Raises ``SourceError`` if they are none."""
    tars = sum(is_tar(file) for file in found.files)
    images = sum(file.suffix in SUFFIXES for file in found.files)
    if tars and any(file.path == _MANIFEST for file in found.files):
        return "webdataset"  # a build of latentmill, which has tables in Parquet beside its shards
    tables = [file for file in found.files if file.suffix == PARQUET and (found.single or not is_label_file(file))]
    if tables and (found.single or not (tars or images) or holds_images(tables[0])):
        return "parquet"
    if tars and images <= _IMAGES_BESIDE * tars:
        return "webdataset"
    if len(found.files) == 1 and found.files[0].suffix in _ARRAYS:
        return "npz"
    if found.single and not is_image(found.files[0]):
        raise SourceError(location, KINDS, "a file of another kind")
    return "folder"


def _find_local(location: str, *, follow_links: bool) -> FileSet:
    if not location:
        raise SourceError("source", KINDS, "an empty text")
    text = location
    if location.startswith(_FILE_URL):
        text = unquote(location.removeprefix(_FILE_URL).removeprefix("localhost"))
    path = Path(text)
    try:
        path = path.expanduser()
        if path.is_dir():
            return list_directory(path, follow_links=follow_links)
        if path.is_file():
            return list_file(path)
        if path.exists():
            raise SourceError(location, KINDS, "no regular file")
        found = list_pattern(text) if has_wildcards(text) else None
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(location, KINDS, reason) from error
    if found is None or not found.files:
        raise SourceError(location, KINDS, "nothing of this name")
    return found


def _checked(found: FileSet) -> SourceFile:
    file = found.files[0]
    if is_pointer(file):
        raise SourceError(found.name, "a zip archive", "a Git LFS pointer", "Fetch it: git lfs pull.")
    return file
