"""Fitting latent distributions to codes: one file a family, and the checks that they share."""
