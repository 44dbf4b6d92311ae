"""Loads a source of any kind from its location."""

from __future__ import annotations

import glob
from pathlib import Path

from generator.errors import SourceError
from generator.sources.base import ProgressCallback, Source, check_channels, check_size
from generator.sources.digits import load_digits
from generator.sources.folder import load_folder
from generator.sources.npz import SplitName, load_npz
from generator.sources.parquet import load_parquet

DIGITS = "digits"
_KINDS = "'digits', a folder of class folders, a .npz file, or .parquet files (one, a folder of them, or a pattern)"


def load_source(
    location: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    split: SplitName = "train",
    skip_bad: bool = False,
    progress: ProgressCallback | None = None,
) -> Source:
    """Read the real images at ``location`` into memory.

    ``location``: the word ``digits``, a folder of class folders (or of unlabelled images), a ``.npz`` file, or one
    split in ``.parquet`` files. ``size`` (8 .. 512): the side that images are resized and centre-cropped to; by
    default 64 for folders, and for the other kinds the size of the images, which must be squares of one size.
    ``channels``: 1 (grey) or 3 (RGB); by default folders and Parquet are RGB if at least one image has colour.
    ``split``: for ``.npz`` files, the only kind with two splits. ``skip_bad``: list unreadable images in ``skipped``
    instead of failing at the first. ``progress(done, total)`` is called from this thread from time to time.

    The result is the same on every run and with any number of threads. Raises ``SourceError``.
    """
    check_size(size)
    check_channels(channels)
    path, kind = Path(location), source_kind(location)
    _check_split(split, kind)
    if kind == DIGITS:
        return load_digits(size=size, channels=channels, progress=progress)
    if kind == "npz":
        return load_npz(path, size=size, channels=channels, split=split, progress=progress)
    if kind == "folder":
        return load_folder(path, size=size, channels=channels, skip_bad=skip_bad, progress=progress)
    name = path.resolve().name if path.is_dir() else path.name
    return load_parquet(
        _parquet_files(location, path), name, size=size, channels=channels, skip_bad=skip_bad, progress=progress
    )


def source_kind(location: str) -> str:
    """The kind of a source: ``digits``, ``parquet``, ``folder`` or ``npz``. Raises ``SourceError`` if there is none."""
    path = Path(location)
    if location == DIGITS:
        return DIGITS
    try:
        if _parquet_files(location, path):
            return "parquet"
        if path.is_dir():
            return "folder"
        if path.suffix.lower() == ".npz" and path.is_file():
            return "npz"
        got = "a file of another kind" if path.is_file() else "nothing of this name"
    except OSError as error:
        raise SourceError(location, _KINDS, error.strerror or error) from error
    raise SourceError(location, _KINDS, got)


def _parquet_files(location: str, path: Path) -> list[Path]:
    """The Parquet files at a location, ordered by name."""
    if path.is_dir():
        found = [child for child in path.iterdir() if not child.name.startswith(".")]
    else:
        found = [path] if path.exists() else [Path(match) for match in glob.glob(location)]  # noqa: PTH207 - Path.glob refuses absolute patterns
    return sorted(file for file in found if file.suffix.lower() == ".parquet" and file.is_file())


def _check_split(split: str, kind: str) -> None:
    if split not in ("train", "test"):
        raise SourceError("split", "'train' or 'test'", repr(split))
    if split == "test" and kind != "npz":
        hint = "Name the files or the folder of the test set instead."
        raise SourceError("split", "'train', as only .npz files also contain a test set", "'test'", hint)
