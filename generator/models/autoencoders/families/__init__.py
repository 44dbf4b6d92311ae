"""The families of autoencoders: one file each, their base class, and the registry."""
