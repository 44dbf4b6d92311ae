"""All settings of the service. No other module reads the environment.

Each field is an environment variable with the prefix ``LATENTMILL_``: ``redis_url`` is ``LATENTMILL_REDIS_URL``. A
secret may be read from a file instead (a Docker or Kubernetes secret), named by ``LATENTMILL_<NAME>_FILE``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from generator.errors import KeyFileError, SettingsError, SpecError
from generator.spec.canonical import translate_error
from generator.spec.patterns import pattern
from generator.spec.variables import check_names
from generator.store import S3Settings, absolute_url, is_below
from generator.store.s3_settings import Checksums, Encryption, IfMatch
from generator.store.secret_files import read_secret
from generator.store.url import REMOTE

if TYPE_CHECKING:
    from generator.signatures import PrivateKey, PublicKey

ENV_PREFIX = "LATENTMILL_"
SECRETS = ("redis_url", "redis_sentinel_password", "token")  # those of S3 have settings for their files, read again
# Variables with our prefix that are no settings: of compose, scripts, tests and benchmarks.
OTHER_VARIABLES = (
    *("REDIS_PASSWORD", "IMAGE_TAG", "ENV_FILE"),
    *("DATA", "BENCHMARK", "TESTS", "TEST_S3", "AZURITE", "NEED_CHROMIUM", "COMMAND"),
)
DEFAULT_SERVER_PORT = 8400
Bytes = int


class Settings(BaseSettings):
    """Settings of client, worker and scheduler. ``repr`` does not show secrets."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    redis_url: SecretStr | None = Field(
        default=None, description="Broker and ledger; without it, the Redis that `latentmill up` runs on this machine"
    )
    redis_sentinel_master: str | None = Field(
        default=None, min_length=1, description="For a sentinel:// URL: the name that Sentinel has for the master"
    )
    redis_sentinel_user: str | None = Field(default=None, description="User name for the Sentinels, if they have users")
    redis_sentinel_password: SecretStr | None = Field(default=None, description="Password of the Sentinels, if any")
    redis_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities trusted for Redis over TLS; the system's by default",
    )
    redis_cert_file: Path | None = Field(default=None, description="PEM file of the client certificate, if needed")
    redis_key_file: Path | None = Field(default=None, description="PEM file of its private key")
    root: str = Field(
        default_factory=lambda: str(Path(platformdirs.user_data_dir("latentmill")) / "root"),
        description="Store root for bundles and open builds; workers on other machines need the URL of a "
        "service here, such as s3://bucket/mill",
    )
    allowed_stores: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated URLs below which jobs may write; s3:// is all of S3. Default: the service of "
        "the root (s3://, gs:// or az://) if it is on one, anywhere otherwise",
    )
    state_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_state_dir("latentmill")),
        description="Where this machine keeps the state of `latentmill up` and the workers' heartbeat files",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("latentmill")) / "bundles",
        description="Bundles that workers on this host have pulled",
    )
    cache_bytes: Bytes = Field(default=8 * 2**30, ge=0, description="Maximum size of the bundle cache, in bytes")
    source_cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("latentmill")) / "sources",
        description="Decoded real images, so that the next command on the same source starts at once",
    )
    source_cache_bytes: Bytes = Field(
        default=20 * 2**30, ge=0, description="Maximum size of the decoded images, in bytes; 0 keeps none"
    )
    column_cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("latentmill")) / "columns",
        description="Columns of the builds that a server's pages show, gathered from their tables",
    )
    column_cache_bytes: Bytes = Field(
        default=4 * 2**30, ge=0, description="Maximum size of these columns, in bytes; those shown last always stay"
    )
    resident_bytes: Bytes = Field(
        default=4 * 2**30, ge=0, description="Maximum size of the decoders held by one worker process, in bytes"
    )
    queue: str = Field(
        default="latentmill",
        pattern=pattern(r"^[A-Za-z0-9_-]{1,60}$", "letters, digits, - and _; at most 60"),
        description="Celery queue of tickets",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, or cuda:N")
    concurrency: int = Field(default=1, ge=1, le=256, description="Processes of one worker, each with its decoders")
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads of one process; all by default")
    tuned: bool = Field(
        default=False, description="Choose processes and threads for this machine, unless either is set"
    )
    compile: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether new builds use compiled decoders: auto (if faster and a compiler is installed), always or "
        "never; a worker set to never makes no shards of compiled builds",
    )
    compile_cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("latentmill")) / "compiled",
        description="Compiled decoders of this host; they are loaded as code, so only this user has access (mode 0700)",
    )
    lease_seconds: float = Field(
        default=60.0, ge=1.0, le=3600.0, description="Lease of a shard; it is free again after so long without renewal"
    )
    shard_seconds: int = Field(
        default=900, ge=1, description="Time limit of a shard; its process is killed when it takes longer"
    )
    grace_seconds: float = Field(
        default=30.0, ge=0.0, le=86400.0, description="Time for running shards to finish after SIGTERM; then released"
    )
    max_shard_attempts: int = Field(
        default=5, ge=1, le=100, description="Outside faults of a shard before it is given up"
    )
    shards_per_child: int = Field(
        default=1000, ge=1, description="Tickets that a process serves before it is replaced by a new one"
    )
    child_bytes: Bytes | None = Field(
        default=None, ge=2**26, description="Memory of a process above which it is replaced by a new one"
    )
    tenants_file: Path | None = Field(
        default=None, description="YAML file with weights and quotas of tenants; workers reread it at every pass"
    )
    tickets_per_slot: int = Field(default=2, ge=1, le=100, description="Tickets in the broker for each worker process")
    reconcile_seconds: float = Field(default=5.0, ge=0.2, le=600.0, description="Pause between two reconciler passes")
    tick_seconds: float = Field(default=5.0, ge=0.2, le=600.0, description="Pause between two ticks of a scheduler")
    schedules_dir: Path | None = Field(
        default=None, description="Folder of schedules (YAML files) that schedulers copy to the store and run"
    )
    allowed_webhooks: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated hosts that notifications may call: host, host:port, *.domain, http://host. "
        "Default: none if the root is in S3, any otherwise",
    )
    webhook_secrets_file: Path | None = Field(
        default=None, description="YAML file of the secrets that notifications are signed with, by name"
    )
    openlineage: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="Where schedulers send OpenLineage events: a file, or an http(s) URL (Marquez: /api/v1/lineage)",
    )
    trusted_keys: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated files of public keys (Ed25519, PEM); for the gate `signed`, one must have signed",
    )
    signing_key_file: Path | None = Field(
        default=None, description="File of a private key with which schedulers sign builds before they judge them"
    )
    visibility_timeout: int = Field(
        default=6 * 3600, ge=60, description="Seconds until Redis delivers an unacknowledged ticket again"
    )
    redis_timeout: float = Field(
        default=10.0, ge=1.0, le=300.0, description="Seconds without an answer after which Redis counts as unavailable"
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of the Prometheus metrics of workers and schedulers"
    )
    metrics_host: str = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="Address of that port; 0.0.0.0 is all addresses"
    )
    server_host: str = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="Address of `latentmill serve`; 0.0.0.0 is all"
    )
    server_port: int | None = Field(default=None, ge=1, le=65535, description="Its port; 8400 by default")
    server_names: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated host names under which it is reached; localhost alone by default",
    )
    server_proxies: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated addresses or networks of proxies whose X-Forwarded-For and -Proto it believes",
    )
    server_cert_file: Path | None = Field(default=None, description="PEM file of its certificate, for https")
    server_key_file: Path | None = Field(default=None, description="PEM file of the private key of the certificate")
    server_without_keys: bool = Field(
        default=False, description="Answer without a key, at a loopback address only: whoever asks is an operator"
    )
    server_requests: int = Field(
        default=1200, ge=1, le=10_000_000, description="Requests a minute of one key that a server answers"
    )
    server_upload_bytes: Bytes = Field(
        default=2 * 2**30, ge=2**20, description="Maximum size of a bundle that is uploaded to a server, in bytes"
    )
    destinations: str | None = Field(
        default=None,
        max_length=10_000,
        description="Comma-separated URLs of the places of tenant `default` over HTTP; the file of tenants has others'",
    )
    server_directory: Path | None = Field(
        default=None,
        description="Unless places are set: the folders `datasets` in this directory and in those below it are places "
        "of tenant `default`, and so are the destinations of its jobs; `latentmill up` at a loopback address sets it",
    )
    server_url: str | None = Field(
        default=None, max_length=2000, description="The server that clients ask, instead of Redis and the store"
    )
    token: SecretStr | None = Field(default=None, description="The key for that server")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Level of worker logs")

    s3_endpoint_url: str | None = Field(default=None, description="S3-compatible service; AWS by default")
    s3_region: str | None = Field(default=None, description="Region of the service")
    s3_access_key: SecretStr | None = Field(default=None, description="Access key; default: boto3's credential chain")
    s3_secret_key: SecretStr | None = Field(default=None, description="Secret key of the access key")
    s3_session_token: SecretStr | None = Field(default=None, description="Session token of temporary credentials")
    s3_access_key_file: Path | None = Field(default=None, description="File of the access key, read again when refused")
    s3_secret_key_file: Path | None = Field(default=None, description="File of the secret key, read again when refused")
    s3_session_token_file: Path | None = Field(default=None, description="File of the session token, likewise")
    s3_credentials_seconds: float = Field(
        default=1800.0, ge=0.0, le=86400.0, description="Time for new credentials to come before faults are counted"
    )
    s3_ca_file: Path | None = Field(
        default=None, description="PEM file of the certificate authorities trusted for https; the system's by default"
    )
    s3_checksums: Checksums = Field(
        default="when_supported",
        description="Request checksums; md5 (a header that all services know) or when_required for those that refuse "
        "others",
    )
    s3_if_match: IfMatch = Field(
        default="quoted",
        description="Form of the etag in conditional writes: quoted, or bare for services that want it",
    )
    s3_encryption: Encryption | None = Field(
        default=None, description="Encryption sent with every object, for buckets that demand it: AES256, aws:kms"
    )
    s3_kms_key: str | None = Field(
        default=None, min_length=1, max_length=2048, description="Key of KMS for it; the bucket's own by default"
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Bucket in path or host"
    )
    s3_connect_timeout: float = Field(default=5.0, gt=0.0, description="Connection timeout in seconds")
    s3_read_timeout: float = Field(default=60.0, gt=0.0, description="Read timeout in seconds")
    s3_max_attempts: int = Field(default=5, ge=1, le=20, description="Attempts of one request, with back-off")
    s3_max_pool_connections: int = Field(default=16, ge=1, le=1024, description="Open connections of a process")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence: arguments, then environment variables, then secret files."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @field_validator("allowed_stores")
    @classmethod
    def _check_urls(cls, urls: str | None) -> str | None:
        try:
            for url in _split_urls(urls or ""):
                _ = url in REMOTE or absolute_url(url)
        except SpecError as wrong:
            raise ValueError(f"{wrong.expected}, separated by commas, or a service such as s3://") from wrong
        return urls

    def check_allowed(self, url: str) -> str:
        """Return ``url`` if a job may be written there.

        Raises ``SettingsError`` if the settings do not allow it, ``SpecError`` if it is not a store URL.
        """
        absolute_url(url)
        service = next((service for service in REMOTE if self.root.startswith(service)), None)
        allowed = service if self.allowed_stores is None else self.allowed_stores
        if allowed is None or any(is_below(url, store) for store in _split_urls(allowed)):
            return url
        raise SettingsError(
            "destination",
            f"a place below {' or '.join(_split_urls(allowed)) or 'none'}",
            url[:200],
            f"{ENV_PREFIX}ALLOWED_STORES says where workers and clients may write",
        )

    @property
    def s3(self) -> S3Settings:
        """The settings of the S3 client."""
        prefix = "s3_"
        return S3Settings(**{name.removeprefix(prefix): value for name, value in self if name.startswith(prefix)})

    def read_trusted_keys(self) -> tuple[PublicKey, ...]:
        """The keys in the files ``trusted_keys``. Raises ``SettingsError``."""
        from generator.signatures import read_public_key  # not every command needs cryptography

        files = [name.strip() for name in (self.trusted_keys or "").split(",") if name.strip()]
        try:
            return tuple(read_public_key(Path(file), "trusted_keys") for file in files)
        except KeyFileError as wrong:
            raise SettingsError(wrong.field, wrong.expected, wrong.got, wrong.hint) from wrong

    def read_signing_key(self) -> PrivateKey | None:
        """The key in ``signing_key_file``, if there is one. Raises ``SettingsError``."""
        from generator.signatures import read_private_key

        if self.signing_key_file is None:
            return None
        try:
            return read_private_key(self.signing_key_file, "signing_key_file")
        except KeyFileError as wrong:
            raise SettingsError(wrong.field, wrong.expected, wrong.got, wrong.hint) from wrong

    @property
    def heartbeat_dir(self) -> Path:
        """The directory of the workers' heartbeat files; ``latentmill health`` checks their age."""
        return self.state_dir / "heartbeats"

    @property
    def metrics_dir(self) -> Path:
        """The directory of the counter files of worker processes, if metrics are on."""
        return self.state_dir / "metrics"


