"""How an S3 service is reached: a value given by whoever opens a store; nothing here reads the environment."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from generator.errors import SettingsError
from generator.spec.canonical import FrozenModel

Seconds = Annotated[float, Field(gt=0, le=3600)]


class S3Settings(FrozenModel):
    """Where the service is, who we are, and how patient we are.

    Credentials left out are looked up by boto3's own chain (environment, shared files, instance role); given ones
    are never shown in a repr, in an error or in ``model_dump_json``. ``checksums='when_supported'`` sends and
    verifies a CRC with every object; ``'when_required'`` is for services that do not know these headers.
    ``max_attempts`` counts the first attempt too, and bounds each kind of retry: of requests (with exponential
    back-off), of bodies that were cut, and of conditional writes that met another one (HTTP 409). Raises
    ``SettingsError`` for an endpoint that is none, and for keys that do not come in pairs.
    """

    endpoint_url: str | None = None  # None: Amazon's own endpoint of the region
    region: str | None = None  # None: boto3's own chain
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    checksums: Literal["when_supported", "when_required"] = "when_supported"
    connect_timeout: Seconds = 5.0
    read_timeout: Seconds = 60.0  # of one silence on the wire, not of a whole object
    max_attempts: int = Field(default=5, ge=1, le=20)
    addressing_style: Literal["auto", "path", "virtual"] = "auto"  # auto: path for an endpoint of one's own
    max_pool_connections: int = Field(default=16, ge=1, le=1024)

    model_config = ConfigDict(hide_input_in_errors=True)

    @field_validator("endpoint_url", mode="after")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if url is not None and not _is_endpoint(url):
            expected = "http://host[:port] or https://host[:port], without credentials or a query"
            raise SettingsError("s3.endpoint_url", expected, "something else (not shown: it may hold a password)")
        return url

    @model_validator(mode="after")
    def _check_key_pair(self) -> Self:
        # A ValueError here would become pydantic's ValidationError, which carries its input: the keys.
        if (self.access_key is None) != (self.secret_key is None):
            raise SettingsError("s3.secret_key", "access_key and secret_key together, or neither", "one of them")
        if self.session_token is not None and self.access_key is None:
            raise SettingsError("s3.session_token", "an access_key and a secret_key beside it", "neither")
        return self


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no port
        return False
    return parts.scheme in ("http", "https") and named and not (parts.username or parts.password or parts.query)
