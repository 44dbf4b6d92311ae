"""Prints a diagnosis: one column for one bundle, two for a comparison (blue and red)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from generator.curation.diagnosis.diagnose import Comparison, Diagnosis


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the diagnosis of one bundle."""
    from generator.curation.diagnosis.words import measure_rows

    click.secho("\nis this latent space samplable?", bold=True)
    _show_columns([(name, (value,)) for name, value in measure_rows(diagnosis)])
    _show_samplers(diagnosis)
    _show_verdict(diagnosis)


def show_comparison(blue: Diagnosis, red: Diagnosis, comparison: Comparison) -> None:
    """Print two diagnoses side by side, and which bundle is better to sample."""
    from generator.curation.diagnosis.words import measure_rows

    click.secho("\nwhich of the two latent spaces is samplable?", bold=True)
    rows = [
        (name, (first, second))
        for (name, first), (_, second) in zip(measure_rows(blue), measure_rows(red), strict=True)
    ]
    _show_columns([("", ("blue", "red")), *rows])
    for name, diagnosis in (("blue", blue), ("red", red)):
        click.secho(f"\n{name}", bold=True)
        _show_samplers(diagnosis)
        _show_verdict(diagnosis)
    better = (
        "neither is better to sample" if comparison.better == "neither" else f"{comparison.better} is better to sample"
    )
    click.secho(f"\n{better}", bold=True)
    for reason in comparison.reasons:
        click.echo(f"  {reason}")


def _show_columns(rows: Iterable[tuple[str, tuple[str, ...]]]) -> None:
    rows = list(rows)
    names = max(len(name) for name, _ in rows)
    widths = [max(len(values[at]) for _, values in rows) for at in range(len(rows[0][1]))]
    for name, values in rows:
        text = "  ".join(f"{value:<{width}}" for value, width in zip(values, widths, strict=True))
        click.echo(f"  {name:<{names}}  {text}".rstrip())


def _show_samplers(of: Diagnosis) -> None:
    from generator.curation.diagnosis.words import SAMPLER_COLUMNS, sampler_rows

    table = [SAMPLER_COLUMNS, *sampler_rows(of)]
    widths = [max(len(row[at]) for row in table if not row[1].startswith("not ")) for at in range(len(SAMPLER_COLUMNS))]
    widths[0] = max(len(row[0]) for row in table)
    click.echo()
    for row in table:
        first, *others = zip(row, widths, strict=True)
        text = "  ".join(f"{value:>{width}}" for value, width in others)
        if row[1].startswith("not "):
            text = row[1]
        click.echo(f"  {first[0]:<{first[1]}}  {text}".rstrip())


def _show_verdict(of: Diagnosis) -> None:
    from generator.curation.diagnosis.words import advice

    click.echo()
    click.secho(f"  {of.verdict.sentence}", bold=True)
    for line in advice(of):
        click.echo(f"  {line}")
