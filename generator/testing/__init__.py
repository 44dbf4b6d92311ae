"""Contract tests for stores, for use in other projects too: ``pip install 'latentmill[testing]'``.

``StoreContract`` has one test for each promise of ``generator.store.base``. ``check_states`` runs random sequences of
operations on a store and on a model of it, kills writers (SIGKILL) in the middle of a write, and compares the two.
A test file for a store of your own::

    from pathlib import Path

    import pytest

    from generator.testing import StoreContract, check_states
    from my_package import MyStore


    @pytest.fixture
    def store(tmp_path: Path) -> MyStore:
        return MyStore(tmp_path)  # empty, and used by this test only


    class TestMyStore(StoreContract):
        def open(self, url: str) -> MyStore:  # only if generator.store.open_store does not know its URLs
            return MyStore.from_url(url)


    def test_states(store: MyStore) -> None:
        check_states(store, examples=25)

The store must be picklable, and its class importable by other processes: define it in a module, not in the test file.

For a URL that ``open_store`` knows, ``latentmill store test URL`` runs the same checks without a test file. With
``pytest -p generator.testing.plugin --store-url URL`` tests get the fixture ``store``: an empty store below that URL.

Only this package imports pytest and Hypothesis, and only that command imports this package.
"""

from generator.testing.contract import StoreContract
from generator.testing.expectations import Violation
from generator.testing.state_machine import StoreMachine
from generator.testing.states import check_states
from generator.testing.temporary_prefix import temporary_prefix

__all__ = ["StoreContract", "StoreMachine", "check_states", "Violation", "temporary_prefix"]
