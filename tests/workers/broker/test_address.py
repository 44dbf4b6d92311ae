"""What may stand in LATENTMILL_REDIS_URL, and what redis-py and Celery make of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from kombu import Connection

from generator.errors import SettingsError
from workers.broker.address import RedisAddress, SentinelLogin, parse_address

LOGIN = SentinelLogin("mymaster")
PASSWORD = "a#b/c?d@e%41f:g;h é"  # every character that means something in a URL


@pytest.mark.parametrize(
    ("url", "shown", "broker"),
    [
        ("redis://h", "redis://h:6379/0", "redis://h:6379/0"),
        ("redis://h:1/2", "redis://h:1/2", "redis://h:1/2"),
        ("redis://:pw@[::1]:1/15", "redis://[::1]:1/15", "redis://:pw@[::1]:1/15"),
        ("redis://user@h/", "redis://h:6379/0", "redis://user@h:6379/0"),
        ("redis:///3", "redis://localhost:6379/3", "redis://localhost:6379/3"),
        ("redis://:p@ss:w@h", "redis://h:6379/0", "redis://:p%40ss%3Aw@h:6379/0"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", "rediss://h:6379/0", "rediss://h:6379/0"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("redis+socket:///a%20b.sock?virtual_host=1", "unix:///a b.sock", "redis+socket:///a%20b.sock?virtual_host=1"),
        ("unix://u:pw@/s", "unix:///s", "redis+socket://u:pw@/s?virtual_host=0"),
        ("sentinel://h", "sentinel://h:26379/0 (mymaster)", "sentinel://h:26379/0"),
        (
            "sentinel://:pw@a:1;sentinel://b/3",
            "sentinel://a:1;sentinel://b:26379/3 (mymaster)",
            "sentinel://:pw@a:1/3;sentinel://:pw@b:26379/3",
        ),
    ],
)
def test_every_spelling_is_one_address(url: str, shown: str, broker: str) -> None:
    address = parse_address(url, sentinel=LOGIN)
    assert (str(address), address.broker_url) == (shown, broker)
    assert "pw" not in f"{address} {address!r}"
    assert parse_address(url, sentinel=LOGIN) == address


def kombu_login(address: RedisAddress) -> tuple[str | None, str | None]:
    found: Any = Connection(address.broker_url)
    return found.userid, found.password


@pytest.mark.parametrize("scheme", ["redis", "sentinel"])
def test_user_names_and_passwords_are_the_same_for_both_libraries(scheme: str) -> None:
    address = parse_address(f"{scheme}://{quote('m#ll', safe='')}:{quote(PASSWORD, safe='')}@h:1/0", sentinel=LOGIN)
    assert (address.username, address.password) == ("m#ll", PASSWORD)
    assert kombu_login(address) == ("m#ll", PASSWORD)


@pytest.mark.parametrize(
    "password", ["hunter#2", "hunter/2", "hunter?2", "hunter/2?x=y", "hunter?x=y", "#hunter", "/hunter?"]
)
@pytest.mark.parametrize("form", ["redis://:{}@h:1/0", "rediss://me:{}@h/0", "redis://me:{}@[::1]/0"])
def test_a_password_that_has_to_be_encoded_is_told_how(form: str, password: str) -> None:
    with pytest.raises(SettingsError, match=r"LATENTMILL_REDIS_URL.*# as %23, / as %2F, \? as %3F") as wrong:
        parse_address(form.format(password))
    assert "hunter" not in str(wrong.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "unix://run/redis.sock",
            "unix://",
            "unix:///s?timeout=1",
            "redis+socket://h/s",
            "redis://h/s",
            "redis://h:0",
        ),
        *("redis://a;redis://b", "sentinel://a;redis://b", "sentinel://a;b", "sentinel://:x@a;sentinel://:y@b"),
        *("sentinel://a/1;sentinel://b/2", "redis://h?ssl_ca_certs=/x", "unix:///s?ssl_ca_certs=/x", "redis://h/0#x"),
        *("redis://h/٣", "redis+sentinel://a", "socket:///s", "redis://h/0?db=1"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_URL"):
        parse_address(url, sentinel=LOGIN)


@pytest.mark.parametrize("scheme", ["rediss", "sentinel"])
@pytest.mark.parametrize(
    "option",
    ["ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=CERT_OPTIONAL", "ssl_check_hostname=False"],
)
def test_no_spelling_turns_the_check_of_certificates_off(scheme: str, option: str) -> None:
    with pytest.raises(SettingsError, match="ssl_c"):
        parse_address(f"{scheme}://h?{option}", sentinel=LOGIN)


def test_options_of_tls_reach_both_libraries() -> None:
    for url in ("rediss://h?ssl_cert_reqs=required&ssl_ca_certs=/ca@x.pem", "sentinel://h?ssl_ca_certs=/ca@x.pem"):
        address = parse_address(url, sentinel=LOGIN)
        assert address.tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": "/ca@x.pem"}
    assert parse_address("sentinel://h", sentinel=LOGIN).tls is None
    files = {"ssl_ca_certs": "/ca.pem"}
    assert parse_address("sentinel://h", sentinel=LOGIN, tls=files).tls is not None
    assert parse_address("redis://h", tls=files).tls is None


def test_sentinels_need_the_name_of_the_master() -> None:
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_SENTINEL_MASTER"):
        parse_address("sentinel://h")
