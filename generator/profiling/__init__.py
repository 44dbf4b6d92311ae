"""How fast this machine makes images from a bundle, and what the limit is."""

from generator.profiling.reference import reference_bundle
from generator.profiling.run import Profile, profile

__all__ = ["Profile", "profile", "reference_bundle"]
