"""Folds batch normalisation into the layer before it: in ``eval`` mode it is an affine map.

Markuš, "Fusing batch normalization and convolution in runtime", 2018; done by torch's own ``torch.nn.utils.fusion``.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """``module`` itself, changed in place: normalisations after a layer of a ``Sequential`` are folded into the layer.

    ``module`` must be in ``eval`` mode.
    """
    for child in module.children():
        fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            fused = _fuse(layer, norm)
            if fused is not None:
                setattr(module, name, fused)
                setattr(module, norm_name, nn.Identity())
    return module


def _fuse(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    if not isinstance(norm, _NORMS) or norm.running_mean is None:
        return None
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
    return None
