"""The format of ``bundle.json``: the description of a bundle, and the digests of its other files.

The bundle's digest is the sha256 of the stored bytes of ``bundle.json``; because of the file digests it covers every
byte. Tensors are safetensors files; nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from generator.errors import BundleError
from generator.models.autoencoders.config import MAX_LATENT_DIM, AutoencoderConfig
from generator.models.autoencoders.imported.layers import MAX_SIDE
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.latents.config import SamplerSettings
from generator.models.screening.config import JudgeSettings, PassRates
from generator.spec.canonical import FrozenModel
from generator.spec.image_size import ImageSize
from generator.spec.reading import Reading
from generator.spec.recipe import ClassName, Digest

INFO_FILE: Final = "bundle.json"
DECODER_FILE: Final = "decoder.safetensors"
ENCODER_FILE: Final = "encoder.safetensors"
LATENTS_FILE: Final = "latents.safetensors"
CODES_FILE: Final = "codes.safetensors"
JUDGE_FILE: Final = "judge.safetensors"
COPY_INDEX_FILE: Final = "sketch.safetensors"
MAP_FILE: Final = "map.safetensors"
THUMBNAILS_FILE: Final = "thumbnails.safetensors"
RECONSTRUCTIONS_FILE: Final = "reconstructions.safetensors"

BundleFile = Literal[
    "decoder.safetensors",
    "encoder.safetensors",
    "latents.safetensors",
    "codes.safetensors",
    "judge.safetensors",
    "sketch.safetensors",
    "map.safetensors",
    "thumbnails.safetensors",
    "reconstructions.safetensors",
]


class FileEntry(FrozenModel):
    """Digest and size in bytes of one file of the bundle."""

    digest: Digest
    size: int = Field(ge=0)


class ImageShape(FrozenModel):
    """Height and width in pixels, 1 (grey) or 3 (RGB) channels."""

    height: int = Field(ge=8, le=MAX_SIDE)
    width: int = Field(ge=8, le=MAX_SIDE)
    channels: Literal[1, 3]

    @property
    def size(self) -> ImageSize:
        """Width and height in pixels."""
        return ImageSize(self.width, self.height)


class SourceFacts(FrozenModel):
    """The source of the bundle: the number of training images and of held-out images.

    For an imported decoder, counts and ``fingerprint`` are those of the codes imported with it. ``reading``: how the
    source was read, where that was not the usual way; later sources of the bundle are read in the same way.
    """

    name: str
    fingerprint: Digest
    images: int = Field(ge=2)
    holdout: int = Field(ge=1)
    reading: Reading = Reading()

    @model_serializer(mode="wrap")
    def _leave_out_usual_reading(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return fields if fields["reading"] else {name: each for name, each in fields.items() if name != "reading"}


class TrainingFacts(FrozenModel):
    """How the autoencoder was trained: settings, and one record per epoch. No wall-clock times."""

    settings: TrainSettings
    history: tuple[EpochRecord, ...]


class FittingFacts(FrozenModel):
    """How the latent distribution was fitted to the codes: settings, seed, and what the fit chose."""

    settings: SamplerSettings
    seed: int = Field(ge=0, lt=2**31)
    chosen: dict[str, Any] = Field(default_factory=dict)


class BundleInfo(FrozenModel):
    """The content of ``bundle.json``.

    ``training`` is ``None`` for an imported decoder. ``judge``: settings of the label judge, if there is one.
    ``passing``: the shares of samples that pass the label check and the copy check.
    """

    kind: Literal["latentmill.bundle"] = "latentmill.bundle"
    bundle_version: Literal[1] = 1
    image: ImageShape
    latent_dim: int = Field(ge=1, le=MAX_LATENT_DIM)
    classes: tuple[ClassName, ...]
    autoencoder: AutoencoderConfig
    latents: dict[str, Any]
    source: SourceFacts
    training: TrainingFacts | None = None
    fitting: FittingFacts
    judge: JudgeSettings | None = None
    passing: PassRates = PassRates()
    files: dict[BundleFile, FileEntry]

    @property
    def training_facts(self) -> TrainingFacts:
        """``training``; raises ``BundleError`` for an imported decoder."""
        if self.training is None:
            raise BundleError("bundle", "an autoencoder trained by latentmill", "an imported decoder")
        return self.training

    @model_validator(mode="after")
    def _check_parts(self) -> BundleInfo:
        model_shape = (str(self.autoencoder.image_size), self.autoencoder.channels, self.autoencoder.latent_dim)
        bundle_shape = (str(self.image.size), self.image.channels, self.latent_dim)
        if model_shape != bundle_shape:
            raise ValueError(
                f"autoencoder (size, channels, latent_dim) {model_shape} must agree with the bundle's {bundle_shape}"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes with distinct names")
        for required in (DECODER_FILE, LATENTS_FILE):
            if required not in self.files:
                raise ValueError(f"files must name {required}")
        judged_classes = len(self.classes) if self.judge else 0
        if (
            (self.judge is None) != (JUDGE_FILE not in self.files)
            or judged_classes == 1
            or len(self.passing.label) != judged_classes
        ):
            raise ValueError(
                f"a judge needs {JUDGE_FILE}, at least two classes, and the share of samples of each class that passes"
            )
        if (COPY_INDEX_FILE in self.files) != (self.passing.novelty is not None):
            raise ValueError(f"{COPY_INDEX_FILE} needs the share of samples that passes, and the share needs the file")
        return self
