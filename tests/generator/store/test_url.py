"""Store URLs, and the settings of S3 services."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from generator.errors import SettingsError, SpecError
from generator.store import S3Settings, absolute_url, open_store


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a/b=1/", "s3://my.bucket-1/a/b=1"),
        ("memory://name/a/", "memory://name/a"),
        ("file:///data/my%20images/", "file:///data/my%20images"),
        ("file:///data/my images", "file:///data/my%20images"),
        ("file://localhost/data", "file:///data"),
        ("/data/../data//x/.", "file:///data/x"),
        ("//data/x", "file:///data/x"),
        ("/data/50%25", "file:///data/50%2525"),
        ("./a:b", None),
    ],
)
def test_urls_have_one_canonical_form(url: str, canonical: str | None) -> None:
    expected = canonical or (Path.cwd() / "a:b").as_uri()
    assert absolute_url(url) == expected
    assert absolute_url(expected) == expected


def test_relative_paths_and_home_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_url("out/x") == (tmp_path / "out" / "x").as_uri()
    assert absolute_url(".") == tmp_path.as_uri()
    assert absolute_url("~/x") == (tmp_path / "home" / "x").as_uri()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "url",
    [
        "", "gcs://bucket", "http://host/x", "S3://bucket", "s3:/bucket", "s3:bucket", "s3://", "s3://ab", "s3:///key",
        "s3://bucket//x", "s3://bucket/../x", "s3://bucket/a b", "s3://bu_cket!/x", "file://host/x", "file:/x",
        "memory://", "memory://a b", "memory://x/../y", "a\0b", "~no-such-user-here/x", "s3://bucket/.hidden",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    for ask in (open_store, absolute_url):
        with pytest.raises(SpecError) as refused:
            ask(url)
        assert refused.value.field == "url"


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    for url in ("s3://key:hunter2@bucket/x", "https://user:hunter2@host/x", "https://h/x?X-Amz-Signature=hunter2"):
        with pytest.raises(SpecError) as refused:
            open_store(url)
        assert "hunter2" not in str(refused.value)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_directory_of_any_name_is_found_again(name: str) -> None:
    path = f"/root-of-tests/{name}/x"
    once = absolute_url(path)
    assert absolute_url(once) == once
    assert open_store(once).url == open_store(path).url == once


def test_a_directory_of_any_name_holds_objects(tmp_path: Path) -> None:
    for name in ("my images", "50% off", "é☃", "#1?", "a:b", "~tilde", "new\nline"):
        open_store(str(tmp_path / name)).create("a/b", name.encode())
        assert (tmp_path / name / "a" / "b").read_bytes() == name.encode()
        assert open_store(absolute_url(str(tmp_path / name))).get("a/b") == name.encode()


def test_settings_never_show_their_secrets() -> None:
    settings = S3Settings.model_validate({"access_key": "AK-1", "secret_key": "hunter2", "session_token": "hunter3"})
    store = open_store("s3://bucket/x", settings)
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(store), store.url):
        assert "hunter" not in text
        assert "AK-1" not in text


@pytest.mark.parametrize(
    "values",
    [
        {"access_key": "AK-1"},
        {"secret_key": "hunter2"},
        {"session_token": "hunter3"},
        {"endpoint_url": "minio:9000"},
        {"endpoint_url": "http://user:hunter2@minio:9000"},
        {"endpoint_url": "http://minio:99999"},
        {"endpoint_url": "ftp://minio"},
        {"connect_timeout": 0},
        {"max_attempts": 0},
        {"checksums": "sometimes"},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises((ValidationError, SettingsError)) as refused:
        S3Settings.model_validate(values)
    assert "hunter" not in "".join(traceback.format_exception(refused.value))


def test_opening_a_directory_imports_neither_boto3_nor_torch() -> None:
    code = (
        "import sys; from generator.store import open_store; open_store('memory://x'); open_store('x');"
        "print({'boto3', 'botocore', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
