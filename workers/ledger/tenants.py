"""The tenants file: a YAML file with the weights and quotas of tenants, read by the workers, and with the places and
channels that tenants have over HTTP, read by the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, field_validator

from generator.errors import SettingsError, SpecError
from generator.spec.canonical import FrozenModel, validate
from generator.spec.patterns import pattern
from generator.spec.recipe import Name
from generator.store import absolute_url
from generator.store.base import is_segment

_FIELD = "LATENTMILL_TENANTS_FILE"
_MAX_BYTES = 1024 * 1024

TENANT_VARIABLE = "{tenant}"

Limit = Annotated[int, Field(ge=1, strict=True)]
ChannelPattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=pattern(r"^[a-z0-9_*{}-]+$", "lower-case letters, digits, -, _, * and {tenant}"),
    ),
]


def place_name(url: str) -> str:
    """The name of the place at a store URL: its last segment. Raises ``ValueError``."""
    try:
        name = absolute_url(url.replace(TENANT_VARIABLE, "tenant")).rstrip("/").rpartition("/")[2]
    except SpecError as wrong:
        raise ValueError(f"{wrong.expected}") from wrong
    if not is_segment(name):
        raise ValueError("a URL whose last segment consists of letters, digits and ._=@+-")
    return name


class TenantShare(FrozenModel):
    """One tenant's share of the pool. ``None`` is no limit.

    While two tenants have shards to make, one of weight 3 gets three shards for each one of a tenant of weight 1.
    ``running_shards`` limits the shards that run at the same time; further ones wait. ``queued_jobs`` limits the
    unfinished jobs, ``images_per_day`` the images submitted since midnight UTC; ``submit`` raises ``QuotaExceeded``
    above these limits. ``destinations``: the URLs below which the tenant's datasets may lie over HTTP, each named by
    its last segment. ``channels``: the names of the channels whose bundles it may use over HTTP; ``*`` stands for any
    characters. In both, ``{tenant}`` stands for the tenant's name.
    """

    weight: float = Field(default=1.0, ge=0.001, le=1000.0)
    running_shards: Limit | None = None
    queued_jobs: Limit | None = None
    images_per_day: Limit | None = None
    destinations: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)] | None = None
    channels: Annotated[tuple[ChannelPattern, ...], Field(max_length=1000)] | None = None

    @field_validator("destinations")
    @classmethod
    def _check_destinations(cls, urls: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = [place_name(url) for url in urls or ()]
        if len(set(names)) != len(names):
            raise ValueError("URLs with distinct last segments, as those name the places")
        return urls


class Tenants(FrozenModel):
    """The shares of all tenants; ``default`` applies to every tenant that is not named."""

    default: TenantShare = TenantShare()
    tenants: dict[Name, TenantShare] = Field(default_factory=dict)


def read_tenants(path: Path) -> Tenants:
    """Read the shares from a YAML file. Raises ``SettingsError`` naming the field."""
    try:
        data = path.read_bytes()[: _MAX_BYTES + 1]
    except OSError as missing:
        raise SettingsError(_FIELD, "a YAML file that can be read", f"{path} ({missing.strerror})") from missing
    if len(data) > _MAX_BYTES:
        raise SettingsError(_FIELD, f"at most {_MAX_BYTES} bytes", f"more in {path}")
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError) as broken:
        raise SettingsError(_FIELD, "a YAML mapping", f"{path}, which does not parse ({broken})") from broken
    return validate(Tenants, document if document is not None else {}, field=_FIELD, error=SettingsError)
