"""``latentmill doctor`` on S3 services of other dialects: it names the setting with which they work."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.fake_s3 import HOST, Dialect, FakeS3, fake_s3
from workers.doctor import Finding, blocking_findings, examine
from workers.doctor.store import examine_store
from workers.settings import Settings


@dataclass(frozen=True)
class Case:
    """A dialect, the check that fails on it, what the mend says, and whether a worker may start all the same."""

    dialect: Dialect
    check: str
    mend: str
    over_tls: bool = False
    blocks: bool = False


CASES = {
    "bare etags in conditions": Case(
        Dialect(if_match="bare"), "store conditions", "LATENTMILL_S3_IF_MATCH=bare", blocks=True
    ),
    "no conditions": Case(Dialect(conditions="unknown"), "store conditions", "atomic conditional writes", blocks=True),
    "no replacements": Case(
        Dialect(conditions="unknown if-match"), "store conditions", "atomic conditional writes", blocks=True
    ),
    "no checksums": Case(Dialect(checksums="refused"), "store", "LATENTMILL_S3_CHECKSUMS=md5"),
    "no trailers over TLS": Case(
        Dialect(checksums="no trailers"), "store", "LATENTMILL_S3_CHECKSUMS=md5", over_tls=True
    ),
    "a late clock": Case(Dialect(skew=timedelta(minutes=20)), "store", "a time service (NTP)"),
    "encryption by KMS": Case(Dialect(encryption="aws:kms"), "store", "LATENTMILL_S3_ENCRYPTION=aws:kms"),
    "encryption by S3": Case(Dialect(encryption="AES256"), "store", "LATENTMILL_S3_ENCRYPTION=AES256"),
    "encryption, and no checksums": Case(
        Dialect(encryption="aws:kms", checksums="refused"),
        "store",
        "LATENTMILL_S3_CHECKSUMS=md5 and LATENTMILL_S3_ENCRYPTION=aws:kms",
    ),
    "no deletions": Case(Dialect(undeletable=True), "store permissions", "locked against deletion"),
    "an expired token": Case(Dialect(keys={"key-1": "another"}), "store", "renew the credentials"),
    "an unknown key": Case(Dialect(keys={"key-2": None}), "store", "give this user the rights"),
}


def settings_for(server: FakeS3, **more: Any) -> Settings:
    given: dict[str, Any] = {
        f"s3_{name}": SecretStr(value) if isinstance(value, str) and "key" in name else value
        for name, value in (("endpoint_url", server.endpoint_url), ("access_key", "key-1"), ("secret_key", "secret"))
    }
    if server.home:
        given["s3_ca_file"] = server.home / "ca.pem"
    return Settings(**given | {"s3_region": "us-east-1", "s3_max_attempts": 2} | more)


def findings(settings: Settings) -> dict[str, Finding]:
    return {found.check: found for found in examine(settings, "s3://bucket/mill", parts=["store"])}


def mended(mend: str, settings: Settings) -> Settings:
    """``settings`` with the variables that a mend names."""
    found = re.findall(r"LATENTMILL_([A-Z0-9_]+)=([\w:]+)", mend)
    return Settings(
        **{name: getattr(settings, name) for name in settings.model_fields_set}
        | {name.lower(): value for name, value in found}
    )


@pytest.mark.parametrize("name", CASES)
def test_the_finding_names_the_mend(name: str, tmp_path: Path) -> None:
    """And the mend helps: with the variable that it names, no check fails."""
    case = CASES[name]
    with fake_s3(case.dialect, tmp_path if case.over_tls else None) as server:
        settings = settings_for(server)
        found = findings(settings)
        assert found[case.check].status == "failed", found
        assert case.mend in found[case.check].mend
        if "LATENTMILL_S3_" in case.mend:
            after = findings(mended(found[case.check].mend, settings))
            assert {finding.status for finding in after.values()} == {"ok"}, after
        blocking = blocking_findings(settings, "s3://bucket/mill")
        assert [each.check for each in blocking] == ([case.check] if case.blocks else [])
        if not case.dialect.undeletable:
            assert server.buckets["bucket"] == {}


def test_a_healthy_service_has_no_finding(tmp_path: Path) -> None:
    with fake_s3(home=tmp_path) as server:
        assert {finding.status for finding in findings(settings_for(server)).values()} == {"ok"}


def test_deleted_objects_that_stay_as_versions_are_a_warning() -> None:
    with fake_s3(Dialect(object_lock=True)) as server:
        found = findings(settings_for(server))
        assert found.pop("store versions").status == "warning"
        assert {finding.status for finding in found.values()} == {"ok"}


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_the_style_of_addresses_is_found(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def found_name(host: Any, *rest: Any, **named: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith(HOST) else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", found_name)
    other = {"path": "virtual", "virtual": "path"}[style]
    with fake_s3(Dialect(styles=(style,))) as server:
        settings = settings_for(server, s3_endpoint_url=server.virtual_url, s3_addressing_style=other)
        found = findings(settings)["store"]
        assert f"LATENTMILL_S3_ADDRESSING_STYLE={style}" in found.mend
        assert {finding.status for finding in findings(mended(found.mend, settings)).values()} == {"ok"}


def test_host_names_of_buckets_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with most services of one's own: nobody has told the name server of hosts below it."""
    look_up = socket.getaddrinfo

    def found_name(host: Any, *rest: Any, **named: Any) -> Any:
        if str(host).endswith(f".{HOST}"):
            raise socket.gaierror("no such host")
        return look_up("127.0.0.1" if str(host) == HOST else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", found_name)
    with fake_s3() as server:
        settings = settings_for(server, s3_endpoint_url=server.virtual_url, s3_addressing_style="virtual")
        assert "LATENTMILL_S3_ADDRESSING_STYLE=path" in findings(settings)["store"].mend


def test_a_private_authority_is_named(tmp_path: Path) -> None:
    with fake_s3(home=tmp_path) as server:
        found = findings(settings_for(server, s3_ca_file=None))["store"]
        assert found.status == "failed"
        assert "LATENTMILL_S3_CA_FILE" in found.mend


def test_a_short_examination_tries_no_other_setting() -> None:
    with fake_s3(Dialect(checksums="refused")) as server:
        (found,) = examine_store("s3://bucket/mill", settings_for(server), short=True)
        assert found.status == "failed"
        assert server.asked["PUT"] == 1
