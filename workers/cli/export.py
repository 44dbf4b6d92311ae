"""The command that copies a build into the form of another reader."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from workers.cli.output import json_option, show
from workers.cli.progress import progress_bar

_ALGORITHMS = ["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]


@click.command("export")
@click.argument("build")
@click.option(
    "--to",
    "target",
    type=click.Choice(["energon", "hf-folder", "lance", "mds"]),
    required=True,
    help="energon: tars with indexes for Megatron Energon. hf-folder: single image files with metadata. lance: a Lance"
    " dataset. mds: MDS shards.",
)
@click.option("--out", required=True, help="New directory, or an s3://, gs:// or az:// URL without objects.")
@click.option(
    "--c2pa-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM): signs each image (hf-folder)."
)
@click.option("--c2pa-key", type=click.Path(path_type=Path), help="Private key of the first certificate (PEM).")
@click.option("--c2pa-algorithm", type=click.Choice(_ALGORITHMS), default="es256", show_default=True)
@json_option
def export_command(
    build: str,
    target: str,
    out: str,
    c2pa_cert: Path | None,
    c2pa_key: Path | None,
    c2pa_algorithm: str,
    as_json: bool,
) -> None:
    """Copy BUILD (a path or URL) into the form of another reader, in a local directory or in S3 (not energon).

    Every shard is checked against the manifest. A directory appears whole or not at all; to S3, shards go one after
    another by way of a temporary directory, and are read back. An interrupted export goes on where it stopped, and a
    complete one is checked.
    """
    from generator.datasets.exports import Credentials, export_build
    from generator.errors import SpecError
    from workers.settings import load_settings

    if (c2pa_cert is None) != (c2pa_key is None):
        raise SpecError("c2pa-key", "--c2pa-cert and --c2pa-key together, or neither", "one of them")
    credentials = None
    if c2pa_cert is not None and c2pa_key is not None:
        credentials = Credentials(c2pa_cert, c2pa_key, c2pa_algorithm)
    with progress_bar("exporting", None, quiet=as_json, unit="shards") as bar:
        found = export_build(build, target, out, load_settings().s3, credentials=credentials, on_shard=bar)  # type: ignore[arg-type]
    show(asdict(found), as_json=as_json, title="complete before" if found.existed else "exported")
