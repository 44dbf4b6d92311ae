"""One set of pictures in the forms in which people keep them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from generator.store.s3_client import client_of
from generator.store.s3_settings import S3Settings


@dataclass(frozen=True)
class Picture:
    """An encoded image of a class."""

    name: str  # of its file
    label: str
    data: bytes


def drawn(
    classes: Iterable[str] = ("cat", "dog", "fox"), each: int = 4, size: tuple[int, int] = (20, 16)
) -> list[Picture]:
    """Random pictures in the order of classes and names."""
    rng = np.random.default_rng(0)
    return [
        Picture(f"{number:03d}.png", label, png(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)))
        for label in classes
        for number in range(each)
    ]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def as_folder(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        write(root / picture.label / picture.name, picture.data)
    return root


def flat_name(picture: Picture) -> str:
    return f"{picture.label}-{picture.name}"


def as_table(pictures: list[Picture], column: str = "label", *, text: bool = False, declared: bool = True) -> pa.Table:
    """Parquet with a ClassLabel, or with text."""
    names = sorted({picture.label for picture in pictures})
    images = [{"bytes": picture.data, "path": picture.name} for picture in pictures]
    labels = [picture.label if text else names.index(picture.label) for picture in pictures]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            column: pa.array(labels),
        }
    )
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    stored = json.dumps({"info": {"features": features}}).encode()
    return table.replace_schema_metadata({b"huggingface": stored}) if declared and not text else table


def as_parquet(path: Path, pictures: list[Picture], column: str = "label", **options: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(as_table(pictures, column, **options), path)
    return path


def as_metadata_csv(root: Path, pictures: list[Picture], column: str = "label") -> Path:
    for picture in pictures:
        write(root / flat_name(picture), picture.data)
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", column])
        rows.writerows([flat_name(picture), picture.label] for picture in pictures)
    return root


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def as_tars(root: Path, pictures: list[Picture], shards: int = 2) -> Path:
    """WebDataset shards with numbers in ``.cls`` and class names in ``.json``."""
    names = sorted({picture.label for picture in pictures})
    step = -(-len(pictures) // shards)
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for number, picture in enumerate(pictures[shard * step : (shard + 1) * step], shard * step):
            suffix = picture.name.rpartition(".")[2]
            members += [
                (f"{number:06d}.{suffix}", picture.data),
                (f"{number:06d}.cls", str(names.index(picture.label)).encode()),
                (f"{number:06d}.json", json.dumps({"class": picture.label}).encode()),
            ]
        write(root / f"{shard:05d}.tar", tar_bytes(members))
    return root


def as_zip(path: Path, pictures: list[Picture]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for picture in pictures:
            archive.writestr(f"{picture.label}/{picture.name}", picture.data)
    return path


def of_folder(root: Path, each: int) -> list[Picture]:
    """The first pictures of every class folder."""
    return [
        Picture(path.name, folder.name, path.read_bytes())
        for folder in sorted(root.iterdir())
        for path in sorted(folder.iterdir())[:each]
    ]


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to)
    return to


def put_files(root: Path, bucket: str, settings: S3Settings) -> None:
    """Copy a tree to a bucket (``s3://name``), whatever its files are called."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            key = path.relative_to(root).as_posix()
            client_of(settings).put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=path.read_bytes())


def age(path: Path, seconds: float) -> None:
    """Make a file older than it is."""
    facts = path.stat()
    os.utime(path, (facts.st_atime - seconds, facts.st_mtime - seconds))
