"""What every test of the ticker begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.simulated_schedules import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)
