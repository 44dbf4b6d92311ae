"""Promotion, rollback and pins of a dataset's builds; each change is one conditional write of ``latest.json``."""

from generator.datasets.promotion.pins import pin, unpin
from generator.datasets.promotion.promote import promote, read_approval, read_latest, require_promotion, rollback
from generator.datasets.promotion.state import DatasetState, read_state

__all__ = [
    "require_promotion",
    "promote",
    "read_approval",
    "read_latest",
    "rollback",
    "pin",
    "unpin",
    "DatasetState",
    "read_state",
]
