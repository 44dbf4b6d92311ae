"""Reads a directory with one library and prints what it saw, as JSON: sha256 of the pixels, and label, of each sample.

Runs in an environment of its own, without latentmill: ``python read_with.py LIBRARY DIRECTORY [SCRATCH]``. ``label`` is
``null`` where the library gives none.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

Seen = list[tuple[str, "int | None"]]


def pixels(image: Any) -> str:
    """sha256 of a PIL image or an array of uint8, HWC or HW. Grey ones count as RGB, which some libraries make them."""
    array = np.asarray(image)
    assert array.dtype == np.uint8, array.dtype
    array_HWC = array if array.ndim == 3 else array[:, :, None]
    rgb_HWC = array_HWC if array_HWC.shape[2] == 3 else array_HWC.repeat(3, axis=2)
    return hashlib.sha256(np.ascontiguousarray(rgb_HWC).tobytes()).hexdigest()


def decoded(data: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data))


def with_webdataset(directory: Path, scratch: Path) -> Seen:
    import webdataset

    files = [str(path) for path in sorted(directory.glob("shards/*.tar"))]
    samples = webdataset.WebDataset(files, shardshuffle=False).decode("pil")
    return [(pixels(sample.get("png", sample.get("jpg"))), sample.get("cls")) for sample in samples]


def with_webdataset_in_workers(directory: Path, scratch: Path) -> Seen:
    """As many loader workers as there are shards: each gets one."""
    import webdataset
    from torch.utils.data import DataLoader

    files = [str(path) for path in sorted(directory.glob("shards/*.tar"))]
    samples = webdataset.WebDataset(files, shardshuffle=False).decode("pil")
    loader = DataLoader(samples, batch_size=None, num_workers=len(files))
    return [(pixels(sample.get("png", sample.get("jpg"))), sample.get("cls")) for sample in loader]


def with_datasets(directory: Path, scratch: Path, *, streaming: bool = False) -> Seen:
    import datasets

    rows = datasets.load_dataset(str(directory), split="train", streaming=streaming, cache_dir=str(scratch))
    return [(pixels(_image_of(row)), row.get("cls", row.get("label"))) for row in rows]


def with_streaming_datasets(directory: Path, scratch: Path) -> Seen:
    return with_datasets(directory, scratch, streaming=True)


def _image_of(row: dict[str, Any]) -> Any:
    return next(row[name] for name in ("image", "png", "jpg") if name in row)


def declare_torchvision_operators() -> None:
    """Let ``import torchvision`` pass where its compiled part does not load. Streaming imports it for other datasets.

    The wheels of torchvision in the package index are made for the CUDA build of torch, not for the CPU build.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        sys.modules.pop("torchvision", None)
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        sys.torchvision_operators = library  # type: ignore[attr-defined]  # they live as long as it does


def with_mosaic(directory: Path, scratch: Path) -> Seen:
    declare_torchvision_operators()
    from streaming import StreamingDataset

    rows = StreamingDataset(local=str(directory), batch_size=1, shuffle=False)
    return [(pixels(row["image"]), row.get("label")) for row in rows]


def with_remote_mosaic(directory: Path, scratch: Path) -> Seen:
    """From a remote, whose shards are checked by their sha256 as they arrive, in two loader workers."""
    declare_torchvision_operators()
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    rows = StreamingDataset(
        remote=str(directory), local=str(scratch), batch_size=1, shuffle=True, validate_hash="sha256"
    )
    loader = DataLoader(rows, batch_size=None, num_workers=2)
    return [(pixels(row["image"]), row.get("label")) for row in loader]


def with_litdata(directory: Path, scratch: Path) -> Seen:
    from litdata import StreamingDataset

    rows = StreamingDataset(str(directory), shuffle=False)
    return [(pixels(decoded(row["image"])), row.get("label")) for row in rows]


def with_energon(directory: Path, scratch: Path) -> Seen:
    from megatron.energon import WorkerConfig, get_loader, get_val_dataset

    workers = WorkerConfig(rank=0, world_size=1, num_workers=2)
    dataset = get_val_dataset(str(directory), split_part="train", worker_config=workers, batch_size=1)
    seen = []
    for batch in get_loader(dataset):
        values = (batch.image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        label = None if batch.label is None else batch.label[0]
        seen.append((pixels(values), None if label is None else int(label)))
    return seen


def with_energon_by_name(directory: Path, scratch: Path) -> Seen:
    """Single files by name, which energon finds in its database."""
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.itar_reader import SqliteITarEntryReader

    reader = SqliteITarEntryReader(EPath(directory))
    seen = []
    for key, _, _ in reader.list_all_samples():
        sample = reader[key]
        image = next(sample[name] for name in ("png", "jpg") if name in sample)
        seen.append((pixels(decoded(image)), int(sample["cls"]) if "cls" in sample else None))
    return seen


def with_lance(directory: Path, scratch: Path) -> Seen:
    import lance

    (place,) = directory.glob("*.lance")
    rows = lance.dataset(str(place)).to_table().to_pylist()
    return [(pixels(decoded(row["image"])), row.get("label")) for row in rows]


READERS: dict[str, Callable[[Path, Path], Iterable[Any]]] = {
    "webdataset": with_webdataset,
    "webdataset-workers": with_webdataset_in_workers,
    "datasets": with_datasets,
    "datasets-streaming": with_streaming_datasets,
    "mosaic": with_mosaic,
    "mosaic-remote": with_remote_mosaic,
    "litdata": with_litdata,
    "energon": with_energon,
    "energon-by-name": with_energon_by_name,
    "lance": with_lance,
}

if __name__ == "__main__":
    seen = READERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(list(seen)))
