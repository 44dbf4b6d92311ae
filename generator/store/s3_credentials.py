"""Credentials of an S3 client that are read again when the service refuses them, while requests wait.

Session tokens expire in the middle of a job, and secret files are rotated. A refused request reads the credentials
again, from where they came from (files, or boto3's own chain), and is signed and sent anew if they have changed. If
not, and if credentials have worked in this process before, it waits up to a minute for new ones, with growing, jittered
pauses. Credentials that never worked are refused at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, final

import botocore.session
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, CredentialRetrievalError, NoCredentialsError

from generator.errors import SettingsError
from generator.store.s3_settings import S3Settings

EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidTokenId"}
REVOKED_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}  # what a service says of keys that were rotated
WAIT_SECONDS = 60.0  # of one process for new credentials, from the first refusal on
_MAX_PAUSE_SECONDS = 10.0
_REFUSED_STATUSES = (400, 401, 403)
_SURE_ATTEMPTS = 3  # of one request with changed credentials, also when the time to wait is over


@final
class RenewableCredentials:
    """What botocore signs with: the credentials as they were read last. Threads share it."""

    method, account_id = "latentmill", None

    def __init__(self, load: Callable[[], Credentials | None]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._current: Credentials | None = None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The credentials of one request.

        Raises ``NoCredentialsError``, ``CredentialRetrievalError``, and ``SettingsError`` for an unreadable file.
        """
        with self._lock:
            if self._current is None:
                self._current = self._load()
            if self._current is None:
                raise NoCredentialsError
            try:
                return self._current.get_frozen_credentials()
            except RuntimeError as stale:  # refreshed, but still expired
                raise CredentialRetrievalError(provider=self._current.method, error_msg=str(stale)) from stale

    def renew(self) -> bool:
        """Read the credentials again; whether they have changed. A source that cannot be read has not changed."""
        with self._lock:
            try:
                before = self._current.get_frozen_credentials() if self._current else None
                fresh = self._load()
                changed = fresh is not None and fresh.get_frozen_credentials() != before
            except (SettingsError, BotoCoreError, RuntimeError):  # a file in the middle of its rotation
                return False
            if changed:
                self._current = fresh
            return changed

    def get_deferred_property(self, name: str) -> Callable[[], object]:
        """Asked for by botocore when it builds endpoints."""
        return lambda: getattr(self.get_frozen_credentials(), name, None)


@final
class Renewal:
    """The renewal of one client's credentials, and how long they have been refused. Threads share it."""

    def __init__(self, settings: S3Settings) -> None:
        self.credentials = RenewableCredentials(lambda: _load(settings))
        self._settings = settings
        self._worked = False
        self._refused_since: float | None = None  # by the monotonic clock

    def load_credentials(self) -> RenewableCredentials:
        """What botocore asks the ``credential_provider`` of a session for."""
        return self.credentials

    def pause(self, response: Any, attempts: int = 1, **_: object) -> float | None:
        """A handler of ``needs-retry``: seconds until the request is sent again; ``None``: it is not for us."""
        if response is None:
            return None
        code = response[1].get("Error", {}).get("Code", "")
        if code not in EXPIRED_CODES | REVOKED_CODES:
            if response[0].status_code not in _REFUSED_STATUSES and response[0].status_code < 500:
                self._worked, self._refused_since = True, None
            return None
        if self._refused_since is None:
            self._refused_since = time.monotonic()
        waited = self.refused_seconds
        is_over = waited >= min(WAIT_SECONDS, self._settings.credentials_seconds)
        if self.credentials.renew() and (not is_over or attempts < _SURE_ATTEMPTS):
            return random.uniform(0.0, 0.2)
        if is_over or not self._worked:
            return None
        return min(0.5 + waited / 4, _MAX_PAUSE_SECONDS) * random.uniform(0.5, 1.0)

    @property
    def refused_seconds(self) -> float:
        """Seconds since credentials were first refused, without a success in between; 0.0 if they are not."""
        since = self._refused_since
        return 0.0 if since is None else time.monotonic() - since

    def is_outage(self, error: BotoCoreError) -> bool:
        """Whether ``error`` means that the source of credentials that have worked before (an instance role, a process)
        gives none at the moment. False once it has done so for ``credentials_seconds``."""
        if not isinstance(error, CredentialRetrievalError) or not self._worked:
            return False
        if self._refused_since is None:
            self._refused_since = time.monotonic()
        return self.refused_seconds < self._settings.credentials_seconds

    def is_expiry(self, code: str) -> bool:
        """Whether an error of this code means credentials that have expired or were rotated: new ones may come.

        False once they have been refused for ``credentials_seconds``.
        """
        known = code in EXPIRED_CODES or (code in REVOKED_CODES and self._worked)
        return known and self.refused_seconds < self._settings.credentials_seconds


def _load(settings: S3Settings) -> Credentials | None:
    """The credentials as they are now. Raises ``SettingsError`` for a file that cannot be read, ``BotoCoreError``."""
    if settings.has_keys:
        keys = settings.read_keys()
        return Credentials(*keys) if keys else None
    # A new session reads environment and shared files again.
    return botocore.session.Session().get_credentials()
