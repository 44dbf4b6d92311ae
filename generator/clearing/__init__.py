"""What is deleted: builds that retention lets go, and what crashes left behind."""

from generator.clearing.retention import (
    Held,
    Retention,
    RetentionPlan,
    apply_retention,
    plan_retention,
    read_held,
    retain,
)
from generator.clearing.sweeping import Intents, Leftover, leftovers

__all__ = [
    "Held",
    "Retention",
    "RetentionPlan",
    "apply_retention",
    "plan_retention",
    "read_held",
    "retain",
    "Intents",
    "Leftover",
    "leftovers",
]
