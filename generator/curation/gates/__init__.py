"""Gates: a finished build is measured, and promoted only if what was asked for holds. Imports no torch."""

from generator.curation.gates.config import Gates, Reference
from generator.curation.gates.evaluate import evaluate_gates
from generator.curation.gates.verdict import Check, Verdict, read_verdict

__all__ = ["Gates", "Reference", "Verdict", "Check", "evaluate_gates", "read_verdict"]
