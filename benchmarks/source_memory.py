"""How much memory large sources take: anonymous memory of train, generate and measure, sampled while they run.

    python benchmarks/source_memory.py [--images 300000] [--size 64] [--limit-gib 2] [--work DIRECTORY] [--json FILE]

Generates a labelled source as Parquet, then runs ``latentmill sources``, ``sources`` again, ``train --epochs 1``,
``generate`` and ``measure --measures novelty --limit``. RssAnon of all processes of a command is read twenty times a
second (``/proc``); pages of mapped files do not count, as the system may drop them at any time. With ``--limit-gib``
all commands run in a control group (as root) that may use that much, pages of files included, and must still pass.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from arguments import directory, output_file
from memory_group import memory_group
from pyarrow import parquet
from simplejpeg import encode_jpeg

_CLASSES = 10
_ROWS_OF_A_FILE = 50_000
_INTERVAL = 0.05
_NAMES = ("sources, first", "sources, again", "train", "generate", "measure novelty")
_COMMAND = "from workers.cli import main; main()"


def main() -> None:
    """Run the commands and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--begin", choices=_NAMES, default=_NAMES[0], help="go on with this command, from what is there"
    )
    parser.add_argument("--limit-gib", type=float, default=None)
    parser.add_argument("--measured", type=int, default=20_000, help="images of the build that is measured")
    parser.add_argument("--model", default="linear", help="family that is trained; the pretrained one is `pretrained`")
    parser.add_argument("--work", type=directory, default=None)
    parser.add_argument("--json", type=output_file, default=None)
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="latentmill-memory-"))
    source = work / f"source-{args.images}-{args.size}"
    if not source.exists():
        _write_source(source, args.images, args.size)
    if args.begin == _NAMES[0]:
        for name in ("bundle", "bundle.checkpoint", "builds", "cache"):
            _remove(work / name)
    commands = _commands(source, work, args)[_NAMES.index(args.begin) :]
    with ExitStack() as stack:
        enter = _enter_nothing
        if args.limit_gib is not None:
            try:
                enter = stack.enter_context(memory_group(args.limit_gib))
            except OSError as error:
                parser.error(f"--limit-gib needs root and control groups of memory: {error}")
        results = [_measure(name, words, work, enter) for name, words in commands]
    facts = {"images": args.images, "size": args.size, "model": args.model, "limit_gib": args.limit_gib}
    document = facts | {"commands": results}
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n")


def _commands(source: Path, work: Path, args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    spec = work / "spec.json"
    build = {"bundle": str(work / "bundle"), "destination": str(work / "builds"), "name": "large"}
    spec.write_text(json.dumps(build | {"count": args.measured, "label_floor": None}))
    family = ["--from", "pretrained"] if args.model == "pretrained" else ["--model", args.model, "--epochs", "1"]
    train = ["train", str(source), "--out", str(work / "bundle"), *family, "--judge-steps", "100"]
    measure = ["measure", str(work / "builds" / "large"), str(source), "--bundle", str(work / "bundle")]
    novelty = [*measure, "--measures", "novelty", "--limit", "2000", "--seeds", "1"]
    words = [["sources", str(source)], ["sources", str(source)], train, ["generate", str(spec)], novelty]
    return list(zip(_NAMES, words, strict=True))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_source(directory: Path, count: int, size: int) -> None:
    """Smooth random images of ten classes (a colour each), as JPEG in Parquet."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (_CLASSES, 3))
    temporary = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "data").mkdir(parents=True)
    for begin in range(0, count, _ROWS_OF_A_FILE):
        rows = min(_ROWS_OF_A_FILE, count - begin)
        labels = (np.arange(begin, begin + rows) % _CLASSES).tolist()
        images = []
        for label in labels:
            coarse = np.clip(colours[label] + rng.normal(0, 40, (4, 4, 3)), 0, 255)
            pixels = np.kron(coarse, np.ones((size // 4, size // 4, 1))).astype(np.uint8)
            images.append({"bytes": encode_jpeg(np.ascontiguousarray(pixels), quality=75), "path": None})
        names = [f"class {number}" for number in range(_CLASSES)]
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = pa.table(
            {
                "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                "label": pa.array(labels),
            }
        ).replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
        parquet.write_table(table, temporary / "data" / f"train-{begin // _ROWS_OF_A_FILE:05d}.parquet")
    temporary.rename(directory)


def _enter_nothing() -> None:
    pass


def _measure(name: str, words: list[str], work: Path, enter: Callable[[], None]) -> dict[str, Any]:
    environment = os.environ | {
        "LATENTMILL_SOURCE_CACHE": str(work / "cache"),
        "LATENTMILL_ROOT": str(work / "root"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    began, peak = time.monotonic(), 0
    with (work / "log.txt").open("ab") as log:
        command = [sys.executable, "-c", _COMMAND, *words]
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=enter)
        while child.poll() is None:
            peak = max(peak, _anonymous_bytes(child.pid))
            time.sleep(_INTERVAL)
    result = {
        "command": name,
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_anon_mib": peak // 2**20,
        "exit_code": child.returncode,
    }
    print(f"{name:<18} {result['seconds']:>8.1f} s   {result['peak_rss_anon_mib']:>6} MiB   exit {child.returncode}")
    return result


def _anonymous_bytes(root: int) -> int:
    """RssAnon of a process and of all processes below it."""
    children: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        pid = int(path.parent.name)
        children.setdefault(int(fields["PPid"]), []).append(pid)
        found[pid] = int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
    waiting, total = [root], 0
    while waiting:
        pid = waiting.pop()
        total += found.get(pid, 0)
        waiting += children.get(pid, [])
    return total


if __name__ == "__main__":
    main()
