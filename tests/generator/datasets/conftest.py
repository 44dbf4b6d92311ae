"""What tests of readers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _loaders_end_at_once() -> Iterator[None]:
    """A torch DataLoader whose dataset raised waits 5 s for its workers, whenever the garbage collector finds it."""
    from torch.utils.data import _utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
        yield
