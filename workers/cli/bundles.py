"""Commands for models: train, inspect, push, pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.output import json_option, progress_bar, show

if TYPE_CHECKING:
    from generator.autoencoders.config import TrainSettings, VaeConfig
    from generator.autoencoders.training import Progress
    from generator.learning import Learned
    from generator.sources import Source


@click.command("train")
@click.argument("source")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the bundle is written; must be new.")
@click.option("--model", type=click.Choice(["vae"]), default="vae", show_default=True, help="Autoencoder family.")
@click.option("--size", type=int, help="Side of the images in pixels, 8 to 128; resized and centre-cropped.")
@click.option("--channels", type=int, help="1 grey or 3 colour; by default what the source has.")
@click.option("--latent-dim", type=int, help="Dimensions of a code.")
@click.option("--width", type=int, help="Feature maps of the first layer.")
@click.option("--epochs", type=int, help="Passes over the images at most; by default more for fewer images.")
@click.option("--batch", type=int, help="Images per step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--beta", type=float, help="Weight of the KL term; 1 is the evidence lower bound.")
@click.option("--holdout", type=float, help="Share of the images held out for early stopping and the fit.")
@click.option("--patience", type=int, help="Epochs without improvement before stopping.")
@click.option(
    "--clusters-by",
    type=click.Choice(["likelihood", "bic"]),
    help="How the number of clusters a class is chosen on held-out codes.",
)
@click.option("--seed", type=int, help="Seed of weights, order and noise.")
@click.option("--device", help="auto, cpu, cuda, or cuda:N.")
@click.option("--skip-bad", is_flag=True, help="Count broken images and go on without them.")
@json_option
def train_command(
    source: str,
    out: Path,
    model: str,
    size: int | None,
    channels: int | None,
    skip_bad: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train an autoencoder on SOURCE, fit its latent space, and write a bundle.

    SOURCE is `digits` (bundled), a folder with one folder per class, a .npz file, or Hugging Face image Parquet.
    A run that was stopped goes on from its checkpoint when the same command is given again.
    """
    from generator.autoencoders.config import default_config, default_settings, parse_config, parse_settings
    from generator.bundle.save import check_free
    from generator.sources import load_source

    check_free(out)
    options = {name: value for name, value in given.items() if value is not None}
    shape = {name: options.pop(name) for name in ("latent_dim", "width") if name in options}
    parse_settings(options)  # refused before anything is read
    with progress_bar("reading", None, quiet=as_json) as bar:
        images = load_source(
            source, size=size, channels=channels, skip_bad=skip_bad, progress=lambda done, _: bar(done)
        )
    _say_skipped(images, quiet=as_json)
    settings = parse_settings(default_settings(len(images)).model_dump() | options)
    recommended = default_config(images.size, images.channels).model_dump(mode="json")
    config = parse_config(recommended | {"family": model} | shape)
    learned = _learn(images, config, settings, out, quiet=as_json)
    for notice in learned.notices:
        click.echo(f"notice: {notice}", err=True)
    show(_trained_facts(out, images, learned), as_json=as_json, title="bundle written")


def _say_skipped(images: Source, *, quiet: bool) -> None:
    for skipped in images.skipped if not quiet else ():
        click.echo(f"skipped {skipped.file}: {skipped.reason}", err=True)


