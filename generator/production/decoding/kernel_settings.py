"""The settings of torch that a decoder computes under: the same kernels in every run, at full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_LEAVES = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


def fix_kernels() -> None:
    """Use the same kernels in every run, at full precision: TF32 or autotuning could change bytes between runs."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def build_settings() -> Iterator[None]:
    """The settings of a build for the block, then those of before: for a process that also trains.

    In the block there is no autocast, TF32, bfloat16 or autotuning; what it draws of torch's random numbers is drawn
    again afterwards.
    """
    cudnn, leaves = torch.backends.cudnn, [_setting(path) for path in _LEAVES]
    precisions = [leaf.fp32_precision for leaf in leaves]
    switches, older = (cudnn.deterministic, cudnn.benchmark), _older_settings()
    autocast = (torch.autocast(kind, enabled=False) for kind in ("cuda", "cpu"))
    try:
        fix_kernels()
        for leaf in leaves:
            leaf.fp32_precision = "ieee"
        with next(autocast), next(autocast), torch.random.fork_rng(devices=[]):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = switches
        if older is not None:
            torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32 = older[:2]
            torch.set_float32_matmul_precision(older[2])
        for leaf, precision in zip(leaves, precisions, strict=True):
            leaf.fp32_precision = precision


def _setting(path: str) -> Any:
    found: Any = torch.backends
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _older_settings() -> tuple[bool, bool, str] | None:
    """The same precisions by torch's older names; ``None`` if a program has set them by the newer ones only."""
    try:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        return matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
