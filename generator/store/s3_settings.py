"""Settings of an S3 service, passed by the caller that opens a store; this file does not read the environment."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from generator.errors import SettingsError
from generator.spec.canonical import FrozenModel

Seconds = Annotated[float, Field(gt=0, le=3600)]


class S3Settings(FrozenModel):
    """Endpoint, credentials, time-outs and retries of an S3 service.

    Without credentials, boto3's own chain looks them up (environment, shared files, instance role); given ones are
    never shown in a repr, in an error or in ``model_dump_json``. ``checksums='when_supported'`` sends and verifies a
    CRC with every object; ``'when_required'`` is for services that do not support these headers. ``max_attempts``
    includes the first attempt, and limits each kind of retry: of requests (with exponential back-off), of truncated
    bodies, and of conditional writes that conflict with another one in progress (HTTP 409). Raises ``SettingsError``
    for an invalid endpoint, and for only one of access key and secret key.
    """

    endpoint_url: str | None = None  # None: the endpoint of AWS for the region
    region: str | None = None  # None: boto3's own chain
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    checksums: Literal["when_supported", "when_required"] = "when_supported"
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
        if (self.access_key is None) != (self.secret_key is None):
            raise SettingsError("s3.secret_key", "access_key and secret_key together, or neither", "one of them")
        if self.session_token is not None and self.access_key is None:
            raise SettingsError("s3.session_token", "access_key and secret_key to be set too", "neither")
        return self


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        return False
    return parts.scheme in ("http", "https") and has_host and not (parts.username or parts.password or parts.query)
