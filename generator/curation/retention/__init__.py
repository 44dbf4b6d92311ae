"""Deletion of builds by a retention rule, and of orphans left by crashes and abandoned builds."""

from generator.curation.retention.orphans import Intents, Orphan, find_orphans
from generator.curation.retention.policy import (
    CommittedBuild,
    Retention,
    RetentionPlan,
    apply_retention,
    enforce_retention,
    plan_retention,
    read_committed_builds,
)

__all__ = [
    "CommittedBuild",
    "Retention",
    "RetentionPlan",
    "apply_retention",
    "plan_retention",
    "read_committed_builds",
    "enforce_retention",
    "Intents",
    "Orphan",
    "find_orphans",
]
