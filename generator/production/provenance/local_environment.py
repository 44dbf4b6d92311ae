"""The environment of this process. The only file of this package that imports torch."""

from __future__ import annotations

import platform

import torch

from generator.production.images.fingerprints import encoder_fingerprints
from generator.production.provenance.environment import Environment
from generator.spec.recipe import Execution


def local_environment(device: str, dtype: str, execution: Execution = "eager") -> Environment:
    """The environment of this process, decoding on torch device ``device`` with ``dtype``."""
    return Environment(device=_device_kind(device), dtype=dtype, execution=execution, libraries=_library_versions())


def _device_kind(device: str) -> str:
    if torch.device(device).type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda/{torch.cuda.get_device_name(device)}/sm_{major}{minor}"
    return f"cpu/{platform.machine()}/{torch.backends.cpu.get_cpu_capability()}"


def _library_versions() -> dict[str, str]:
    import numpy
    import PIL
    import pyarrow
    import scipy
    from PIL import features

    return {
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "pyarrow": pyarrow.__version__,
        "pillow": PIL.__version__,
        "freetype": str(features.version("freetype2")),
        **encoder_fingerprints(),
    }
