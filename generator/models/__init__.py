"""What a bundle is made of, and where bundles come from: networks, latent distributions, screening, training."""
