"""Is a committed build still, byte for byte, what its manifest says? Everything is read; no torch is imported.

What is compared with what: every object's bytes with the digest and size that the manifest states; the manifest with
the stored recipe, environment and receipts; names, numbers, counts and labels with the plan, which follows from the
recipe alone; the samples inside a shard with the rows of its table. What nothing else in a build repeats cannot be
checked: the names of model, sampler and source.
"""

from generator.datasets.verification.findings import Problem
from generator.datasets.verification.verify import Verification, verify_dataset

__all__ = ["Problem", "Verification", "verify_dataset"]
