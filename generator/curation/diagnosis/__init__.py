"""Diagnosis of a latent space: measures, sampler trials, verdict, pictures."""