def load_settings() -> Settings:
    """Read the settings from the environment. Raises ``SettingsError`` naming the variable, also for a misspelt one."""
    check_names(os.environ, ENV_PREFIX, known_variables())
    try:
        settings = Settings()
    except ValidationError as invalid:
        problem = translate_error(invalid, field="", error=SettingsError, known=tuple(Settings.model_fields))
        raise SettingsError(_variable(problem.field), problem.expected, problem.got, problem.hint) from invalid
    try:
        settings.s3.check_files()
    except SettingsError as wrong:
        raise SettingsError(_variable(wrong.field), wrong.expected, wrong.got, wrong.hint) from wrong
    except ValidationError as invalid:
        problem = translate_error(invalid, field="", error=SettingsError, known=tuple(S3Settings.model_fields))
        raise SettingsError(_variable(f"s3.{problem.field}"), problem.expected, "another value") from None
    return settings


def known_variables() -> set[str]:
    """The names of variables that may be set, without ``ENV_PREFIX``."""
    fields, files = (name.upper() for name in Settings.model_fields), (f"{name.upper()}_FILE" for name in SECRETS)
    return {*fields, *files, *OTHER_VARIABLES}


def _variable(field: str) -> str:
    return ENV_PREFIX + field.replace(".", "_").upper()


def _split_urls(urls: str) -> list[str]:
    return [url.strip() for url in urls.split(",") if url.strip()]


class _SecretFiles(PydanticBaseSettingsSource):
    """Source of secrets in the files named by ``LATENTMILL_<NAME>_FILE``; ``LATENTMILL_<NAME>`` takes precedence."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Required by the base class; ``__call__`` does the work."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        paths = {name: os.environ.get(f"{ENV_PREFIX}{name.upper()}_FILE") for name in SECRETS}
        return {
            name: read_secret(Path(path), f"{ENV_PREFIX}{name.upper()}_FILE") for name, path in paths.items() if path
        }
