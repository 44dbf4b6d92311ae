"""Latent distributions: fitted values that sample codes and give their log-density."""

from generator.models.latents.base import LatentDistribution, SampledCodes

__all__ = ["LatentDistribution", "SampledCodes"]
