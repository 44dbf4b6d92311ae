"""NumPy archives: images and labels of one split or several, under the names that people give them.

``train_images``/``train_labels`` (also ``val_``, ``test_``; MedMNIST, latentmill), ``x_train``/``y_train`` (Keras),
``images``/``labels``, ``x``/``y``, ``arr_0``/``arr_1``; ``class_names``. Images are ``(N, H, W)``,
``(N, H, W, 1 or 3)`` or ``(N, 1 or 3, H, W)``, of any plain type of numbers. A ``.npy`` file is unlabelled images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.sources.base import check_count, check_names
from generator.sources.files.file_set import SourceFile
from generator.sources.kinds.npz_archive import ArrayHeader, NumpyArrays, open_arrays
from generator.sources.labels import UNLABELLED_SOURCE, Labels, read_labels
from generator.sources.listing import Listing, ListOptions
from generator.sources.pixels.arrays import ArrayImages
from generator.sources.pixels.formats import is_pointer
from generator.sources.splits import DEFAULT_SPLIT, SPLIT_WORDS, choose_split
from generator.spec.reading import UNLABELLED, Reading

_IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "pixels")
_LABEL_WORDS = ("labels", "label", "y", "targets", "target", "classes", "class")
_NAME_KEYS = ("class_names", "label_names", "names")
_ANONYMOUS = re.compile(r"arr_\d+")


@dataclass(frozen=True)
class _Part:
    """An array of a split: its key, and the split that the key names; arrays of no split are the training set."""

    key: str
    named: str | None

    @property
    def split(self) -> str:
        return self.named or DEFAULT_SPLIT


def list_npz(file: SourceFile, name: str, options: ListOptions) -> Listing:
    """One split of the archive; the images of other splits are not read. Raises ``SourceError``."""
    if is_pointer(file):
        raise SourceError(name, "a NumPy .npz archive", "a Git LFS pointer", "Fetch it: git lfs pull.")
    arrays = open_arrays(file.content, name)
    parts = _image_parts(arrays, name, options.reading.image)
    of_each = [part.split for part in parts] if any(part.named for part in parts) else [None] * len(parts)
    chosen, split, splits = choose_split(parts, of_each, options.split, field=name, names=[part.key for part in parts])
    if len(chosen) > 1:
        got = ", ".join(part.key for part in chosen)
        raise SourceError(f"{name}:images", "one array of images", got, f"Name it: --image {chosen[0].key}.")
    part = chosen[0]
    header = arrays.header(part.key)
    field = f"{name}:{part.key}"
    images = _array_images(arrays, header, field)
    check_count(images.shape[0], name=name)
    labels, label_key = _read_labels(arrays, part, images.shape[0], name, options)
    notices = () if label_key is not None or options.reading.label else ("unlabelled: there is no array of labels",)
    return Listing(
        "npz",
        images,
        labels,
        split=split if len(splits) > 1 else None,
        splits=splits,
        image_column=part.key,
        label_column=label_key,
        notices=notices,
    )


def read_code_labels(arrays: NumpyArrays, count: int, name: str) -> Labels:
    """The labels of an archive of ``count`` codes, with their class names. Raises ``SourceError``."""
    labels, _ = _read_labels(arrays, _Part("codes", None), count, name, ListOptions(Reading()))
    return labels


def _image_parts(arrays: NumpyArrays, name: str, asked: str | None) -> list[_Part]:
    keys = arrays.names
    if asked is not None:
        if asked not in keys:
            raise SourceError("image", f"an array of {name}: {', '.join(keys) or 'none'}", asked)
        return [_Part(asked, None)]
    if arrays.single:
        return [_Part(keys[0], None)]
    parts = [part for key in keys if (part := _part(key, _IMAGE_WORDS)) is not None]
    if not parts:
        parts = [_Part(key, None) for key in keys if _ANONYMOUS.fullmatch(key) and len(arrays.header(key).shape) > 2]
    if not parts:
        got = f"only {', '.join(keys) or 'none'}"
        raise SourceError(f"{name}:images", f"an array of this name in {name}", got, "Name another one: --image.")
    return parts


def _read_labels(
    arrays: NumpyArrays, images: _Part, count: int, name: str, options: ListOptions
) -> tuple[Labels, str | None]:
    asked = options.reading.label
    if asked == UNLABELLED:
        return UNLABELLED_SOURCE, None
    keys = arrays.names
    names = _class_names(arrays, name, count)
    labels = [part for key in keys if (part := _part(key, _LABEL_WORDS)) and not _names_classes(arrays, key, count)]
    own = [part.key for part in labels if part.named == images.named]
    if len(own) > 1 and asked is None:
        raise SourceError(f"{name}:labels", "one array of labels", ", ".join(own), f"Name it: --label {own[0]}.")
    key = asked if asked is not None else next(iter(own), None)
    if key is None and _ANONYMOUS.fullmatch(images.key):
        others = [each for each in keys if _ANONYMOUS.fullmatch(each) and arrays.header(each).shape[:1] == (count,)]
        key = next((each for each in others if each != images.key and len(arrays.header(each).shape) <= 2), None)
    if key is None:
        if names is not None:
            split = f"{images.named}_" if images.named else ""
            raise SourceError(f"{name}:{split}labels", "labels, as there are class names", "none")
        return UNLABELLED_SOURCE, None
    if key not in keys:
        raise SourceError("label", f"an array of {name}: {', '.join(keys)}", key)
    field = f"{name}:{key}"
    values = arrays.read(key)
    if values.shape[:1] != (count,):
        shape = "x".join(str(length) for length in values.shape)
        raise SourceError(field, f"{count} labels, one per image", f"{shape} labels")
    others = [part.key for part in labels if part.split == DEFAULT_SPLIT]
    training = next(iter(others), None) if asked is None and images.split != DEFAULT_SPLIT else None
    numbering = arrays.read(training) if training is not None and names is None else None
    return read_labels(values, names, field=field, numbering=numbering), key


def _names_classes(arrays: NumpyArrays, key: str, count: int) -> bool:
    """Whether an array called ``classes`` holds the names of the classes, not a class for each image."""
    header = arrays.header(key)
    return key.lower() == "classes" and header.dtype.kind in "US" and header.shape != (count,)


def _class_names(arrays: NumpyArrays, name: str, count: int) -> tuple[str, ...] | None:
    named = [key for key in arrays.names if key.lower() == "classes" and _names_classes(arrays, key, count)]
    key = next((key for key in (*_NAME_KEYS, *named) if key in arrays.names), None)
    if key is None:
        return None
    names = arrays.read(key)
    if names.ndim != 1 or names.dtype.kind != "U":
        got = f"{names.dtype} values of shape {names.shape}"
        raise SourceError(f"{name}:{key}", "a one-dimensional array of strings", got)
    return check_names(names.tolist(), field=f"{name}:{key}")


def _part(key: str, words: Sequence[str]) -> _Part | None:
    """What a key such as ``x_train`` or ``test_images`` is; ``None`` if it does not name one of ``words``."""
    tokens = [token for token in key.lower().split("_") if token]
    rest = [token for token in tokens if token not in words]
    if len(tokens) - len(rest) != 1 or len(rest) > 1 or any(token not in SPLIT_WORDS for token in rest):
        return None
    return _Part(key, SPLIT_WORDS[rest[0]] if rest else None)


def _array_images(arrays: NumpyArrays, header: ArrayHeader, field: str) -> ArrayImages:
    if header.dtype.kind not in "uifb":
        raise SourceError(field, "pixels as numbers", f"{header.dtype} values")
    shape = " x ".join(str(length) for length in header.shape)
    expected = "N x H x W, N x H x W x 1 or 3, or N x 1 or 3 x H x W"
    if len(header.shape) not in (3, 4) or 0 in header.shape[1:]:
        raise SourceError(field, expected, shape)
    if len(header.shape) == 3 and header.shape[2] in (1, 3):
        raise SourceError(field, expected, f"{shape}, which is a single image")
    reorder: Callable[[np.ndarray], np.ndarray]
    if len(header.shape) == 3:
        count, height, width = header.shape
        channels, reorder = 1, lambda block: block[..., None]
    elif header.shape[3] in (1, 3):
        count, height, width, channels = header.shape
        reorder = _unchanged
    elif header.shape[1] in (1, 3):
        count, channels, height, width = header.shape
        reorder = _channels_last
    else:
        raise SourceError(field, "1 or 3 channels", f"{header.shape[3]}, as the shape is {shape}")

    def blocks() -> Iterator[np.ndarray]:
        return (reorder(block) for block in arrays.blocks(header.key))

    return ArrayImages(field, (count, height, width, channels), header.dtype, blocks)


def _unchanged(block: np.ndarray) -> np.ndarray:
    return block


def _channels_last(block: np.ndarray) -> np.ndarray:
    return block.transpose(0, 2, 3, 1)
