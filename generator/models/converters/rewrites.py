"""Makes a graph shorter and faster without changing what it computes, up to rounding.

Exporters write a normalisation or an attention in many small operations, and networks enlarge an image before they
convolve it.

Each rule looks at one node and the nodes it depends on, which must have no other use; it gives the node that replaces
them. Rules are tried until none applies.
"""

from __future__ import annotations

from generator.models.converters.builder import BuiltGraph
from generator.models.converters.folding import (
    drop_unit_axis,
    fold_affine,
    fold_linear_bias,
    fold_norm_affine,
    join_affine,
    join_reshapes,
    join_scale,
    join_upsampling,
)
from generator.models.converters.patterns import (
    find_attention,
    find_demodulation,
    find_gelu,
    find_group_norm,
    find_layer_norm,
    find_pixel_norm,
    find_rsqrt,
    find_silu,
    find_square,
)
from generator.models.converters.rewriter import Rewriter, Rule

_RULES: tuple[Rule, ...] = (
    fold_affine,
    join_upsampling,
    fold_linear_bias,
    join_affine,
    join_scale,
    join_reshapes,
    find_square,
    find_rsqrt,
    find_silu,
    find_gelu,
    find_group_norm,
    fold_norm_affine,
    find_layer_norm,
    find_pixel_norm,
    drop_unit_axis,
    find_attention,
    find_demodulation,
)


def simplify(built: BuiltGraph) -> BuiltGraph:
    """The same network with fewer operations."""
    rewriter = Rewriter(built)
    while rewriter.apply_rules(_RULES):
        pass
    return rewriter.result()
