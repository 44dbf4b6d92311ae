"""Committed builds: which one a URL means, reading, verification, replay, promotion.

Nothing is imported here: only ``torch_dataset`` and ``replay`` need torch.
"""
