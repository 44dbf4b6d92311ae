"""Latent distributions: fitted values that sample codes and know their density."""

from generator.models.latents.base import LatentDistribution, Latents

__all__ = ["LatentDistribution", "Latents"]
