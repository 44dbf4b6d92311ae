"""One trial of ``few_labels.py`` (one setting and seed): the judge, the generator, its samples, the compared arms.

Legend: N images, D dimensions of a code. Images are uint8 NHWC.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from generator.curation.quality.usefulness import Arm, Mixed, train_on_arm
from generator.models.autoencoders.augment import augmented_copies
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.config import default_config
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.autoencoders.inference import decode, encode
from generator.models.autoencoders.settings import TrainSettings
from generator.models.autoencoders.training import Examples, TrainedAutoencoder, train_autoencoder
from generator.models.features.classifier import LabelledImages, accuracy
from generator.models.features.config import Budget
from generator.models.latents.codes import Codes
from generator.models.latents.config import MixtureSettings
from generator.models.latents.fitting.fit import fit
from generator.models.screening.config import JudgeSettings
from generator.models.screening.label_judge import LabelJudge, train_judge
from generator.models.screening.self_training import pseudo_label, self_train_judge
from generator.spec.canonical import canonical_json, sha256_hex
from generator.spec.seeding import noise, permutation

UNLABELLED, UNLABELLED_STRONG = "unlabelled", "unlabelled, strong"
LIGHT = Augmentation(shift=2)
STRONG = Augmentation(shift=2, rotation=12.0, scale=0.12, shear=9.0, elastic=1.0)


@dataclass(frozen=True)
class Protocol:
    """Settings common to all seeds. ``light`` and ``strong``: augmentation of both arms in the two comparisons; the
    generator and the judge are trained with ``strong``."""

    size: int = 28
    labels: tuple[int, ...] = (500, 100, 50)
    unlabelled_labels: int = 500
    also_strong: tuple[int, ...] = (500,)
    light: Augmentation = LIGHT
    strong: Augmentation = STRONG
    steps: int = 600
    batch: int = 64
    judge_members: int = 3
    judge_width: int = 16
    judge_steps: int = 600
    latent_dim: int = 48
    width: int = 16
    beta: float = 0.02
    generator_steps: int = 2000
    shared_generator_steps: int = 4000
    copies: int = 10_000
    synthetic: int = 10_000
    share: float = 0.5
    pseudo_labelled: int = 20_000
    pseudo_floor: float = 0.9
    pseudo_share: float = 0.75
    further_members: int = 2

    @property
    def digest(self) -> str:
        plain = asdict(self) | {"light": self.light.model_dump(), "strong": self.strong.model_dump()}
        return sha256_hex(canonical_json(plain))[:12]

    def budget(self, augmentation: Augmentation) -> Budget:
        return Budget(steps=self.steps, batch=self.batch, augmentation=augmentation)

    @property
    def judge(self) -> JudgeSettings:
        budget = Budget(steps=self.judge_steps, batch=self.batch, augmentation=self.strong)
        return JudgeSettings(members=self.judge_members, width=self.judge_width, budget=budget)


@dataclass(frozen=True)
class RealData:
    """``train``: the labelled images are drawn from it; all of it, without labels, are the unlabelled ones."""

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.class_names)


def draw_labelled(train: LabelledImages, count: int, classes: int, seed: int) -> LabelledImages:
    """``count`` random images of ``train``, equally many per class."""
    rows = []
    for label in range(classes):
        of_class = np.flatnonzero(train.labels_N == label)
        rows.append(of_class[permutation(seed, stream=label, size=len(of_class))[: count // classes]])
    chosen = np.concatenate(rows)
    return LabelledImages(train.images_NHWC[chosen], train.labels_N[chosen])


_JUDGES: dict[tuple[int, int], LabelJudge] = {}  # by number of labels and seed


class Trial:
    """One setting with one seed."""

    def __init__(self, real: RealData, protocol: Protocol, setting: str, seed: int, work: Path) -> None:
        self._real, self._protocol, self._setting, self._seed, self._work = real, protocol, setting, seed, work
        count = int(setting) if setting.isdigit() else protocol.unlabelled_labels
        self._few = draw_labelled(real.train, count, real.classes, seed)
        self._seconds = dict[str, float]()

    def row(self) -> dict[str, Any]:
        judge = self._judge()
        if self._setting.isdigit():
            arms = self._labelled_arms(judge)
        else:
            arms, judge = self._unlabelled_arms(judge)
        return {
            "setting": self._setting,
            "seed": self._seed,
            "judge": _accuracy_of(judge, self._real.test),
            "accuracy": {name: self._accuracy(name, *arm) for name, arm in arms.items()},
            "seconds": {name: round(seconds, 1) for name, seconds in self._seconds.items()},
        }

    def _judge(self) -> LabelJudge:
        """The judge trained on the labelled images only; cached, since three settings have as many."""
        key = (len(self._few), self._seed)
        if key not in _JUDGES:
            with self._timed("judge"):
                _JUDGES[key] = train_judge(self._few, self._protocol.judge, classes=self._real.classes, seed=self._seed)
        return _JUDGES[key]

    def _labelled_arms(self, judge: LabelJudge) -> dict[str, tuple[Arm, Augmentation]]:
        """The arms that use only labelled images."""
        labelled, protocol = self._few, self._protocol
        with self._timed("generator"):
            generator = _generator(
                labelled.images_NHWC, protocol, protocol.generator_steps, protocol.strong, self._seed
            )
        copies = max(1, protocol.copies // len(labelled))
        changed_NHWC = augmented_copies(labelled.images_NHWC, protocol.strong, copies=copies, seed=self._seed)
        synthetic = self._synthetic(generator, LabelledImages(changed_NHWC, np.tile(labelled.labels_N, copies)), judge)
        both = Mixed(labelled, synthetic, protocol.share)
        arms: dict[str, tuple[Arm, Augmentation]] = {
            "real": (labelled, protocol.light),
            "real + synthetic": (both, protocol.light),
        }
        if len(labelled) in protocol.also_strong:
            arms |= {"real, strong": (labelled, protocol.strong), "real + synthetic, strong": (both, protocol.strong)}
        return arms

    def _unlabelled_arms(self, judge: LabelJudge) -> tuple[dict[str, tuple[Arm, Augmentation]], LabelJudge]:
        """The arms with unlabelled images: a second judge learns from pseudo-labels, the generator from all images."""
        labelled, protocol = self._few, self._protocol
        images_NHWC = self._real.train.images_NHWC
        rows = permutation(self._seed, stream=1 << 20, size=len(images_NHWC))[: protocol.pseudo_labelled]
        with self._timed("further judge"):
            settings = protocol.judge.model_copy(update={"members": protocol.further_members})
            second_judge = self_train_judge(
                judge,
                labelled,
                images_NHWC[rows],
                settings,
                floor=protocol.pseudo_floor,
                share=protocol.pseudo_share,
                seed=self._seed,
            )
        generator = _shared_generator(images_NHWC, protocol, self._work)
        pseudo_labelled = pseudo_label(second_judge, images_NHWC[rows], floor=protocol.pseudo_floor)
        synthetic = self._synthetic(generator, pseudo_labelled, second_judge)
        both, pseudo = (Mixed(labelled, other, protocol.share) for other in (synthetic, pseudo_labelled))
        arms: dict[str, Arm] = {"real": labelled, "real + synthetic": both, "real + pseudo-labelled": pseudo}
        if self._setting == UNLABELLED_STRONG:
            return {f"{name}, strong": (arm, protocol.strong) for name, arm in arms.items()}, second_judge
        return {name: (arm, protocol.light) for name, arm in arms.items()}, second_judge

    def _synthetic(self, generator: TrainedAutoencoder, coded: LabelledImages, judge: LabelJudge) -> LabelledImages:
        """Samples of a mixture fitted to the codes of ``coded``, with the judge's probabilities."""
        protocol, seed, classes = self._protocol, self._seed, self._real.classes
        with self._timed("samples"):
            codes_ND = encode(load_encoder(generator.config, generator.encoder_state), coded.images_NHWC)
            held_N = np.zeros(len(coded), dtype=bool)
            held_N[permutation(seed, stream=1 << 21, size=len(coded))[: len(coded) // 10]] = True
            codes = Codes(
                codes_ND[~held_N],
                coded.labels_N[~held_N],
                codes_ND[held_N],
                coded.labels_N[held_N],
                self._real.class_names,
            )
            latents = fit(codes, MixtureSettings(), seed=seed).distribution
            labels_N, first_N = np.arange(protocol.synthetic) % classes, np.zeros(protocol.synthetic, dtype=np.int64)
            z_ND = latents.sample(noise(seed, np.arange(protocol.synthetic), first_N, latents.dims), labels_N).z_BD
            images_NHWC = decode(load_decoder(generator.config, generator.decoder_state), z_ND)
            return LabelledImages(images_NHWC, labels_N, judge.probabilities(images_NHWC))

    def _accuracy(self, name: str, arm: Arm, augmentation: Augmentation) -> float:
        with self._timed(name):
            budget = self._protocol.budget(augmentation)
            return accuracy(
                train_on_arm(arm, classes=self._real.classes, seed=self._seed, budget=budget), self._real.test
            )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self._seconds[part] = time.process_time() - start


def _generator(
    images_NHWC: np.ndarray, protocol: Protocol, steps: int, augmentation: Augmentation, seed: int
) -> TrainedAutoencoder:
    """An autoencoder trained for a fixed number of steps, whatever the number of images; none are held out."""
    repeated_NHWC = np.tile(images_NHWC, (-(-protocol.batch * 100 // len(images_NHWC)), 1, 1, 1))
    epochs = max(1, round(steps / (len(repeated_NHWC) // protocol.batch)))
    settings = TrainSettings(
        epochs=epochs, batch=protocol.batch, patience=epochs, seed=seed, device="cpu", augmentation=augmentation
    )
    config = default_config(
        protocol.size, 1, "vae", latent_dim=protocol.latent_dim, width=protocol.width, beta=protocol.beta
    )
    return train_autoencoder(config, settings, Examples(repeated_NHWC), Examples(images_NHWC[:500]))


def _shared_generator(images_NHWC: np.ndarray, protocol: Protocol, work: Path) -> TrainedAutoencoder:
    """The autoencoder of all images, which uses no labels and is the same for all seeds; trained once, then loaded."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"generator-{protocol.digest}.safetensors"
    config = default_config(
        protocol.size, 1, "vae", latent_dim=protocol.latent_dim, width=protocol.width, beta=protocol.beta
    )
    if not path.exists():
        trained = _generator(images_NHWC, protocol, protocol.shared_generator_steps, Augmentation(), 0)
        new_path = path.with_suffix(f".{os.getpid()}")
        parts = {"encoder": trained.encoder_state, "decoder": trained.decoder_state}
        save_file(
            {f"{part}.{n}": v.contiguous() for part, of_part in parts.items() for n, v in of_part.items()}, new_path
        )
        new_path.replace(path)
    weights = load_file(path)
    encoder, decoder = (
        {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)}
        for part in ("encoder.", "decoder.")
    )
    return TrainedAutoencoder(config, encoder, decoder, ())


def _accuracy_of(judge: LabelJudge, test: LabelledImages) -> float:
    return float((judge.probabilities(test.images_NHWC).argmax(axis=1) == test.labels_N).mean())
