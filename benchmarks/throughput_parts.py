"""The parts of ``throughput.py``; each yields rows of measurements, round by round.

Things that are compared are measured in turns within a round, so that a slow phase of the machine affects all of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from throughput_pool import running_pool

HERE = Path(__file__).parent
Row = dict[str, Any]
POOLS = ((1, 2), (1, 3), (2, 1))  # (workers, processes per worker)


@dataclass(frozen=True)
class Protocol:
    """The amounts to measure; ``scale`` divides the number of images."""

    rounds: int = 3
    sizes: tuple[int, ...] = (32, 64, 128, 256)
    often: tuple[int, ...] = (64, 128)  # sizes with goals; others are measured in one round only
    stored: tuple[int, ...] = (64, 128)
    peers_size: int = 64
    smallest: int = 8
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    growth_processes: int = 2
    scale: int = 1
    starts: int = 5
    stage_seconds: float = 1.0  # minimum time of each measurement of a stage
    forms: tuple[str, ...] = ("jpeg", "png")
    ways: tuple[str, ...] = ("never", "always")  # settings of ``compile``

    def images(self, size: int) -> int:
        """Images of a measured build of ``size`` pixels, for about ten seconds."""
        return {8: 20_000, 32: 30_000, 64: 20_000, 128: 5_000, 256: 1_500}[size] // self.scale


QUICK = replace(
    Protocol(),
    rounds=1,
    sizes=(32,),
    stored=(32,),
    peers_size=32,
    growth=(600, 1_200),
    growth_processes=1,
    scale=50,
    starts=1,
    stage_seconds=0.1,
    forms=("jpeg",),
    ways=("never",),
)


@dataclass(frozen=True)
class ThroughputBench:
    """The protocol, the directory for scratch files, and the interpreter of the peers' environment, if any."""

    protocol: Protocol
    work: Path
    peers: Path | None

    @property
    def cache(self) -> str:
        """Directory of this run's compiled decoders."""
        return str(self.work / "compiled")

    def bundle(self, size: int) -> str:
        """Path of a bundle of the peers' decoder, made on first use."""
        out = self.work / f"decoder-{size}.bundle"
        if not out.exists():
            self.measure("bundle", size=size, out=str(out))
        return str(out)

    def measure(self, what: str, **arguments: Any) -> Row:
        """Run ``throughput_measurement.py`` in its own process; returns its facts."""
        return _read_result(what, run_script(HERE / "throughput_measurement.py", what, json.dumps(arguments)))

    def measure_peer(self, name: str, images: int, size: int) -> Row:
        """Run one peer of ``peers.py`` in the peers' environment; returns its facts."""
        with tempfile.TemporaryDirectory(dir=self.work) as out:
            command = [str(self.peers), str(HERE / "peers.py"), name, str(images), str(size), f"{out}/{name}"]
            return _read_result(name, subprocess.run(command, capture_output=True, text=True))

    @property
    def scratch(self) -> Path:
        return self.work / "scratch"


