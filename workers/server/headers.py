"""What surrounds every answer: the name of the host is checked first, and headers tell browsers what not to do."""

from __future__ import annotations

from ipaddress import ip_network
from typing import final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generator.errors import SettingsError, SpecError
from generator.spec.canonical import short_repr
from workers.server.problems import problem_response
from workers.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# Everything comes from this host, nothing inline runs, and no other page shows ours in a frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_names(settings: Settings) -> frozenset[str]:
    """The names under which the server answers. Raises ``SettingsError`` if it listens to all but has no name."""
    stated = frozenset(name.strip().lower() for name in (settings.server_names or "").split(",") if name.strip())
    if stated:
        return stated
    if not is_loopback(settings.server_host):
        raise SettingsError(
            "LATENTMILL_SERVER_NAMES",
            f"the names under which the server at {settings.server_host} is reached",
            "none",
            "without it, pages of other sites could reach the server under names of their own",
        )
    return frozenset(LOOPBACK)


def trusted_proxies(settings: Settings) -> list[str]:
    """The proxies that may say where a request comes from, and whether by https. Raises ``SettingsError``."""
    stated = [proxy.strip() for proxy in (settings.server_proxies or "").split(",") if proxy.strip()]
    for proxy in stated:
        try:
            ip_network(proxy, strict=False)
        except ValueError as wrong:
            expected = "addresses or networks (10.0.0.0/8), separated by commas"
            raise SettingsError("LATENTMILL_SERVER_PROXIES", expected, short_repr(proxy)) from wrong
    return stated


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at this address."""
    return host in (*LOOPBACK, "::1") or host.startswith("127.")


@final
class HostCheck:
    """Refuses requests whose Host header is no configured name (DNS rebinding); ports are not compared."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            stated = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(stated) != 1 or _without_port(stated[0]).lower() not in self._names:
                error = SpecError("Host", "a name of this server", short_repr(", ".join(stated)))
                await problem_response(421, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


@final
class SecurityHeaders:
    """Adds the headers that tell browsers what not to do, and to use https where the request did."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                for name in ("Cookie", "Authorization"):  # what a browser keeps is for who asked
                    headers.add_vary_header(name)
                if scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def is_same_origin(headers: Headers, scheme: str) -> bool:
    """Whether a request that changes something comes from a page of this server, or from no page at all."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin == f"{scheme}://{headers.get('host', '')}"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
