"""Verify a committed build byte for byte against its manifest. Reads every object; imports no torch.

The checks compare: the bytes of every object with the digest and size in the manifest; the manifest with the stored
recipe, environment, receipts and segments; names, numbers and counts with the plan, which follows from the recipe
alone; the first sample of the build with the plan, as an image. A deep verification compares every sample with the plan
and with its row in the table, and decodes every image: it finds what a faulty writer committed under right digests. The
names of model, sampler and source are stored only once in a build and cannot be checked.
"""

from generator.datasets.verification.findings import Problem, Verification
from generator.datasets.verification.verify import verify_dataset

__all__ = ["Problem", "Verification", "verify_dataset"]
