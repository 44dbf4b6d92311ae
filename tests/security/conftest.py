"""A check after every test of hostile input: nothing was run, and nothing was written outside its directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_is_run_or_written_outside(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path.parent / "escaped").exists()
