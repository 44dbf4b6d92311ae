"""Gates: a finished build is measured, and promoted only if what was asked for holds. Imports no torch."""

from generator.curation.gates.config import Gates, Reference
from generator.curation.gates.evaluate import judge_build
from generator.curation.gates.verdict import Check, Verdict, read_verdict

__all__ = ["Gates", "Reference", "Verdict", "Check", "judge_build", "read_verdict"]
