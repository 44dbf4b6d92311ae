"""The fixture of all ticker tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.simulated_schedules import ScheduleSimulation


@pytest.fixture
def simulation(tmp_path: Path) -> ScheduleSimulation:
    return ScheduleSimulation(tmp_path)
