"""Bundles: decoder, encoder, latent distribution and reference codes in an immutable, content-addressed directory."""

from generator.models.bundle.cache import BundleCache
from generator.models.bundle.format import (
    COPY_INDEX_FILE,
    JUDGE_FILE,
    BundleInfo,
    FittingFacts,
    SourceFacts,
    TrainingFacts,
)
from generator.models.bundle.load import Bundle, load_bundle, load_codes, load_encoder_weights, read_info
from generator.models.bundle.save import BundleContents, save_bundle
from generator.models.bundle.transfer import bundle_store, pull, push

__all__ = [
    "JUDGE_FILE",
    "COPY_INDEX_FILE",
    "Bundle",
    "BundleCache",
    "BundleContents",
    "BundleInfo",
    "FittingFacts",
    "SourceFacts",
    "TrainingFacts",
    "bundle_store",
    "load_bundle",
    "load_codes",
    "load_encoder_weights",
    "pull",
    "push",
    "read_info",
    "save_bundle",
]
