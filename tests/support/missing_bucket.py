"""What every store does where its bucket or container does not exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from generator.errors import BucketMissing
from generator.store import Store


def assert_named_by_every_operation(missing: Store) -> None:
    """Every operation of ``missing`` raises ``BucketMissing``."""
    operations: tuple[Callable[[], object], ...] = (
        lambda: missing.create("a", b""),
        lambda: missing.replace("a", b"", '"0123"'),
        lambda: missing.put("a", b""),
        lambda: missing.get("a"),
        lambda: missing.head("a"),
        lambda: list(missing.list()),
        lambda: list(missing.children()),
        missing.check_writable,
    )
    for operation in operations:
        with pytest.raises(BucketMissing, match="not-made-yet"):
            operation()