def run_script(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this project as a fresh interpreter."""
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)


def _read_result(name: str, done: subprocess.CompletedProcess[str]) -> Row:
    """The JSON in the last line that a measurement printed."""
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def single_process(bench: ThroughputBench) -> Iterator[Row]:
    """One process, into a local directory: limit, whole build, and time of each stage, by size and format."""
    for round_number in range(bench.protocol.rounds):
        for size in bench.protocol.often if round_number else bench.protocol.sizes:
            for form in bench.protocol.forms[: 1 if round_number else None]:
                for compiled in bench.protocol.ways:
                    facts = bench.measure(
                        "profile",
                        bundle=bench.bundle(size),
                        images=bench.protocol.images(size),
                        form=form,
                        compiled=compiled,
                        cache=bench.cache,
                        seconds=bench.protocol.stage_seconds,
                    )
                    yield {"round": round_number, "size": size, "form": form, **facts}


def against_peers(bench: ThroughputBench) -> Iterator[Row]:
    """Peers, the decoder alone, and this project in one process, in turns."""
    if bench.peers is None:
        return
    size, images = bench.protocol.peers_size, bench.protocol.images(bench.protocol.peers_size)
    for round_number in range(bench.protocol.rounds):
        for name, count in (("decoder", images // 4), ("pythae", images // 5), ("handwritten", images // 4)):
            yield {"round": round_number, "rates": _rates(bench.measure_peer(name, count, size))}
            yield {"round": round_number, "rates": _own_rates(bench, size, "always" if name == "decoder" else "never")}
        yield {"round": round_number, "rates": _rates(bench.measure_peer("raydata", images // 4, size))}


def _rates(facts: Row) -> dict[str, float]:
    seconds_by_name = facts["seconds"]
    names = {name: facts["peer"] if name == "whole" else f"decoder, {name}" for name in seconds_by_name}
    return {names[name]: facts["images"] / seconds for name, seconds in seconds_by_name.items()}


def _own_rates(bench: ThroughputBench, size: int, compiled: str) -> dict[str, float]:
    facts = _measure_build(bench, size, "jpeg", compiled, str(bench.scratch))
    label = {"never": "latentmill, eager", "always": "latentmill, compiled"}[compiled]
    return {label: facts["images"] / facts["seconds"]}


def _measure_build(bench: ThroughputBench, size: int, form: str, compiled: str, destination: str, **more: Any) -> Row:
    """Measure a build in its own process, and remove its local output."""
    options = {"bundle": bench.bundle(size), "form": form, "compiled": compiled, "cache": bench.cache}
    target = {"destination": destination, "name": f"run-{time.time_ns()}"}
    try:
        return bench.measure("build", **{"images": bench.protocol.images(size), **options, **target, **more})
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)


def into_s3(bench: ThroughputBench) -> Iterator[Row]:
    """The same builds into a local directory and into S3 over HTTP, whose server runs on the same cores."""
    from tests.support.servers import S3Server

    server = S3Server()
    try:
        url = server.make_bucket("throughput")
        keys = {"access_key": server.access_key, "secret_key": server.secret_key, "region": server.region}
        store = {"s3": keys | {"endpoint_url": server.endpoint_url}, "server": server.pid}
        for round_number in range(bench.protocol.rounds):
            for size in bench.protocol.stored:
                for compiled in bench.protocol.ways:
                    local = _measure_build(bench, size, "jpeg", compiled, str(bench.scratch))
                    remote = _measure_build(bench, size, "jpeg", compiled, url, **store)
                    yield {"round": round_number, "size": size, "compiled": compiled, "local": local, "s3": remote}
                    server.restart()  # it holds all objects in memory
                    url = server.make_bucket("throughput")
                    store["server"] = server.pid
    finally:
        server.stop()


def through_the_pool(bench: ThroughputBench) -> Iterator[Row]:
    """The same build in one process without a pool, and by warm workers with several processes each."""
    size = bench.protocol.peers_size
    images = 2 * bench.protocol.images(size)
    for round_number in range(bench.protocol.rounds):
        for compiled in bench.protocol.ways:
            row: Row = {"round": round_number, "size": size, "compiled": compiled, "images": images}
            alone = _measure_build(bench, size, "jpeg", compiled, str(bench.scratch), images=images)
            row["in one process"] = images / alone["seconds"]
            for workers, concurrency in POOLS:
                label = f"{workers} x {concurrency}"
                home = bench.scratch / label.replace(" ", "")
                with running_pool(
                    home, workers=workers, concurrency=concurrency, compiled=compiled, cache=bench.cache
                ) as running:
                    bundle, fields = bench.bundle(size), {"image": {"format": "jpeg"}}
                    running.run(bundle, "warm", 5000 // bench.protocol.scale, shard_size=250, **fields)
                    row[label] = images / running.run(bundle, "timed", images, shard_size=1000, **fields)
                shutil.rmtree(bench.scratch)
            yield row


def growth(bench: ThroughputBench) -> Iterator[Row]:
    """Jobs of more and more images with the smallest decoder: cost per image, and peak memory of a process."""
    bundle = bench.bundle(bench.protocol.smallest)
    for images in bench.protocol.growth:
        home = bench.scratch / "growth"
        processes = bench.protocol.growth_processes
        with running_pool(home, concurrency=processes, compiled="never", cache=bench.cache) as running:
            running.run(bundle, "warm", 1000, shard_size=500)
            before = running.processor_seconds()
            seconds = running.run(bundle, "grown", images, shard_size=1000)
            used = running.processor_seconds() - before
            yield {
                "images": images,
                "shards": -(-images // 1000),
                "images_per_second": images / seconds,
                "processor_us_per_image": 1e6 * used / images,
                "peak_mib": running.peak_mib(),
            }
        shutil.rmtree(bench.scratch)


def starting(bench: ThroughputBench) -> Iterator[Row]:
    """Start-up times of the command line, the client, a worker, and until the first image."""
    commands = {
        "latentmill --help": ["-c", "from workers.cli import main; main()", "--help"],
        "import workers.client": ["-c", "import workers.client"],
        "python alone": ["-c", "pass"],
    }
    for attempt in range(bench.protocol.starts):
        for label, arguments in commands.items():
            yield {
                "what": label,
                "seconds": _timed(lambda arguments=arguments: _quiet([sys.executable, *arguments])),
            }
        size = bench.protocol.peers_size
        home = bench.scratch / f"start-{attempt}"
        with running_pool(home, workers=0, concurrency=1, compiled="never", cache=bench.cache) as running:
            yield {"what": "a worker until it takes tickets", "seconds": running.start_worker()}
            yield {"what": "first image, cold worker", "seconds": running.first_image(bench.bundle(size), "cold")}
            for warm in range(3):
                seconds = running.first_image(bench.bundle(size), f"warm-{warm}")
                yield {"what": "first image, warm worker", "seconds": seconds}
        shutil.rmtree(bench.scratch)


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quiet(command: list[str]) -> None:
    subprocess.run(command, cwd=HERE.parent, stdout=subprocess.DEVNULL, check=True)


def encoders(bench: ThroughputBench) -> Iterator[Row]:
    """Microseconds per image on one thread, by format: this project's encoders, and those of the peers' environment."""
    for round_number in range(bench.protocol.rounds):
        for size in bench.protocol.sizes:
            facts = bench.measure("encode", size=size, seconds=bench.protocol.stage_seconds)
            if bench.peers is not None:
                facts |= bench.measure_peer("encoders", 0, size)["microseconds"]
            yield {"round": round_number, "size": size, "microseconds": facts}


PARTS: dict[str, Callable[[ThroughputBench], Iterator[Row]]] = {
    "line": single_process,
    "peers": against_peers,
    "s3": into_s3,
    "pool": through_the_pool,
    "growth": growth,
    "starting": starting,
    "encoders": encoders,
}
