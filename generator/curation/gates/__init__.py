"""Gates: thresholds that a finished build must meet before it is promoted. Imports no torch."""

from generator.curation.gates.config import Gates, Reference
from generator.curation.gates.evaluate import evaluate_gates
from generator.curation.gates.verdict import Check, Verdict, read_verdict

__all__ = ["Gates", "Reference", "Verdict", "Check", "evaluate_gates", "read_verdict"]
