"""Replay: regenerate one committed sample from its table row and the bundle, and compare it with the stored one."""

from __future__ import annotations

from dataclasses import dataclass

from generator.datasets.builds import resolve_build
from generator.errors import DatasetError, IntegrityError
from generator.models.autoencoders.devices import resolve_device
from generator.models.bundle import Bundle
from generator.production.commit import BuildLocation, read_build_location
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import missing_compiler
from generator.production.pipeline.decoders import CompileOptions, open_compiled_decoder
from generator.production.pipeline.shard_maker import open_shard_maker
from generator.production.provenance.environment import Environment, describe_differences
from generator.production.provenance.sample_table import read_rows
from generator.spec.canonical import sha256_hex
from generator.spec.plan import Plan
from generator.spec.recipe import Recipe
from generator.store import S3Settings


@dataclass(frozen=True)
class Replay:
    """The regenerated image file. ``identical``: it equals the stored file byte for byte."""

    index: int
    attempt: int
    label: int | None
    data: bytes
    identical: bool
    environment_differences: str  # empty in the build's own environment


def recipe_at(url: str, s3: S3Settings | None = None) -> Recipe:
    """The recipe of the committed build at ``url``. Its ``bundle`` is the one that ``replay`` needs."""
    store, manifest = resolve_build(url, s3)
    return read_build_location(store, manifest.name).recipe


def replay(url: str, index: int, bundle: Bundle, *, device: str = "auto", s3: S3Settings | None = None) -> Replay:
    """Regenerate sample ``index`` of the committed build at ``url``.

    Raises ``DatasetError``, ``SpecError``, and ``IntegrityError`` if the table has no valid row of the sample.
    """
    store, manifest = resolve_build(url, s3)
    location = read_build_location(store, manifest.name)
    if not 0 <= index < location.recipe.total:
        raise DatasetError("index", f"0 .. {location.recipe.total - 1}", index)
    receipt = manifest.shards[Plan(location.recipe).shard_of(index)]
    rows = read_rows(store.get(receipt.table.key, receipt.table.size), field=receipt.table.key)  # without ``latent``
    row = next((row for row in rows if row.get("index") == index), None)
    if row is None or not isinstance(row.get("attempt"), int) or not isinstance(row.get("label", 0), int | None):
        expected = f"a row of sample {index}, with its attempt and label"
        raise IntegrityError(receipt.table.key, expected, "none", "latentmill verify lists all damage")
    stored_environment = Environment.model_validate(manifest.environments[receipt.environment])
    maker = open_shard_maker(location, bundle, _open_decoder(location, bundle, stored_environment, device))
    data = maker.remake(index, row["attempt"], row.get("label") or 0)
    return Replay(
        index=index,
        attempt=row["attempt"],
        label=row.get("label"),
        data=data,
        identical=sha256_hex(data) == row.get("image_sha256"),
        environment_differences=describe_differences(maker.environment, stored_environment),
    )


def _open_decoder(
    location: BuildLocation, bundle: Bundle, stored_environment: Environment, device: str
) -> ResidentDecoder:
    """A compiled decoder if the build used one and this machine can compile; otherwise an eager one.

    Then ``Replay.environment_differences`` reports the difference.
    """
    recipe = location.recipe
    if stored_environment.execution == "compiled" and not missing_compiler(str(resolve_device(device))):
        return open_compiled_decoder(recipe, bundle, device, CompileOptions())
    return ResidentDecoder(bundle, batch=recipe.batch, dtype=recipe.dtype, device=device)
