"""From a code back to the base point that the map of a ``transport`` carries to it.

The flow is integrated backwards in many steps. The map that makes images takes few, so the result is corrected: the
distance between the code and the image of the point under that very map is minimised (L-BFGS; Liu & Nocedal, 1989).
"""

from __future__ import annotations

import numpy as np
import torch

from generator.models.latents.base import LatentDistribution
from generator.models.latents.transport_map import new_map

_STEPS, _ITERATIONS = 64, 200
MAX_ERROR = 0.02  # root mean square error of the code, in standard deviations of its class


def to_base(distribution: LatentDistribution, code_D: np.ndarray, label: int) -> tuple[np.ndarray, float]:
    """(base point float64 (D,), error): the point of class ``label`` whose code is ``code_D``, and how far its code is
    from it, as a root mean square in standard deviations of the base. The code itself if there is no map."""
    network = new_map(distribution)
    if network is None:
        return code_D, 0.0
    code_1D, label_1 = torch.from_numpy(code_D.astype(np.float32))[None], torch.tensor([label])
    scale_1D = network.scale_CD[label_1]  # type: ignore[index]
    point_1D = network.integrate_back(code_1D, label_1, _STEPS).requires_grad_()
    optimizer = torch.optim.LBFGS([point_1D], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def squared_error() -> torch.Tensor:
        error: torch.Tensor = ((network(point_1D, label_1) - code_1D) / scale_1D).square().mean()
        return error

    def closure() -> float:
        optimizer.zero_grad()
        loss = squared_error()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        error = float(squared_error().sqrt())
    return point_1D.detach()[0].double().numpy(), error
