"""The document ``index.html``: a pure function of manifest, samples and rows. Every name is escaped by the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.production.provenance.manifest import Manifest
from generator.production.provenance.page.charts import COLOURS, Histogram, code_chart, histogram
from generator.production.provenance.page.pictures import PageSample
from generator.spec.recipe import Recipe

if TYPE_CHECKING:
    from jinja2 import Template

MAX_PAGE_BYTES = 2 * 2**20
MAX_CLASS_ROWS = 100
_MAX_NAME_CHARS = 100
_FACTS = ("index", "attempt", "cluster", "log_density", "label_confidence")


def page_bytes(manifest: Manifest, samples: Sequence[PageSample], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """``index.html`` as UTF-8, at most ``MAX_PAGE_BYTES``: a pure function of its arguments, of the manifest without
    its ``extras``.

    ``rows``: those of the first shard's table, of which the columns ``label``, ``log_density``, ``label_confidence``,
    ``map_x`` and ``map_y`` are drawn.
    """
    shown = {sample.label for sample in samples}
    template, style = _template()
    image = manifest.image
    text = template.render(
        style=style,
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        version=manifest.recipe["recipe_version"],
        name=manifest.name,
        build_id=manifest.build_id,
        samples=manifest.samples,
        kind="grey" if image.channels == 1 else "colour",
        width=image.width,
        height=image.height,
        classes_in_all=len(manifest.classes),
        classes=[
            {"label": label, "name": _short(name), "count": count, "shown": label in shown, "colour": label % COLOURS}
            for label, (name, count) in enumerate(zip(manifest.classes, manifest.counts, strict=False))
            if label < MAX_CLASS_ROWS
        ],
        more_classes=max(0, len(manifest.classes) - MAX_CLASS_ROWS),
        more_count=sum(manifest.counts[MAX_CLASS_ROWS:]),
        rows=len(rows),
        histograms=_histograms(rows),
        chart=code_chart(rows),
        shown=len(samples),
        groups=_groups(manifest, samples),
        facts=_build_facts(manifest),
    )
    return f"{text}\n".encode()


@cache
def _template() -> tuple[Template, str]:
    """The template, and the style sheet that it embeds."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.jinja"), Markup((folder / "page.css").read_text("utf-8"))


def _histograms(rows: Sequence[Mapping[str, Any]]) -> list[Histogram]:
    confidence = histogram("label confidence", [row.get("label_confidence") for row in rows], (0.0, 1.0))
    density = histogram("log-density", [row.get("log_density") for row in rows])
    return [each for each in (confidence, density) if each is not None]


def _groups(manifest: Manifest, samples: Sequence[PageSample]) -> list[dict[str, Any]]:
    """The samples by class; ``name`` is ``None`` in a build without classes."""
    return [
        {
            "label": label,
            "name": None if label is None else _short(manifest.classes[label]),
            "samples": [_shown_sample(sample) for sample in members],
        }
        for label, members in groupby(samples, key=lambda sample: sample.label)
    ]


def _shown_sample(sample: PageSample) -> dict[str, Any]:
    facts = [(name.replace("_", " "), sample.facts[name]) for name in _FACTS if sample.facts.get(name) is not None]
    return {"image": sample.image, "index": sample.facts["index"], "facts": facts}


def _build_facts(manifest: Manifest) -> list[tuple[str, str]]:
    recipe, provenance = Recipe.model_validate(manifest.recipe), manifest.provenance
    facts = {
        "real images": _short(provenance.source),
        "fingerprint": provenance.source_fingerprint,
        "model": _short(provenance.model),
        "bundle": provenance.bundle,
        "sampler": _short(provenance.sampler),
        "recipe": manifest.recipe_digest,
        "seed": str(recipe.seed),
        "density floor": "none" if recipe.density_floor is None else f"{recipe.density_floor:g}",
        "label floor": _label_floor(recipe),
        "novelty floor": "none" if recipe.novelty_floor is None else f"{recipe.novelty_floor:g}",
        "draws refused": f"{manifest.refused:,}",
        "files": f"{len(manifest.shards):,} shards, {manifest.bytes:,} bytes",
    }
    stated = {
        "published": recipe.published,
        "license": recipe.license or "none is stated: the terms of the real images may apply",
        "creator": None if recipe.creator is None else recipe.creator.name,
    }
    return [*facts.items(), *((name, value) for name, value in stated.items() if value is not None)]


def _label_floor(recipe: Recipe) -> str:
    floors = set(recipe.class_floors or (None,))
    return "by class" if len(floors) > 1 else next(("none" if each is None else f"{each:g}" for each in floors), "none")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else f"{name[: _MAX_NAME_CHARS - 3]}..."
