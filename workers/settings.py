"""Every setting of the service, and the only place that reads the environment.

Each field is an environment variable with the prefix ``LATENTMILL_``: ``redis_url`` is ``LATENTMILL_REDIS_URL``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from generator.canonical import translated
from generator.errors import SettingsError
from generator.store import S3Settings

PREFIX = "LATENTMILL_"
Bytes = int


class Settings(BaseSettings):
    """Settings of client and worker. Secrets do not show in ``repr``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    redis_url: SecretStr | None = Field(
        default=None, description="Broker and ledger; without it, the Redis that `latentmill up` runs on this machine"
    )
    root: str = Field(
        default_factory=lambda: str(Path(platformdirs.user_data_dir("latentmill")) / "root"),
        description="Store root for bundles and open builds; workers on other machines need an s3:// URL here",
    )
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("latentmill")),
        description="Where this machine keeps the state of `latentmill up` and the workers' heartbeat files",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("latentmill")) / "bundles",
        description="Bundles that workers on this host have pulled",
    )
    cache_bytes: Bytes = Field(default=8 * 2**30, ge=0, description="Size the bundle cache may reach, in bytes")
    resident_bytes: Bytes = Field(
        default=4 * 2**30, ge=0, description="Size the decoders held by one worker process may reach, in bytes"
    )
    queue: str = Field(default="latentmill", pattern=r"^[A-Za-z0-9_-]{1,60}$", description="Celery queue of tickets")
    device: str = Field(default="auto", description="auto, cpu, cuda, or cuda:N")
    concurrency: int = Field(default=1, ge=1, le=256, description="Processes of one worker, each with its decoders")
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads of one process; all by default")
    lease_seconds: float = Field(
        default=60.0, ge=1.0, le=3600.0, description="A shard is free again after this silence"
    )
    shard_seconds: int = Field(default=900, ge=1, description="A shard that takes longer is ended with its process")
    grace_seconds: float = Field(
        default=30.0, ge=0.0, le=86400.0, description="Time for a shard to finish after SIGTERM, or it is handed back"
    )
    max_shard_attempts: int = Field(
        default=5, ge=1, le=100, description="Outside faults of a shard before it is given up"
    )
    shards_per_child: int = Field(
        default=1000, ge=1, description="Tickets that a process serves before a fresh one takes its place"
    )
    child_bytes: Bytes | None = Field(
        default=None, ge=2**26, description="Memory of a process above which a fresh one takes its place"
    )
    tenants_file: Path | None = Field(
        default=None, description="YAML file of weights and quotas of tenants; read by workers, again when it changes"
    )
    tickets_per_slot: int = Field(default=2, ge=1, le=100, description="Tickets in the broker for each worker process")
    reconcile_seconds: float = Field(default=5.0, ge=0.2, le=600.0, description="Pause between two reconciler passes")
    visibility_timeout: int = Field(default=6 * 3600, ge=60, description="Seconds until Redis hands a ticket out again")
    redis_timeout: float = Field(
        default=10.0, ge=1.0, le=300.0, description="A connection to Redis that is silent for so many seconds is dead"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Of worker logs")

    s3_endpoint_url: str | None = Field(default=None, description="S3-compatible service; AWS by default")
    s3_region: str | None = Field(default=None, description="Region of the service")
    s3_access_key: SecretStr | None = Field(default=None, description="Without it, boto3's own credential chain")
    s3_secret_key: SecretStr | None = Field(default=None, description="Belongs to the access key")
    s3_session_token: SecretStr | None = Field(default=None, description="For temporary credentials")
    s3_checksums: Literal["when_supported", "when_required"] = Field(
        default="when_supported", description="Request checksums; when_required for services that refuse them"
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Bucket in path or host"
    )
    s3_connect_timeout: float = Field(default=5.0, gt=0.0, description="Seconds")
    s3_read_timeout: float = Field(default=60.0, gt=0.0, description="Seconds")
    s3_max_attempts: int = Field(default=5, ge=1, le=20, description="Tries of one request, with back-off")
    s3_max_pool_connections: int = Field(default=16, ge=1, le=1024, description="Connections that a process keeps")

    @property
    def s3(self) -> S3Settings:
        """How the S3 service is reached."""
        prefix = "s3_"
        return S3Settings(**{name.removeprefix(prefix): value for name, value in self if name.startswith(prefix)})

    @property
    def heartbeat_file(self) -> Path:
        """Touched by a live worker at every pass of its reconciler; ``latentmill health`` looks at its age."""
        return self.state_dir / "worker.heartbeat"

    @property
    def heartbeats(self) -> Path:
        """Where each live worker keeps a file fresh; ``latentmill health`` looks at their age."""
        return self.state_dir / "heartbeats"


def load_settings() -> Settings:
    """The settings that the environment gives. Raises ``SettingsError`` naming the variable."""
    try:
        settings = Settings()
    except ValidationError as invalid:
        problem = translated(invalid, field="", error=SettingsError, known=tuple(Settings.model_fields))
        raise SettingsError(_variable(problem.field), problem.expected, problem.got, problem.hint) from invalid
    try:
        _ = settings.s3
    except SettingsError as wrong:
        raise SettingsError(_variable(wrong.field), wrong.expected, wrong.got, wrong.hint) from wrong
    except ValidationError as invalid:
        problem = translated(invalid, field="", error=SettingsError, known=tuple(S3Settings.model_fields))
        raise SettingsError(_variable(f"s3.{problem.field}"), problem.expected, "another value") from None
    return settings


def _variable(field: str) -> str:
    return PREFIX + field.replace(".", "_").upper()
