"""Measures previews and requests: a warm worker process on a real Redis, asked directly and through a server.

python benchmarks/preview.py            20 of each, a minute or so
python benchmarks/preview.py --times 3  small numbers, for a test
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from generator.errors import WorkerUnavailable  # noqa: E402
from tests.support.bundles import tiny_bundle  # noqa: E402
from tests.support.http_server import RunningServer, running_server  # noqa: E402
from workers.client import Client  # noqa: E402
from workers.embedded import EmbeddedRedis, WorkerProcess  # noqa: E402
from workers.settings import Settings  # noqa: E402

_PATIENCE = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as redis:
        home = Path(folder)
        settings = Settings(
            redis_url=SecretStr(redis.url),
            root=str(home / "root"),
            destinations=str(home / "out"),
            state_dir=home / "state",
            cache_dir=home / "cache",
            device="cpu",
            threads=1,
        )
        worker = WorkerProcess(redis.url, settings, home / "worker.log")
        try:
            with running_server(settings) as web:
                measure(settings, web, home, times)
        finally:
            worker.stop(30.0)


def measure(settings: Settings, web: RunningServer, home: Path, times: int) -> None:
    """Print the median and the range of each kind of request, in milliseconds."""
    token = web.token()
    direct, over_http = Client(settings), Client(web.url, token=token)
    for name, size, channels in (("8 pixels, grey", 8, 1), ("64 pixels, colour", 64, 3)):
        bundle = tiny_bundle(home / f"bundle-{size}", size=size, channels=channels)
        spec = {"bundle": str(bundle), "name": "x", "count": 10_000}
        there, here = spec | {"destination": "out"}, spec | {"destination": str(home / "out")}
        wait_for_worker(direct, here)
        previews: list[tuple[str, Callable[[int], Any]]] = [
            ("64 images, Redis", lambda seed, spec=here: direct.preview(spec | {"seed": seed})),  # type: ignore[misc]
            ("64 images, HTTP", lambda seed, spec=there: over_http.preview(spec | {"seed": seed})),  # type: ignore[misc]
        ]
        for what, call in previews:
            report(f"preview of {name}: {what}", call, times)
    job = over_http.submit(spec | {"destination": "out", "count": 1000})
    build = over_http.wait(job.job).url.rpartition("/builds/")[2]
    samples = f"/api/v1/datasets/out/x/builds/{build}/samples"
    for what, path in (
        ("status of a job", f"/api/v1/jobs/{job.job}"),
        ("100 rows", f"{samples}?limit=100"),
        ("one image", f"{samples}/%d/image"),
        ("page of jobs", "/jobs"),
    ):
        headers = {"Cookie": f"latentmill_session={token}"} if path == "/jobs" else None
        report(what, lambda n, p=path, h=headers: get(web, p % n if "%d" in p else p, token, h), times)  # type: ignore[misc]


def get(web: RunningServer, path: str, token: str, headers: dict[str, str] | None) -> None:
    answer = web.get(path, None if headers else token, headers=headers)
    assert answer.status == 200, answer.body


def wait_for_worker(client: Client, spec: dict[str, Any]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            client.preview(spec)
        except WorkerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def report(what: str, call: Callable[[int], Any], times: int) -> None:
    taken = []
    for number in range(times):
        started = time.perf_counter()
        call(number)
        taken.append(1000 * (time.perf_counter() - started))
    print(f"| {what} | {statistics.median(taken):.0f} ({min(taken):.0f} to {max(taken):.0f}) | {times} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
