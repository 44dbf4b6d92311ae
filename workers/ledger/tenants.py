"""What each tenant may have: its weight beside the others, and its quotas. A YAML file that the workers read."""

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
    ``running_shards`` are being made at the same time; further ones wait. ``queued_jobs`` are open and unfinished,
    ``images_per_day`` submitted since midnight UTC; more are refused at ``submit`` with ``QuotaExceeded``.
    """

    weight: float = Field(default=1.0, ge=0.001, le=1000.0)
    running_shards: Limit | None = None
    queued_jobs: Limit | None = None
    images_per_day: Limit | None = None


class Tenants(FrozenModel):
    """The shares of all tenants: ``default`` is that of everyone who is not named."""

    default: TenantShare = TenantShare()
    tenants: dict[Name, TenantShare] = Field(default_factory=dict)


def read_tenants(path: Path) -> Tenants:
    """The shares in a YAML file. Raises ``SettingsError`` naming the field."""
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
