"""The latent distribution ``transport``: a Gaussian or a mixture a class (the base), and a learned map to the codes.

``sample`` draws points of the *base*; the map (``transport_map``) runs in front of the decoder, on the device, and
turns them into codes. So temperature, draws around a point and the log-density act on the base: the density of a sample
is that of its base point. Without a map the base points are the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, final

import numpy as np
from pydantic import Field, model_validator
from scipy.special import chdtri

from generator.errors import BundleError
from generator.models.latents import state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.config import MapSettings
from generator.models.latents.gaussian_base import BaseConfig, GaussianBase, check_rotation
from generator.models.latents.quantiles import QUANTILE_GRID, density_floors
from generator.models.latents.whitened_clusters import WhitenedClusters, check_tensors, tensor_shapes
from generator.spec.canonical import GrowingModel, Later, validate
from generator.spec.seeding import Noise

_MAP = "map."  # prefix of the map's weights among the tensors
CONDITION, FREQUENCIES = 256, 32  # units of the condition; sines and cosines that encode the time


class MapConfig(MapSettings, GrowingModel):
    """A map as it is stored. ``spacing`` of the times at which the network is evaluated: ``late`` has more of them near
    the codes, where the velocity changes most; maps of earlier releases have ``equal`` steps."""

    steps: int = Field(default=4, ge=1, le=64, strict=True)  # the default of earlier releases, for what they stored
    spacing: Annotated[Literal["equal", "late"], Later()] = "equal"

    @property
    def times(self) -> tuple[float, ...]:
        """The ends of the steps, from 0 to 1: ``k / steps``, or their square roots."""
        power = 1.0 if self.spacing == "equal" else 0.5
        return tuple((step / self.steps) ** power for step in range(self.steps + 1))


class TransportConfig(GrowingModel):
    """The JSON part of a stored distribution. ``classes`` is 0 if unlabelled; ``map`` is ``None`` without a map.

    ``clusters``: the number of each class (``whitened_clusters``), with covariances of their own in ``cluster_rank``
    directions; ``None``: one Gaussian a class.
    """

    family: Literal["transport"] = "transport"
    dims: int = Field(ge=1, le=65_536, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    base: BaseConfig
    map: MapConfig | None = None
    clusters: Annotated[tuple[Annotated[int, Field(ge=1, le=1000, strict=True)], ...] | None, Later()] = None
    cluster_rank: Annotated[int | None, Later()] = Field(default=None, ge=1, le=512, strict=True)

    @model_validator(mode="after")
    def _check_base(self) -> TransportConfig:
        if self.base.dims != self.dims or self.base.factors not in (1, self.label_count):
            raise ValueError(f"a base of {self.dims} dimensions with 1 or {self.label_count} factors")
        return self

    @model_validator(mode="after")
    def _check_clusters(self) -> TransportConfig:
        if (self.clusters is None) != (self.cluster_rank is None):
            raise ValueError("clusters together with cluster_rank, or neither")
        if self.clusters is None or self.cluster_rank is None:
            return self
        if len(self.clusters) != self.label_count:
            raise ValueError(f"clusters must be {self.label_count} numbers, one per class")
        if self.map is not None or self.cluster_rank > self.cluster_means:
            raise ValueError(f"clusters without a map, in at most {self.cluster_means} dimensions")
        return self

    @property
    def cluster_means(self) -> int:
        """Number of dimensions in which clusters have means of their own."""
        return self.base.rank or self.dims

    @property
    def label_count(self) -> int:
        """C: number of classes, 1 if unlabelled."""
        return max(1, self.classes)


@final
class Transport(LatentDistribution):
    """See the module. ``tensors``: float64 ``mean`` (C, D) and the factors of the base (``BaseConfig.tensor_shapes``);
    float32 weights of the map (``map_shapes``); with clusters theirs (``whitened_clusters``), and ``quantile`` (C, Q).

    Raises ``ValueError`` if factors are too large for exact products.
    """

    def __init__(self, config: TransportConfig, tensors: Mapping[str, np.ndarray]) -> None:
        self._config = config
        self.map_settings = config.map
        self.map_weights = {name.removeprefix(_MAP): tensors[name] for name in tensors if name.startswith(_MAP)}
        self.base = GaussianBase(config.base, tensors["mean"], tensors)
        self._mixture = None if config.clusters is None else WhitenedClusters(config.clusters, tensors)
        self._quantile_CQ = tensors.get("quantile")

    @property
    def dims(self) -> int:
        return self._config.dims

    @property
    def classes(self) -> int:
        return self._config.classes

    @property
    def clusters(self) -> tuple[int, ...]:
        """Number of clusters of each class."""
        return super().clusters if self._mixture is None else self._mixture.clusters

    def choice_for_cluster(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        if self._mixture is None:
            return super().choice_for_cluster(cluster_B, labels_B)
        return self._mixture.middle_choice(cluster_B, labels_B)

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        normal_BD, cluster_B = noise.normal_BD, np.zeros(len(labels_B), dtype=np.int64)
        if self._mixture is not None:
            cluster_B = self._mixture.choose(noise.choice_B, labels_B)
            normal_BD = self._mixture.place(normal_BD, cluster_B, labels_B)
        z_BD = self.base.draw(normal_BD, labels_B)
        return SampledCodes(z_BD, cluster_B.astype(np.int32), self._log_prob_of_normals(normal_BD, labels_B))

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        return self._log_prob_of_normals(self.base.to_normals(z_BD, labels_B), labels_B)

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        normal_BD, choice_B = self.base.to_normals(z_BD, labels_B), np.full(len(z_BD), 0.5)
        if self._mixture is not None:
            normal_BD, cluster_B = self._mixture.remove(normal_BD, labels_B)
            choice_B = self._mixture.middle_choice(cluster_B, labels_B)
        return Noise(choice_B=choice_B, normal_BD=normal_BD)

    def density_floor(self, quantile: float) -> np.ndarray:
        """The quantile of base points. For a Gaussian, half their squared distances have a chi-square distribution; for
        clusters it was measured at the fit.

        ``chdtri`` is the inverse of its upper tail; ``scipy.stats`` takes half a second to import.
        """
        if self._quantile_CQ is not None:
            return density_floors(self._quantile_CQ, quantile)
        highest_C = self.base.log_scale(np.arange(self._config.label_count))
        floor_C: np.ndarray = highest_C - 0.5 * chdtri(self.dims, quantile)
        return floor_C

    def with_quantiles(self, quantile_CQ: np.ndarray) -> Transport:
        """This distribution with other stored quantiles of its density."""
        return Transport(self._config, {**self._arrays(), "quantile": quantile_CQ})

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        document = self._config.model_dump(mode="json") | {"base": self._config.base.document()}
        return document, self._arrays()

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {**self.base.tensors(), **{f"{_MAP}{name}": weight for name, weight in self.map_weights.items()}}
        if self._mixture is not None and self._quantile_CQ is not None:
            arrays |= self._mixture.tensors() | {"quantile": self._quantile_CQ}
        return arrays

    def _log_prob_of_normals(self, normal_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density of the code that the base makes of normals that clusters may have moved."""
        if self._mixture is None:
            return self.base.log_prob_of_normals(normal_BD, labels_B)
        log_density_B: np.ndarray = self.base.log_scale(labels_B) + self._mixture.log_prob(normal_BD, labels_B)
        return log_density_B


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
    if checked.clusters is not None and checked.cluster_rank is not None:
        shapes |= tensor_shapes(checked.clusters, checked.cluster_rank, checked.cluster_means)
        shapes["quantile"] = (checked.label_count, len(QUANTILE_GRID))
    arrays = state_checks.check_arrays(tensors, shapes | weights, dict.fromkeys(weights, np.float32))
    for name in checked.base.factor_shapes:
        state_checks.check_factors(arrays[name])
    if checked.base.rank is not None:
        state_checks.check_positive("other_scale", arrays["other_scale"])
        check_rotation(arrays["reflectors"], arrays["reflections"])
    if checked.clusters is not None:
        check_tensors(checked.clusters, arrays)
        state_checks.check_quantiles(arrays["quantile"])
    try:
        return Transport(checked, arrays)
    except ValueError as error:
        raise BundleError("latents", "factors of a usable size", error) from error
