"""Bundles: decoder, encoder, latent distribution and reference codes as one immutable, content-addressed directory."""

from generator.bundle.cache import BundleCache
from generator.bundle.format import JUDGE_FILE, SKETCH_FILE, BundleInfo, FittingFacts, SourceFacts, TrainingFacts
from generator.bundle.load import Bundle, load_bundle, load_codes, load_encoder_weights, read_info
from generator.bundle.save import BundleContents, save_bundle
from generator.bundle.transfer import bundle_store, pull, push

__all__ = [
    "JUDGE_FILE",
    "SKETCH_FILE",
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
