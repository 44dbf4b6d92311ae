"""The ticker through simulated time: every date at most one run, and none skipped unless a policy says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schedules import Scene
from workers.schedules.runs import marks


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_night(scene: Scene) -> None:
    scene.declare(retention={"last": 3})
    ticker = scene.ticker()
    ticker.once()
    assert scene.runs() == []
    scene.clock.go(hours=3, minutes=30)
    ticker.once()
    assert scene.states() == {"01-01 03:30": "submitted"}
    scene.clock.go(minutes=10)
    ticker.once()
    (run,) = scene.runs()
    assert run.state == "promoted"
    assert scene.pool.latest == [run.date]
    assert [chore for _, _, chore in scene.pool.done] == ["retain", "succeeded"]
    ticker.once()
    assert list(marks(scene.root)) == []
    assert len(scene.pool.submissions) == 1
