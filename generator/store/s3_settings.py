"""Settings of an S3 service, passed by the caller that opens a store; this file does not read the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from generator.errors import SettingsError
from generator.spec.canonical import FrozenModel
from generator.store.secret_files import read_secret

Seconds = Annotated[float, Field(gt=0, le=3600)]
Checksums = Literal["when_supported", "when_required", "md5"]
IfMatch = Literal["quoted", "bare"]
Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]


class Keys(NamedTuple):
    """The credentials of a request. ``repr`` would show them: never log this value."""

    access_key: str
    secret_key: str
    session_token: str | None


class S3Settings(FrozenModel):
    """Endpoint, credentials, dialect, time-outs and retries of an S3 service.

    Each of the three secrets may stand in a file instead, which is read again when the service refuses what it held
    before. Without credentials, boto3's own chain looks them up (environment, shared files, instance role). Secrets
    are never shown in a repr, in an error or in ``model_dump_json``. ``credentials_seconds`` is the time for which
    expired credentials are reported as ``CredentialsExpired``, which costs no attempt of a shard.

    ``checksums='when_supported'`` sends and verifies a CRC with every object, over TLS behind its bytes (a trailer).
    ``'md5'`` sends a ``Content-MD5`` header instead, which every service knows, and ``'when_required'`` nothing.
    ``if_match``: how the etag of a conditional write is sent, ``"0a1b"`` as HTTP has it or bare. ``encryption`` and
    ``kms_key`` are sent with every object, for buckets that demand it. ``ca_file`` is the PEM file of the authorities
    trusted for https.

    ``max_attempts`` includes the first attempt, and limits each kind of retry: of requests (with exponential
    back-off), of truncated bodies, and of conditional writes that conflict with another one in progress (HTTP 409).
    Raises ``SettingsError`` for an invalid endpoint, for only one of access key and secret key, and for a key of KMS
    without its encryption.
    """

    endpoint_url: str | None = None  # None: the endpoint of AWS for the region
    region: str | None = None  # None: boto3's own chain
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    access_key_file: Path | None = None
    secret_key_file: Path | None = None
    session_token_file: Path | None = None
    credentials_seconds: float = Field(default=1800.0, ge=0, le=86400)
    ca_file: Path | None = None  # None: the system's authorities, or AWS_CA_BUNDLE
    checksums: Checksums = "when_supported"
    if_match: IfMatch = "quoted"
    encryption: Encryption | None = None  # None: as the bucket does by itself
    kms_key: str | None = Field(default=None, min_length=1, max_length=2048)  # None: the default key of the bucket
    connect_timeout: Seconds = 5.0
    read_timeout: Seconds = 60.0  # for each read from the socket, not for a whole object
    max_attempts: int = Field(default=5, ge=1, le=20)
    addressing_style: Literal["auto", "path", "virtual"] = "auto"  # auto: path for a custom endpoint
    max_pool_connections: int = Field(default=16, ge=1, le=1024)

    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("endpoint_url", mode="after")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if url is not None and not _is_endpoint(url):
            expected = "http://host[:port] or https://host[:port], without credentials or a query"
            raise SettingsError("s3.endpoint_url", expected, "another form (not shown: it may contain a password)")
        return url

    @model_validator(mode="after")
    def _check_key_pair(self) -> Self:
        # A ValueError here would become pydantic's ValidationError, which carries its input: the keys.
        if self.has_keys != (self.secret_key is not None or self.secret_key_file is not None):
            raise SettingsError("s3.secret_key", "access_key and secret_key together, or neither", "one of them")
        if (self.session_token is not None or self.session_token_file is not None) and not self.has_keys:
            raise SettingsError("s3.session_token", "access_key and secret_key to be set too", "neither")
        if self.kms_key is not None and (self.encryption is None or not self.encryption.startswith("aws:kms")):
            raise SettingsError("s3.kms_key", "encryption to be aws:kms or aws:kms:dsse", str(self.encryption))
        return self

    @property
    def has_keys(self) -> bool:
        """Whether the credentials are given here, as values or files; otherwise boto3's own chain has them."""
        return self.access_key is not None or self.access_key_file is not None

    def read_keys(self) -> Keys | None:
        """The given credentials; a value goes before its file. ``None`` without. Raises ``SettingsError``."""
        access = _secret(self.access_key, self.access_key_file, "s3.access_key_file")
        secret = _secret(self.secret_key, self.secret_key_file, "s3.secret_key_file")
        token = _secret(self.session_token, self.session_token_file, "s3.session_token_file")
        return Keys(access, secret, token) if access is not None and secret is not None else None

    def check_files(self) -> None:
        """Check that the files can be read. Raises ``SettingsError`` naming the field."""
        self.read_keys()
        if self.ca_file is not None:
            try:
                text = self.ca_file.read_bytes()
            except OSError as wrong:
                got = f"{self.ca_file} ({wrong.strerror})"
                raise SettingsError("s3.ca_file", "a file that can be read", got) from wrong
            if b"-----BEGIN CERTIFICATE-----" not in text:
                raise SettingsError("s3.ca_file", "a PEM file of certificates", f"something else at {self.ca_file}")


def _secret(value: SecretStr | None, file: Path | None, field: str) -> str | None:
    if value is not None:
        return value.get_secret_value()
    return read_secret(file, field) if file is not None else None


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        return False
    return parts.scheme in ("http", "https") and has_host and not (parts.username or parts.password or parts.query)
