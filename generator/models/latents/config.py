"""Settings of the latent distributions, one model per family. Importing this file does not import torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from generator.errors import InputError, SpecError
from generator.spec.canonical import FrozenModel, GrowingModel, Later, validate

Covariance = Literal["full", "diagonal", "tied"]
Criterion = Literal["likelihood", "bic"]


Truncation = Annotated[float, Field(ge=0.01, le=10.0)]


class GaussianSettings(FrozenModel):
    """One Gaussian per class. ``covariance``: ``full``, ``diagonal``, or ``tied`` (one matrix for all classes)."""

    family: Literal["gaussian"] = "gaussian"
    covariance: Covariance = "full"


class MixtureSettings(FrozenModel):
    """One Gaussian mixture per class.

    ``covariance``: a ``full`` matrix per cluster, its ``diagonal`` alone, or one ``tied`` matrix per class.
    ``clusters``: number of clusters of each class; ``None`` chooses it on held-out codes by ``clusters_by``.
    """

    family: Literal["mixture"] = "mixture"
    covariance: Covariance = "full"
    clusters: int | None = Field(default=None, ge=1, le=1000, strict=True)
    clusters_by: Criterion = "likelihood"


class FlowSettings(FrozenModel):
    """A normalizing flow of affine coupling layers, conditional on the label.

    ``transforms`` layers, each with two hidden layers of ``hidden`` units; at most ``epochs`` passes over the codes in
    batches of ``batch``, stopped once the likelihood of held-out codes has not improved for ``patience`` epochs.
    ``weight_decay`` (decoupled, as a share of the learning rate) limits overfitting.
    """

    family: Literal["flow"] = "flow"
    transforms: int = Field(default=8, ge=1, le=64, strict=True)
    hidden: int = Field(default=128, ge=4, le=1024, strict=True)
    epochs: int = Field(default=24, ge=1, le=10_000, strict=True)
    batch: int = Field(default=256, ge=2, le=65_536, strict=True)
    learning_rate: float = Field(default=2e-3, gt=0.0, le=1.0)
    weight_decay: float = Field(default=0.2, ge=0.0, le=100.0)
    patience: int = Field(default=10, ge=1, le=10_000, strict=True)


class PolarSettings(FrozenModel):
    """For two-dimensional codes on a ring: one mixture per class in polar coordinates around the centre of all codes.

    ``clusters`` as in ``MixtureSettings``.
    """

    family: Literal["polar"] = "polar"
    clusters: int | None = Field(default=None, ge=1, le=1000, strict=True)


class MapSettings(FrozenModel):
    """The network of a ``transport`` map: ``blocks`` residual blocks of ``width`` units, evaluated ``steps`` times."""

    width: int = Field(default=1024, ge=8, le=8192, strict=True)
    blocks: int = Field(default=4, ge=1, le=64, strict=True)
    steps: int = Field(default=2, ge=1, le=64, strict=True)


class TransportSettings(GrowingModel):
    """A Gaussian a class, and a learned map that carries its points to the codes.

    ``clusters``: at most so many clusters a class instead of one Gaussian, where there are many codes; without a map.
    ``map``: its network; ``None`` fits the base alone. At most ``epochs`` passes over the codes in batches of
    ``batch``; the weights are a moving average with a half-life of the share ``averaging`` of all steps, of the epoch
    that was best on held-out codes. ``learning_rate``: the peak of the schedule. ``weight_decay`` is decoupled. A map
    that is no better than the Gaussian alone on held-out codes is dropped.
    """

    family: Literal["transport"] = "transport"
    map: MapSettings | None = MapSettings()
    epochs: int = Field(default=40, ge=1, le=100_000, strict=True)
    batch: int = Field(default=256, ge=2, le=65_536, strict=True)
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0, le=100.0)
    averaging: float = Field(default=0.05, gt=0.0, le=0.5)
    clusters: Annotated[int | None, Later()] = Field(default=None, ge=2, le=1000, strict=True)

    @model_validator(mode="after")
    def _check_clusters(self) -> TransportSettings:
        if self.clusters is not None and self.map is not None:
            raise ValueError("clusters without a map (map_epochs 0)")
        return self


class PriorSettings(FrozenModel):
    """The standard normal that a generator was trained for, in every dimension; nothing is fitted.

    ``truncation``: restricts every number to [-t, t]; ``None`` does not.
    """

    family: Literal["prior"] = "prior"
    truncation: Truncation | None = None


SamplerSettings = Annotated[
    GaussianSettings | MixtureSettings | FlowSettings | PolarSettings | TransportSettings | PriorSettings,
    Field(discriminator="family"),
]
_MODELS = {model.model_fields["family"].default: model for model in get_args(get_args(SamplerSettings)[0])}
SAMPLERS: tuple[str, ...] = tuple(family for family, model in _MODELS.items() if model is not PriorSettings)


def parse_sampler(value: Any, *, field: str = "sampler", error: type[InputError] = SpecError) -> SamplerSettings:
    """An untrusted value (parsed JSON or YAML) as settings; ``error`` names the field that is wrong."""
    family = value.get("family") if isinstance(value, dict) else None
    if family not in _MODELS:
        raise error(f"{field}.family", f"one of {', '.join(SAMPLERS)}", repr(family))
    settings: SamplerSettings = validate(_MODELS[family], value, field=field, error=error)
    return settings
