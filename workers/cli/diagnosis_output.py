"""Prints a diagnosis: one column for one bundle, two for a comparison (blue and red)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from generator.curation.diagnosis.diagnose import Comparison, Diagnosis

_SAMPLER_COLUMNS = ("sampler", "log-likelihood", "off support", "told apart", "p", "MMD p", "returns")


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the diagnosis of one bundle."""
    click.secho("\nis this latent space samplable?", bold=True)
    _show_columns([(name, (value,)) for name, value in _measure_rows(diagnosis)])
    _show_samplers(diagnosis)
    _show_verdict(diagnosis)


def show_comparison(blue: Diagnosis, red: Diagnosis, comparison: Comparison) -> None:
    """Print two diagnoses side by side, and which bundle is better to sample."""
    click.secho("\nwhich of the two latent spaces is samplable?", bold=True)
    rows = [
        (name, (first, second))
        for (name, first), (_, second) in zip(_measure_rows(blue), _measure_rows(red), strict=True)
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


def _measure_rows(of: Diagnosis) -> list[tuple[str, str]]:
    dimension, ring = of.intrinsic_dimension, of.loop
    return [
        ("measured on", of.shape_measured_on),
        ("dimensions in use", f"{of.active_dims} of {of.latent_dim}"),
        (
            "intrinsic dimension",
            _value_or_reason(dimension, lambda d: f"{d.dimension:.1f} ({d.low:.1f} to {d.high:.1f})"),
        ),
        ("neighbours of the same class", _value_or_reason(of.agreement, lambda share: f"{share:.0%}")),
        ("silhouette of classes", _value_or_reason(of.class_silhouette, lambda width: f"{width:.2f}")),
        ("silhouette of clusters", _value_or_reason(of.cluster_silhouette, lambda width: f"{width:.2f}")),
        (
            "Hopkins, Gaussian probes",
            _value_or_reason(of.hopkins, lambda h: f"{h.against_gaussian:.2f} (one Gaussian: 0.50)"),
        ),
        ("Hopkins, uniform probes", _value_or_reason(of.hopkins, _hopkins_text)),
        ("ring or hole", _value_or_reason(ring, _ring_text)),
        ("classes that are rings", ", ".join(of.ring_classes) or "none"),
        ("midpoints off support", _value_or_reason(of.midpoints, lambda m: f"{m.share:.1%} (codes: 5%)")),
        ("midpoints that return", _value_or_reason(of.midpoints_return, lambda r: f"{r.share:.1%} (codes: 95%)")),
    ]


def _hopkins_text(hopkins: Any) -> str:
    return f"{hopkins.against_uniform:.2f}" + (" (says little in so many dimensions)" if hopkins.caveat else "")


def _ring_text(ring: Any) -> str:
    return f"{'yes' if ring.ring else 'no'}: longest bar {ring.bar:.2f}, without a hole up to {ring.reference:.2f}"


def _show_samplers(of: Diagnosis) -> None:
    rows = []
    for facts in of.samplers:
        if not isinstance(facts.log_likelihood, float):
            rows.append((facts.name, f"not measurable: {facts.log_likelihood.why}", "", "", "", "", ""))
            continue
        rows.append(
            (
                facts.name,
                f"{facts.log_likelihood:.2f}",
                _value_or_dash(facts.off_support, lambda o: f"{o.share:.1%}"),
                _value_or_dash(facts.classifier, lambda c: f"{c.accuracy:.1%}"),
                _value_or_dash(facts.classifier, lambda c: f"{c.p_value:.3f}"),
                _value_or_dash(facts.discrepancy, lambda d: f"{d.p_value:.3f}"),
                _value_or_dash(facts.returns, lambda r: f"{r.share:.1%}"),
            )
        )
    table = [_SAMPLER_COLUMNS, *rows]
    widths = [
        max(len(row[at]) for row in table if not row[1].startswith("not ")) for at in range(len(_SAMPLER_COLUMNS))
    ]
    widths[0] = max(len(row[0]) for row in table)
    click.echo()
    for row in table:
        first, *others = zip(row, widths, strict=True)
        text = "  ".join(f"{value:>{width}}" for value, width in others)
        if row[1].startswith("not "):
            text = row[1]
        click.echo(f"  {first[0]:<{first[1]}}  {text}".rstrip())


def _show_verdict(of: Diagnosis) -> None:
    click.echo()
    click.secho(f"  {of.verdict.sentence}", bold=True)
    recommended = of.verdict.sampler
    click.echo(
        f"  of these samplers, take {recommended}: {of.verdict.because}" if recommended else f"  {of.verdict.because}"
    )
    for remark in of.verdict.remarks:
        click.echo(f"  {remark}")


def _value_or_reason(found: Any, format_value: Any) -> str:
    why = getattr(found, "why", None)
    return f"not measurable: {why}" if why is not None else str(format_value(found))


def _value_or_dash(found: Any, format_value: Any) -> str:
    return "-" if getattr(found, "why", None) is not None else str(format_value(found))
