"""Where webhooks may go, and declarations that are refused."""

from __future__ import annotations

import pytest

from generator.errors import SettingsError, SpecError
from generator.spec.canonical import validate
from workers.notifications import Notifications, Webhook, check_hosts
from workers.settings import Settings


@pytest.mark.parametrize(
    ("allowed", "url", "may"),
    [
        ("hooks.example.org", "https://hooks.example.org/x", True),
        ("hooks.example.org", "https://HOOKS.example.org:443/x", True),
        ("hooks.example.org", "http://hooks.example.org/x", False),
        ("hooks.example.org", "https://hooks.example.org:8443/x", False),
        ("hooks.example.org", "https://hooks.example.org.evil.test/x", False),
        ("hooks.example.org", "https://evil-hooks.example.org/x", False),
        ("a.test, *.example.org", "https://deep.hooks.example.org/x", True),
        ("*.example.org", "https://example.org/x", False),
        ("*.example.org", "https://evilexample.org/x", False),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/x", False),
        ("hooks.example.org", "http://169.254.169.254/latest/meta-data", False),
        (None, "http://169.254.169.254/latest/meta-data", False),
    ],
)
def test_webhooks_go_to_hosts_that_are_allowed(allowed: str | None, url: str, may: bool) -> None:
    settings = Settings(root="s3://bucket", allowed_webhooks=allowed)
    notifications = Notifications(webhooks=(Webhook(url=url, secret="ops"),))
    if may:
        check_hosts(notifications, settings)
        return
    with pytest.raises(SettingsError, match="ALLOWED_WEBHOOKS") as refused:
        check_hosts(notifications, settings)
    assert "meta-data" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://example.org/"},
        {"url": "https://"},
        {"url": "https://user:password@example.org/"},
        {"url": "https://example.org/\r\nx: y"},
        {"url": "file:///etc/passwd"},
        {"url": "https://example.org/", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        {"url": "https://example.org/", "secret": "ops", "events": []},
        {"url": "https://example.org/", "secret": "ops", "events": ["everything"]},
        {"url": "https://example.org/"},
    ],
)
def test_a_webhook_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="webhooks"):
        validate(Notifications, {"webhooks": [wrong]}, field="notifications", error=SpecError)
