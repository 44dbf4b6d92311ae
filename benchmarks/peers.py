"""The same work by other libraries: N novel images from one decoder and one fitted mixture, to shards on disk.

    python benchmarks/peers.py {pythae,handwritten,raydata,decoder,encoders} IMAGES SIZE OUT

Runs in its own environment (torch, pythae, ray[data], webdataset, pillow, pandas, pyarrow, scikit-learn; for
``encoders`` also simplejpeg, opencv-python-headless, imagecodecs) and imports nothing of this project. Prints a line of
JSON: seconds of work, without imports, building and fitting. The decoder is a DCGAN's: transposed convolutions, batch
normalisation, SiLU, weights from seed 0; the mixture has ten clusters with full covariances. ``decoder`` is the decoder
alone: called in the usual way, channels last, and compiled.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

DIMS, CLUSTERS, WIDTH, BATCH = 64, 10, 32, 256
_BLOCKS = {32: 3, 64: 4, 128: 5, 256: 6, 512: 7}


class Decoder(nn.Module):
    """z (B, 64) -> images (B, 3, size, size) in [0, 1]; 0.96 million weights at 64 pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.maps = feature_maps(size)
        self.fc = nn.Linear(DIMS, self.maps[0] * 16)
        ups = [
            nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.SiLU())
            for before, after in zip(self.maps[:-1], self.maps[1:], strict=True)
        ]
        self.net = nn.Sequential(*ups, nn.ConvTranspose2d(self.maps[-1], 3, 4, 2, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.net(self.fc(z).view(-1, self.maps[0], 4, 4)))


def feature_maps(size: int) -> list[int]:
    """Numbers of feature maps, from the 4 x 4 grid to the last hidden layer."""
    return [WIDTH * 2 ** min(block, 3) for block in range(_BLOCKS[size] - 1, -1, -1)]


def decoder_and_codes(size: int) -> tuple[Decoder, np.ndarray]:
    """The decoder, and 5,000 codes (N, 64) float32 around ten centres, 500 each, in order."""
    torch.manual_seed(0)
    decoder, rng = Decoder(size).eval(), np.random.default_rng(0)
    centres = [rng.normal(size=(500, DIMS)) * 0.5 + rng.normal(size=DIMS) * 2 for _ in range(CLUSTERS)]
    return decoder, np.concatenate(centres).astype("float32")


def pythae(images: int, size: int, out: Path) -> float:
    """pythae's GaussianMixtureSampler, used as in its documentation, with the same decoder. Seconds."""
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    decoder, codes = decoder_and_codes(size)

    class Theirs(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.decoder(z))

    class Unused(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return ModelOutput(embedding=torch.zeros(len(x), DIMS))

    model = AE(AEConfig(input_dim=(3, size, size), latent_dim=DIMS), encoder=Unused(), decoder=Theirs())
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=CLUSTERS))
    sampler.gmm, sampler.is_fitted = _mixture(codes), True
    start = time.perf_counter()
    sampler.sample(num_samples=images, batch_size=500, output_dir=str(out), return_gen=False)
    return time.perf_counter() - start


