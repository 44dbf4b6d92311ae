"""A tree of images: class folders (``cat/1.jpg``), splits of them (``train/cat/1.jpg``), or images without labels.

Labels that a file beside the images states (``metadata.csv``, ``dataset.json``) come before the names of folders. Class
folders must not contain folders, except a pair such as ``train`` and ``test``: what they mean is not guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from generator.errors import SourceError
from generator.sources.base import DEFAULT_SIZE, check_names
from generator.sources.files.file_set import FileSet, SourceFile
from generator.sources.kinds.image_labels import is_label_file, read_image_labels
from generator.sources.label_column import LABEL_WORDS
from generator.sources.labels import UNLABELLED_SOURCE, Labels, read_labels
from generator.sources.listing import EMPTY_FOLDERS, Listing, ListOptions, chunked
from generator.sources.pixels.decode import EncodedImages
from generator.sources.pixels.formats import SUFFIXES, SUFFIXES_1, is_image, kind_of
from generator.sources.splits import GENERAL_WORDS, choose_split, split_of_folder
from generator.spec.reading import UNLABELLED

_MAX_SPLIT_DEPTH = 5
_CLASSES_HINT = "Give the folder whose subfolders are the classes."


@dataclass(frozen=True)
class _Tree:
    """Images of one split, with the parts of their paths below the folder of the classes."""

    images: tuple[SourceFile, ...]
    parts: tuple[tuple[str, ...], ...]
    above: str  # that folder, relative to the source: '' or 'data/'


def list_folder(found: FileSet, options: ListOptions, *, remote: bool = False) -> Listing:
    """The images of ``found``: classes ordered by name, the images of a class by file name. Raises ``SourceError``."""
    if options.rules == 1:
        found = _as_first_rules(found)
    if options.reading.image is not None:
        raise SourceError("image", "a source with columns", f"{options.reading.image!r} of a folder of images")
    images = found.select(lambda file: file.suffix in SUFFIXES_1) if options.rules == 1 else found.select(is_image)
    label_files = found.select(is_label_file) if options.rules > 1 else ()
    if not images:
        _refuse_empty(found)
    chosen, split, splits = _choose_split(images, found, options)
    whole = _Tree(*chosen)
    tree = _below_single_folder(whole, options)
    passed_over = Counter(found.passed_over)
    read = {*images, *label_files}
    passed_over.update(kind_of(file) for file in found.files if file not in read)
    kept, labels, column, notices = _labels(tree, label_files, found, options, passed_over)
    encoded = EncodedImages(found.name, len(kept), chunked(kept, found.label), remote)
    if tree.above != whole.above:
        notices = (*notices, f"images are those of the folder {tree.above!r}")
    return Listing(
        "folder",
        encoded,
        labels,
        default_size=DEFAULT_SIZE,
        split=split if len(splits) > 1 else None,
        splits=splits,
        label_column=column,
        passed_over=passed_over,
        notices=notices,
    )


def _labels(
    tree: _Tree, label_files: Sequence[SourceFile], found: FileSet, options: ListOptions, passed_over: Counter[str]
) -> tuple[tuple[SourceFile, ...], Labels, str | None, tuple[str, ...]]:
    """Images, labels, the column that states them if there is one, and notices."""
    notices: tuple[str, ...] = ()
    if label_files:
        stated = read_image_labels(label_files, found, tree.images, options.reading.label)
        notices = stated.notices
        plain = options.reading.label is None and stated.column.lower() not in LABEL_WORDS
        if stated.values is not None and plain and _has_class_folders(tree):
            told = f"labels are the names of folders; --label {stated.column} reads them from {stated.file}"
            notices, stated = (told,), replace(stated, values=None)
        if stated.values is not None:
            missing = len(tree.images) - len(stated.images)
            if missing:
                passed_over[f"images without a label in {stated.file}"] += missing
            field = f"{found.name}/{stated.file}:{stated.column}"
            return stated.images, read_labels(stated.values, None, field=field), stated.column, notices
        if not stated.by_folder:
            return tree.images, UNLABELLED_SOURCE, None, (f"unlabelled: {stated.file} states no labels",)
    elif options.reading.label not in (None, UNLABELLED):
        raise SourceError("label", "a source with columns, or 'none'", f"{options.reading.label!r} of a folder")
    names = _class_of_each(tree, found, options, passed_over)
    if any(name is not None for name in names):
        notices = tuple(notice for notice in notices if not notice.startswith("unlabelled"))
    if options.reading.label == UNLABELLED or all(name is None for name in names):
        if options.reading.label != UNLABELLED:
            notices = (*notices, "unlabelled: the images are in no class folders")
        return tree.images, UNLABELLED_SOURCE, None, notices
    return tree.images, _folder_labels([name or "" for name in names], found, options), None, notices


def _folder_labels(names: Sequence[str], found: FileSet, options: ListOptions) -> Labels:
    """Classes in the order of their composed names; in that of their raw names by the first rules."""
    field = f"{found.name}:class_names"
    raw = sorted(set(names))
    composed = check_names(raw, field=field)
    order = dict(zip(raw, range(len(raw)) if options.rules == 1 else np.argsort(np.argsort(composed)), strict=True))
    labels_N = np.array([order[name] for name in names], dtype=np.int64)
    return Labels(labels_N, composed if options.rules == 1 else tuple(sorted(composed)))


def _has_class_folders(tree: _Tree) -> bool:
    return len({parts[0] for parts in tree.parts if len(parts) == 2}) > 1


def _class_of_each(tree: _Tree, found: FileSet, options: ListOptions, passed_over: Counter[str]) -> list[str | None]:
    """The class folder of each image; ``None`` for all of them if there are none."""
    folders = dict.fromkeys(parts[0] for parts in tree.parts if len(parts) > 1)
    direct = [parts for parts in tree.parts if len(parts) == 1]
    empty = [] if tree.above or _has_splits(found) else _empty_folders(found, set(folders))
    if direct and (folders or empty):
        got = f"{len(direct)} images beside {len(folders) + len(empty)} folders"
        hint = "" if folders else "Give --allow-empty to pass over folders without images."
        if folders or not options.allow_empty:
            expected = "images in class folders, or all of them directly in the root"
            raise SourceError(f"{found.name}:images", expected, got, hint)
    if empty and not direct and not options.allow_empty:
        hint = "Give --allow-empty to pass over folders without images."
        raise SourceError(f"{found.name}/{empty[0]}", "a class folder with at least one image", "none", hint)
    if empty:
        passed_over[EMPTY_FOLDERS] += len(empty)
    nested = next((parts for parts in tree.parts if len(parts) > 2), None)
    if nested is not None:
        folder, inner = f"{found.name}/{tree.above}{nested[0]}", f"the folder {nested[1]!r} in it"
        raise SourceError(folder, "a class folder with images only", inner, _CLASSES_HINT)
    if len(folders) == 1 and next(iter(folders)).lower() in GENERAL_WORDS and not direct:
        return [None] * len(tree.parts)  # train/images/1.jpg is no class
    return [parts[0] if len(parts) > 1 else None for parts in tree.parts]


def _choose_split(
    images: tuple[SourceFile, ...], found: FileSet, options: ListOptions
) -> tuple[tuple[tuple[SourceFile, ...], tuple[tuple[str, ...], ...], str], str | None, tuple[str, ...]]:
    parts = tuple(tuple(image.path.split("/")) for image in images)
    depth = _split_depth(parts) if options.rules > 1 else None
    if depth is None:
        items, split, splits = choose_split(
            images, [None] * len(images), options.split, field=found.name, names=[image.path for image in images]
        )
        return (tuple(items), parts, ""), split, splits
    of_each = [split_of_folder(each[depth]) if len(each) > depth + 1 else None for each in parts]
    strays = [row for row, split in enumerate(of_each) if split is None]
    if strays:
        found.passed_over["images of no split"] += len(strays)  # such as a logo
        kept = [row for row in range(len(images)) if of_each[row] is not None]
        images, parts = tuple(images[row] for row in kept), tuple(parts[row] for row in kept)
        of_each = [of_each[row] for row in kept]
    rows, split, splits = choose_split(
        range(len(images)), of_each, options.split, field=found.name, names=[image.path for image in images]
    )
    below = tuple(parts[row][:depth] + parts[row][depth + 1 :] for row in rows)
    above = f"{parts[rows[0]][0]}/" if depth == 0 else ""
    return (tuple(images[row] for row in rows), below, above), split, splits


def _split_depth(parts: Sequence[tuple[str, ...]]) -> int | None:
    """The depth at which folders are splits: 0 (``train/cat/1.jpg``), 1 (``cat/train/1.jpg``, ``data/train/...``), 2.

    Two different splits at one depth are enough (beside them there may be a logo); one alone must hold all images.
    """
    for depth in range(_MAX_SPLIT_DEPTH):
        folders = {each[depth] for each in parts if len(each) > depth + 1}
        splits = {split_of_folder(folder) for folder in folders}
        if len(splits - {None}) > 1:
            return depth
        if folders and None not in splits and all(len(each) > depth + 1 for each in parts):
            return depth
    return None


def _below_single_folder(tree: _Tree, options: ListOptions) -> _Tree:
    """Without folders that hold nothing but one folder of class folders, as archives that were unpacked have them."""
    while (
        options.rules > 1
        and all(len(parts) > 2 for parts in tree.parts)
        and len({parts[0] for parts in tree.parts}) == 1
    ):
        above = f"{tree.above}{tree.parts[0][0]}/"
        tree = replace(tree, parts=tuple(parts[1:] for parts in tree.parts), above=above)
    return tree


def _has_splits(found: FileSet) -> bool:
    return any(split_of_folder(folder) is not None for folder in found.folders)


def _empty_folders(found: FileSet, used: set[str]) -> list[str]:
    """Folders at the top without a single image below them."""
    return [folder for folder in found.folders if "/" not in folder and folder not in used]


def _refuse_empty(found: FileSet) -> None:
    kinds = Counter(kind_of(file) for file in found.files)
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    hint = f"Images are recognised by their ending ({' '.join(sorted(SUFFIXES))}) or their first bytes."
    got = f"neither, but {seen}" if seen else "neither"
    folders = [folder for folder in found.folders if "/" not in folder]
    if folders and not seen:
        raise SourceError(f"{found.name}/{folders[0]}", "a class folder with at least one image", "none", hint)
    raise SourceError(f"{found.name}:images", "class folders or images", got, hint)


def _as_first_rules(found: FileSet) -> FileSet:
    """Files in the order of their raw names, as the first rules had them."""
    return replace(found, files=tuple(sorted(found.files, key=lambda file: file.path.split("/"))))
