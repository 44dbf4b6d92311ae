"""WebDataset tars: files of one sample share a key and follow each other (``0001.jpg``, ``0001.cls``, ``0001.json``).

Format: https://github.com/webdataset/webdataset. Tars that hold nothing but images in class folders are read like the
folders that they were made from.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generator.errors import SourceError
from generator.sources.base import check_count
from generator.sources.files.archives import TAR_SUFFIXES, is_compressed_tar, list_tar
from generator.sources.files.file_set import FileSet, SourceFile, in_order
from generator.sources.kinds.folder import list_folder
from generator.sources.kinds.image_labels import is_label_file
from generator.sources.label_column import Column, find_label_column
from generator.sources.labels import UNLABELLED_SOURCE, Labels, read_labels
from generator.sources.listing import Listing, ListOptions, chunked
from generator.sources.loose_json import read_loose_json
from generator.sources.pixels.decode import EncodedImages
from generator.sources.pixels.formats import SUFFIXES, is_image, is_pointer, kind_of
from generator.sources.splits import choose_split, split_of_path
from generator.spec.reading import MAX_CLASSES, UNLABELLED

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_KEY = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)")
_CLASS_EXTENSIONS = ("cls", "cls.txt", "label", "label.txt", "target", "class", "class.txt")
_TEXT_EXTENSIONS = (*_CLASS_EXTENSIONS, "txt", "text")
_JSON = "json"
_NO_IMAGES = frozenset({*_TEXT_EXTENSIONS, _JSON})
_NAME_FIELDS = ("class", "class_name", "classname", "label_name", "category", "label")
_MAX_TEXT_BYTES = 2**20


@dataclass
class _Samples:
    """Images of all samples, and the values of everything beside them that could be a label, by name."""

    images: list[SourceFile] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def add(self, image: SourceFile, facts: dict[str, Any]) -> None:
        row = len(self.images)
        self.images.append(image)
        for name, value in facts.items():
            column = self.values.setdefault(name, [])
            column.extend([None] * (row - len(column)))
            column.append(value)

    def column(self, name: str) -> list[Any]:
        column = self.values[name]
        return column + [None] * (len(self.images) - len(column))


def is_tar(file: SourceFile) -> bool:
    """Whether a file is a tar archive, also a compressed one, which is refused."""
    return file.suffix in TAR_SUFFIXES or is_compressed_tar(file.path)


def list_webdataset(found: FileSet, options: ListOptions, *, remote: bool = False) -> Listing:
    """The samples of one split, in the order of the tars and of their members. Raises ``SourceError``."""
    tars = found.select(is_tar)
    for tar in tars:
        if is_compressed_tar(tar.path):
            raise SourceError(found.label(tar), "a tar archive", "a compressed one", "Decompress it first.")
        if is_pointer(tar):
            raise SourceError(found.label(tar), "a tar archive", "a Git LFS pointer", "Fetch it: git lfs pull.")
    splits_of = [split_of_path(tar.path) for tar in tars]
    names = [tar.file_name for tar in tars]
    chosen, split, splits = choose_split(tars, splits_of, options.split, field=found.name, names=names)
    samples = _Samples(passed_over=Counter(found.passed_over))
    samples.passed_over.update(kind_of(file) for file in found.files if not is_tar(file))
    folders: list[SourceFile] = []
    for tar in chosen:
        members = list_tar(tar, found.label(tar))
        samples.passed_over.update(members.passed_over)
        if _is_tree(members):
            folders += members.files
        else:
            _read_samples(members, samples, options)
        if folders and samples.images:
            got = f"class folders in some of them, samples in others such as {found.label(tar)}"
            raise SourceError(found.name, "tars of one form", got)
    if folders:
        tree = FileSet(found.name, in_order(folders), passed_over=samples.passed_over)
        return list_folder(tree, options, remote=remote)
    check_count(len(samples.images), name=found.name)
    labels, column, notices = _labels(samples, found.name, options)
    return Listing(
        "webdataset",
        EncodedImages(found.name, len(samples.images), chunked(samples.images, lambda file: file.path), remote),
        labels,
        split=split if len(splits) > 1 else None,
        splits=splits,
        label_column=column,
        passed_over=samples.passed_over,
        notices=notices,
    )


def _is_tree(members: FileSet) -> bool:
    """Whether an archive holds images in folders, and nothing beside them that could be a label."""
    images = {_split_name(file.path)[0] for file in members.files if file.suffix in SUFFIXES}
    beside = (_split_name(file.path) for file in members.files if file.suffix not in SUFFIXES)
    labelled = any(key in images and (each in _TEXT_EXTENSIONS or each.endswith(_JSON)) for key, each in beside)
    stated = any(is_label_file(file) for file in members.files)
    return bool(images) and not labelled and (stated or any("/" in key for key in images))


def _read_samples(members: FileSet, samples: _Samples, options: ListOptions) -> None:
    for key, files in _groups(members):
        images = {extension: file for extension, file in files.items() if file.suffix in SUFFIXES}
        if not images:
            images = {each: file for each, file in files.items() if each not in _NO_IMAGES and is_image(file)}
        image = _choose_image(images, f"{members.name}/{key}", options.reading.image)
        if image is None:
            if options.reading.image is None:
                samples.passed_over.update(kind_of(file) for file in files.values())
            else:
                samples.passed_over["samples without an image"] += 1
            continue
        shown = SourceFile(f"{members.name}/{image.path}", image.size, image.version, image.content)
        samples.add(shown, _facts(files, f"{members.name}/{key}", options))


def _groups(members: FileSet) -> Iterator[tuple[str, dict[str, SourceFile]]]:
    """Runs of files with one key. Raises ``SourceError`` for an extension that comes twice in one."""
    key, files = "", dict[str, SourceFile]()
    for file in members.files:
        own, extension = _split_name(file.path)
        if own != key and files:
            yield key, files
            files = {}
        key = own
        if extension in files:
            raise SourceError(f"{members.name}/{file.path}", "every file of a sample once", "two of this name")
        files[extension] = file
    if files:
        yield key, files


def _split_name(path: str) -> tuple[str, str]:
    match = _KEY.fullmatch(path)
    return (match[1], match[2].lower()) if match else (path, "")


def _choose_image(images: dict[str, SourceFile], where: str, asked: str | None) -> SourceFile | None:
    if asked is not None:
        return images.get(asked.lower().lstrip("."))
    if len(images) > 1:
        plain = {extension: file for extension, file in images.items() if "." not in extension}
        if len(plain) != 1:
            hint = f"Name its ending: --image {next(iter(images))}."
            raise SourceError(where, "one image in a sample", ", ".join(sorted(images)), hint)
        images = plain
    return next(iter(images.values()), None)


def _facts(files: dict[str, SourceFile], where: str, options: ListOptions) -> dict[str, Any]:
    """The scalar values beside an image: texts by extension, fields of the JSON by name. Only those that may be wanted:
    there may be millions of samples."""
    asked = options.reading.label
    if asked == UNLABELLED:
        return {}
    usual = any(extension in _CLASS_EXTENSIONS for extension in files)
    wanted = {asked} if asked is not None else {*_CLASS_EXTENSIONS, *_NAME_FIELDS} if usual else None
    facts: dict[str, Any] = {}
    for extension, file in files.items():
        if file.size > _MAX_TEXT_BYTES:
            continue
        if extension in _TEXT_EXTENSIONS and (wanted is None or extension in wanted):
            facts[extension] = _text(file, f"{where}.{extension}")
        elif extension == _JSON:
            document = read_loose_json(_read(file, f"{where}.{extension}"), field=f"{where}.{extension}")
            facts |= _scalars(document, wanted) if isinstance(document, dict) else {}
    return facts


def _scalars(document: dict[str, Any], wanted: set[str] | None) -> dict[str, Any]:
    return {
        name: sys.intern(value) if isinstance(value, str) else int(value) if isinstance(value, float) else value
        for name, value in document.items()
        if (isinstance(value, str | int | list) or (isinstance(value, float) and value.is_integer()))
        and (wanted is None or name in wanted)
    }


def _text(file: SourceFile, where: str) -> int | str:
    try:
        text = _read(file, where).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SourceError(where, "text", f"bytes that do not read ({error})") from error
    return int(text) if _INTEGER.fullmatch(text) else text


def _read(file: SourceFile, where: str) -> bytes:
    try:
        return file.content.read()
    except OSError as error:
        raise SourceError(where, "a readable file", error.strerror or error) from error


def _labels(samples: _Samples, name: str, options: ListOptions) -> tuple[Labels, str | None, tuple[str, ...]]:
    asked, count = options.reading.label, len(samples.images)
    usual = next((each for each in _CLASS_EXTENSIONS if each in samples.values), None) if asked is None else None
    columns = [_column(each, samples.column(each)) for each in samples.values]
    column, notices = find_label_column(columns, count, asked or usual, field=name)
    if column is None:
        return UNLABELLED_SOURCE, None, notices
    values = samples.column(column.name)
    if any(value is None for value in values):
        missing = sum(value is None for value in values)
        raise SourceError(f"{name}:{column.name}", "a label for every image", f"{missing} samples without one")
    field = f"{name}:{column.name}"
    if column.kind != "integer":
        text = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
        return read_labels(np.array(text, dtype=np.str_), None, field=field), column.name, notices
    numbers_N = np.array(values, dtype=np.int64)
    names = _names_of(numbers_N, samples) if usual is not None else None
    return read_labels(numbers_N, names, field=field), column.name, notices


def _names_of(numbers_N: np.ndarray, samples: _Samples) -> list[str] | None:
    """Class names that the JSON states beside the numbers; ``None`` unless each of 0 .. k-1 has a name of its own."""
    for column in _NAME_FIELDS:
        texts = samples.column(column) if column in samples.values else []
        if not texts or not all(isinstance(text, str) for text in texts):
            continue
        pairs = set(zip(numbers_N.tolist(), texts, strict=True))
        name_of = dict(pairs)
        if len(name_of) == len(pairs) == len(set(name_of.values())) and sorted(name_of) == list(range(len(name_of))):
            return [name_of[number] for number in range(len(name_of))]
    return None


def _column(name: str, values: Sequence[Any]) -> Column:
    present = [value for value in values if value is not None]
    if any(isinstance(value, list) for value in present):
        return Column(name, "list")
    if present and all(isinstance(value, bool) for value in present):
        kind: Any = "boolean"
    elif present and all(isinstance(value, int) and abs(value) < 2**63 for value in present):
        kind = "integer"
    else:
        kind = "text"
    return Column(name, kind, min(len(set(map(str, present))), MAX_CLASSES + 1))
