"""Bundles come to be: learned from real images, refitted from a bundle, imported from a decoder that exists."""

from generator.learning.defaults import recommended_model, recommended_sampler, recommended_settings
from generator.learning.importing import import_decoder, read_codes, read_weights
from generator.learning.refitting import refit
from generator.learning.story import Learned, learn

__all__ = [
    "recommended_model",
    "recommended_sampler",
    "recommended_settings",
    "import_decoder",
    "read_codes",
    "read_weights",
    "refit",
    "Learned",
    "learn",
]
