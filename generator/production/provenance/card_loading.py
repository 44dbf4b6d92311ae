"""What the dataset card says about loading: for the ``datasets`` library in the front matter, for people in the text.

Pure functions of the manifest.
"""

from __future__ import annotations

from typing import Any

from generator.production.images import extension
from generator.production.provenance.manifest import Manifest
from generator.spec.recipe import Recipe, ShardFormatName

_PLACES = """
Its `offset` and `size` say which bytes of its shard are the image file, and `map_x` and `map_y` where its latent point
lies on the bundle's map (null if it has none), which is the same for all builds of the bundle."""
_DALI = """
Beside each shard lies its index for NVIDIA DALI, `shards/*.idx`, for
`fn.readers.webdataset(paths=..., index_paths=...)`."""


def readable_files(manifest: Manifest, recipe: Recipe) -> dict[str, Any]:
    """The part of the front matter by which ``datasets`` finds and reads the samples.

    It does not read MDS files: of such a build it gets the tables.
    """
    if recipe.format == "mds":
        return {"configs": [_config("samples", "samples/*.parquet")]}
    suffix = manifest.shards[0].shard.key.rpartition(".")[2]
    features = _parquet_features(recipe) if recipe.format == "parquet" else _tar_features(manifest, recipe)
    return {"configs": [_config("default", f"shards/*.{suffix}")], "dataset_info": {"features": features}}


def _config(name: str, path: str) -> dict[str, Any]:
    return {"config_name": name, "data_files": [{"split": "train", "path": path}]}


def _tar_features(manifest: Manifest, recipe: Recipe) -> list[dict[str, Any]]:
    """The features of a sample for the `datasets` library, which would otherwise guess them without class names."""
    facts = _facts(bool(manifest.classes), recipe.published is not None)
    return [
        {"name": extension(recipe.image.format), "dtype": "image"},
        *_label_feature("cls", manifest.classes),
        {"name": "json", "struct": [{"name": name, **kind} for name, kind in facts.items()]},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _parquet_features(recipe: Recipe) -> list[dict[str, Any]]:
    facts = {
        "index": {"dtype": "int64"},
        "attempt": {"dtype": "int32"},
        "class": {"dtype": "string"},
        "cluster": {"dtype": "int32"},
        "label_confidence": {"dtype": "float64"},
        "likely_labels": {"list": "int32"},
        "likely_probabilities": {"list": "float64"},
        "log_density": {"dtype": "float64"},
        "recipe": {"dtype": "string"},
        "synthetic": {"dtype": "bool"},
    }
    return [
        {"name": "key", "dtype": "string"},
        {"name": "image", "dtype": "image"},
        *_label_feature("label", recipe.classes),
        *({"name": name, **kind} for name, kind in facts.items()),
    ]


def _label_feature(name: str, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    names = {str(label): text for label, text in enumerate(classes)}
    return [{"name": name, "dtype": {"class_label": {"names": names}}}] if names else []


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


def loading_section(manifest: Manifest, has_latents: bool) -> str:
    """How to load the build, with code that runs in its directory, and how many workers its shards are enough for."""
    recipe = Recipe.model_validate(manifest.recipe)
    examples = _OTHER_EXAMPLES.get(recipe.format) or _tar_examples(manifest)
    point, places = "latent point, " if has_latents else "", _PLACES if recipe.recipe_version > 1 else ""
    workers = "" if recipe.published is None else f"\n{_workers(len(manifest.shards))}\n"
    return f"""
## Load it

In this directory; a path or an `s3://` URL of it does as well.

```python
from generator import open_dataset  # the package latentmill

for image, label, provenance in open_dataset("."):
    ...  # uint8 array of height, width, channels; {"class number" if manifest.classes else "-1: no labels"}; facts
```

{examples.strip()}
{workers}
What made each image (attempt, cluster, log-density, {point}sha256) stands in `samples/*.parquet`.{places}
`croissant.json` describes it all to machines; it expects this directory to be called `{manifest.build_id}`.
"""


def _tar_examples(manifest: Manifest) -> str:
    recipe, last = Recipe.model_validate(manifest.recipe), manifest.shards[-1].number
    suffix = extension(recipe.image.format)
    fields = f'"{suffix}", "cls"' if manifest.classes else f'"{suffix}"'
    names = "image, label" if manifest.classes else "(image,)"
    numbers = f"{{000000..{last:06d}}}" if last else "000000"
    return f"""
Its shards are WebDataset archives, and any reader of those will do.{_DALI if recipe.sidecars else ""}

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
"""


_PARQUET_EXAMPLES = """
Its shards are Parquet files whose column `image` holds the image files, and any reader of those will do.

```python
import os

from datasets import load_dataset

images = load_dataset(os.getcwd(), split="train")  # or its name, once it is on the hub
```
"""

_MDS_EXAMPLES = """
Its shards are MDS files, which MosaicML Streaming and litdata read by `shards/index.json`.

```python
from streaming import StreamingDataset

images = StreamingDataset(local="shards", batch_size=1)
```

```python
from litdata import StreamingDataset

images = StreamingDataset("shards")  # of each image the bytes of its file, of its facts the JSON as text
```
"""
_OTHER_EXAMPLES: dict[ShardFormatName, str] = {"parquet": _PARQUET_EXAMPLES, "mds": _MDS_EXAMPLES}


def _workers(shards: int) -> str:
    number = "one loader worker" if shards == 1 else f"{shards:,} loader workers"
    return (
        "Readers that give whole shards to their workers, such as `webdataset` and streaming `datasets`, can keep at"
        f" most\n{number} busy, over all ranks together: there {'is' if shards == 1 else 'are'} {shards:,}"
        f" shard{'' if shards == 1 else 's'}. `open_dataset` deals samples, so it has no such limit."
    )
