"""S3 services that differ from AWS, over real sockets: what works by itself, what by a setting, what is named."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from generator.errors import (
    AccessDenied,
    AlreadyExists,
    BucketMissing,
    Changed,
    ClockSkewed,
    SettingsError,
    StoreUnavailable,
)
from generator.store import S3Settings, Store, open_store
from generator.store.s3_objects import S3Objects
from generator.testing import StoreContract
from tests.support.fake_s3 import HOST, Dialect, FakeS3, fake_s3

OPERATIONS_PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def tls_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
def wildcard_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every host below ``HOST`` is this machine, as a wildcard in the domain name service would have it."""
    look_up = socket.getaddrinfo

    def found(host: Any, *rest: Any, **named: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith(HOST) else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", found)


def assert_serves(store: Store) -> None:
    """Everything that a build does with a store, with the answers that the contract promises."""
    etag = store.create("shards/a", b"first")
    with pytest.raises(AlreadyExists):
        store.create("shards/a", b"other")
    info = store.head("shards/a")
    assert info is not None
    assert [info.etag] == [listed.etag for listed in store.list()] == [etag]
    replaced = store.replace("shards/a", b"second", etag)
    with pytest.raises(Changed):
        store.replace("shards/a", b"third", etag)
    assert store.replace("shards/a", b"third", replaced) != replaced
    assert (store.get("shards/a"), store.read("shards/a", 1, 2)) == (b"third", b"hi")
    store.put("b", b"x")
    assert list(store.children()) == ["shards"]
    store.check_writable()
    store.delete("b")
    store.delete("shards/a")
    assert (store.head("b"), list(store.list())) == (None, [])


def assert_server_serves(server: FakeS3, bucket: str = "bucket", **settings: object) -> None:
    server.buckets.setdefault(bucket, {})
    assert_serves(open_store(f"s3://{bucket}/prefix", server.settings(**settings)))


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_the_usual_service(over_tls: bool, tls_home: Path) -> None:
    with fake_s3(home=tls_home if over_tls else None) as server:
        assert_server_serves(server)
    assert set(server.refused) == {"PreconditionFailed", "NoSuchKey"}


def test_if_match_that_wants_a_bare_etag() -> None:
    with fake_s3(Dialect(if_match="bare")) as server:
        assert_server_serves(server, if_match="bare")
        plain = open_store("s3://bucket", server.settings())
        with pytest.raises(StoreUnavailable, match="LATENTMILL_S3_IF_MATCH") as named:
            plain.check_writable()
        assert "bare" in named.value.hint
        with pytest.raises(Changed):
            plain.replace("a", b"y", plain.put("a", b"x"))
        objects = S3Objects("bucket", server.settings(if_match="bare"))
        (info,) = objects.list("a")
        assert objects.read("a", 0, 1, info.etag) == b"x"


def test_if_match_that_wants_a_quoted_etag() -> None:
    with fake_s3(Dialect(if_match="quoted")) as server:
        assert_server_serves(server)
        with pytest.raises(StoreUnavailable, match="to quoted"):
            open_store("s3://bucket", server.settings(if_match="bare")).check_writable()


@pytest.mark.parametrize("etags", ["bare", "weak"])
@pytest.mark.parametrize("if_match", ["bare", "quoted"])
def test_etags_without_quotes(etags: str, if_match: str) -> None:
    with fake_s3(Dialect(etags=etags, if_match=if_match)) as server:
        assert_server_serves(server, if_match=if_match)


@pytest.mark.parametrize("conditions", ["unknown", "unknown if-match", "ignored"])
def test_conditional_writes_that_are_not_known(conditions: str) -> None:
    with fake_s3(Dialect(conditions=conditions)) as server:
        store = open_store("s3://bucket", server.settings())
        with pytest.raises(StoreUnavailable, match="needs conditional writes"):
            store.check_writable()
        assert server.buckets["bucket"] == {}
        etag = store.put("a", b"x")
        if conditions != "ignored":
            with pytest.raises(StoreUnavailable, match=r"HTTP 501 .* needs conditional writes"):
                store.replace("a", b"y", etag)
            assert store.get("a") == b"x"
        if conditions == "unknown":
            with pytest.raises(StoreUnavailable, match="HTTP 501"):
                store.create("b", b"x")


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("refused", ["refused", "no trailers"])
def test_checksums_that_are_refused(refused: str, over_tls: bool, tls_home: Path) -> None:
    with fake_s3(Dialect(checksums=refused), tls_home if over_tls else None) as server:
        for setting in ("md5", "when_required"):
            assert_server_serves(server, checksums=setting)
        if over_tls or refused == "refused":
            with pytest.raises(StoreUnavailable, match=r"HTTP 400 .*latentmill doctor"):
                open_store("s3://bucket", server.settings()).put("a", b"x")


def test_md5_is_compared_by_the_service(tls_home: Path) -> None:
    with fake_s3(home=tls_home) as server:
        for setting in ("md5", "when_supported"):
            store = open_store("s3://bucket", server.settings(checksums=setting))
            assert store.rejects_bad_checksum()  # type: ignore[attr-defined]
        assert server.refused["BadDigest"] == 2
        open_store("s3://bucket", server.settings(checksums="md5")).put("a", b"x")
        assert server.headers_seen[-1]["content-md5"] == "ndTkYSaMgDT1yFZOFVxnpg=="


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_is_off(minutes: int) -> None:
    with fake_s3(Dialect(skew=timedelta(minutes=minutes))) as server:
        store = open_store("s3://bucket", server.settings())
        calls: list[Callable[[], object]] = [
            lambda: store.create("a", b"x"),
            lambda: store.head("a"),
            lambda: list(store.list()),
        ]
        for call in calls:
            with pytest.raises(ClockSkewed, match="NTP") as skewed:
                call()
            seconds = re.search(r"ours is ([+-]\d+) s", skewed.value.got)
            assert seconds is not None
            assert abs(int(seconds[1]) + 60 * minutes) < 30


@pytest.mark.parametrize("encryption", ["aws:kms", "aws:kms:dsse", "AES256"])
def test_a_bucket_that_demands_encryption(encryption: str) -> None:
    with fake_s3(Dialect(encryption=encryption)) as server:
        key = {"kms_key": "alias/mill"} if "kms" in encryption else {}
        assert_server_serves(server, encryption=encryption, **key)
        named = {headers.get("x-amz-server-side-encryption-aws-kms-key-id") for headers in server.headers_seen}
        assert named == {key.get("kms_key")}
        with pytest.raises(AccessDenied, match="explicit deny"):
            open_store("s3://bucket", server.settings()).put("a", b"x")


def test_a_key_of_kms_without_its_encryption_is_refused() -> None:
    for encryption in (None, "AES256"):
        with pytest.raises(SettingsError, match=r"s3\.kms_key"):
            S3Settings(kms_key="alias/mill", encryption=encryption)  # type: ignore[arg-type]


@pytest.mark.parametrize("checksums", ["when_supported", "md5"])
def test_a_bucket_with_object_lock(checksums: str) -> None:
    """A write needs a checksum, and a deletion leaves a version behind a marker."""
    with fake_s3(Dialect(object_lock=True)) as server:
        assert_server_serves(server, checksums=checksums)
        assert ("bucket", "prefix/b") in server.markers
        store = open_store("s3://bucket", server.settings(checksums=checksums))
        assert store.keeps_versions()  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailable, match="required with Object Lock"):
            open_store("s3://bucket", server.settings(checksums="when_required")).put("a", b"x")
    with fake_s3() as plain:
        assert not open_store("s3://bucket", plain.settings()).keeps_versions()  # type: ignore[attr-defined]


