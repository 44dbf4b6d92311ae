"""The autoencoder families: one file each, their base class, and the registry."""
