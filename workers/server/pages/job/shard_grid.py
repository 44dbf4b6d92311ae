"""The shards of a job as a grid of cells: one cell a shard or, of many shards, a cell for neighbours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workers.ledger.claims import ShardStates

CellState = Literal["done", "running", "waiting", "dead", "part", "todo"]
_COLUMNS, _MAX_CELLS = 50, 400
_PITCH, _SIDE = 10, 8
_MAX_LISTED = 20


@dataclass(frozen=True)
class Cell:
    """A cell that says more than that all of its shards are finished, or none of them is begun. ``x``, ``y``: its
    upper left corner; ``title``: what is known, in words."""

    state: CellState
    x: int
    y: int
    title: str


@dataclass(frozen=True)
class Trouble:
    """A shard whose attempts failed, in words."""

    shard: int
    words: str


@dataclass(frozen=True)
class ShardGrid:
    """``counts``: shards by state, without ``part``; ``group``: shards of a cell; ``done``, ``todo``: the ``d`` of a
    path of all such cells; ``cells``: the others; ``troubles``: the first of ``troubled`` shards with failed attempts.
    """

    shards: int
    group: int
    width: int
    height: int
    counts: dict[CellState, int]
    done: str
    todo: str
    cells: tuple[Cell, ...]
    troubles: tuple[Trouble, ...]
    troubled: int

    @property
    def words(self) -> str:
        """The counts as a sentence."""
        names = {
            "done": "finished",
            "running": "being made",
            "waiting": "waiting",
            "dead": "given up",
            "todo": "to come",
        }
        parts = [f"{count:,} {names[state]}" for state, count in self.counts.items() if count or state == "done"]
        return f"{self.shards:,} shard{'' if self.shards == 1 else 's'}: {', '.join(parts)}."


def make_grid(states: ShardStates, shards: int, attempts: int) -> ShardGrid:
    """The grid of a job with ``shards`` shards, each of which has ``attempts`` attempts."""
    group = -(-shards // _MAX_CELLS)
    cells = -(-shards // group)
    done, dead, running = _per_cell(states.done, group), _per_cell(states.dead, group), _per_cell(states.running, group)
    waiting, paths, special = _per_cell(states.waiting, group), {"done": "", "todo": ""}, list[Cell]()
    for number in range(cells):
        first, last = number * group, min(shards, (number + 1) * group) - 1
        counts: dict[CellState, int] = {
            "done": done.get(number, 0),
            "running": running.get(number, 0),
            "waiting": waiting.get(number, 0),
            "dead": dead.get(number, 0),
        }
        state = _state(counts, last - first + 1)
        x, y = number % _COLUMNS * _PITCH, number // _COLUMNS * _PITCH
        if state in paths:
            paths[state] += f"M{x} {y}h{_SIDE}v{_SIDE}h-{_SIDE}z"
        else:
            special.append(Cell(state, x, y, _title(first, last, counts, states)))
    totals: dict[CellState, int] = {
        "done": len(states.done),
        "running": len(states.running),
        "waiting": len(states.waiting),
        "dead": len(states.dead),
    }
    totals["todo"] = max(0, shards - sum(totals.values()))
    troubles = _troubles(states, attempts)
    return ShardGrid(
        shards=shards,
        group=group,
        width=min(cells, _COLUMNS) * _PITCH,
        height=-(-cells // _COLUMNS) * _PITCH,
        counts=totals,
        done=paths["done"],
        todo=paths["todo"],
        cells=tuple(special),
        troubles=tuple(troubles[:_MAX_LISTED]),
        troubled=len(troubles),
    )


def _per_cell(numbers: Collection[int], group: int) -> dict[int, int]:
    cells, counts = np.unique(np.fromiter(numbers, np.int64, len(numbers)) // group, return_counts=True)
    return dict(zip(cells.tolist(), counts.tolist(), strict=True))


def _state(counts: dict[CellState, int], size: int) -> CellState:
    for state in ("dead", "running", "waiting"):
        if counts[state]:
            return state
    return "done" if counts["done"] >= size else "part" if counts["done"] else "todo"


def _title(first: int, last: int, counts: dict[CellState, int], states: ShardStates) -> str:
    if first == last:
        if first in states.running:
            return f"shard {first}: being made, {states.running[first]:,} images so far"
        return f"shard {first}: {'given up' if counts['dead'] else 'waits for its next attempt'}"
    names = {"done": "finished", "running": "being made", "waiting": "waiting", "dead": "given up"}
    parts = [f"{count:,} {names[state]}" for state, count in counts.items() if count]
    return f"shards {first:,} to {last:,}: {', '.join(parts)}"


def _troubles(states: ShardStates, attempts: int) -> list[Trouble]:
    """The shards that are not finished and whose attempts failed, those that are given up first."""
    done, dead = set(states.done), set(states.dead)
    faults = {shard: count for shard, count in states.faults.items() if shard not in done and count}
    worst = sorted(faults, key=lambda shard: (shard not in dead, -faults[shard], shard))
    return [Trouble(shard, _trouble(shard, faults[shard], states, dead, attempts)) for shard in worst]


def _trouble(shard: int, faults: int, states: ShardStates, dead: set[int], attempts: int) -> str:
    failed = "1 attempt failed" if faults == 1 else f"{faults} attempts failed"
    if shard in dead:
        return f"{failed}; it is given up"
    following = f"attempt {min(faults + 1, attempts)} of {attempts}"
    return f"{failed}; {following} {'is being made' if shard in states.running else 'follows'}"
