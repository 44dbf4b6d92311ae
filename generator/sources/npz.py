"""NumPy archives: ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, ``class_names``.

``images`` and ``labels`` without prefix are a training set without a test set. Images are uint8, ``(N, H, W)``,
``(N, H, W, 1)`` or ``(N, H, W, 3)``; labels and class names (an array of strings) are optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.npyio import NpzFile

from generator.errors import SourceError
from generator.sources.arrays import resize_array
from generator.sources.base import (
    ProgressCallback,
    Source,
    check_count,
    check_labels,
    check_names,
    make_source,
    numbered_names,
)

SplitName = Literal["train", "test"]


def load_npz(
    path: Path, *, size: int | None, channels: int | None, split: SplitName, progress: ProgressCallback | None
) -> Source:
    """One split of the archive; the images of the other split are not read. Never unpickles. Raises ``SourceError``."""
    with open_npz(path) as archive:
        prefix = "" if split == "train" and "train_images" not in archive else f"{split}_"
        images_NHWC = _images(archive, f"{prefix}images", path)
        check_count(len(images_NHWC), name=path.name)
        labels_N, names = read_labels(archive, prefix, len(images_NHWC), path)
    field = f"{path.name}:{prefix}images"
    images_NHWC = resize_array(images_NHWC, size=size, channels=channels, field=field, progress=progress)
    name = path.name if split == "train" else f"{path.name}:{split}"
    return make_source(images_NHWC, labels_N, names, name=name)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            archive = np.load(stream, allow_pickle=False)
        except Exception as error:  # on damaged bytes, zipfile and numpy raise exceptions of any type
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise SourceError(path.name, "a NumPy .npz archive", f"one that does not open ({reason})") from error
        if not isinstance(archive, NpzFile):
            raise SourceError(path.name, "a NumPy .npz archive", "a single array (.npy) with the suffix .npz")
        yield stack.enter_context(archive)


def _images(archive: NpzFile, key: str, path: Path) -> np.ndarray:
    images = read_array(archive, key, path)
    field = f"{path.name}:{key}"
    if images.dtype != np.uint8:
        raise SourceError(field, "uint8 pixels, 0 to 255", f"{images.dtype} values")
    if images.ndim == 3:
        return images[..., None]
    shape = " x ".join(str(length) for length in images.shape)
    if images.ndim != 4:
        raise SourceError(field, "N x H x W, N x H x W x 1 or N x H x W x 3", shape)
    if images.shape[3] not in (1, 3):
        hint = "Channels come last." if images.shape[1] in (1, 3) else ""
        raise SourceError(field, "1 or 3 channels", f"{images.shape[3]}, as the shape is {shape}", hint)
    return images


def read_labels(archive: NpzFile, prefix: str, count: int, path: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The split's labels and the class names; without stored names, these are the numbers in the training labels."""
    key = f"{prefix}labels"
    if key not in archive:
        if "class_names" in archive:
            raise SourceError(f"{path.name}:{key}", "labels, as there are class names", "none")
        return None, ()
    labels_N = read_array(archive, key, path)
    field = f"{path.name}:{key}"
    if "class_names" in archive:
        names = _class_names(archive, path)
    else:
        numbering = "train_labels" if "train_labels" in archive else key
        names = numbered_names(read_array(archive, numbering, path), field=f"{path.name}:{numbering}")
    return check_labels(labels_N, names, count=count, field=field), names


def _class_names(archive: NpzFile, path: Path) -> tuple[str, ...]:
    names = read_array(archive, "class_names", path)
    field = f"{path.name}:class_names"
    if names.ndim != 1 or names.dtype.kind != "U":
        raise SourceError(field, "a one-dimensional array of strings", f"{names.dtype} values of shape {names.shape}")
    return check_names(names.tolist(), field=field)


def read_array(archive: NpzFile, key: str, path: Path) -> np.ndarray:
    field = f"{path.name}:{key}"
    if key not in archive:
        raise SourceError(field, f"an array of this name in {path.name}", f"only {', '.join(archive.files) or 'none'}")
    try:
        return np.asarray(archive[key])
    except Exception as error:  # as in open_npz
        pickled = isinstance(error, ValueError) and "pickle" in str(error)
        got = "an array of objects (mixed shapes or channels?)" if pickled else f"one that does not read ({error})"
        raise SourceError(field, "a plain array", got) from error
