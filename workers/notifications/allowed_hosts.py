"""The list of hosts that webhooks may call.

Webhook URLs come from the authors of schedules, but the service calls them from inside its own network, so the operator
decides which hosts are allowed.
"""

from __future__ import annotations

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from generator.errors import SettingsError
from generator.spec.canonical import short_repr
from generator.store import is_remote
from workers.notifications.config import Notifications
from workers.settings import Settings

ALLOWED_VARIABLE = "LATENTMILL_ALLOWED_WEBHOOKS"
_DEFAULT_PORTS = {"https": 443, "http": 80}


def check_hosts(notifications: Notifications, settings: Settings) -> None:
    """Raise ``SettingsError`` unless the settings allow the hosts of all webhooks."""
    for webhook in notifications.webhooks:
        check_host(webhook.url, settings)


def check_host(url: str, settings: Settings) -> None:
    """Raise ``SettingsError`` unless the settings allow the host of ``url``; the error shows no more than the host.

    Entries are ``host``, ``host:port``, ``*.domain`` (hosts below it) or ``http://host``; without ``http://`` they mean
    https. Without a list, any host is allowed if the store root is on this machine, and none if it is on a service.
    """
    allowed = settings.allowed_webhooks
    if allowed is None and not is_remote(settings.root):
        return
    entries = [entry.strip() for entry in (allowed or "").split(",") if entry.strip()]
    if not any(_matches(parse_url(url), _parse_entry(entry)) for entry in entries):
        expected = f"one of {', '.join(entries)}" if entries else "no webhook, as none is allowed"
        raise SettingsError(
            "webhook", expected, loggable_host(url), f"{ALLOWED_VARIABLE} says which hosts may be called"
        )


def loggable_host(url: str) -> str:
    """Scheme and host of a URL, for logs: paths and queries of webhooks are often secret."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        return "a URL that does not parse"
    return f"{parts.scheme}://{parts.netloc}"


def _parse_entry(text: str) -> Url:
    try:
        return parse_url(text if "://" in text else f"https://{text}")
    except LocationParseError as wrong:
        raise SettingsError(ALLOWED_VARIABLE, "hosts, separated by commas", short_repr(text)) from wrong


def _matches(url: Url, entry: Url) -> bool:
    port = url.port or _DEFAULT_PORTS.get(url.scheme or "")
    if (url.scheme, port) != (entry.scheme, entry.port or _DEFAULT_PORTS.get(entry.scheme or "")):
        return False
    host, pattern = (url.host or "").lower(), (entry.host or "").lower()
    if pattern.startswith("*."):
        return host.endswith(pattern.removeprefix("*")) and host != pattern[2:]
    return host == pattern
