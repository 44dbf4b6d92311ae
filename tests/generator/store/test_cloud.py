"""The stores of Google Cloud Storage and Azure Blob Storage: the contract, and what their services say."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from generator.datasets.exports.export import export_build
from generator.datasets.promotion import promote, read_latest
from generator.datasets.torch_dataset import open_dataset
from generator.datasets.verification import verify_dataset
from generator.errors import (
    AccessDenied,
    LatentmillError,
    SettingsError,
    SpecError,
    StoreUnavailable,
)
from generator.store import Store, cloud_client, open_store
from generator.testing import StoreContract, check_states
from tests.support.fake_gcs import FakeGcs, fake_gcs
from tests.support.missing_bucket import assert_named_by_every_operation
from tests.support.small_builds import SmallBuild

pytestmark = pytest.mark.server


class TestGoogle(StoreContract):
    page = 100

    @pytest.fixture
    def store(self, google: FakeGcs) -> Store:
        google.page = 7
        return open_store("gs://bucket/some/prefix")

    def test_random_operations_with_interrupted_writers(self, store: Store) -> None:
        assert check_states(store, examples=3)["steps"] > 20


class TestAzure(StoreContract):
    page = 100

    @pytest.fixture
    def store(self, container: str) -> Store:
        return open_store(f"{container}/some/prefix")

    def test_random_operations_with_interrupted_writers(self, store: Store) -> None:
        assert check_states(store, examples=3)["steps"] > 20

    def test_a_missing_container_is_named_by_every_operation(self, container: str) -> None:
        del container
        assert_named_by_every_operation(open_store("az://not-made-yet/some/prefix"))

    def test_a_wrong_key_is_refused(self, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "AAAA")
        cloud_client.forget_clients()
        store = open_store(container)
        for operation in (lambda: store.get("a"), lambda: store.put("a", b""), store.check_writable):
            with pytest.raises(AccessDenied, match="AZURE_STORAGE_ACCOUNT_NAME"):
                operation()


def test_a_missing_bucket_is_named_by_every_operation(google: FakeGcs) -> None:
    assert_named_by_every_operation(open_store("gs://not-made-yet/some/prefix"))


def test_a_service_that_ignores_conditions_is_refused(google: FakeGcs) -> None:
    google.honours_conditions = False
    with pytest.raises(StoreUnavailable, match="conditions of creations"):
        open_store("gs://bucket/x").check_writable()
    assert google.buckets["bucket"] == {}


def test_a_service_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gcs() as server:
        endpoint = server.endpoint_url
    monkeypatch.setattr(cloud_client, "RETRIES", 0)
    account = {"gcs_base_url": endpoint, "disable_oauth": True}
    key = account | dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    cloud_client.forget_clients()
    with pytest.raises(StoreUnavailable, match="gs://bucket/a: expected an answer"):
        open_store("gs://bucket").get("a")
    cloud_client.forget_clients()


def test_variables_that_are_no_key_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", "{not json")
    cloud_client.forget_clients()
    with pytest.raises(StoreUnavailable, match="GOOGLE_APPLICATION_CREDENTIALS"):
        open_store("gs://bucket").get("a")
    cloud_client.forget_clients()


def test_pages_are_shown_as_pages(google: FakeGcs) -> None:
    store = open_store("gs://bucket")
    store.put("a/index.html", b"<p>")
    store.put("a/0.tar", b"")
    kinds = {key: held.kind for key, held in google.buckets["bucket"].items()}
    assert kinds == {"a/index.html": "text/html; charset=utf-8", "a/0.tar": "binary/octet-stream"}


def test_a_forked_child_is_refused_where_it_would_wait_for_ever(google: FakeGcs) -> None:
    store = open_store("gs://bucket")
    store.put("a", b"1")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            store.get("a")
        except SettingsError as refused:
            os.write(writing, refused.field.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"multiprocessing_context"
    os.close(reading)
    os.close(writing)


def test_a_build_is_made_verified_promoted_read_and_exported_there(google: FakeGcs) -> None:
    google.page = 5
    build = SmallBuild(counts=(7, 6), shard_size=5)
    build.commit("gs://bucket/sets")
    url = "gs://bucket/sets/small"
    dataset = open_store(url)
    (build_id,) = dataset.children("builds/")
    for _ in range(2):  # the second one finds the first
        promote(dataset, build_id, logical_date=None, by="test")
    latest = read_latest(dataset)
    assert latest is not None
    assert latest.build == build_id
    assert verify_dataset(url, deep=True).ok
    samples = list(open_dataset(url))
    mapped = open_dataset(url, map_style=True)
    assert [sample.provenance["index"] for sample in samples] == list(range(13))
    np.testing.assert_array_equal(mapped[12].image, build.pixels(12))
    assert export_build(url, "mds", "gs://bucket/exports/small").samples == 13
    with pytest.raises(SpecError, match="outside of the build"):
        export_build(url, "mds", f"{mapped.url}/export")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("gs://b", "gs:// and a bucket"),
        ("gs://bad bucket/x", "gs:// and a bucket"),
        ("az://Container", "az:// and a container"),
        ("az://a--b", "az:// and a container"),
        ("az://abc/.hidden", "plain segments"),
    ],
)
def test_urls_that_are_refused(url: str, expected: str) -> None:
    with pytest.raises(SpecError, match=expected) as refused:
        open_store(url)
    assert refused.value.field == "url"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    cloud_client.forget_clients()
    with pytest.raises(LatentmillError, match=r"latentmill\[clouds\]"):
        open_store("gs://bucket").get("a")
