"""What a bundle is: inspect."""

from __future__ import annotations

from pathlib import Path

import click

from workers.cli.output import json_option, show


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
        "model": info.autoencoder.family,
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
