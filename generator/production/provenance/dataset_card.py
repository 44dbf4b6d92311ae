"""The dataset card ``README.md``, which the Hugging Face hub shows.

Front matter: https://huggingface.co/docs/hub/datasets-cards. A pure function of the manifest.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import yaml

from generator.production.images.xmp import SOURCE_TYPE
from generator.production.provenance.card_loading import loading_section, readable_files
from generator.production.provenance.citation import cite
from generator.production.provenance.licenses import hub_license, is_web_address
from generator.production.provenance.manifest import MANIFEST_KEY, PAGE_KEY, PREVIEW_KEY, RECIPE_KEY, Manifest
from generator.spec.recipe import AroundDraw, BetweenDraw, ClusterDraw, Recipe

MAX_CLASS_ROWS = 50

_NO_LICENSE = "No license is stated: the terms of the real images that the model learned from may apply."

_PAGE = f"""
[{PAGE_KEY}]({PAGE_KEY}) shows more of it, with counts and distributions; it needs no server.
"""
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B")


def card_bytes(manifest: Manifest, *, has_latents: bool = True) -> bytes:
    """``README.md`` as UTF-8, a pure function of its arguments, of the manifest without its ``extras``.

    ``has_latents``: whether the tables have a column ``latent``.
    """
    front = yaml.safe_dump(_front_matter(manifest), sort_keys=False, allow_unicode=True, width=1000)
    sections = (
        _intro_section(manifest),
        loading_section(manifest, has_latents),
        _classes_section(manifest),
        _origin_section(manifest),
        _verification_section(),
        _terms_section(manifest),
    )
    text = "\n\n".join(section.strip() for section in sections if section)
    return f"---\n{front}---\n\n{text}\n".encode()


def _front_matter(manifest: Manifest) -> dict[str, Any]:
    recipe = Recipe.model_validate(manifest.recipe)
    task = "image-classification" if manifest.classes else "unconditional-image-generation"
    return {
        "pretty_name": manifest.name,
        **_stated_license(recipe),
        "task_categories": [task],
        "size_categories": [_size_category(manifest.samples)],
        "tags": ["synthetic", "latentmill", recipe.format],
        **readable_files(manifest, recipe),
    }


def _stated_license(recipe: Recipe) -> dict[str, Any]:
    """Cards of earlier releases say ``unknown``; today a card says nothing that the recipe does not."""
    if recipe.published is None:
        return {"license": "unknown"}
    return {} if recipe.license is None else hub_license(recipe.license)


def _size_category(samples: int) -> str:
    for power, (below, above) in enumerate(pairwise(_SIZES)):
        if samples < 10 ** (power + 4):
            return f"{below}<n<{above}" if samples >= 1000 else "n<1K"
    return "1B<n<10B"


def _intro_section(manifest: Manifest) -> str:
    image = manifest.image
    kind = "grey" if image.channels == 1 else "colour"
    classes = f", in {len(manifest.classes)} classes" if manifest.classes else ""
    return f"""
# {manifest.name}

{manifest.samples:,} **synthetic** {kind} images of {image.height} x {image.width} pixels{classes}. None of them was
photographed, scanned or drawn: each is a random point of a latent space that a model learned from real images,
decoded. Every image file says so itself, in its XMP packet: IPTC digital source type
[`trainedAlgorithmicMedia`]({SOURCE_TYPE}).

![preview]({PREVIEW_KEY})
{_PAGE if manifest.recipe.get("page") else ""}"""


def _classes_section(manifest: Manifest) -> str:
    if not manifest.classes:
        return ""
    rows = list(zip(manifest.classes, manifest.counts, strict=True))
    lines = [
        f"| {label} | {_escape_markdown(name)} | {count:,} |"
        for label, (name, count) in enumerate(rows[:MAX_CLASS_ROWS])
    ]
    if rest := rows[MAX_CLASS_ROWS:]:
        lines.append(f"| ... | {len(rest)} more classes | {sum(count for _, count in rest):,} |")
    return "\n".join(["## Classes", "", "| label | class | images |", "|---:|---|---:|", *lines, ""])


def _origin_section(manifest: Manifest) -> str:
    provenance, recipe = manifest.provenance, Recipe.model_validate(manifest.recipe)
    facts = {
        "real images": f"{_escape_markdown(provenance.source)}, fingerprint `{provenance.source_fingerprint}`",
        "model": f"{_escape_markdown(provenance.model)}, in bundle `{provenance.bundle}`",
        "sampler": _escape_markdown(provenance.sampler),
        "recipe": f"`{manifest.recipe_digest}`, whole in [{RECIPE_KEY}]({RECIPE_KEY})",
        "seed": str(recipe.seed),
        "drawn from": _describe_draw(recipe),
        "density floor": _describe_density_floor(recipe.density_floor, manifest.refused),
        "files": f"{len(manifest.shards):,} shards of {manifest.image.format.upper()} images, {manifest.bytes:,} bytes",
    }
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["## How it was made", "", "| | |", "|---|---|", *lines, ""])


def _describe_draw(recipe: Recipe) -> str:
    draw = recipe.draw
    text = "the whole distribution"
    if isinstance(draw, ClusterDraw):
        text = f"cluster {draw.cluster} of each class" if recipe.labelled else f"cluster {draw.cluster}"
    elif isinstance(draw, AroundDraw):
        text = f"around one code, at distance {draw.distance:g}"
    elif isinstance(draw, BetweenDraw):
        text = "between two codes" + (f", at distance {draw.distance:g}" if draw.distance is not None else "")
    return text if recipe.temperature == 1.0 else f"{text}, at temperature {recipe.temperature:g}"


def _describe_density_floor(quantile: float | None, refused: int) -> str:
    text = "none" if quantile is None else f"the {quantile:.4%} quantile of held-out real codes"
    return f"{text}; {refused:,} draws refused"


def _verification_section() -> str:
    return f"""## Check it

```
latentmill verify .
latentmill replay . 0
```

`verify` reads every file again and compares it with [{MANIFEST_KEY}]({MANIFEST_KEY}), which holds the sha256 of each.
`replay` makes one image again, here the first, from the bundle: in the same environment it has the same bytes.
"""


def _terms_section(manifest: Manifest) -> str:
    recipe = Recipe.model_validate(manifest.recipe)
    if recipe.published is None:
        return _NO_LICENSE
    stated = recipe.license
    facts = {"published": recipe.published, "version": f"1.{recipe.revision}.0"}
    if (creator := recipe.creator) is not None:
        name = _escape_markdown(creator.name)
        facts |= {"creator": name if creator.url is None else f"{name}, {_link(creator.url)}"}
    if stated is not None:
        facts |= {"license": _link(stated) if is_web_address(stated) else _escape_markdown(stated)}
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    note = ["", _NO_LICENSE] if stated is None else []
    citation = "\n".join(f"    {line}" for line in cite(manifest, recipe).splitlines())
    return "\n".join(["## Terms", "", "| | |", "|---|---|", *lines, *note, "", "To cite it:", "", citation])


def _link(address: str) -> str:
    return f"<{address.replace('|', '%7C')}>"


def _escape_markdown(text: str) -> str:
    """``text`` escaped for Markdown, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>|~&$])", r"\\\1", text)
