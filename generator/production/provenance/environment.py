"""The environment of a process: everything that can change a pixel or a compressed byte of a build.

The first process of a build fixes its environment with a conditional put; a process that differs writes no shard of
that build. The release of latentmill is not included: changes by a release are covered by ``recipe_version``.
"""

from __future__ import annotations

from typing import Literal

from generator.spec.canonical import FrozenModel, digest_of
from generator.spec.recipe import Execution


class Environment(FrozenModel):
    """Device kind with instruction set, numeric type, execution mode, and the libraries on the path of a sample."""

    environment_version: Literal[1] = 1
    device: str  # "cpu/x86_64/AVX512", "cuda/NVIDIA H200/sm_90"
    dtype: str
    execution: Execution = "eager"
    libraries: dict[str, str]

    @property
    def digest(self) -> str:
        return digest_of(self.canonical())


def describe_differences(ours: Environment, theirs: Environment) -> str:
    """The differences as text: ``torch 2.13.0 instead of 2.12.1, ...``."""
    one, two = _flatten(ours), _flatten(theirs)
    names = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    return ", ".join(f"{name} {one.get(name, 'absent')} instead of {two.get(name, 'absent')}" for name in names)


def _flatten(environment: Environment) -> dict[str, str]:
    facts = {"device": environment.device, "dtype": environment.dtype, "execution": environment.execution}
    return facts | environment.libraries
