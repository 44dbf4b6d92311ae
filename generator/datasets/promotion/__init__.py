"""Which committed build of a dataset readers get, and which ones are pinned: each decision one conditional write."""

from generator.datasets.promotion.pins import pin, unpin
from generator.datasets.promotion.promote import expect_promotion, promote, read_approval, read_latest, rollback
from generator.datasets.promotion.state import Standing, read_standing

__all__ = [
    "expect_promotion",
    "promote",
    "read_approval",
    "read_latest",
    "rollback",
    "pin",
    "unpin",
    "Standing",
    "read_standing",
]
