"""The command fit: fits another latent distribution to a bundle and writes a new bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.cli.model_options import SAMPLER_OPTIONS, sampler_settings
from workers.cli.option_groups import add_options
from workers.cli.output import json_option, show
from workers.cli.progress import progress_lines

if TYPE_CHECKING:
    from generator.models.latents.config import SamplerSettings
    from generator.store.base import Store

_SAMPLERS = ("gaussian", "mixture", "flow", "polar", "transport", "auto")


@click.command("fit")
@click.argument("bundle")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Directory for the new bundle; must not exist."
)
@click.option(
    "--sampler",
    type=click.Choice(_SAMPLERS),
    default="auto",
    show_default=True,
    help="Latent distribution; auto chooses by the diagnosis of the codes.",
)
@add_options(SAMPLER_OPTIONS)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of the fit; by default that of BUNDLE.")
@json_option
def fit_command(bundle: str, out: Path, sampler: str, seed: int | None, as_json: bool, **given: Any) -> None:
    """Fit another latent distribution to the codes of BUNDLE (a directory or URL), and write a new bundle.

    Decoder, encoder and codes are copied unchanged.
    """
    from generator.models.bundle.save import check_new_directory
    from generator.models.learning import refit
    from generator.store import open_store
    from workers.settings import load_settings

    check_new_directory(out)
    options = {name: value for name, value in given.items() if value is not None}
    store = open_store(bundle, load_settings().s3)
    settings = _sampler_settings(sampler, options, store)
    start = time.perf_counter()
    with progress_lines("fitting the latent distribution", None, quiet=as_json):
        refitted = refit(store, settings, out, seed=seed)
    for notice in refitted.fit.notices:
        click.echo(f"notice: {notice}", err=True)
    facts: dict[str, Any] = {
        "bundle": str(out),
        "digest": refitted.digest,
        "fitted_from": refitted.before,
        "sampler": settings.family,
        "chosen": refitted.fit.chosen if as_json else _chosen_text(refitted.fit.chosen),
        "seconds": round(time.perf_counter() - start, 1),
    }
    show(facts, as_json=as_json, title="bundle written")


def _sampler_settings(sampler: str, options: dict[str, Any], store: Store) -> SamplerSettings:
    from generator.errors import SpecError

    if sampler != "auto":
        return sampler_settings(sampler, options)
    if options:
        raise SpecError(
            "sampler", "a named sampler, since options are given", "auto", f"or leave out {', '.join(options)}"
        )
    from generator.curation.diagnosis.diagnose import recommend_sampler
    from generator.models.bundle import load_codes, read_info

    _, info = read_info(store)
    return recommend_sampler(load_codes(store, info))


def _chosen_text(chosen: dict[str, Any]) -> str:
    clusters = chosen.get("clusters")
    if clusters:
        return "clusters " + ", ".join(str(count) for count in clusters.values())
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in chosen.items()) or "nothing"
