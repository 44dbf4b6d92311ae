"""The address of Redis: what ``LATENTMILL_REDIS_URL`` says, parsed once, for redis-py and for Celery alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote

from generator.errors import SettingsError

REDIS_VARIABLE = "LATENTMILL_REDIS_URL"
FORMS = (
    "redis://[[user]:password@]host[:port][/database], rediss://... for TLS, unix://[[user]:password@]/path[?db=0], "
    "or sentinel://host[:port];sentinel://host[:port][/database]"
)
ENCODING_HINT = (
    "in user name and password write # as %23, / as %2F, ? as %3F, @ as %40, : as %3A, ; as %3B and % as %25: "
    "python -c 'import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), safe=\"\"))'"
)
_SCHEMES: dict[str, Literal["tcp", "unix", "sentinel"]] = {
    "redis": "tcp",
    "rediss": "tcp",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}
_PORTS = {"tcp": 6379, "sentinel": 26379}
_HOST = re.compile(
    r"(\[[0-9a-fA-F:.]+\]|[\w.-]*)(?::(\d{1,5}))?"
)  # a name, an IPv4 address, or an IPv6 one in brackets
_SHOWN = re.compile(r"((?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d{1,5})?(?:/\d*)?)(?:[?#].*)?")  # host, port, database


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is and how to log in. ``str`` shows no secret.

    ``nodes``: host and port of the server, or of the Sentinels that know where the master named ``master`` is.
    ``path``: the socket file of a ``unix`` server. ``tls``: options of a TLS connection, in redis-py's spelling;
    certificate and host name are always checked.
    """

    url: str = field(repr=False)  # as it was configured
    kind: Literal["tcp", "unix", "sentinel"]
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str | bool] | None = field(default=None, repr=False)
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        scheme = "sentinel" if self.kind == "sentinel" else "rediss" if self.tls is not None else "redis"
        places = f";{scheme}://".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)
        return f"{scheme}://{places}/{self.database}" + (f" ({self.master})" if self.master else "")

    @property
    def broker_url(self) -> str:
        """The URL for Celery; master name and TLS are in ``broker_options`` and ``tls``."""
        user, password = quote(self.username or "", safe=""), quote(self.password or "", safe="")
        login = f"{user}:{password}@" if password else f"{user}@" if user else ""
        if self.kind == "unix":
            return f"redis+socket://{login}{quote(self.path)}?virtual_host={self.database}"
        scheme = "sentinel" if self.kind == "sentinel" else "rediss" if self.tls is not None else "redis"
        return ";".join(f"{scheme}://{login}{_bracketed(host)}:{port}/{self.database}" for host, port in self.nodes)

    def sentinel_options(self, sockets: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a connection to a Sentinel, in redis-py's spelling; ``sockets`` are its time limits."""
        tls = {"ssl": True, **self.tls} if self.tls is not None else {}
        return {"username": self.sentinel_username, "password": self.sentinel_password, **sockets, **tls}


@dataclass(frozen=True)
class SentinelLogin:
    """How Sentinels are asked: the name that they have for the master, and their own user name and password."""

    master: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_address(
    url: str, *, tls: Mapping[str, str] | None = None, sentinel: SentinelLogin | None = None
) -> RedisAddress:
    """The address that ``url`` means. ``tls``: options of redis-py, by which an address of Sentinels uses TLS too.

    Raises ``SettingsError``, which shows no secret.
    """
    kind = _SCHEMES.get(url.partition("://")[0])
    if kind is None:
        raise _malformed(url)
    parts = [_parse_part(part, kind, url) for part in (url.split(";") if kind == "sentinel" else [url])]
    options = {name: value for part in parts for name, value in part.options.items()}
    address = RedisAddress(
        url=url,
        kind=kind,
        nodes=tuple(part.node for part in parts) if kind != "unix" else (),
        path=parts[0].path,
        database=_agreed([part.database for part in parts], url) or 0,
        username=_agreed([part.username for part in parts], url),
        password=_agreed([part.password for part in parts], url),
        tls=_tls(url, kind, options, dict(tls or {})),
    )
    return address if kind != "sentinel" else _with_sentinel(address, sentinel or SentinelLogin())


def redacted_url(url: str) -> str:
    """A Redis URL for logs: credentials, and any part that may be one, become ``***``. Never raises."""
    scheme, _, rest = url.partition("://")
    credentials, _, address = rest.rpartition("@")
    found = None if "?" in credentials or "#" in credentials else _SHOWN.fullmatch(address)
    name = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) and rest else "***"
    return f"{name}://{found[1] if found else '***'}"


