"""Feature extractors: a classifier, or an encoder if there are no labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from generator.models.autoencoders.inference import encode
from generator.models.autoencoders.networks import to_input
from generator.models.features.classifier import Classifier

FeatureExtractor = Callable[[np.ndarray], np.ndarray]  # uint8 images_NHWC -> features_NF, float32

_BATCH = 512


def classifier_features(classifier: Classifier) -> FeatureExtractor:
    """Penultimate features of ``classifier``: the input of its linear layer, >= 0."""

    @torch.inference_mode()
    def features(images_NHWC: np.ndarray) -> np.ndarray:
        device = next(classifier.parameters()).device
        parts = [
            classifier.features(to_input(images_NHWC[begin : begin + _BATCH], device)).cpu().numpy()
            for begin in range(0, len(images_NHWC), _BATCH)
        ]
        return np.concatenate(parts)

    return features


def encoder_features(encoder: nn.Module) -> FeatureExtractor:
    """Codes of ``encoder`` (posterior means of a variational one): features that need no labels."""
    return lambda images_NHWC: encode(encoder, images_NHWC, _BATCH).astype(np.float32)
