"""How fast imported decoders are beside the libraries that they come from: diffusers and onnxruntime.

    python benchmarks/imported_decoders.py [--threads 2] [--rounds 5] [--seconds 2] [--json FILE]

For each network the ways take turns within one run, with the same number of threads and the same batch: diffusers in
eval mode (``torch.inference_mode``), onnxruntime on an export of torch, and the resident decoder, eager and compiled.
The resident decoder also rounds to uint8, which the others do not. A figure is the median over rounds of images a
second; ratios are medians of the ratios within a round. Weights are random; the speed does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from arguments import output_file
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from generator.models.bundle import load_bundle
from generator.models.converters.diffusers import convert_diffusers
from generator.models.latents.config import PriorSettings
from generator.models.learning import import_network, join_graphs
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import missing_compiler
from generator.store import open_store

Run = Callable[[], Any]


class _Decoder(nn.Module):
    def __init__(self, autoencoder: AutoencoderKL | AutoencoderTiny) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.autoencoder.decode(z).sample
        return image


def _networks() -> dict[str, tuple[Any, int, int]]:
    """Autoencoder, size in pixels, and batch."""

    def kl(widths: tuple[int, ...], layers: int) -> AutoencoderKL:
        down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
        return AutoencoderKL(
            block_out_channels=widths, down_block_types=down, up_block_types=up, layers_per_block=layers
        )

    return {
        "AutoencoderTiny, 64 px": (AutoencoderTiny(), 64, 32),
        "AutoencoderTiny, 256 px": (AutoencoderTiny(), 256, 2),
        "AutoencoderKL of 12 million, 64 px": (kl((64, 128, 256, 256), 2), 64, 8),
        "AutoencoderKL of 49 million, 128 px": (kl((128, 256, 512, 512), 2), 128, 1),
    }


def _ways(autoencoder: Any, size: int, batch: int, threads: int, work: Path) -> dict[str, Run]:
    network = _Decoder(autoencoder.eval())
    autoencoder.save_pretrained(work / "saved")
    imported = join_graphs(*convert_diffusers(work / "saved", size))
    import_network(imported, None, work / "bundle", sampler=PriorSettings())
    bundle = load_bundle(open_store(str(work / "bundle")))
    z_BD = np.random.default_rng(0).normal(size=(batch, bundle.latents.dims)).astype(np.float32)
    z = torch.from_numpy(z_BD).view(batch, *imported.config.code_shape)
    path = work / "decoder.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (z,), str(path), input_names=["z"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def diffusers() -> None:
        with torch.inference_mode():
            network(z)

    ways: dict[str, Run] = {
        "diffusers": diffusers,
        "onnxruntime": lambda: session.run(None, {"z": z.numpy()}),
        "eager": _resident(bundle, z_BD, batch, "eager", work),
    }
    if not missing_compiler("cpu"):
        ways["compiled"] = _resident(bundle, z_BD, batch, "compiled", work)
    return ways


def _resident(bundle: Any, z_BD: np.ndarray, batch: int, execution: Any, work: Path) -> Run:
    decoder = ResidentDecoder(
        bundle, batch=batch, dtype="float32", device="cpu", execution=execution, cache=work / "cache"
    )
    return lambda: decoder.decode(z_BD)


def _rate(run: Run, batch: int, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or count < 1:
        run()
        count += 1
    return batch * count / passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", help="networks whose name contains this")
    parser.add_argument("--json", type=output_file)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    print("| decoder | diffusers, images/s | onnxruntime | eager | compiled | eager / diffusers | eager / onnxruntime |"
          " compiled / onnxruntime |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, (autoencoder, size, batch) in _networks().items():
        if args.only and args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as work:
            ways = _ways(autoencoder, size, batch, args.threads, Path(work))
            for run in ways.values():
                run()
            rounds = [{way: _rate(run, batch, args.seconds) for way, run in ways.items()} for _ in range(args.rounds)]
        result = {"decoder": name, "threads": args.threads, "batch": batch}
        result |= {way: round(median(each[way] for each in rounds), 2) for way in ways}
        pairs = (("eager", "diffusers"), ("eager", "onnxruntime"), ("compiled", "onnxruntime"))
        for way, other in pairs:
            if way in ways:
                result[f"{way} / {other}"] = round(median(each[way] / each[other] for each in rounds), 3)
        results.append(result)
        cells = [result.get(way, "") for way in ("diffusers", "onnxruntime", "eager", "compiled")]
        cells += [result.get(f"{way} / {other}", "") for way, other in pairs]
        print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
