"""Training, validation and test sets, told apart by any part of a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from generator.errors import SourceError

T = TypeVar("T")

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
}
GENERAL_WORDS = frozenset(
    ("images", "image", "imgs", "img", "pictures", "pics", "photos", "data", "set", "dataset", "seg", "split", "raw")
)
SPLIT_COLUMN = "split"
DEFAULT_SPLIT = "train"


def check_split_name(split: str | None) -> str | None:
    """The usual name of a split (``train``, ``validation``, ``test``). Raises ``SourceError`` for another word."""
    if split is None:
        return None
    if split.lower() not in SPLIT_WORDS:
        raise SourceError("split", "'train', 'validation' or 'test'", repr(split))
    return SPLIT_WORDS[split.lower()]


def split_of_folder(name: str) -> str | None:
    """The split that a folder of this name is (``train``, ``Test_Set``, ``train2017``, ``t10k-images``).

    ``None`` if it is none: words beside that of a split must be general ones.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower().replace("t10k", "test")) if word]
    splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    rest = [word for word in words if word not in SPLIT_WORDS]
    return splits[0] if len(splits) == 1 and all(word in GENERAL_WORDS for word in rest) else None


def split_of_path(path: str) -> str | None:
    """The split that any part of a path names: ``data/train-00000-of-00002.parquet``; the last such part counts."""
    words = [
        SPLIT_WORDS[word]
        for part in path.split("/")
        for word in re.split(r"[^a-z]+", part.lower())
        if word in SPLIT_WORDS
    ]
    return words[-1] if words else None


def choose_split(
    items: Sequence[T], splits: Sequence[str | None], asked: str | None, *, field: str, names: Sequence[str]
) -> tuple[list[T], str | None, tuple[str, ...]]:
    """The items of one split, its name, and all splits that there are.

    ``asked``, or ``train`` if there are several. One split alone, and items without any, are read as they are unless
    another one is asked for. ``names``: of the items, for messages. Raises ``SourceError`` if the split is not there,
    and if only some items belong to one.
    """
    known = {split for split in splits if split is not None}
    if known and DEFAULT_SPLIT not in known:  # a test set beside files of no split, which are the rest
        splits = [split or DEFAULT_SPLIT for split in splits]
    found = in_rank(split for split in splits if split is not None)
    stray = [name for name, split in zip(names, splits, strict=True) if split is None]
    if found and stray:
        got = ", ".join(stray[:4]) + (", ..." if len(stray) > 4 else "")
        raise SourceError(field, "files of one split", f"{got} beside the splits {', '.join(found)}", _pattern_hint())
    if not found or (len(found) == 1 and asked in (None, found[0])):
        if asked is not None and not found:
            raise SourceError("split", "a source with splits", f"{asked!r} of a source without", _hint(asked))
        return list(items), found[0] if found else None, found
    wanted = asked or DEFAULT_SPLIT
    if wanted not in found:
        hint = "Name one of them: --split." if asked is None else ""
        raise SourceError("split", f"one of the splits of {field}: {', '.join(found)}", repr(wanted), hint)
    return [item for item, split in zip(items, splits, strict=True) if split == wanted], wanted, found


def are_splits(values: Iterable[str]) -> bool:
    """Whether the values of a column are words of splits."""
    found = {value.lower() for value in values}
    return bool(found) and found <= SPLIT_WORDS.keys()


def in_rank(splits: Iterable[str]) -> tuple[str, ...]:
    """Splits in their usual order."""
    return tuple(sorted(set(splits), key=_rank))


def _rank(split: str) -> int:
    return ["train", "validation", "test"].index(split)


def _pattern_hint() -> str:
    return "Give a pattern, such as 'data/train-*.parquet'."


def _hint(asked: str) -> str:
    return f"Name the files or the folder of the {asked} set instead."
