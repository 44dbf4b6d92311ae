"""The tenants file: a YAML file with the weights and quotas of tenants, read by the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from generator.errors import SettingsError
from generator.spec.canonical import FrozenModel, validate
from generator.spec.recipe import Name

_FIELD = "LATENTMILL_TENANTS_FILE"
_MAX_BYTES = 1024 * 1024

Limit = Annotated[int, Field(ge=1, strict=True)]


class TenantShare(FrozenModel):
    """One tenant's share of the pool. ``None`` is no limit.

    While two tenants have shards to make, one of weight 3 gets three shards for each one of a tenant of weight 1.
    ``running_shards`` limits the shards that run at the same time; further ones wait. ``queued_jobs`` limits the
    unfinished jobs, ``images_per_day`` the images submitted since midnight UTC; ``submit`` raises ``QuotaExceeded``
    above these limits.
    """

    weight: float = Field(default=1.0, ge=0.001, le=1000.0)
    running_shards: Limit | None = None
    queued_jobs: Limit | None = None
    images_per_day: Limit | None = None


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
