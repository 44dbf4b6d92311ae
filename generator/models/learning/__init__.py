"""Creating bundles: train from real images, refit an existing bundle, or import a decoder."""

from generator.models.learning.budget import TrainingPlan, plan_training
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
    "plan_training",
    "refit",
    "TrainingPlan",
    "TrainResult",
    "train_bundle",
]
