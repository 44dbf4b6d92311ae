"""Options of train, import and fit: of models, augmentation and latent distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from generator.models.latents.config import SamplerSettings

FAMILIES = ("linear", "stacked", "stacked-layerwise", "denoising", "vae", "adversarial", "regularized", "spatial")
SAMPLERS = ("gaussian", "mixture", "flow", "polar", "transport")
MODEL_OPTIONS = {
    "latent_dim": click.option(
        "--latent-dim",
        type=int,
        help="Dimensions of a code; by default chosen by size and colour, 128 for many photographs.",
    ),
    "width": click.option("--width", type=int, help="Feature maps of the first layer (all but linear)."),
    "patch": click.option("--patch", type=int, help="linear: side of the patches; by default the whole image."),
    "pretraining": click.option(
        "--pretraining", type=float, help="stacked-layerwise: share of the steps that trains single layers."
    ),
    "noise": click.option("--noise", help="denoising: gaussian, masking, or salt-and-pepper."),
    "amount": click.option("--amount", type=float, help="denoising: standard deviation, or share of the pixels."),
    "beta": click.option("--beta", type=float, help="vae: weight of the KL term; 1 is the evidence lower bound."),
    "warmup": click.option("--warmup", type=float, help="vae: share of the steps in which beta grows from 0."),
    "free_bits": click.option("--free-bits", type=float, help="vae: nats of each latent dimension without KL penalty."),
    "label_weight": click.option(
        "--label-weight",
        type=float,
        help="vae: weight of the loss of a linear layer that reads labels off codes; 30 for many labelled photographs.",
    ),
    "adversary": click.option("--adversary", type=float, help="adversarial: weight of the discriminator."),
    "conditioned": click.option(
        "--conditioned", is_flag=True, default=None, help="adversarial: a separate prior for every class."
    ),
    "code_penalty": click.option("--code-penalty", type=float, help="regularized, spatial: weight of |z|^2 / 2."),
    "decoder_penalty": click.option("--decoder-penalty", help="regularized: l2, gradient, or spectral."),
    "decoder_weight": click.option("--decoder-weight", type=float, help="regularized: weight of the decoder penalty."),
    "code_channels": click.option("--code-channels", type=int, help="spatial: numbers at each position of a code."),
    "code_noise": click.option(
        "--code-noise", type=float, help="spatial: noise on codes in training, in standard deviations."
    ),
    "equivariance": click.option(
        "--equivariance", type=float, help="spatial: share of codes that are mirrored or halved in training."
    ),
    "averaging": click.option(
        "--averaging", type=float, help="spatial: half-life of the average of the weights, as a share of the steps."
    ),
}
AUGMENTATION_OPTIONS = {
    "augment_shift": click.option(
        "--augment-shift", type=int, help="Augmentation: shift images by at most so many pixels."
    ),
    "augment_rotation": click.option(
        "--augment-rotation", type=float, help="Augmentation: rotate by at most so many degrees."
    ),
    "augment_scale": click.option(
        "--augment-scale", type=float, help="Augmentation: scale by at most this share of the size."
    ),
    "augment_shear": click.option(
        "--augment-shear", type=float, help="Augmentation: shear by at most so many degrees."
    ),
    "augment_elastic": click.option(
        "--augment-elastic", type=float, help="Augmentation: elastic distortion, standard deviation in pixels."
    ),
    "augment_mirror": click.option(
        "--augment-mirror", is_flag=True, default=None, help="Augmentation: mirror half of the images."
    ),
}
SAMPLER_OPTIONS = {
    "covariance": click.option("--covariance", help="gaussian, mixture: full, diagonal, or tied."),
    "clusters": click.option("--clusters", type=int, help="mixture, polar: clusters per class; by default chosen."),
    "clusters_by": click.option(
        "--clusters-by", help="mixture: choose the clusters by likelihood (of held-out codes) or bic."
    ),
    "transforms": click.option("--transforms", type=int, help="flow: coupling layers."),
    "hidden": click.option("--hidden", type=int, help="flow: units per hidden layer."),
    "flow_epochs": click.option("--flow-epochs", type=int, help="flow: maximum passes over the codes."),
    "flow_rate": click.option("--flow-rate", type=float, help="flow: learning rate."),
    "flow_decay": click.option("--flow-decay", type=float, help="flow: weight decay; larger values suit fewer codes."),
    "map_epochs": click.option("--map-epochs", type=int, help="transport: passes over the codes; 0 for no map."),
    "map_width": click.option("--map-width", type=int, help="transport: units per layer of the map."),
    "map_blocks": click.option("--map-blocks", type=int, help="transport: residual blocks of the map."),
    "map_steps": click.option("--map-steps", type=int, help="transport: evaluations of the map for each image."),
}
_SAMPLER_FIELDS = {
    "flow_epochs": "epochs",
    "flow_rate": "learning_rate",
    "flow_decay": "weight_decay",
    "map_epochs": "epochs",
}
_MAP_FIELDS = {"map_width": "width", "map_blocks": "blocks", "map_steps": "steps"}


def sampler_settings(family: str, options: dict[str, Any]) -> SamplerSettings:
    """The sampler settings in ``options``, which are removed from it. ``SpecError`` for one of another family."""
    from generator.models.latents.config import parse_sampler

    network = {field: options.pop(name) for name, field in _MAP_FIELDS.items() if name in options}
    has_map = options.get("map_epochs") != 0
    settings = {_SAMPLER_FIELDS.get(name, name): options.pop(name) for name in SAMPLER_OPTIONS if name in options}
    if not has_map:
        settings = {name: value for name, value in settings.items() if name != "epochs"}
    settings |= {"map": None} if not has_map else {"map": network} if network else {}
    return parse_sampler({"family": family} | settings)
