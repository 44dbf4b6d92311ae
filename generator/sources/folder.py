"""A tree of class folders: ``root/cat/1.jpg``, ``root/dog/2.png``. Images directly in the root are unlabelled.

Hidden entries and files without an image suffix are ignored. Class folders must not contain folders: otherwise a root
with ``train`` and ``test`` folders would become a source with two classes, ``train`` and ``test``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.errors import SourceError
from generator.sources.base import DEFAULT_SIZE, ProgressCallback, Source, check_names, make_source
from generator.sources.decode import CHUNK, EncodedImage, EncodedImages, decode_images
from generator.sources.pixels import SUFFIXES


@dataclass(frozen=True)
class _Entries:
    folders: tuple[Path, ...]
    images: tuple[Path, ...]


def load_folder(
    root: Path, *, size: int | None, channels: int | None, skip_bad: bool, progress: ProgressCallback | None
) -> Source:
    """All images of the tree: classes ordered by name, the images of a class by file name.

    Images are resized to ``size`` (default 64). Raises ``SourceError``.
    """
    name = root.resolve().name or "images"
    classes = _classes(root, name)
    files = [path for images in classes.values() for path in images]
    labels_N = np.repeat(np.arange(len(classes), dtype=np.int64), [len(images) for images in classes.values()])
    names = check_names([folder for folder in classes if folder is not None], field=f"{name}:class_names")

    def chunks() -> Iterator[list[EncodedImage]]:
        for begin in range(0, len(files), CHUNK):
            yield [EncodedImage(_relative_name(path, root, name), path) for path in files[begin : begin + CHUNK]]

    encoded = EncodedImages(name, len(files), chunks)
    decoded = decode_images(encoded, size=size or DEFAULT_SIZE, channels=channels, skip_bad=skip_bad, progress=progress)
    labels_kept_N = labels_N[decoded.kept_N] if names else None
    return make_source(decoded.images_NHWC, labels_kept_N, names, name=name, skipped=decoded.skipped)


def _classes(root: Path, name: str) -> dict[str | None, tuple[Path, ...]]:
    """Image paths by class, or all of them under ``None`` if there are no classes."""
    top = _entries(root, root, name)
    if top.images and top.folders:
        got = f"{len(top.images)} images beside {len(top.folders)} folders"
        raise SourceError(f"{name}:images", "images in class folders, or all of them directly in the root", got)
    if not top.images and not top.folders:
        hint = f"Images are recognised by their suffix: {' '.join(sorted(SUFFIXES))}."
        raise SourceError(f"{name}:images", "class folders or images", "neither", hint)
    if top.images:
        return {None: top.images}
    return {folder.name: _class_images(folder, root, name) for folder in top.folders}


def _class_images(folder: Path, root: Path, name: str) -> tuple[Path, ...]:
    entries = _entries(folder, root, name)
    if entries.folders:
        hint = "Give the folder whose subfolders are the classes."
        got = f"the folder {entries.folders[0].name!r} in it"
        raise SourceError(_relative_name(folder, root, name), "a class folder with images only", got, hint)
    if not entries.images:
        raise SourceError(_relative_name(folder, root, name), "a class folder with at least one image", "none")
    return entries.images


def _entries(folder: Path, root: Path, name: str) -> _Entries:
    try:
        visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        folders = {path: None for path in visible if path.is_dir()}
    except OSError as error:
        raise SourceError(_relative_name(folder, root, name), "a readable folder", error.strerror or error) from error
    images = tuple(path for path in visible if path not in folders and path.suffix.lower() in SUFFIXES)
    for path in (*folders, *images):
        if path.is_symlink() and (path in folders or _points_outside(path, root)):
            expected = "no links to folders or to files outside the source"
            raise SourceError(_relative_name(path, root, name), expected, "such a link")
    return _Entries(tuple(folders), images)


def _points_outside(link: Path, root: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # the link is circular
        return True


def _relative_name(path: Path, root: Path, name: str) -> str:
    return (Path(name) / path.relative_to(root)).as_posix()
