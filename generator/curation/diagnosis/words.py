"""A diagnosis in words: for the terminal, and for the report that is kept beside a bundle."""

from __future__ import annotations

from typing import Any

from generator.curation.diagnosis.diagnose import Diagnosis
from generator.curation.diagnosis.report import DiagnosisReport, PictureName

SAMPLER_COLUMNS = ("sampler", "log-likelihood", "off support", "told apart", "p", "MMD p", "returns")


def report_of(
    diagnosis: Diagnosis, bundle: str, *, quick: bool, pictures: tuple[PictureName, ...] = ()
) -> DiagnosisReport:
    """The report about the bundle with the digest ``bundle``. ``pictures``: those that are kept with it."""
    verdict = diagnosis.verdict
    return DiagnosisReport(
        bundle=bundle,
        seed=diagnosis.seed,
        quick=quick,
        kind=verdict.kind,
        sentence=verdict.sentence,
        sampler=verdict.sampler,
        because=verdict.because,
        remarks=verdict.remarks,
        measures=tuple(measure_rows(diagnosis)),
        columns=SAMPLER_COLUMNS,
        samplers=tuple(sampler_rows(diagnosis)),
        pictures=pictures,
    )


def advice(diagnosis: Diagnosis) -> list[str]:
    """Which sampler to take and why, and further remarks."""
    verdict = diagnosis.verdict
    first = f"of these samplers, take {verdict.sampler}: {verdict.because}" if verdict.sampler else verdict.because
    return [first, *verdict.remarks]


def measure_rows(of: Diagnosis) -> list[tuple[str, str]]:
    """Name and value of each measure of the codes."""
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


def sampler_rows(of: Diagnosis) -> list[tuple[str, ...]]:
    """A row for each sampler below ``SAMPLER_COLUMNS``; the second cell says why if it could not be measured."""
    rows = list[tuple[str, ...]]()
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
    return rows


def _hopkins_text(hopkins: Any) -> str:
    return f"{hopkins.against_uniform:.2f}" + (" (says little in so many dimensions)" if hopkins.caveat else "")


def _ring_text(ring: Any) -> str:
    return f"{'yes' if ring.ring else 'no'}: longest bar {ring.bar:.2f}, without a hole up to {ring.reference:.2f}"


def _value_or_reason(found: Any, format_value: Any) -> str:
    why = getattr(found, "why", None)
    return f"not measurable: {why}" if why is not None else str(format_value(found))


def _value_or_dash(found: Any, format_value: Any) -> str:
    return "-" if getattr(found, "why", None) is not None else str(format_value(found))
