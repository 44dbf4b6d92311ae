"""Resident decoders: latent points to uint8 images, eager or compiled, in batches of one fixed size."""

from generator.production.decoding.kernel_settings import build_settings
from generator.production.decoding.resident import ResidentDecoder, retry_on_oom

__all__ = ["ResidentDecoder", "build_settings", "retry_on_oom"]
