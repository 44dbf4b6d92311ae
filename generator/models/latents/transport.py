"""The latent distribution ``transport``: a Gaussian a class (the base), and a learned map from it to the codes.

``sample`` draws points of the *base*; the map (``transport_map``) runs in front of the decoder, on the device, and
turns them into codes. So temperature, draws around a point and the log-density act on the base: the density of a sample
is that of its base point. Without a map the base points are the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import numpy as np
from pydantic import Field, model_validator
from scipy.special import chdtri

from generator.errors import BundleError
from generator.models.latents import state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.config import MapSettings
from generator.models.latents.gaussian_base import BaseConfig, GaussianBase, check_rotation
from generator.spec.canonical import FrozenModel, validate
from generator.spec.seeding import Noise

_MAP = "map."  # prefix of the map's weights among the tensors
CONDITION, FREQUENCIES = 256, 32  # units of the condition; sines and cosines that encode the time


class TransportConfig(FrozenModel):
    """The JSON part of a stored distribution. ``classes`` is 0 if unlabelled; ``map`` is ``None`` without a map."""

    family: Literal["transport"] = "transport"
    dims: int = Field(ge=1, le=65_536, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    base: BaseConfig
    map: MapSettings | None = None

    @model_validator(mode="after")
    def _check_base(self) -> TransportConfig:
        if self.base.dims != self.dims or self.base.factors not in (1, self.label_count):
            raise ValueError(f"a base of {self.dims} dimensions with 1 or {self.label_count} factors")
        return self

    @property
    def label_count(self) -> int:
        """C: number of classes, 1 if unlabelled."""
        return max(1, self.classes)


@final
class Transport(LatentDistribution):
    """See the module. ``tensors``: float64 ``mean`` (C, D) and the factors of the base (``BaseConfig.tensor_shapes``);
    float32 weights of the map (``map_shapes``).

    Raises ``ValueError`` if factors are too large for exact products.
    """

    def __init__(self, config: TransportConfig, tensors: Mapping[str, np.ndarray]) -> None:
        self._config = config
        self.map_settings = config.map
        self.map_weights = {name.removeprefix(_MAP): tensors[name] for name in tensors if name.startswith(_MAP)}
        self.base = GaussianBase(config.base, tensors["mean"], tensors)

    @property
    def dims(self) -> int:
        return self._config.dims

    @property
    def classes(self) -> int:
        return self._config.classes

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        z_BD = self.base.draw(noise.normal_BD, labels_B)
        log_density_B = self.base.log_prob_of_normals(noise.normal_BD, labels_B)
        return SampledCodes(z_BD, np.zeros(len(z_BD), dtype=np.int32), log_density_B)

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        return self.base.log_prob_of_normals(self.base.to_normals(z_BD, labels_B), labels_B)

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        return Noise(choice_B=np.full(len(z_BD), 0.5), normal_BD=self.base.to_normals(z_BD, labels_B))

    def density_floor(self, quantile: float) -> np.ndarray:
        """The quantile of base points: half their squared distances have a chi-square distribution.

        ``chdtri`` is the inverse of its upper tail; ``scipy.stats`` takes half a second to import.
        """
        labels_C = np.arange(self._config.label_count)
        highest_C = self.base.log_prob_of_normals(np.zeros((len(labels_C), self.dims)), labels_C)
        floor_C: np.ndarray = highest_C - 0.5 * chdtri(self.dims, quantile)
        return floor_C

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        weights = {f"{_MAP}{name}": weight for name, weight in self.map_weights.items()}
        document = self._config.model_dump(mode="json") | {"base": self._config.base.document()}
        return document, {**self.base.tensors(), **weights}


def map_shapes(settings: MapSettings, dims: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the map's weights (float32), by stored name."""
    width, modulations = settings.width, 3 * settings.width * settings.blocks
    layers: dict[str, tuple[int, int]] = {
        "stem": (width, dims),
        "head": (dims, width),
        "time.0": (CONDITION, 2 * FREQUENCIES),
        "time.2": (CONDITION, CONDITION),
        "time_out": (modulations, CONDITION),
    }
    for block in range(settings.blocks):
        layers |= {f"blocks.{block}.{layer}": (width, width) for layer in ("first", "second")}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs) in layers.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    shapes |= {"label.weight": (classes, CONDITION), "label_out.weight": (modulations, CONDITION)}
    return {f"{_MAP}network.{name}": shape for name, shape in shapes.items()}


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Transport:
    """A transport from untrusted stored values. Raises ``BundleError`` for values that do not describe one."""
    checked = validate(TransportConfig, dict(config), field="latents", error=BundleError)
    shapes: dict[str, tuple[int, ...]] = {"mean": (checked.label_count, checked.dims), **checked.base.tensor_shapes}
    weights = {} if checked.map is None else map_shapes(checked.map, checked.dims, checked.label_count)
    arrays = state_checks.check_arrays(tensors, shapes | weights, dict.fromkeys(weights, np.float32))
    for name in checked.base.factor_shapes:
        state_checks.check_factors(arrays[name])
    if checked.base.rank is not None:
        state_checks.check_positive("other_scale", arrays["other_scale"])
        check_rotation(arrays["reflectors"], arrays["reflections"])
    try:
        return Transport(checked, arrays)
    except ValueError as error:
        raise BundleError("latents", "factors of a usable size", error) from error