def _learn(images: Source, config: VaeConfig, settings: TrainSettings, out: Path, *, quiet: bool) -> Learned:
    from generator.learning import learn

    steps = settings.epochs * max(1, int(len(images) * (1 - settings.holdout)) // settings.batch)
    with progress_bar("training", steps, quiet=quiet, unit="steps") as bar:
        learned = learn(images, config, settings, out, on_step=_follower(bar, quiet=quiet))
        bar(steps)
    return learned


def _follower(bar: Callable[[int], None], *, quiet: bool) -> Callable[[Progress], None]:
    """Moves the bar; a first step in a later epoch means that a stopped run is taken up again."""
    began = False

    def follow(at: Progress) -> None:
        nonlocal began
        if not began and at.epoch > 1 and not quiet:
            click.echo(f"going on after epoch {at.epoch - 1}, from the checkpoint of a stopped run", err=True)
        began = True
        bar((at.epoch - 1) * at.steps + at.step)

    return follow


def _trained_facts(out: Path, images: Source, learned: Learned) -> dict[str, Any]:
    best = next(record for record in reversed(learned.history) if record.best)
    return {
        "bundle": str(out),
        "digest": learned.digest,
        "images": len(images),
        "trained_on": learned.trained_on,
        "held_out": learned.held_out,
        "classes": len(images.class_names),
        "skipped": len(images.skipped),
        "epochs": len(learned.history),
        "best_epoch": best.epoch,
        "holdout_loss": round(best.holdout_loss, 5),
    }


@click.command("inspect")
@click.argument("bundle")
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Also draw samples of every class into this PNG or JPEG file."
)
@json_option
def inspect_command(bundle: str, picture: Path | None, as_json: bool) -> None:
    """What BUNDLE (a directory or URL) is: verified digests, network, latent distribution, source, training."""
    from generator.bundle import load_bundle
    from generator.store import open_store
    from workers.settings import load_settings

    loaded = load_bundle(open_store(bundle, load_settings().s3))
    if picture is not None:
        from generator.pictures import draw_samples

        draw_samples(loaded, picture)
    info = loaded.info
    clusters = info.latents.get("clusters", [])
    best = next(record for record in reversed(info.training.history) if record.best)
    facts = {
        "digest": loaded.digest,
        "image": f"{info.image.height} x {info.image.width}, {'RGB' if info.image.channels == 3 else 'grey'}",
        "model": f"{info.autoencoder.family}, width {info.autoencoder.width}",
        "decoder_parameters": sum(weight.size for weight in loaded.decoder.values()),
        "latent_dim": info.latent_dim,
        "sampler": info.latents["family"],
        "classes": list(info.classes) if as_json else ", ".join(info.classes) or "none (unlabelled)",
        "clusters": clusters if as_json else ", ".join(str(count) for count in clusters),
        "source": info.source.name,
        "source_fingerprint": info.source.fingerprint,
        "images": info.source.images + info.source.holdout,
        "trained_on": info.source.images,
        "held_out": info.source.holdout,
        "epochs": len(info.training.history),
        "best_epoch": best.epoch,
        "holdout_loss": round(best.holdout_loss, 5),
        "seed": info.training.settings.seed,
    }
    show(facts | ({"picture": str(picture)} if picture else {}), as_json=as_json, title="verified bundle")


@click.command("push")
@click.argument("bundle")
@click.option("--root", help="Store root; by default the configured one.")
@json_option
def push_command(bundle: str, root: str | None, as_json: bool) -> None:
    """Copy BUNDLE into the store root, where workers find it by its digest.

    Pushing again changes nothing, or mends what was damaged there."""
    from generator.bundle import bundle_store, push
    from generator.store import open_store
    from workers.settings import load_settings

    settings = load_settings()
    target = open_store(root or settings.root, settings.s3)
    digest = push(open_store(bundle, settings.s3), target)
    show({"digest": digest, "url": bundle_store(target, digest).url}, as_json=as_json, title="pushed")


@click.command("pull")
@click.argument("digest")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the bundle is written; must be new.")
@click.option("--root", help="Store root; by default the configured one.")
@json_option
def pull_command(digest: str, out: Path, root: str | None, as_json: bool) -> None:
    """Copy the bundle DIGEST (sha256:...) from the store root to a directory, verified on the way."""
    from generator.bundle import pull
    from generator.store import open_store
    from workers.settings import load_settings

    settings = load_settings()
    pull(open_store(root or settings.root, settings.s3), digest, out)
    show({"digest": digest, "bundle": str(out)}, as_json=as_json, title="pulled")
