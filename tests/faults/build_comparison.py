"""Compares a build with an undisturbed reference build: every object byte-identical, and no others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from boto3.session import Session

from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.production.provenance.manifest import ENVIRONMENT_KEY, MANIFEST_KEY, RECIPE_KEY, Manifest, receipt_key
from generator.spec.canonical import digest_of
from generator.store import S3Settings, Store, open_store

_OUTSIDE_THE_COMMIT = re.compile(r"(runs|reports)/[^/]+")


@dataclass(frozen=True)
class ReferenceBuild:
    """The same recipe, built in one process without faults: its manifest and its store."""

    manifest: Manifest
    store: Store

    @cached_property
    def objects(self) -> dict[str, str]:
        """The digest of every object of the commit by its key, relative to the build."""
        keys = [RECIPE_KEY, ENVIRONMENT_KEY, MANIFEST_KEY, *(file.key for file in self.manifest.extras)]
        for receipt in self.manifest.shards:
            keys += [receipt.shard.key, receipt.table.key, receipt_key(receipt.number)]
        keys += [segment.key for segment in self.manifest.segments]
        return {key: digest_of(self.store.get(key)) for key in keys}


def build_reference(fields: dict[str, Any], destination: str) -> ReferenceBuild:
    """Build the job ``fields`` in this process, at ``destination``."""
    spec, bundle = resolve_draft(parse_draft(fields | {"destination": destination}))
    location = locate_build(spec)
    return ReferenceBuild(build(location, load_bundle(bundle, spec.recipe.bundle), device="cpu"), location.store)


@dataclass(frozen=True)
class BuildComparison:
    """How many objects equal those of the reference build, of how many, and a text for each problem."""

    equal: int
    expected: int
    problems: tuple[str, ...]


def compare_build(url: str, s3: S3Settings, expected: ReferenceBuild) -> BuildComparison:
    """Compare the build at ``url``, read without a proxy, with the reference build, object by object."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    stored = {key.removeprefix(f"{prefix}/"): key for key in raw_keys(bucket, s3, f"{prefix}/")}
    store, problems, equal = open_store(url, s3), list[str](), 0
    for key, digest in expected.objects.items():
        if key not in stored:
            problems.append(f"missing: {key}")
        elif digest_of(store.get(key)) != digest:
            problems.append(f"different: {key}")
        else:
            equal += 1
    extra = [key for key in stored if key not in expected.objects and not _OUTSIDE_THE_COMMIT.fullmatch(key)]
    problems += [f"outside the plan: {key}" for key in extra]
    return BuildComparison(equal, len(expected.objects), tuple(problems))


def stray_keys(bucket: str, s3: S3Settings, url: str) -> list[str]:
    """The keys in the bucket outside the build at ``url``, except for those that a pool has itself."""
    name = bucket.removeprefix("s3://")
    build = url.removeprefix(f"s3://{name}/")
    published = f"{build.partition('/builds/')[0]}/published/"
    expected = (f"{build}/", published, "mill/bundles/", "mill/open/", "mill/pool.json")
    return [key for key in raw_keys(name, s3) if not key.startswith(expected)]


def raw_keys(bucket: str, s3: S3Settings, prefix: str = "") -> list[str]:
    """All keys of a bucket, including those that a ``Store`` does not list, and unfinished uploads."""
    client = _client(s3)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", ())
    return keys + [f"{upload['Key']} (an upload that was not finished)" for upload in uploads]


def _client(s3: S3Settings):  # type: ignore[no-untyped-def]
    assert s3.access_key is not None
    assert s3.secret_key is not None
    session = Session(s3.access_key.get_secret_value(), s3.secret_key.get_secret_value(), region_name=s3.region)
    return session.client("s3", endpoint_url=s3.endpoint_url)


def job_fields(bundle: Path, bucket: str, *, shards: int, samples: int = 10, **more: Any) -> dict[str, Any]:
    """The fields of a job with this many small shards; ``more`` override them."""
    return {
        "bundle": str(bundle),
        "destination": f"{bucket}/datasets",
        "name": "tiny",
        "count": shards * samples,
        "shard_size": samples,
        "batch": 16,
    } | more
