"""Signatures of messages: the example of the specification, and two secrets during a rotation."""

from __future__ import annotations

import base64
from pathlib import Path

from workers.notifications.signatures import read_secrets, signature

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_sign_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    newer = base64.b64encode(b"x" * 32).decode()
    (tmp_path / "s").write_text(f"ops:\n- whsec_{newer}\n- whsec_{SECRET}\n")
    secrets = read_secrets(tmp_path / "s", "ops")
    assert len(secrets) == 2
    both = signature(secrets, "msg_1", 1, b"{}").split(" ")
    assert both == [signature([secret], "msg_1", 1, b"{}") for secret in secrets]
