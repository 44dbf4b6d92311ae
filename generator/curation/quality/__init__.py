"""How good synthetic images are: fidelity, coverage, novelty, usefulness; and whether a latent space can be sampled."""