@pytest.mark.parametrize("style", ["auto", "virtual"])
@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_bucket_names_with_dots(style: str, over_tls: bool, tls_home: Path, wildcard_names: None) -> None:
    """A certificate for ``*.s3.test`` is none for ``a.b.s3.test``: over TLS such a bucket stands in the path."""
    with fake_s3(home=tls_home if over_tls else None) as server:
        assert_server_serves(server, "with.some.dots", endpoint_url=server.virtual_url, addressing_style=style)


@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
def test_one_style_of_addresses(style: str, over_tls: bool, tls_home: Path, wildcard_names: None) -> None:
    with fake_s3(Dialect(styles=(style,)), tls_home if over_tls else None) as server:
        assert_server_serves(server, endpoint_url=server.virtual_url, addressing_style=style)
        other = {"path": "virtual", "virtual": "path"}[style]
        wrong = open_store("s3://bucket", server.settings(endpoint_url=server.virtual_url, addressing_style=other))
        with pytest.raises(AccessDenied, match="SecondLevelDomainForbidden"):
            wrong.put("a", b"x")


def test_a_private_authority(tls_home: Path, tmp_path: Path) -> None:
    with fake_s3(home=tls_home) as server:
        assert_server_serves(server, ca_file=tls_home / "ca.pem")
        with pytest.raises(StoreUnavailable, match="LATENTMILL_S3_CA_FILE"):
            open_store("s3://bucket", server.settings(ca_file=None)).put("a", b"x")
    (tmp_path / "not.pem").write_text("no certificate")
    for path, said in ((tmp_path / "missing.pem", "can be read"), (tmp_path / "not.pem", "PEM file")):
        with pytest.raises(SettingsError, match=rf"s3\.ca_file.*{said}"):
            open_store("s3://bucket", S3Settings(endpoint_url="https://127.0.0.1:9", ca_file=path)).put("a", b"x")


def test_a_missing_bucket_is_named_in_every_dialect() -> None:
    for dialect in (Dialect(), Dialect(etags="bare", if_match="bare", object_lock=True)):
        with fake_s3(dialect) as server:
            for call in ("create", "put"):
                with pytest.raises(BucketMissing):
                    getattr(open_store("s3://other", server.settings()), call)("a", b"x")


@pytest.fixture(scope="module")
def odd_service(tls_home: Path) -> Iterator[FakeS3]:
    dialect = Dialect("bare", "bare", checksums="refused", encryption="aws:kms", object_lock=True, styles=("path",))
    with fake_s3(dialect, tls_home) as server:
        yield server


@pytest.mark.server
class TestOddService(StoreContract):
    """The whole contract on a service that differs in everything at once."""

    page = 100

    @pytest.fixture
    def store(self, odd_service: FakeS3) -> Store:
        odd_service.buckets["bucket"].clear()
        odd_service.uploads.clear()
        self._settings = odd_service.settings(if_match="bare", checksums="md5", encryption="aws:kms")
        return open_store("s3://bucket/some/prefix", self._settings)

    def open(self, url: str) -> Store:
        return open_store(url, self._settings)


def test_every_row_of_the_table_of_dialects_names_its_test() -> None:
    table = OPERATIONS_PAGE.read_text().partition("### Dialects of S3")[2].partition("\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    folders = [Path(__file__).parent, *(Path(__file__).parents[2] / "workers" / name for name in ("doctor", "worker"))]
    files = [path for folder in folders for path in folder.glob("test_*.py")]
    existing = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in files)))
    assert len(rows) >= 14
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row
        assert set(named) <= existing, row
