"""The image, run by runc on a Debian root: a worker without a home, on a read-only root, as two users, makes a job.

Skipped where runc, debootstrap or root are missing. The root file system (0.3 GB) takes debootstrap a minute or more;
TEST_IMAGE_ROOT names a directory that is kept for the next run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from generator.datasets.verification import verify_dataset
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer, S3Server
from workers.client import Client
from workers.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy"))
import run_image

NEEDS_RUNC = pytest.mark.skipif(
    bool(run_image.missing_tools()), reason=f"this machine lacks {', '.join(run_image.missing_tools())}"
)
START_SECONDS = 180


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system of the image, with the wheel of this source."""
    kept = os.environ.get("TEST_IMAGE_ROOT")
    made = Path(kept) if kept else tmp_path_factory.mktemp("image") / "root"
    run_image.make_root(made, run_image.runtime_stage(run_image.DOCKERFILE.read_text()))
    return made


class Image:
    """Containers of one image and one user; ``work`` is their /var/lib/latentmill."""

    def __init__(self, root: Path, home: Path, user: str, group: int) -> None:
        self._root, self._home, self._user, self._group = root, home, user, group
        self._stage = run_image.runtime_stage(run_image.DOCKERFILE.read_text())
        self.work, self.secrets = home / "work", home / "secrets"
        for directory, mode in ((self.work, 0o2770), (self.secrets, 0o750)):
            directory.mkdir()
            os.chown(directory, 0, group)  # as Kubernetes gives volumes to fsGroup
            directory.chmod(mode)

    def secret(self, name: str, value: str) -> str:
        """A secret in a file that only the group of the pod reads; returns where containers find it."""
        path = self.secrets / name
        path.write_text(value)
        os.chown(path, 0, self._group)
        path.chmod(0o440)
        return f"/run/secrets/{name}"

    def start(
        self, *arguments: str, entrypoint: tuple[str, ...] | None = None, **settings: str
    ) -> subprocess.Popen[Any]:
        config = run_image.container(
            self._root,
            self._stage,
            arguments,
            user=self._user,
            environment={f"LATENTMILL_{name}": value for name, value in settings.items()} | {"OMP_NUM_THREADS": "1"},
            volumes=[(self.work, self._stage.directory, True), (self.secrets, "/run/secrets", False)],
            groups=[self._group],
        )
        if entrypoint is not None:
            config["process"]["args"] = list(entrypoint)
        self.name = f"latentmill-test-{uuid.uuid4().hex[:8]}"
        self.bundle = self._home / self.name
        with (self._home / "log").open("ab") as log:
            return run_image.start(self.bundle, config, self.name, stdout=log, stderr=log)

    def runc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["runc", "--root", str(self.bundle / "state"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def is_healthy(self) -> bool:
        """Whether the health check of the Dockerfile holds in the running container."""
        return self.runc("exec", self.name, *self._stage.health).returncode == 0

    def log(self) -> str:
        return (self._home / "log").read_text()[-8000:]


@pytest.fixture(params=["10001:10001", "1000680000:0"], ids=["its-user", "any-user"])
def image(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Image:
    """The image as its own user, and as one that no passwd file knows, as OpenShift does."""
    return Image(root, tmp_path, request.param, group=10001 if request.param.startswith("10001") else 1000680000)


def test_the_stage_of_the_dockerfile_is_understood() -> None:
    stage = run_image.runtime_stage(run_image.DOCKERFILE.read_text())
    assert (stage.entrypoint, stage.command, stage.health) == (("latentmill",), ("worker",), ("latentmill", "health"))
    assert stage.user == "10001:10001"
    assert stage.environment["PATH"].startswith("/opt/venv/bin:")
    places = {name for name in stage.environment if name.endswith(("_DIR", "_CACHE"))}
    assert places == {
        f"LATENTMILL_{field.upper()}"
        for field, about in Settings.model_fields.items()
        if field.endswith(("_dir", "_cache")) and about.default_factory is not None
    }, "every place that latentmill writes to is stated: there may be no home"


def test_an_instruction_that_is_not_understood_is_named() -> None:
    text = run_image.DOCKERFILE.read_text().replace("WORKDIR /var/lib/latentmill", "VOLUME /var/lib/latentmill")
    with pytest.raises(ValueError, match="got VOLUME"):
        run_image.runtime_stage(text)


@NEEDS_RUNC
@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(900)
def test_a_worker_of_the_image_makes_a_job(
    image: Image, redis_server: RedisServer, s3_server: S3Server, tmp_path: Path
) -> None:
    where = s3_server.make_bucket(f"image-{uuid.uuid4().hex}")
    settings = Settings(
        redis_url=SecretStr(redis_server.url),
        root=f"{where}/mill",
        s3_endpoint_url=s3_server.endpoint_url,
        s3_region=s3_server.region,
        s3_access_key=SecretStr(s3_server.access_key),
        s3_secret_key=SecretStr(s3_server.secret_key),
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
    )
    running = image.start(
        "worker",
        ROOT=settings.root,
        REDIS_URL_FILE=image.secret("redis_url", redis_server.url),
        S3_ACCESS_KEY_FILE=image.secret("s3_access_key", s3_server.access_key),
        S3_SECRET_KEY_FILE=image.secret("s3_secret_key", s3_server.secret_key),
        S3_ENDPOINT_URL=s3_server.endpoint_url,
        S3_REGION=s3_server.region,
        GRACE_SECONDS="20",
    )
    try:
        wait_until(image.is_healthy, running, image)
        tiny_bundle(tmp_path / "bundle")
        spec = {"bundle": str(tmp_path / "bundle"), "destination": f"{where}/out", "name": "tiny"}
        client = Client(settings)
        job = client.submit(spec | {"count": 300, "shard_size": 100, "batch": 32})
        wait_until(lambda: client.status(job.job).state == "committed", running, image)
        assert verify_dataset(job.url, s3=settings.s3).samples == 300
        assert (image.work / "cache").is_dir()
        image.runc("kill", image.name, "TERM")
        assert running.wait(timeout=60) == 0, image.log()
    finally:
        stop(running, image)
    assert "Traceback" not in image.log()


@NEEDS_RUNC
@pytest.mark.slow
def test_nothing_but_the_stated_places_can_be_written(image: Image) -> None:
    places = "/ /opt/venv /opt/packages /etc /home /run/secrets $HOME"
    attempt = f"for d in {places}; do touch $d/x 2>/dev/null && echo WRITTEN $d; done"
    shell = ("/bin/sh", "-c", f"{attempt}; touch /tmp/x /var/lib/latentmill/x && id -u")
    assert image.start(entrypoint=shell).wait(timeout=60) == 0, image.log()
    assert image.log().split() in (["10001"], ["1000680000"])
    assert (image.work / "x").exists()


def wait_until(condition: Callable[[], bool], running: subprocess.Popen[Any], image: Image) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert running.poll() is None, image.log()
        assert time.monotonic() < deadline, image.log()
        time.sleep(0.5)


def stop(running: subprocess.Popen[Any], image: Image) -> None:
    """End the container, whatever it does."""
    if running.poll() is None:
        image.runc("kill", image.name, "KILL")
        running.wait(timeout=30)
