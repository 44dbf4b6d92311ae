"""Files of real data for tests: in CI they must exist, elsewhere tests that need them are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def reference_file(name: str) -> Path:
    """The path of a file or folder in ``LATENTMILL_DATA``, which is ``../shared/data`` by default."""
    path = Path(os.environ.get("LATENTMILL_DATA", _ROOT.parent / "shared" / "data")) / name
    if path.exists():
        return path
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not in LATENTMILL_DATA")
    pytest.skip(f"{name} is not in LATENTMILL_DATA")
