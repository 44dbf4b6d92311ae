"""The grid of the shards of a job, and its speed in words."""

from __future__ import annotations

import re

import pytest

from workers.ledger.claims import ShardStates
from workers.server.job_costs import JobCosts, ProgressShelf
from workers.server.pages.job.shard_grid import make_grid
from workers.server.pages.job.speed import size_text, span_text


def states(**fields: object) -> ShardStates:
    return ShardStates(**{"done": [], "running": {}, "waiting": [], "dead": [], "faults": {}} | fields)  # type: ignore[arg-type]


def test_a_cell_is_a_shard_while_there_are_few() -> None:
    grid = make_grid(states(done=[0, 1], running={2: 17}, waiting=[3], dead=[4]), 10, 5)
    assert grid.group == 1
    assert (grid.done.count("M"), grid.todo.count("M")) == (2, 5)
    assert [(cell.state, cell.title) for cell in grid.cells] == [
        ("running", "shard 2: being made, 17 images so far"),
        ("waiting", "shard 3: waits for its next attempt"),
        ("dead", "shard 4: given up"),
    ]
    assert grid.words == "10 shards: 2 finished, 1 being made, 1 waiting, 1 given up, 5 to come."


@pytest.mark.parametrize("shards", [400, 401, 12_345, 999_999])
def test_many_shards_share_cells_and_every_shard_is_in_one(shards: int) -> None:
    done = list(range(shards // 2))
    grid = make_grid(states(done=done, running={shards - 1: 3}), shards, 5)
    cells = grid.done.count("M") + grid.todo.count("M") + len(grid.cells)
    assert cells <= 400
    assert cells == -(-shards // grid.group)
    assert sum(grid.counts.values()) == shards
    titles = [cell.title for cell in grid.cells if cell.state == "running"]
    assert len(titles) == 1
    assert "being made" in titles[0]
    assert grid.height <= 80
    assert len(grid.done) + len(grid.todo) < 10_000


def test_places_of_cells_do_not_overlap() -> None:
    grid = make_grid(states(done=[1, 3], running={5: 0}), 120, 5)
    places = re.findall(r"M(\d+) (\d+)h", grid.done + grid.todo) + [(str(cell.x), str(cell.y)) for cell in grid.cells]
    assert len(set(places)) == 120


def test_failed_attempts_are_told_shard_by_shard_the_hopeless_first() -> None:
    grid = make_grid(states(done=[7], running={2: 5}, waiting=[3], dead=[9], faults={2: 1, 3: 2, 7: 1, 9: 5}), 10, 5)
    assert [(each.shard, each.words) for each in grid.troubles] == [
        (9, "5 attempts failed; it is given up"),
        (3, "2 attempts failed; attempt 3 of 5 follows"),
        (2, "1 attempt failed; attempt 2 of 5 is being made"),
    ]
    many = make_grid(states(faults=dict.fromkeys(range(50), 1)), 60, 5)
    assert (len(many.troubles), many.troubled) == (20, 50)


def test_the_rate_is_that_of_the_last_minute() -> None:
    now = [0.0]
    shelf = ProgressShelf(clock=lambda: now[0])
    assert shelf.rate("a", 0) is None
    for second in range(1, 121):
        now[0] = float(second)
        rate = shelf.rate("a", 10 * second if second <= 60 else 600 + 20 * (second - 60))
    assert rate == pytest.approx(20.0, rel=0.05)
    assert shelf.rate("a", 100) is None  # a lease was lost
    assert shelf.rate("b", 5) is None


def test_spans_and_sizes_are_said_shortly() -> None:
    spans = [span_text(seconds) for seconds in (0.83, 42.4, 725, 12_000, 370_000)]
    assert spans == ["0.8 s", "42 s", "12 min", "3 h 20 min", "4 d 6 h"]
    assert [size_text(size) for size in (12, 3400, 2_500_000_000)] == ["12 bytes", "3.4 kB", "2.5 GB"]
    assert JobCosts(None, is_partial=False).sums is None
