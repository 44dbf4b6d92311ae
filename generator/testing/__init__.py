"""Tests for stores, to be run on stores of your own: ``pip install 'latentmill[testing]'``.

``StoreContract`` holds what every store promises (``generator.store.base``), one test a promise. ``check_states`` runs
random sequences of operations beside a dictionary, kills writers (SIGKILL) in the middle of a write, and compares. A
test file for a store of your own::

    from pathlib import Path

    import pytest

    from generator.testing import StoreContract, check_states
    from my_package import MyStore


    @pytest.fixture
    def store(tmp_path: Path) -> MyStore:
        return MyStore(tmp_path)  # empty, and nobody else's


    class TestMyStore(StoreContract):
        def open(self, url: str) -> MyStore:  # only where ``generator.store.open_store`` does not know its URLs
            return MyStore.from_url(url)


    def test_states(store: MyStore) -> None:
        check_states(store, examples=25)

The store has to be picklable, and its class importable by another process: keep it in a module, not in the test file.

For a store that ``open_store`` knows, nothing has to be written: ``latentmill store test URL`` runs all of this. Tests
of your own get an empty store below any URL by ``pytest -p generator.testing.plugin --store-url URL``, as the fixture
``store``.

Only this package imports pytest and Hypothesis; nothing else of latentmill imports this package, but for that command.
"""

from generator.testing.contract import StoreContract
from generator.testing.expectations import Violation
from generator.testing.state_machine import StoreMachine
from generator.testing.states import check_states
from generator.testing.temporary_prefix import temporary_prefix

__all__ = ["StoreContract", "StoreMachine", "check_states", "Violation", "temporary_prefix"]