def handwritten(images: int, size: int, out: Path) -> float:
    """A careful script: inference mode, channels last, Pillow, webdataset's ShardWriter. Seconds."""
    import webdataset

    decoder, codes = decoder_and_codes(size)
    decoder, mixture = decoder.to(memory_format=torch.channels_last), _mixture(codes)
    out.mkdir(parents=True, exist_ok=True)
    start, done = time.perf_counter(), 0
    pattern = str(out / "s-%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=2000, verbose=0) as writer, torch.inference_mode():
        while done < images:
            z, labels = mixture.sample(min(BATCH, images - done))
            for row, jpeg in enumerate(_jpegs(decoder, z)):
                facts = {"z": z[row].round(4).tolist()}
                sample = {"jpg": jpeg, "cls": str(int(labels[row])).encode(), "json": json.dumps(facts).encode()}
                writer.write({"__key__": f"{done:09d}", **sample})
                done += 1
    return time.perf_counter() - start


def raydata(images: int, size: int, out: Path) -> float:
    """Ray Data: two actors sample, decode and encode, into Parquet (its webdataset sink encodes again). Seconds."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)

    class Generate:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            decoder, codes = decoder_and_codes(size)
            self.decoder, self.mixture = decoder.to(memory_format=torch.channels_last), _mixture(codes)

        def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
            z, labels = self.mixture.sample(len(rows["id"]))
            with torch.inference_mode():
                jpegs = _jpegs(self.decoder, z)
            keys = [f"{row:09d}" for row in rows["id"]]
            return {"__key__": keys, "jpg": jpegs, "cls": [str(int(label)).encode() for label in labels]}

    start = time.perf_counter()
    blocks = ray.data.range(images, override_num_blocks=max(2, images // 1000))
    blocks.map_batches(Generate, batch_size=BATCH, concurrency=2).write_parquet(str(out))
    return time.perf_counter() - start


def decoder_alone(images: int, size: int, out: Path) -> dict[str, float]:  # noqa: ARG001
    """The decoder alone, to uint8 in numpy: called in the usual way, channels last, and compiled. Seconds."""
    decoder, codes = decoder_and_codes(size)
    z = torch.from_numpy(codes[:BATCH])
    seconds = {"plain": _decoding(decoder, z, images)}
    decoder = decoder.to(memory_format=torch.channels_last)
    seconds["channels_last"] = _decoding(decoder, z, images)
    seconds["compiled"] = _decoding(torch.compile(decoder), z, images)
    return seconds


def _decoding(decoder: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, images: int) -> float:
    with torch.inference_mode():
        for _ in range(3):
            _pixels(decoder, z)
        start = time.perf_counter()
        for _ in range(-(-images // BATCH)):
            _pixels(decoder, z)
        return (time.perf_counter() - start) * images / (-(-images // BATCH) * BATCH)


def _pixels(decoder: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> np.ndarray:
    return decoder(z).mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def decode_batch(size: int) -> np.ndarray:
    """A batch of the decoder's images, uint8 BHWC."""
    decoder, codes = decoder_and_codes(size)
    with torch.inference_mode():
        return np.ascontiguousarray(_pixels(decoder, torch.from_numpy(codes[::20][:BATCH])))


def encoders(images: int, size: int, out: Path) -> dict[str, float]:  # noqa: ARG001
    """Microseconds per image of Python's image encoders, on one thread: JPEG of quality 95 at 4:4:4, PNG."""
    import cv2
    import imagecodecs
    import simplejpeg
    from PIL import Image

    def by_pillow(pixels: np.ndarray, form: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form, **options)
        return buffer.getvalue()

    jpeg_options = [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    encoders_by_name: dict[str, Callable[[np.ndarray], Any]] = {
        "jpeg, Pillow": lambda pixels: by_pillow(pixels, "JPEG", quality=95, subsampling=0),
        "jpeg, simplejpeg": lambda pixels: simplejpeg.encode_jpeg(pixels, 95, "RGB", "444", False),
        "jpeg, OpenCV": lambda pixels: cv2.imencode(".jpg", pixels, jpeg_options),
        "jpeg, imagecodecs": lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95, subsampling="444"),
        "png, Pillow": lambda pixels: by_pillow(pixels, "PNG"),
        "png, OpenCV": lambda pixels: cv2.imencode(".png", pixels),
        "png, imagecodecs": lambda pixels: imagecodecs.png_encode(pixels),
    }
    cv2.setNumThreads(1)
    images_BHWC = decode_batch(size)
    return {name: _microseconds(encode, images_BHWC) for name, encode in encoders_by_name.items()}


def _microseconds(encode: Callable[[np.ndarray], Any], images_BHWC: np.ndarray) -> float:
    """Minimum of several runs, since other load only adds time."""
    costs, end = list[float](), time.perf_counter() + 1.0
    while len(costs) < 3 or time.perf_counter() < end:
        start = time.process_time()
        for pixels in images_BHWC:
            encode(pixels)
        costs.append((time.process_time() - start) / len(images_BHWC))
    return 1e6 * min(costs)


def _jpegs(decoder: nn.Module, z: np.ndarray) -> list[bytes]:
    from PIL import Image

    encoded = []
    for pixels in _pixels(decoder, torch.from_numpy(z).float()):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        encoded.append(buffer.getvalue())
    return encoded


def _mixture(codes: np.ndarray) -> Any:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(CLUSTERS, covariance_type="full", random_state=0, max_iter=20).fit(codes)


PEERS = {
    "pythae": pythae,
    "handwritten": handwritten,
    "raydata": raydata,
    "decoder": decoder_alone,
    "encoders": encoders,
}

if __name__ == "__main__":
    name, images, size, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    result = PEERS[name](images, size, out)
    measured = result if isinstance(result, dict) else {"whole": result}
    unit = "microseconds" if name == "encoders" else "seconds"
    print(json.dumps({"peer": name, "size": size, "images": images, unit: measured}))
