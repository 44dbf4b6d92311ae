"""Latent distributions: fitted values that sample codes and know their density."""

from generator.models.latents.base import LatentDistribution, SampledCodes

__all__ = ["LatentDistribution", "SampledCodes"]
