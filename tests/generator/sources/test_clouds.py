"""Sources in the stores of Google and Azure: the same pictures as from a folder, awkward keys, versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.errors import BucketMissing, ObjectMissing, SourceError
from generator.sources import load_source
from generator.sources.files.object_store import list_objects
from generator.store.cloud_client import client_of
from tests.support import source_forms as forms
from tests.support.fake_gcs import FakeGcs

pytestmark = pytest.mark.server

PICTURES = forms.drawn()
# Names with dots, spaces and signs; a folder that begins like another.
AWKWARD = {f"my pets/{each.label} ä+%20/{each.name}": each.data for each in PICTURES} | {
    "my pets/.hidden/x.png": b"x",
    "my pets/__MACOSX/cat/x.png": b"x",
    "my pets of others/z.png": PICTURES[0].data,
}


def put_all(bucket: str, files: dict[str, bytes]) -> None:
    scheme, _, name = bucket.partition("://")
    client = client_of("gs" if scheme == "gs" else "az", name)
    for key, data in files.items():
        client.put(key, data)


@pytest.fixture(params=["gs", "az"])
def cloud_bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "gs":
        server: FakeGcs = request.getfixturevalue("google")
        server.page = 5  # several pages a list
        yield "gs://bucket"
    else:
        yield request.getfixturevalue("container")


def test_the_forms_of_a_source(cloud_bucket: str, tmp_path: Path) -> None:
    forms.as_folder(tmp_path / "pets", PICTURES)
    forms.as_tars(tmp_path / "shards", PICTURES)
    forms.as_parquet(tmp_path / "table" / "data" / "train-0.parquet", PICTURES, "labels")
    forms.as_zip(tmp_path / "pets.zip", PICTURES)
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    put_all(cloud_bucket, {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files})
    expected = load_source(str(tmp_path / "pets"), size=16)
    for place in ("pets", "pets/", "shards", "shards/*.tar", "table", "table/**/*.parquet", "pets.zip"):
        found = load_source(f"{cloud_bucket}/{place}", size=16)
        assert found.images_NHWC.tobytes() == expected.images_NHWC.tobytes(), place
        assert found.class_counts() == expected.class_counts(), place


def test_awkward_keys(cloud_bucket: str) -> None:
    put_all(cloud_bucket, AWKWARD)
    source = load_source(f"{cloud_bucket}/my pets", size=16)
    assert source.class_counts() == {"cat ä+%20": 4, "dog ä+%20": 4, "fox ä+%20": 4}
    assert dict(source.facts.passed_over) == {"hidden files": 1, "system files": 1}
    assert len(load_source(f"{cloud_bucket}/my pets/[cd]*/00[01].png", size=16)) == 4


def test_places_that_are_none(cloud_bucket: str) -> None:
    with pytest.raises(SourceError, match="objects below this prefix"):
        load_source(f"{cloud_bucket}/nothing", size=16)
    with pytest.raises(BucketMissing):
        load_source(f"{cloud_bucket}-that-nobody-has/x", size=16)
    with pytest.raises(SourceError, match="of 3 to 63"):
        load_source("az://x", size=16)


def test_an_object_that_changes_while_it_is_read(cloud_bucket: str) -> None:
    put_all(cloud_bucket, {"a/0.png": PICTURES[0].data})
    found = list_objects(f"{cloud_bucket}/a", None)
    assert found.files[0].content.read() == PICTURES[0].data
    put_all(cloud_bucket, {"a/0.png": PICTURES[1].data})
    with pytest.raises(ObjectMissing, match="as it was listed"):
        found.files[0].content.read()
