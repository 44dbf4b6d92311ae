"""Is a latent space samplable? What it looks like, what fits it, and a verdict."""
