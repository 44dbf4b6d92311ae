"""Writes the page of ``few_labels.py``: every arm with its spread, the share of errors removed, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

# the comparisons: reference arm, other arm, and the augmentation of both
COMPARISONS = (
    ("real", "real + synthetic", "light"),
    ("real", "real + pseudo-labelled", "light"),
    ("real, strong", "real + synthetic, strong", "strong"),
    ("real, strong", "real + pseudo-labelled, strong", "strong"),
)

_PAGE = """# Few labels: what synthetic images are worth

This page lets you judge the gain from synthetic images when few labels are known. `benchmarks/few_labels.py` writes it;
MNIST, seeds {seeds} (each with other labelled images, weights and order). ± is the standard deviation over the seeds.

| labels | both arms changed by | real alone | beside it in every batch | accuracy | errors removed | in each seed |
|---|---|---|---|---|---|---|
{results}

- **labels**: the number of labelled images, equal for each class; no others are known. `unlabelled` and `unlabelled,
  strong` have {unlabelled} of them, and all training images without their labels.
- **both arms**: the small classifier ({steps} steps of {batch} images) with the same augmentation, schedule, steps and
  seed. In the arm with synthetic images, {share:.0%} of each batch is synthetic, so it sees fewer real ones.
- **light** is {light}. **strong** is {strong}.
- **the generator** is a variational autoencoder (latent dimension {latent_dim}, beta {beta}), with a mixture per class
  fitted to the codes of augmented copies of the labelled images.
- **the judge** is {members} classifiers of width {width} ({judge_steps} steps). Its class probabilities for a
  synthetic image are the classifier's target, instead of the label the image was drawn with.
- **Generator and judge are trained with the strong augmentation, in both comparisons.** Under the light one, part of
  the gain therefore comes from the strong augmentation. `real alone` under `strong` shows what that augmentation brings
  alone; the comparison under `strong` shows the gain that is left when both arms have it.
- **`unlabelled`**: the generator is trained on all training images, once for all seeds, since it sees no label. A
  further judge also learns from {pseudo} of them, with labels of the first one (where it is sure by {floor}). The rows
  `pseudo-labelled` show what these real images bring without any generator.

| labels | accuracy of the judge |
|---|---|
{judges}

Processor seconds a seed (one thread; what `unlabelled` shares with the setting of as many labels is counted there):

| labels | {parts} |
|---|{rules}|
{seconds}

## With the commands

```
latentmill train few.npz --out few.bundle --judges 3 \\
    --augment-shift 2 --augment-rotation 12 --augment-scale 0.12 --augment-shear 9 --augment-elastic 1
latentmill label few.bundle many.npz --out labelled.npz
latentmill train labelled.npz --out many.bundle
```

The first trains generator and judge on the few labelled images, the second labels the unlabelled ones of which the
judge is sure, the third learns from them. `open_dataset(url, soft_labels=True)` gives the judge's class
probabilities of each synthetic image, the targets of the classifiers of this page.
"""


def write(path: Path, rows: Sequence[dict[str, Any]], protocol: Any) -> None:
    """Write the page at ``path`` from the rows of one ``protocol``."""
    of_setting = {
        setting: sorted((row for row in rows if row["setting"] == setting), key=lambda row: int(row["seed"]))
        for setting in sorted({row["setting"] for row in rows}, key=_order)
    }
    parts = list(dict.fromkeys(part for row in rows for part in row["seconds"]))
    text = _PAGE.format(
        seeds=", ".join(str(seed) for seed in sorted({row["seed"] for row in rows})),
        results="\n".join(line for name, own in of_setting.items() for line in _results(name, own)),
        judges="\n".join(f"| {name} | {_spread([row['judge'] for row in own])} |" for name, own in of_setting.items()),
        parts=" | ".join(parts),
        rules="|".join("---" for _ in parts),
        seconds="\n".join(_seconds(name, own, parts) for name, own in of_setting.items()),
        unlabelled=protocol.unlabelled_labels,
        light=_augmentation_text(protocol.light),
        strong=_augmentation_text(protocol.strong),
        members=protocol.judge_members,
        width=protocol.judge_width,
        pseudo=f"{protocol.pseudo_labelled:,}",
        floor=protocol.pseudo_floor,
        **{name: getattr(protocol, name) for name in ("steps", "batch", "share", "latent_dim", "beta", "judge_steps")},
    )
    path.write_text(text)


def errors_removed(reference: float, accuracy: float) -> float:
    """Share of the reference's errors that the other arm removes; negative if it makes more errors."""
    return 0.0 if reference == 1.0 else 1.0 - (1.0 - accuracy) / (1.0 - reference)


def _order(setting: str) -> tuple[bool, int]:
    return (False, -int(setting)) if setting.isdigit() else (True, len(setting))


def _results(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for reference, other, augmentation in COMPARISONS:
        if other not in rows[0]["accuracy"]:
            continue
        ours, theirs = ([row["accuracy"][arm] for row in rows] for arm in (other, reference))
        each = [errors_removed(alone, both) for alone, both in zip(theirs, ours, strict=True)]
        beside = other.removeprefix("real + ").removesuffix(", strong")
        cells = [
            name,
            augmentation,
            _spread(theirs),
            beside,
            _spread(ours),
            f"**{errors_removed(mean(theirs), mean(ours)):.0%}**",
            ", ".join(f"{share:.0%}" for share in each),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _seconds(name: str, rows: list[dict[str, Any]], parts: list[str]) -> str:
    seconds = [[row["seconds"][part] for row in rows if part in row["seconds"]] for part in parts]
    return f"| {name} | " + " | ".join(f"{mean(each):.0f}" if each else "" for each in seconds) + " |"


def _augmentation_text(augmentation: Any) -> str:
    """The non-zero settings of an augmentation, as text."""
    units = {"shift": "pixels", "rotation": "degrees", "scale": "of the size", "shear": "degrees", "elastic": "pixels"}
    changes = [
        f"{name} by up to {getattr(augmentation, name):g} {unit}"
        for name, unit in units.items()
        if getattr(augmentation, name)
    ]
    return ", ".join(changes) or "no change at all"
