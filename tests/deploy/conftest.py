"""Scripts of deploy/, loaded from a copy that a test may change."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], ModuleType]:
    """A function that loads a script of deploy/ by its name, working on a copy of deploy/."""

    def load(name: str) -> ModuleType:
        if not (tmp_path / "deploy").exists():
            # Links stay links: the rules and the dashboard are files of the chart.
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(DEPLOY, tmp_path / "deploy", symlinks=True, ignore=ignored)
        spec = importlib.util.spec_from_file_location(f"deploy_{name}", tmp_path / "deploy" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
