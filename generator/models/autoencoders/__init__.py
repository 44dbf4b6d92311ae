"""Autoencoders: settings, networks, families, training, and imported decoders."""
