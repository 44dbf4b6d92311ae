"""The dataset card ``README.md``, which the Hugging Face hub shows.

Front matter: https://huggingface.co/docs/hub/datasets-cards. A pure function of the manifest.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import yaml

from generator.production.images import extension
from generator.production.images.xmp import SOURCE_TYPE
from generator.production.provenance.citation import cite
from generator.production.provenance.licenses import hub_license, is_web_address
from generator.production.provenance.manifest import MANIFEST_KEY, PREVIEW_KEY, RECIPE_KEY, Manifest
from generator.spec.recipe import AroundDraw, BetweenDraw, ClusterDraw, Recipe

MAX_CLASS_ROWS = 50

_NO_LICENSE = "No license is stated: the terms of the real images that the model learned from may apply."

_PLACES = """
Its `offset` and `size` say which bytes of its shard are the image file, and `map_x` and `map_y` where its latent point
lies on the bundle's map (null if it has none), which is the same for all builds of the bundle."""
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B")


def card_bytes(manifest: Manifest, *, has_latents: bool = True) -> bytes:
    """``README.md`` as UTF-8, a pure function of its arguments, of the manifest without its ``extras``.

    ``has_latents``: whether the tables have a column ``latent``.
    """
    front = yaml.safe_dump(_front_matter(manifest), sort_keys=False, allow_unicode=True, width=1000)
    sections = (
        _intro_section(manifest),
        _loading_section(manifest, has_latents),
        _classes_section(manifest),
        _origin_section(manifest),
        _verification_section(),
        _terms_section(manifest),
    )
    text = "\n\n".join(section.strip() for section in sections if section)
    return f"---\n{front}---\n\n{text}\n".encode()


def _front_matter(manifest: Manifest) -> dict[str, Any]:
    task = "image-classification" if manifest.classes else "unconditional-image-generation"
    return {
        "pretty_name": manifest.name,
        **_stated_license(Recipe.model_validate(manifest.recipe)),
        "task_categories": [task],
        "size_categories": [_size_category(manifest.samples)],
        "tags": ["synthetic", "latentmill", "webdataset"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "shards/*.tar"}]}],
        "dataset_info": {"features": _features(manifest)},
    }


def _stated_license(recipe: Recipe) -> dict[str, Any]:
    """Cards of earlier releases say ``unknown``; today a card says nothing that the recipe does not."""
    if recipe.published is None:
        return {"license": "unknown"}
    return {} if recipe.license is None else hub_license(recipe.license)


def _features(manifest: Manifest) -> list[dict[str, Any]]:
    """The features of a sample for the `datasets` library, which would otherwise guess them without class names."""
    names = {str(label): name for label, name in enumerate(manifest.classes)}
    facts = _facts(bool(names), Recipe.model_validate(manifest.recipe).published is not None)
    label = [{"name": "cls", "dtype": {"class_label": {"names": names}}}] if names else []
    return [
        {"name": _image_extension(manifest), "dtype": "image"},
        *label,
        {"name": "json", "struct": [{"name": name, **kind} for name, kind in facts.items()]},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _facts(labelled: bool, with_judge: bool) -> dict[str, dict[str, str]]:
    """The fields of a sample's JSON in their order; ``with_judge``: cards of earlier releases leave three out."""
    judged = {
        "label_confidence": {"dtype": "float64"},
        "likely_labels": {"list": "int64"},
        "likely_probabilities": {"list": "float64"},
    }
    return {
        "attempt": {"dtype": "int64"},
        "class": {"dtype": "string" if labelled else "null"},
        "cluster": {"dtype": "int64"},
        "index": {"dtype": "int64"},
        "label": {"dtype": "int64" if labelled else "null"},
        **(judged if with_judge else {}),
        "log_density": {"dtype": "float64"},
        "recipe": {"dtype": "string"},
        "synthetic": {"dtype": "bool"},
    }


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
"""


def _loading_section(manifest: Manifest, has_latents: bool) -> str:
    fields = f'"{_image_extension(manifest)}", "cls"' if manifest.classes else f'"{_image_extension(manifest)}"'
    names = "image, label" if manifest.classes else "(image,)"
    last = manifest.shards[-1].number
    point, places = "latent point, " if has_latents else "", _PLACES if manifest.recipe["recipe_version"] > 1 else ""
    numbers = f"{{000000..{last:06d}}}" if last else "000000"
    return f"""
## Load it

In this directory; a path or an `s3://` URL of it does as well.

```python
from generator import open_dataset  # the package latentmill

for image, label, provenance in open_dataset("."):
    ...  # uint8 array of height, width, channels; {"class number" if manifest.classes else "-1: no labels"}; facts
```

Its shards are WebDataset archives, and any reader of those will do.

```python
import webdataset

shards = webdataset.WebDataset("shards/{manifest.name}-{numbers}.tar", shardshuffle=False)
for {names} in shards.decode("pil").to_tuple({fields}):
    ...
```

```python
import os

from datasets import load_dataset

images = load_dataset(os.getcwd(), split="train")  # or its name, once it is on the hub
```

What made each image (attempt, cluster, log-density, {point}sha256) stands in `samples/*.parquet`.{places}
`croissant.json` describes it all to machines; it expects this directory to be called `{manifest.build_id}`.
"""


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


def _image_extension(manifest: Manifest) -> str:
    return extension(Recipe.model_validate(manifest.recipe).image.format)


def _link(address: str) -> str:
    return f"<{address.replace('|', '%7C')}>"


def _escape_markdown(text: str) -> str:
    """``text`` escaped for Markdown, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>|~&$])", r"\\\1", text)
