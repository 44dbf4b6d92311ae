"""One measurement of ``throughput.py`` in its own process, so that measurements do not share caches or memory.

    python benchmarks/throughput_measurement.py WHAT JSON

``WHAT`` is one of ``bundle``, ``profile``, ``build``, ``encode``; ``JSON`` holds its arguments. Prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch

from generator.drafts import JobDraft
from generator.models.bundle import Bundle, load_bundle
from generator.models.latents.config import MixtureSettings
from generator.models.learning.decoder_import import ImportedCodes, import_decoder
from generator.production.commit import locate_build
from generator.production.heap import keep_freed_memory
from generator.production.images import image_encoder
from generator.production.mill import build_with
from generator.production.pipeline.decoders import CompileOptions, open_decoder
from generator.production.pipeline.shard_maker import open_shard_maker
from generator.production.profiling.profile import profile
from generator.production.profiling.random_bundle import random_bundle
from generator.spec.machine import usable_cores
from generator.spec.recipe import JobSpec, JpegSettings, Order, PngSettings, Recipe
from generator.store import S3Settings, open_store

_TICKS = os.sysconf("SC_CLK_TCK")
_ENCODINGS = {"jpeg": JpegSettings(), "png": PngSettings()}


def make_bundle(*, size: int, out: str) -> dict[str, Any]:
    """Write a bundle of the decoder of ``peers.py`` and a mixture with one cluster for each of its ten centres.

    Below 32 pixels, where ``peers.py`` has no decoder, the bundle is a random reference network.
    """
    if size < 32:
        return {"digest": random_bundle(Path(out), size).digest}
    decoder, codes_ND = peers.decoder_and_codes(size)
    labels_N = np.repeat(np.arange(peers.CLUSTERS), len(codes_ND) // peers.CLUSTERS)
    codes = ImportedCodes("peers", codes_ND, labels_N, tuple(f"cluster {label}" for label in range(peers.CLUSTERS)))
    weights = {name: tensor.numpy() for name, tensor in decoder.state_dict().items()}
    document = json.dumps({"latent_dim": peers.DIMS, "output": "sigmoid", "layers": _layers(size)}).encode()
    return {"digest": import_decoder(document, weights, codes, Path(out), sampler=MixtureSettings(clusters=1)).digest}


def _layers(size: int) -> list[dict[str, Any]]:
    maps, up = peers.feature_maps(size), {"kind": "conv_transpose", "kernel": 4, "stride": 2, "padding": 1}
    layers: list[dict[str, Any]] = [
        {"kind": "linear", "features": maps[0] * 16, "weights": "fc"},
        {"kind": "unflatten", "channels": maps[0], "height": 4, "width": 4},
    ]
    for number, channels in enumerate(maps[1:]):
        layers += [
            up | {"channels": channels, "weights": f"net.{number}.0"},
            {"kind": "batch_norm", "weights": f"net.{number}.1"},
            {"kind": "silu"},
        ]
    return [*layers, up | {"channels": 3, "weights": f"net.{len(maps) - 1}"}]


def measure_profile(
    *, bundle: str, images: int, form: str, compiled: str, cache: str, seconds: float
) -> dict[str, Any]:
    """The measurement of ``latentmill bench``."""
    loaded = load_bundle(open_store(bundle))
    recipe = _recipe(loaded, images, form, seed=0)
    with tempfile.TemporaryDirectory(prefix="latentmill-throughput-") as scratch:
        compiling = _compiling(compiled, cache)
        costs_by_name = profile(recipe, loaded, Path(scratch), device="cpu", compiling=compiling, stage_seconds=seconds)
    return costs_by_name.model_dump(mode="json")


def measure_build(
    *,
    bundle: str,
    images: int,
    form: str,
    compiled: str,
    cache: str,
    destination: str,
    name: str,
    s3: dict[str, Any] | None = None,
    server: int | None = None,
) -> dict[str, Any]:
    """A whole build in this process, from an open decoder to the commit. ``server``: process id of the S3 server."""
    loaded, settings = load_bundle(open_store(bundle)), S3Settings.model_validate(s3) if s3 else None
    spec = JobSpec(recipe=_recipe(loaded, images, form, seed=1), order=Order(destination=destination, name=name))
    location = locate_build(spec, settings)
    maker = open_shard_maker(location, loaded, open_decoder(location, loaded, "cpu", _compiling(compiled, cache)))
    location.store.check_writable()  # warm-up: the first call of an S3 client loads its service model
    start, processor, server_before = time.perf_counter(), time.process_time(), _seconds_of(server)
    build_with(location, loaded, maker)
    return {
        "images": images,
        "cores": usable_cores(),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "server_seconds": _seconds_of(server) - server_before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_encoding(*, size: int, seconds: float) -> dict[str, Any]:
    """Microseconds per image of this project's encoders, on images of the peers' decoder, on one thread."""
    torch.set_num_threads(1)
    images_BHWC = peers.decode_batch(size)
    costs_by_name = {}
    for form, settings in _ENCODINGS.items():
        encoder = image_encoder(settings, 1)
        costs, end = [], time.perf_counter() + seconds
        while len(costs) < 3 or time.perf_counter() < end:
            start = time.process_time()
            encoder.encode_many(images_BHWC)
            costs.append((time.process_time() - start) / len(images_BHWC))
        costs_by_name[f"{form}, latentmill"] = 1e6 * min(costs)
    return costs_by_name


def _recipe(loaded: Bundle, images: int, form: str, *, seed: int) -> Recipe:
    classes = len(loaded.info.classes) or 1
    return Recipe.model_validate(
        {
            "bundle": loaded.digest,
            "classes": loaded.info.classes,
            "counts": [images // classes + (label < images % classes) for label in range(classes)],
            "image": {"format": form},
            "seed": seed,
            "batch": JobDraft.model_fields["batch"].default,
        }
    )


def _compiling(compiled: str, cache: str) -> CompileOptions:
    return CompileOptions(compiled, Path(cache))  # type: ignore[arg-type]


def _seconds_of(process: int | None) -> float:
    """Processor seconds that process ``process`` has used; 0 for ``None``."""
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    keep_freed_memory()  # as commands do that make images
    measurement = {
        "bundle": make_bundle,
        "profile": measure_profile,
        "build": measure_build,
        "encode": measure_encoding,
    }[sys.argv[1]]
    print(json.dumps(measurement(**json.loads(sys.argv[2]))))
