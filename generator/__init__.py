"""latentmill's library: trains bundles from real images, builds datasets from bundles, and reads datasets.

The public names are ``JobSpec``, ``JobDraft`` and ``open_dataset``. Their modules are imported at first use.
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
