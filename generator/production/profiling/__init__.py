"""Measures how fast this machine makes images, and what limits it.

This file imports nothing, so that ``suggestion`` can be used without torch.
"""
