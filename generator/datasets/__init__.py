"""Committed builds: resolve a URL to a build, read, verify, replay and promote it.

This file imports nothing, because only ``torch_dataset`` and ``replay`` need torch.
"""
