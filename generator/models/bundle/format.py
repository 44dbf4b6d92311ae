"""``bundle.json``: everything a bundle says of itself, and the digests of the files beside it.

The bundle's digest is the sha256 of the stored bytes of ``bundle.json``; through the file digests it covers every byte.
Tensors are safetensors files; nothing in a bundle is ever unpickled.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from generator.errors import BundleError
from generator.models.autoencoders.config import AutoencoderConfig
from generator.models.autoencoders.imported.layers import MAX_SIDE
from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.latents.config import SamplerSettings
from generator.models.screening.config import JudgeSettings, PassRates
from generator.spec.canonical import FrozenModel
from generator.spec.recipe import ClassName, Digest

INFO_FILE: Final = "bundle.json"
DECODER_FILE: Final = "decoder.safetensors"
ENCODER_FILE: Final = "encoder.safetensors"
LATENTS_FILE: Final = "latents.safetensors"
CODES_FILE: Final = "codes.safetensors"
JUDGE_FILE: Final = "judge.safetensors"
COPY_INDEX_FILE: Final = "sketch.safetensors"

BundleFile = Literal[
    "decoder.safetensors",
    "encoder.safetensors",
    "latents.safetensors",
    "codes.safetensors",
    "judge.safetensors",
    "sketch.safetensors",
]


class FileEntry(FrozenModel):
    """Digest and size in bytes of one file of the bundle."""

    digest: Digest
    size: int = Field(ge=0)


class ImageShape(FrozenModel):
    """Height and width in pixels (equal: decoders are square), 1 (grey) or 3 (RGB) channels."""

    height: int = Field(ge=8, le=MAX_SIDE)
    width: int = Field(ge=8, le=MAX_SIDE)
    channels: Literal[1, 3]

    @model_validator(mode="after")
    def _square(self) -> ImageShape:
        if self.height != self.width:
            raise ValueError(f"a square image (height = width), not {self.height} x {self.width}")
        return self


class SourceFacts(FrozenModel):
    """The real images behind the bundle: how many were trained on, how many held out.

    Of an imported decoder they are the codes that came with it, and ``fingerprint`` is theirs.
    """

    name: str
    fingerprint: Digest
    images: int = Field(ge=2)
    holdout: int = Field(ge=1)


class TrainingFacts(FrozenModel):
    """How the autoencoder was trained: settings, and one record an epoch. No wall-clock facts."""

    settings: TrainSettings
    history: tuple[EpochRecord, ...]


class FittingFacts(FrozenModel):
    """How the latent distribution was fitted to the codes: settings, seed, and what was chosen on the way."""

    settings: SamplerSettings
    seed: int = Field(ge=0, lt=2**31)
    chosen: dict[str, Any] = Field(default_factory=dict)


class BundleInfo(FrozenModel):
    """The content of ``bundle.json``.

    ``training`` is that of an autoencoder that was trained here; an imported decoder has none.
    ``judge``: how the classifiers that doubt labels were made, if it has any; ``passing``: how many samples they pass.
    """

    kind: Literal["latentmill.bundle"] = "latentmill.bundle"
    bundle_version: Literal[1] = 1
    image: ImageShape
    latent_dim: int = Field(ge=1, le=512)
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
        """How it was trained. Raises ``BundleError`` for an imported decoder."""
        if self.training is None:
            raise BundleError("bundle", "an autoencoder that was trained here", "a decoder that was imported")
        return self.training

    @model_validator(mode="after")
    def _check_parts(self) -> BundleInfo:
        made = (self.autoencoder.size, self.autoencoder.channels, self.autoencoder.latent_dim)
        said = (self.image.height, self.image.channels, self.latent_dim)
        if made != said:
            raise ValueError(f"autoencoder (size, channels, latent_dim) {made} must agree with the bundle's {said}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes with distinct names")
        for needed in (DECODER_FILE, LATENTS_FILE):
            if needed not in self.files:
                raise ValueError(f"files must name {needed}")
        judged = len(self.classes) if self.judge else 0
        if (self.judge is None) != (JUDGE_FILE not in self.files) or judged == 1 or len(self.passing.label) != judged:
            raise ValueError(
                f"a judge must come with {JUDGE_FILE}, at least two classes, and the share that passes of each"
            )
        if (COPY_INDEX_FILE in self.files) != (self.passing.novelty is not None):
            raise ValueError(f"{COPY_INDEX_FILE} must come with the share of samples that passes")
        return self
