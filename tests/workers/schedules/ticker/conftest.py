"""What every test of the ticker begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.simulated_schedules import ScheduleSimulation


@pytest.fixture
def scene(tmp_path: Path) -> ScheduleSimulation:
    return ScheduleSimulation(tmp_path)
