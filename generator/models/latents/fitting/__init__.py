"""Fitting latent distributions to codes: one file per family, and their common checks."""
