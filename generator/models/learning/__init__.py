"""Bundles come to be: learned from real images, refitted from a bundle, imported from a decoder that exists."""

from generator.models.learning.decoder_import import import_decoder, read_codes, read_weights
from generator.models.learning.defaults import recommended_model, recommended_sampler, recommended_settings
from generator.models.learning.refit import refit
from generator.models.learning.train import TrainResult, train_bundle

__all__ = [
    "recommended_model",
    "recommended_sampler",
    "recommended_settings",
    "import_decoder",
    "read_codes",
    "read_weights",
    "refit",
    "TrainResult",
    "train_bundle",
]
