"""Labels as they come (numbers, text, booleans, one-hot rows) to numbers from 0 and class names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generator.errors import SourceError
from generator.sources.base import check_names
from generator.spec.reading import MAX_CLASSES

_MULTI_LABEL = "Several labels for one image (multi-label) are not supported; --label none reads the images alone."


@dataclass(frozen=True, eq=False)
class Labels:
    """One label per image; ``None`` of both for an unlabelled source. Classes may have no image yet."""

    labels_N: np.ndarray | None  # int64, 0 .. classes - 1
    names: tuple[str, ...]


UNLABELLED_SOURCE = Labels(None, ())


def read_labels(
    values: np.ndarray, names: Sequence[str] | None, *, field: str, numbering: np.ndarray | None = None
) -> Labels:
    """Labels of any plain type. Raises ``SourceError``.

    ``values``: ``(N)`` or ``(N, 1)`` integers, whole floats, booleans or text, or ``(N, classes)`` with a single 1 in
    every row. With ``names``, integers are positions among them, text is one of them. Without, the classes are the
    values themselves in ascending order: of ``numbering`` (such as the labels of the training set) if it is given.
    """
    values = _one_dimensional(values, field)
    if names is not None:
        checked = check_names(names, field=f"{field}.names")
        if values.dtype.kind == "U":
            return Labels(_positions(values, np.array(checked), field), checked)
        return Labels(_whole(values, field), checked)
    known = np.unique(_plain(values if numbering is None else _one_dimensional(numbering, field), field))
    if len(known) > MAX_CLASSES:
        raise SourceError(field, f"at most {MAX_CLASSES} classes", f"{len(known)} different values")
    if known.dtype.kind == "i" and len(known) and known[0] < 0:
        raise SourceError(field, "labels of at least 0", int(known[0]))
    checked = check_names([_text(value) for value in known.tolist()], field=field)
    return Labels(_positions(_plain(values, field), known, field), checked)


def select_classes(labels: Labels, classes: Sequence[str] | None, *, field: str) -> tuple[np.ndarray | None, Labels]:
    """Rows and labels of ``classes`` only, in their order; ``(None, labels)`` if all are wanted.

    Raises ``SourceError`` for a class that is not there, and for an unlabelled source.
    """
    if classes is None:
        return None, labels
    if labels.labels_N is None:
        raise SourceError("classes", "a source with labels", "one without")
    wanted = check_names(classes, field="classes")
    for name in wanted:
        if name not in labels.names:
            near = difflib.get_close_matches(name, labels.names, n=1, cutoff=0.6)
            shown = ", ".join(labels.names[:12]) + (", ..." if len(labels.names) > 12 else "")
            raise SourceError("classes", f"classes of {field}: {shown}", name, f"Is it {near[0]!r}?" if near else "")
    new_of_old = np.full(len(labels.names), -1, dtype=np.int64)
    new_of_old[[labels.names.index(name) for name in wanted]] = np.arange(len(wanted))
    renumbered_N = new_of_old[labels.labels_N]
    rows = np.flatnonzero(renumbered_N >= 0)
    return rows, Labels(renumbered_N[rows], wanted)


def used_classes(labels: Labels) -> tuple[Labels, tuple[str, ...]]:
    """Labels of the classes that have an image, renumbered in their order; and the names of the others."""
    if labels.labels_N is None:
        return labels, ()
    used = np.unique(labels.labels_N)
    if used.tolist() == list(range(len(labels.names))):
        return labels, ()
    unused = tuple(name for number, name in enumerate(labels.names) if number not in set(used.tolist()))
    return Labels(np.searchsorted(used, labels.labels_N), tuple(labels.names[number] for number in used)), unused


def _one_dimensional(values: np.ndarray, field: str) -> np.ndarray:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind == "U":
        values = _composed(values)
    if values.ndim == 1:
        return values
    shape = "x".join(str(length) for length in values.shape)
    if values.ndim != 2 or values.shape[1] == 0:
        raise SourceError(field, "one label per image", f"{shape} labels")
    if values.shape[1] == 1:
        column: np.ndarray = values[:, 0]
        return column
    if values.dtype.kind not in "iufb" or not np.isin(values, (0, 1)).all():
        raise SourceError(field, "one label per image, or rows with a single 1", f"{shape} labels", _MULTI_LABEL)
    if not (values.astype(bool).sum(axis=1) == 1).all():
        raise SourceError(field, "one label per image", "rows with none or several", _MULTI_LABEL)
    hot: np.ndarray = values.argmax(axis=1)
    return hot


def _composed(values: np.ndarray) -> np.ndarray:
    """Text in Unicode NFC, so that names written in two forms are one class."""
    known, inverse = np.unique(values, return_inverse=True)
    names = np.array([unicodedata.normalize("NFC", name) for name in known.tolist()], dtype=np.str_)
    composed: np.ndarray = names[inverse].reshape(values.shape)
    return composed


def _plain(values: np.ndarray, field: str) -> np.ndarray:
    if values.dtype.kind in "Ub":
        return values
    return _whole(values, field)


def _whole(values: np.ndarray, field: str) -> np.ndarray:
    """int64 of integers, booleans and whole floats."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        return values.astype(np.int64)
    if values.dtype.kind not in "iub":
        raise SourceError(field, "integers, text or booleans", f"{values.dtype} values")
    if values.dtype.kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
        raise SourceError(field, "labels below 2^63", int(values.max()))
    return values.astype(np.int64)


def _positions(values: np.ndarray, known: np.ndarray, field: str) -> np.ndarray:
    """The position of each value in ``known``, in any order; ``SourceError`` for one that is not there."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known, values, sorter=order).clip(max=max(0, len(known) - 1))
    positions = order[at].astype(np.int64)
    unknown = np.flatnonzero(known[positions] != values) if len(known) else np.arange(len(values))
    if len(unknown):
        raise SourceError(field, "one of the classes", repr(values[unknown[0]].item()))
    numbers: np.ndarray = positions
    return numbers


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
