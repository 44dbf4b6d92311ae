"""latentmill's library: from real images to bundles, from bundles to committed datasets, from datasets to samples.

The public surface is ``JobSpec``, ``JobDraft`` and ``open_dataset``; what is heavy is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generator.datasets.torch_dataset import open_dataset
    from generator.drafts import JobDraft
    from generator.spec.recipe import JobSpec

__all__ = ["JobDraft", "JobSpec", "open_dataset"]

_HOMES = {
    "JobDraft": "generator.drafts",
    "JobSpec": "generator.spec.recipe",
    "open_dataset": "generator.datasets.torch_dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generator' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
