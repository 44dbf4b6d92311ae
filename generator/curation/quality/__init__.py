"""Quality measures of synthetic images: fidelity, coverage, novelty, duplicates, usefulness."""
