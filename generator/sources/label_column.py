"""Which column of a table holds the labels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generator.errors import SourceError
from generator.spec.reading import MAX_CLASSES, UNLABELLED

ColumnKind = Literal["class", "integer", "text", "boolean", "list", "other"]

_USUAL_NAME = "label"
LABEL_WORDS = frozenset({"label", "labels", "class", "classes", "target", "targets", "category", "categories", "y"})
_MULTI_LABEL_HINT = "Several labels for one image are not supported; --label none reads the images alone."


@dataclass(frozen=True)
class Column:
    """A column that is not the image. ``distinct``: the number of different values, if they were counted."""

    name: str
    kind: ColumnKind
    distinct: int | None = None


def find_label_column(
    columns: Sequence[Column], rows: int, asked: str | None, *, field: str
) -> tuple[Column | None, tuple[str, ...]]:
    """The column of the labels, or ``None`` for an unlabelled source; and notices that say what was taken and why.

    A column that is asked for, else the only one with declared classes (ClassLabel), else the one named ``label``,
    else the only one with integers, text or booleans of which at least some repeat. Raises ``SourceError`` for a column
    that is not there, and where several could be meant.
    """
    if asked == UNLABELLED and not any(column.name == UNLABELLED for column in columns):
        return None, ()
    if asked is not None:
        return _asked_column(columns, asked, field), ()
    declared = [column for column in columns if column.kind == "class"]
    usual = [column for column in columns if column.name == _USUAL_NAME]
    candidates = (
        declared
        if len(declared) == 1
        else usual or declared or [column for column in columns if _repeats(column, rows)]
    )
    lists = [column for column in columns if column.kind == "list" and column.name.lower() in LABEL_WORDS]
    if not candidates and lists:
        raise SourceError(f"{field}:{lists[0].name}", "one label per image", "lists of labels", _MULTI_LABEL_HINT)
    if len(candidates) > 1:
        named = [column for column in candidates if column.name.lower() in LABEL_WORDS]
        names = ", ".join(column.name for column in candidates)
        if len(named) != 1 or declared:
            hint = f"Name it: --label {candidates[0].name}; --label {UNLABELLED} reads the images alone."
            raise SourceError(f"{field}:label", "one column that can be the label", names, hint)
        others = ", ".join(column.name for column in candidates if column is not named[0])
        return named[0], (f"labels are the column {named[0].name!r}; --label reads another one ({others})",)
    if candidates:
        column = candidates[0]
        if column.kind in ("list", "other"):
            hint = _MULTI_LABEL_HINT if column.kind == "list" else ""
            raise SourceError(f"{field}:{column.name}", "integers, text or booleans", f"{column.kind} values", hint)
        notices = () if column.name == _USUAL_NAME else (f"labels are the column {column.name!r}",)
        return column, notices
    unused = ", ".join(column.name for column in columns)
    words = f"none of the columns {unused} looks like labels" if unused else "there is no column beside the images"
    return None, (f"unlabelled: {words}",)


def _asked_column(columns: Sequence[Column], asked: str, field: str) -> Column:
    column = next((column for column in columns if column.name == asked), None)
    names = [column.name for column in columns]
    if column is None:
        near = difflib.get_close_matches(asked, names, n=1)
        hint = f"Is it {near[0]!r}?" if near else ""
        raise SourceError("label", f"a column of {field}: {', '.join(names) or 'none'}", asked, hint)
    if column.kind in ("list", "other"):
        hint = _MULTI_LABEL_HINT if column.kind == "list" else ""
        raise SourceError(f"{field}:{asked}", "integers, text or booleans", f"{column.kind} values", hint)
    return column


def _repeats(column: Column, rows: int) -> bool:
    """Whether the values of a column can be classes: a name, a path or a caption of each image hardly repeats."""
    if column.kind not in ("integer", "text", "boolean") or column.distinct is None:
        return False
    return 2 <= column.distinct <= MAX_CLASSES and 2 * column.distinct <= max(rows, 4)
