"""Creating bundles: train from real images, refit an existing bundle, or import a decoder."""

from generator.models.converters.weights import read_weights
from generator.models.learning.autoencoder_import import encode_source, initial_weights
from generator.models.learning.budget import TrainingPlan, plan_pretrained, plan_training
from generator.models.learning.callbacks import TrainingCallbacks
from generator.models.learning.decoder_import import import_decoder, import_network, read_codes
from generator.models.learning.defaults import (
    pretrained_sampler,
    pretrained_settings,
    recommended_model,
    recommended_sampler,
    recommended_settings,
    suits_pretrained,
)
from generator.models.learning.fitted_bundle import TrainResult
from generator.models.learning.imported_network import ImportedNetwork, join_graphs, pretrained_network
from generator.models.learning.judges import recommended_judge
from generator.models.learning.refit import refit
from generator.models.learning.train import help_to_train, train_bundle

__all__ = [
    "recommended_judge",
    "recommended_model",
    "recommended_sampler",
    "recommended_settings",
    "encode_source",
    "help_to_train",
    "import_decoder",
    "import_network",
    "read_codes",
    "read_weights",
    "ImportedNetwork",
    "initial_weights",
    "join_graphs",
    "plan_pretrained",
    "plan_training",
    "pretrained_network",
    "pretrained_sampler",
    "pretrained_settings",
    "refit",
    "suits_pretrained",
    "TrainingCallbacks",
    "TrainingPlan",
    "TrainResult",
    "train_bundle",
]
