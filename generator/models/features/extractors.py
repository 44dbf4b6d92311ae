"""Feature extractors: a classifier, or an encoder if there are no labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from generator.models.autoencoders.inference import encode
from generator.models.autoencoders.networks import to_input
from generator.models.batched_rows import batched_rows, images_at_once
from generator.models.features.classifier import Classifier
from generator.sources.pixels.storage import allocate_images

FeatureExtractor = Callable[[np.ndarray], np.ndarray]  # uint8 images_NHWC -> features_NF, float32

_BATCH = 512


def classifier_features(classifier: Classifier) -> FeatureExtractor:
    """Penultimate features of ``classifier``: the input of its linear layer, >= 0."""

    @torch.inference_mode()
    def features(images_NHWC: np.ndarray) -> np.ndarray:
        device = next(classifier.parameters()).device
        return _in_parts(images_NHWC, lambda some: classifier.features(to_input(some, device)).cpu().numpy())

    return features


def encoder_features(encoder: nn.Module) -> FeatureExtractor:
    """Codes of ``encoder`` (posterior means of a variational one): features that need no labels."""
    return lambda images_NHWC: _in_parts(images_NHWC, lambda some: encode(encoder, some))


def _in_parts(images_NHWC: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What ``compute`` makes of the images, some at a time; more than memory should hold goes to a temporary file."""

    def features_of(rows: slice) -> np.ndarray:
        return compute(images_NHWC[rows]).astype(np.float32, copy=False)

    batch = images_at_once(images_NHWC.shape[1:], _BATCH)
    return batched_rows(features_of, len(images_NHWC), batch, allocate_images)
