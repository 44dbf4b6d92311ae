"""latentmill's library: trains bundles from real images, builds datasets from bundles, and reads datasets.

The public names are listed in ``__all__``. Their modules are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generator.datasets.mix import mix
    from generator.datasets.source_samples import source_samples
    from generator.datasets.torch_dataset import open_dataset
    from generator.drafts import JobDraft
    from generator.sources import load_source
    from generator.spec.recipe import JobSpec

__all__ = ["JobDraft", "JobSpec", "load_source", "mix", "open_dataset", "source_samples"]

_HOMES = {
    "JobDraft": "generator.drafts",
    "JobSpec": "generator.spec.recipe",
    "load_source": "generator.sources",
    "mix": "generator.datasets.mix",
    "open_dataset": "generator.datasets.torch_dataset",
    "source_samples": "generator.datasets.source_samples",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'generator' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
