"""Which samples a view selects: a mask over all samples of a build."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.view import Range, View
from generator.datasets.sample_filter import Kind, parse_filter
from generator.errors import SpecError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

_CHUNK = 262_144  # samples that a filter looks at at a time
_STORED = ("attempt", "label", "cluster", "log_density", "label_confidence", "size", "map_x", "map_y")
WHERE_COLUMNS: dict[str, Kind] = {"index": "a number", "class": "text in quotes", **dict.fromkeys(_STORED, "a number")}
_ORDERS = {"density": "by_density", "confidence": "by_confidence"}


@dataclass(frozen=True, eq=False)
class Selection:
    """The samples of ``view``: bool ``mask_N``."""

    columns: Columns
    view: View
    mask_N: np.ndarray

    @cached_property
    def count(self) -> int:
        return int(np.count_nonzero(self.mask_N))

    @cached_property
    def indices(self) -> np.ndarray:
        """int64: the selected samples, ascending."""
        return np.flatnonzero(self.mask_N)

    def page(self, size: int) -> np.ndarray:
        """The samples on the view's page of ``size`` samples, in the view's order; none beyond the last page.

        Samples without a label confidence come last, whichever way the order goes.
        """
        begin = (self.view.page - 1) * size
        if self.view.order == "index":
            return self.indices[begin : begin + size]
        name = self.view.order.removeprefix("-")
        order_N = self.columns[_ORDERS[name]]
        found = order_N[self.mask_N[order_N]]
        if self.view.order.startswith("-"):
            values = self.columns["label_confidence" if name == "confidence" else "log_density"]
            known = int(np.count_nonzero(~np.isnan(values[found])))
            found = np.concatenate([found[:known][::-1], found[known:]])
        return np.asarray(found[begin : begin + size], dtype=np.int64)


def select(columns: Columns, view: View) -> Selection:
    """The samples that ``view`` selects. Raises ``SpecError`` for a filter that does not fit the columns."""
    mask_N = np.ones(columns.samples, dtype=bool)
    for condition in _conditions(columns, view):
        mask_N &= condition()
    return Selection(columns, view, mask_N)


def _conditions(columns: Columns, view: View) -> list[Callable[[], np.ndarray]]:
    found = list[Callable[[], np.ndarray]]()
    if view.where:
        found.append(lambda: _where(columns, view.where))  # first: it may be refused
    if view.classes:
        labels = [columns.classes.index(name) for name in view.classes]
        found.append(lambda: _is_one_of(columns["label"], labels))
    if view.clusters:
        found.append(lambda: _is_one_of(columns["cluster"], list(view.clusters)))
    for name, limits in (("label_confidence", view.confidence), ("log_density", view.density)):
        if limits is not None:
            found.append(lambda name=name, limits=limits: _between(columns[name], limits))  # type: ignore[misc]
    if view.refused != "all":
        found.append(lambda: (columns["attempt"] > 0) == (view.refused == "before"))
    if view.region is not None:
        found.append(lambda: _in_region(columns, view))
    return found


def _is_one_of(values_N: np.ndarray, chosen: list[int]) -> np.ndarray:
    if len(chosen) == 1:
        return np.asarray(values_N == chosen[0])
    table = np.zeros(max(max(chosen), int(values_N.max(initial=0))) + 2, dtype=bool)
    table[[each + 1 for each in chosen]] = True
    return np.asarray(table[values_N + 1])


def _between(values_N: np.ndarray, limits: Range) -> np.ndarray:
    low, high = values_N.dtype.type(limits.low), values_N.dtype.type(limits.high)
    return np.asarray((values_N >= low) & (values_N <= high))


def _in_region(columns: Columns, view: View) -> np.ndarray:
    if columns.frame is None or view.region is None:
        raise SpecError("region", "a build with a map", "one without")
    return view.region.select(columns.frame, columns["cell"], columns["map_x"], columns["map_y"])


def _where(columns: Columns, text: str) -> np.ndarray:
    """bool (N,) of a filter in the grammar of ``where``; a comparison with a missing value is not true."""
    expression = parse_filter(text, WHERE_COLUMNS)
    names = [name for name in WHERE_COLUMNS if re.search(rf"\b{name}\b", text)]
    found_N = np.empty(columns.samples, dtype=bool)
    for begin in range(0, columns.samples, _CHUNK):
        rows = slice(begin, min(begin + _CHUNK, columns.samples))
        found_N[rows] = _evaluate(_arrow_table(columns, names, rows), expression)
    return found_N


def _evaluate(table: pa.Table, expression: pc.Expression) -> np.ndarray:
    import pyarrow as pa
    from pyarrow import dataset

    try:
        found = dataset.dataset(table).scanner(columns={"found": expression}, use_threads=False).to_table()["found"]
        return np.asarray(found.fill_null(False).combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)
    except (pa.ArrowException, TypeError) as error:
        got = str(error).partition("\n")[0]
        raise SpecError("where", "values of the types of their columns", got) from error


def _arrow_table(columns: Columns, names: list[str], rows: slice) -> pa.Table:
    import pyarrow as pa

    def column(name: str) -> Any:
        if name == "index":
            return pa.array(np.arange(rows.start, rows.stop))
        if name == "class":
            labels = columns["label"][rows]
            return pa.DictionaryArray.from_arrays(
                pa.array(labels, mask=labels < 0), pa.array(list(columns.classes), pa.string())
            ).cast(pa.string())
        values = np.asarray(columns[name][rows])
        missing = np.isnan(values) if values.dtype.kind == "f" else values < 0 if name in ("label", "size") else None
        return pa.array(values, mask=missing)

    return pa.table({name: column(name) for name in names})
