"""One contract for both clients: over Redis and the store, and over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generator.datasets.torch_dataset import open_dataset
from generator.drafts import parse_draft
from generator.errors import BundleMissing, DatasetError, JobFailed, SpecError, WorkerUnavailable
from generator.models.bundle import push
from generator.models.bundle.channels import move_channel
from generator.store import open_store
from tests.support.bundles import mapped_bundle, tiny_bundle
from tests.support.http_server import running_server
from tests.support.servers import RedisServer
from tests.support.services import ManualService
from workers.client import Client


@dataclass
class Side:
    """A client, the service behind it, and how specs name destinations to it."""

    kind: str
    client: Client
    service: ManualService
    destination: str

    def spec(self, name: str = "tiny", **fields: Any) -> dict[str, Any]:
        return self.service.spec(name, destination=self.destination, **fields)

    def stored(self, url: str) -> str:
        """Where on this machine the build of a status is."""
        return url if self.kind == "pool" else str(self.service.home / url)


@pytest.fixture(params=["pool", "http"])
def side(request: pytest.FixtureRequest, server: RedisServer, bundle: Path, tmp_path: Path) -> Iterator[Side]:
    service = ManualService(server, bundle, tmp_path)
    if request.param == "pool":
        yield Side("pool", service.client, service, str(tmp_path / "out"))
        return
    settings = service.settings.model_copy(update={"destinations": str(tmp_path / "out")})
    with running_server(settings) as web:
        yield Side("http", Client(web.url, token=web.token()), service, "out")


def test_a_job_is_submitted_followed_and_committed(side: Side) -> None:
    status = side.client.submit(side.spec())
    assert (status.state, status.shards, status.samples, status.tenant) == ("queued", 2, 60, "default")
    assert side.client.submit(side.spec()) == side.client.status(status.job)
    with side.service.answering():
        states = [each.state for each in side.client.watch(status.job, every=0.01)]
    assert states[-1] == "committed"
    done = side.client.wait(status.job)
    assert len(open_dataset(side.stored(done.url))) == 60
    pace = side.client.pace(status.job)
    assert pace is not None
    assert pace.shards == 2
    assert side.client.submit(side.spec()).state == "committed"


def test_jobs_are_listed_the_newest_first(side: Side) -> None:
    jobs = [side.client.submit(side.spec(f"tiny-{number}")).job for number in range(3)]
    assert [status.job for status in side.client.jobs()] == jobs[::-1]
    assert side.client.jobs(tenant="other") == []


def test_bundles_are_listed_the_newest_first(side: Side, tmp_path: Path) -> None:
    root = open_store(side.service.settings.root)
    assert side.client.bundles() == []
    first = push(open_store(str(side.service.bundle)), root)
    time.sleep(0.01)
    second = push(open_store(str(tiny_bundle(tmp_path / "second", seed=9, classes=()))), root)
    move_channel(root, "digits", first, by="a test")
    newest, oldest = side.client.bundles()
    assert (newest.bundle, newest.classes, newest.channels) == (second, 0, ())
    assert (oldest.bundle, oldest.classes, oldest.channels) == (first, 3, ("digits",))
    assert (oldest.source, oldest.family, oldest.sampler, oldest.images) == ("tiny", "vae", "mixture", 30)
    assert oldest.created < newest.created


def test_a_job_is_paused_resumed_and_cancelled(side: Side) -> None:
    job = side.client.submit(side.spec()).job
    assert side.client.pause(job).state == "paused"
    assert side.client.resume(job).state == "queued"
    assert side.client.cancel(job).state == "cancelled"
    with pytest.raises(JobFailed, match="cancelled"):
        side.client.wait(job)
    assert side.client.resume(job).state == "queued"


def test_a_build_that_redis_and_root_have_lost_is_resumed_by_its_url(side: Side) -> None:
    status = side.client.submit(side.spec())
    side.service.redis.flushall()
    open_store(side.service.settings.root).delete(f"open/{status.job}.json")
    again = side.client.resume(status.url)
    assert (again.job, again.state, again.url) == (status.job, "queued", status.url)


def test_drafts_files_and_job_specs_are_submitted(side: Side, tmp_path: Path) -> None:
    first = side.client.submit(parse_draft(side.spec()))
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join(f"{name}: {value}" for name, value in side.spec().items()))
    assert side.client.submit(path).job == first.job
    resolved, _ = side.service.client._service.resolve(side.service.spec())  # type: ignore[attr-defined]
    if side.kind == "http":
        order = resolved.order.model_copy(update={"destination": side.destination, "tenant": "somebody-else"})
        resolved = resolved.model_copy(update={"order": order})
    assert side.client.submit(resolved).job == first.job


def test_unknown_jobs_and_wrong_specs_are_refused_with_their_fields(side: Side) -> None:
    for call in (side.client.status, side.client.pause, side.client.cancel, side.client.resume, side.client.pace):
        with pytest.raises(SpecError) as unknown:
            call("no-such-job-000000000000")
        assert unknown.value.field == "job"
    wrong: dict[str, dict[str, Any]] = {
        "count": {"count": 0},
        "shard_size": {"shard_size": "many"},
        "colour": {"colour": "red"},
        "name": {"name": "../x"},
        "draw.code": {"draw": {"mode": "around", "code": [1.0], "distance": 0.1}},
    }
    for field, fields in wrong.items():
        with pytest.raises(SpecError) as refused:
            side.client.submit(side.spec(**fields))
        assert field in refused.value.field
        assert refused.value.expected
        assert refused.value.got
    with pytest.raises(BundleMissing):
        side.client.submit(side.spec(bundle="sha256:" + "0" * 64))


def test_a_preview_shows_the_images_that_the_dataset_gets_and_stores_nothing(side: Side) -> None:
    before = {info.key for info in open_store(str(side.service.home)).list() if not info.key.startswith("root/keys")}
    with side.service.answering():
        made = side.client.preview(side.spec(), count=8)
    stored = {info.key for info in open_store(str(side.service.home)).list() if not info.key.startswith("root/")}
    assert {key for key in stored - before if key.startswith("out")} == set()
    assert [image.index for image in made.images] == list(range(8))
    assert made.classes == ("cat", "dog", "owl")
    status = side.client.submit(side.spec())
    with side.service.answering():
        done = side.client.wait(status.job, every=0.01)
    dataset = open_dataset(side.stored(done.url), map_style=True)
    store = open_store(side.stored(done.url))
    from generator.datasets.archive_reader import ArchiveReader
    from generator.datasets.builds import read_manifest

    reader = ArchiveReader(store, read_manifest(store), "png", None)
    assert [image.data for image in made.images] == [reader.sample(0, row)[1]["png"] for row in range(8)]
    assert [image.label for image in made.images] == [dataset[row].label for row in range(8)]
    sheet = made.sheet()
    assert sheet.startswith(b"\xff\xd8")


def test_a_preview_without_a_worker_is_refused(side: Side) -> None:
    with pytest.raises(WorkerUnavailable, match="worker"):
        side.client.preview(side.spec(), count=4)


@pytest.mark.parametrize("count", [0, 257])
def test_a_preview_has_1_to_256_images(side: Side, count: int) -> None:
    with pytest.raises(SpecError, match="count"):
        side.client.preview(side.spec(), count=count)


def test_a_clone_has_the_changes_and_nothing_else(side: Side) -> None:
    first = side.client.submit(side.spec(seed=5))
    clone = side.client.clone(first.job, seed=6, name="other", count=90, priority=3)
    assert (clone.name, clone.samples, clone.priority, clone.state) == ("other", 90, 3, "queued")
    assert side.client.clone(first.job).job == first.job
    by_class = side.client.clone(first.job, counts={"cat": 3, "owl": 4})
    assert by_class.samples == 7
    with pytest.raises(SpecError, match="colour"):
        side.client.clone(first.job, colour="red")
    with pytest.raises(SpecError, match=r"counts\.mouse"):
        side.client.clone(first.job, counts={"mouse": 3})
    with pytest.raises(SpecError, match="seed"):
        side.client.clone(first.job, seed=-1)


def test_images_that_a_draw_names_are_files_of_the_clients_machine(side: Side, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    draw = {"mode": "around", "image": str(path), "distance": 0.2}
    with side.service.answering():
        status = side.client.submit(side.spec(count=None, counts={"cat": 6}, draw=draw))
    reference, _ = side.service.client._service.resolve(  # type: ignore[attr-defined]
        side.service.spec(count=None, counts={"cat": 6}, draw=draw)
    )
    assert status.job == reference.job_id


def test_draws_around_a_code_need_no_torch_here_even_with_a_map(side: Side, tmp_path: Path) -> None:
    mapped = mapped_bundle(tmp_path / "mapped")
    fields = {
        "bundle": str(mapped),
        "count": None,
        "counts": {"cat": 2},
        "draw": {"mode": "around", "reference": 0, "distance": 0.3},
    }
    with side.service.answering():
        status = side.client.submit(side.spec(**fields))
    reference, _ = side.service.client._service.resolve(side.service.spec(**fields))  # type: ignore[attr-defined]
    assert status.job == reference.job_id


def test_a_bundle_of_this_machine_is_sent_once(side: Side, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", seed=7)
    status = side.client.submit(side.spec(bundle=str(other)))
    root = open_store(side.service.settings.root)
    stored = {info.key: info.modified for info in root.list("bundles/")}
    assert side.client.submit(side.spec(bundle=str(other))).job == status.job
    assert {info.key: info.modified for info in root.list("bundles/")} == stored


def test_a_build_that_does_not_exist_is_not_resumed(side: Side) -> None:
    with pytest.raises(DatasetError):
        side.client.resume(f"{side.destination}/tiny/builds/{'0' * 20}")