@dataclass(frozen=True)
class _Part:
    node: tuple[str, int]
    path: str
    database: int | None
    username: str | None
    password: str | None
    options: dict[str, str]


def _parse_part(text: str, kind: Literal["tcp", "unix", "sentinel"], url: str) -> _Part:
    """One URL of an address. Raises ``SettingsError``."""
    scheme, _, rest = text.partition("://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    (login, _, place), (path, _, query) = rest[:end].rpartition("@"), rest[end:].partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = all(name in ("db", "virtual_host") or name.startswith("ssl_") for name in options)
    if "@" in rest[end:] and not (known and _is_path(path, kind)):
        expected = "a user name and a password without any of # / ?"
        raise SettingsError(REDIS_VARIABLE, expected, f"one of them in {redacted_url(url)}", ENCODING_HINT)
    host = _HOST.fullmatch(place)
    if _SCHEMES.get(scheme) != kind or not _is_path(path, kind) or host is None or (kind == "unix" and place):
        raise _malformed(url)
    if not 0 < int(host[2] or 1) < 65536:
        raise _malformed(url)
    if not known or (kind != "unix" and {"db", "virtual_host"} & options.keys()):
        expected = f"{FORMS}, with no options but those of TLS (ssl_...)"
        got, hint = f"other options after {redacted_url(url)}", "set timeouts with LATENTMILL_REDIS_TIMEOUT"
        raise SettingsError(REDIS_VARIABLE, expected, got, hint)
    database = (options.pop("db", "") or options.pop("virtual_host", "")) if kind == "unix" else path.strip("/")
    if not (database or "0").isascii() or not (database or "0").isdigit():
        raise _malformed(url)
    username, _, password = login.partition(":")
    return _Part(
        node=(host[1].strip("[]") or "localhost", int(host[2] or _PORTS.get(kind, 0))),
        path=unquote(path) if kind == "unix" else "",
        database=int(database) if database else None,
        username=unquote(username) or None,
        password=unquote(password) or None,
        options=options,
    )


def _is_path(path: str, kind: str) -> bool:
    """Whether this is what may follow host and port: a database number, or the path of a socket."""
    return re.fullmatch(r"/[^#]+" if kind == "unix" else r"(?:/\d*)?", path) is not None


def _tls(url: str, kind: str, options: dict[str, str], files: dict[str, str]) -> dict[str, str | bool] | None:
    """The TLS options of an address; ``None`` for none. Raises ``SettingsError`` if one turns a check off."""
    encrypted = url.startswith("rediss://") or (kind == "sentinel" and bool(options or files))
    if not encrypted:
        if options:
            raise SettingsError(
                REDIS_VARIABLE, "options of TLS (ssl_...) after rediss:// or sentinel:// alone", str(kind)
            )
        return None
    required = {"ssl_cert_reqs": ("required", "cert_required"), "ssl_check_hostname": ("true", "1", "yes")}
    for name, accepted in required.items():
        if options.pop(name, accepted[0]).lower() not in accepted:
            expected = f"{name}={accepted[0]}, or no {name} at all"
            raise SettingsError(REDIS_VARIABLE, expected, f"a check turned off after {redacted_url(url)}")
    return {**options, **files, "ssl_cert_reqs": "required", "ssl_check_hostname": True}


def _with_sentinel(address: RedisAddress, sentinel: SentinelLogin) -> RedisAddress:
    if not sentinel.master:
        hint = "it is the name after `sentinel monitor` in the configuration of your Sentinels, often mymaster"
        raise SettingsError(
            "LATENTMILL_REDIS_SENTINEL_MASTER", "the name that Sentinel has for the master", "none", hint
        )
    found = {name: value for name, value in vars(address).items() if name != "master"}
    found |= {"sentinel_username": sentinel.username, "sentinel_password": sentinel.password}
    return RedisAddress(**found, master=sentinel.master)


def _agreed(values: list[Any], url: str) -> Any:
    """The value that all URLs of Sentinels that give one agree on. Raises ``SettingsError``."""
    given = list(dict.fromkeys(value for value in values if value is not None))
    if len(given) > 1:
        expected = "the same user name, password and database after every sentinel://"
        raise SettingsError(REDIS_VARIABLE, expected, f"different ones in {redacted_url(url)}")
    return given[0] if given else None


def _malformed(url: str) -> SettingsError:
    hint = ENCODING_HINT if "@" in url else ""
    return SettingsError(REDIS_VARIABLE, FORMS, redacted_url(url), hint)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
