"""Objects in S3 say what they are, so that a browser shows the page of a build and does not offer it as a file."""

from __future__ import annotations

import urllib3
from boto3.session import Session

from generator.store import S3Settings, open_store
from generator.store.media_types import content_type
from tests.support.servers import S3Server


def test_types_by_the_ending_of_the_key() -> None:
    assert content_type("builds/a/index.html") == "text/html; charset=utf-8"
    assert content_type("manifest.json") == "application/json"
    assert content_type("preview.jpg") == "image/jpeg"
    assert content_type("shards/a-000000.tar") == content_type("html") == "binary/octet-stream"


def test_every_way_to_write_states_it(bucket: str, s3_settings: S3Settings, s3_server: S3Server) -> None:
    store = open_store(f"{bucket}/p", s3_settings)
    etag = store.create("index.html", b"<p>1")
    store.replace("index.html", b"<p>2", etag)
    store.put("other.html", b"<p>3")
    store.create("third.html", b"<p>4")
    client = Session(s3_server.access_key, s3_server.secret_key, region_name=s3_server.region).client(
        "s3", endpoint_url=s3_server.endpoint_url
    )
    for key in ("index.html", "other.html", "third.html"):
        address = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket.removeprefix("s3://"), "Key": f"p/{key}"}
        )
        answer = urllib3.PoolManager().request("GET", address)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
