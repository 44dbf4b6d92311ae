"""`generator.testing` as others use it: the example of docs/stores.md, and the pytest plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from generator.store import open_store
from generator.testing.runner import PARTS
from generator.testing.temporary_prefix import temporary_prefix

ROOT = Path(__file__).parents[3]
MY_PACKAGE = """
from generator.store import open_store
from tests.support.broken_stores import WrappedStore

class MyStore(WrappedStore):
    def __init__(self, place):
        super().__init__(place if hasattr(place, "at") else open_store(str(place)))

    @classmethod
    def from_url(cls, url):
        return cls(open_store(url))
"""
PLUGIN_TEST = """
from generator.testing import StoreContract

class TestIt(StoreContract):
    page = 3
"""


def run_pytest(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *words]
    environment = os.environ | {
        "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/stores.md").read_text(), flags=re.DOTALL)
    (tmp_path / "my_package.py").write_text(MY_PACKAGE)
    (tmp_path / "test_my_store.py").write_text(example.replace("examples=25", "examples=2"))
    done = run_pytest(
        tmp_path,
        "test_my_store.py",
        "--deselect",
        "test_my_store.py::TestMyStore::test_lists_continue_after_the_first_page",
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b3\d passed, 1 skipped, 1 deselected", done.stdout), done.stdout


@pytest.mark.slow
def test_the_plugin_gives_a_store_below_a_url(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TEST)
    plugin = ("-p", "generator.testing.plugin", "test_it.py")
    done = run_pytest(tmp_path, *plugin, "-k", "create or lists", "--store-url", str(tmp_path / "place"))
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "place").exists()
    done = run_pytest(tmp_path, *plugin, "-k", "negative")
    assert done.returncode == 1
    assert "give --store-url URL" in done.stdout


def test_a_temporary_prefix_is_removed_after_a_failure_too(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")

    def fail() -> None:
        with temporary_prefix(open_store(str(tmp_path))) as below:
            below.put("a/b", b"x")
            (tmp_path / below.url.rpartition("/")[2] / ".tmp-0123456789abcdef").write_bytes(b"killed")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_command_names_the_parts_of_the_runner() -> None:
    from workers.cli import store

    assert store._PARTS == PARTS
