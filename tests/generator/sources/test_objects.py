"""Sources in object stores: awkward keys, objects that change, prefixes that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator.errors import BucketMissing, ObjectMissing, SourceError
from generator.sources import PixelCache, Source, load_source, source_kind
from generator.sources.files.object_store import list_objects
from generator.store.s3_client import client_of
from generator.store.s3_settings import S3Settings
from tests.support import source_forms as forms

PICTURES = forms.drawn()


def put(bucket: str, settings: S3Settings, key: str, data: bytes) -> None:
    client_of(settings).put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=data)


def load(location: str, settings: S3Settings, **options: object) -> Source:
    return load_source(location, **{"size": 16, "s3": settings, **options})  # type: ignore[arg-type]


def test_awkward_keys(bucket: str, s3_settings: S3Settings) -> None:
    for picture in PICTURES:
        put(bucket, s3_settings, f"my pets/{picture.label} ä+%20/{picture.name}", picture.data)
    put(bucket, s3_settings, "my pets/", b"")
    put(bucket, s3_settings, "my pets/.hidden/x.png", b"x")
    put(bucket, s3_settings, "my pets/__MACOSX/cat/x.png", b"x")
    put(bucket, s3_settings, "my pets of others/z.png", PICTURES[0].data)
    for location in (f"{bucket}/my pets", f"{bucket}/my pets/"):
        source = load(location, s3_settings)
        assert source.class_counts() == {"cat ä+%20": 4, "dog ä+%20": 4, "fox ä+%20": 4}
        assert dict(source.facts.passed_over) == {"hidden files": 1, "system files": 1}
    assert source.name == "my pets"
    assert len(load(f"{bucket}/my pets/**/*.png", s3_settings)) == 12
    assert len(load(f"{bucket}/my pets/[cd]*/00[01].png", s3_settings)) == 4


def test_places_that_are_none(bucket: str, s3_settings: S3Settings) -> None:
    with pytest.raises(SourceError, match="objects below this prefix"):
        load(f"{bucket}/nothing", s3_settings)
    with pytest.raises(BucketMissing):
        load("s3://bucket-that-nobody-has/x", s3_settings)
    with pytest.raises(SourceError, match="a bucket of 3 to 63"):
        load("s3://x", s3_settings)
    put(bucket, s3_settings, "notes.txt", b"text")
    with pytest.raises(SourceError, match="another kind"):
        source_kind(f"{bucket}/notes.txt", s3=s3_settings)


def test_an_object_that_changes_while_it_is_read(bucket: str, s3_settings: S3Settings) -> None:
    put(bucket, s3_settings, "a/0.png", PICTURES[0].data)
    found = list_objects(f"{bucket}/a", s3_settings)
    put(bucket, s3_settings, "a/0.png", PICTURES[1].data)
    with pytest.raises(ObjectMissing, match="as it was listed"):
        found.files[0].content.read()


def test_the_cache_knows_versions(bucket: str, s3_settings: S3Settings, tmp_path: Path) -> None:
    kept = PixelCache(tmp_path / "cache", 2**20)
    for number in range(3):
        put(bucket, s3_settings, f"{number}.png", PICTURES[number].data)
    first = load(bucket, s3_settings, cache=kept)
    put(bucket, s3_settings, "1.png", PICTURES[7].data)
    assert load(bucket, s3_settings, cache=kept).fingerprint != first.fingerprint
    put(bucket, s3_settings, "1.png", PICTURES[1].data)
    assert load(bucket, s3_settings, cache=kept).fingerprint == first.fingerprint


def test_a_broken_image_is_named_by_its_key(bucket: str, s3_settings: S3Settings) -> None:
    for picture in PICTURES:
        put(bucket, s3_settings, f"pets/{picture.label}/{picture.name}", picture.data)
    put(bucket, s3_settings, "pets/dog/bad.png", b"text")
    with pytest.raises(SourceError) as refused:
        load(f"{bucket}/pets", s3_settings)
    assert refused.value.field == "pets/dog/bad.png"
    assert [each.file for each in load(f"{bucket}/pets", s3_settings, skip_bad=True).skipped] == ["pets/dog/bad.png"]
