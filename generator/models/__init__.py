"""Models: autoencoders, latent distributions, screening, and the bundles that contain them."""
