"""The operations of a graph: what each needs, gives, and which tensors it owns. Does not import torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from generator.models.autoencoders.graphs.functions import (
    Activation,
    Attention,
    Binary,
    Clamp,
    Concat,
    Function,
    MatMul,
    Pad,
    Permute,
    PixelNorm,
    PixelShuffle,
    PixelUnshuffle,
    Pool,
    Reduce,
    Reshape,
    Resize,
    Scale,
    Slice,
    Softmax,
)
from generator.models.autoencoders.graphs.layers import (
    Affine,
    Constant,
    Conv,
    ConvTranspose,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    PRelu,
)
from generator.models.autoencoders.graphs.operation import Name, Operation

AnyOperation = Annotated[
    Conv
    | ConvTranspose
    | Linear
    | GroupNorm
    | LayerNorm
    | PixelNorm
    | Activation
    | PRelu
    | Clamp
    | Scale
    | Affine
    | Binary
    | Constant
    | Concat
    | Slice
    | Reshape
    | Permute
    | Resize
    | PixelShuffle
    | PixelUnshuffle
    | Pool
    | Pad
    | Reduce
    | Softmax
    | MatMul
    | Attention
    | Embedding,
    Field(discriminator="op"),
]

__all__ = [
    "Activation",
    "Affine",
    "AnyOperation",
    "Attention",
    "Binary",
    "Clamp",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Embedding",
    "Function",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "MatMul",
    "Name",
    "Operation",
    "PRelu",
    "Pad",
    "Permute",
    "PixelNorm",
    "PixelShuffle",
    "PixelUnshuffle",
    "Pool",
    "Reduce",
    "Reshape",
    "Resize",
    "Scale",
    "Slice",
    "Softmax",
]
