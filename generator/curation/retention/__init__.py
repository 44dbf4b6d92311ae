"""What is deleted: builds that retention lets go, and what crashes left behind."""

from generator.curation.retention.orphans import Intents, Leftover, leftovers
from generator.curation.retention.policy import (
    Held,
    Retention,
    RetentionPlan,
    apply_retention,
    plan_retention,
    read_held,
    retain,
)

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
