"""What every request of a server shares: settings, store root, client, keys, tenants, limits. Nothing of it is state
that another server process would need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.requests import Request

from generator.datasets.exploration.column_cache import ColumnCache
from generator.store import absolute_url, is_remote, open_store
from generator.store.base import Store
from generator.store.url import parse_url
from workers.client.pool_client import PoolClient
from workers.jobs.markers import read_markers
from workers.jobs.pool import Pool
from workers.server.access.keys import KeyRing
from workers.server.access.local_places import LocalPlaces
from workers.server.access.rate_limit import RateLimit
from workers.server.access.tenants import DEFAULT_TENANT, TenantPlaces
from workers.server.builds import BuildShelf, CommittedBuild
from workers.server.columns import ColumnShelf
from workers.server.concurrency import Slots
from workers.server.job_costs import CostShelf, ProgressShelf
from workers.server.runs import RunShelf
from workers.server.shard_pictures import ShardPictureShelf
from workers.server.verdicts import VerdictShelf
from workers.settings import Settings

# While the store or Redis does not answer, a request must not hold its thread for minutes.
_S3_SECONDS, _S3_ATTEMPTS, _REDIS_SECONDS = 10.0, 2, 3.0
_FAILED_KEYS_A_MINUTE = 60.0
_UPLOADS = 2  # a bundle is read into memory to be checked
_STREAMS = 200  # of events of jobs


@dataclass(frozen=True)
class ServerContext:
    """``rates``: requests by key; ``failures``: refused keys by address, ``guesses``: by the id that they name.
    ``uploads``, ``streams``: how many there are at the same time."""

    settings: Settings
    pool: Pool
    client: PoolClient
    keys: KeyRing
    places: TenantPlaces
    rates: RateLimit
    columns: ColumnShelf
    failures: RateLimit = field(default_factory=lambda: RateLimit(_FAILED_KEYS_A_MINUTE, 20.0))
    guesses: RateLimit = field(default_factory=lambda: RateLimit(_FAILED_KEYS_A_MINUTE, 20.0))
    shelf: BuildShelf = field(default_factory=BuildShelf)
    runs: RunShelf = field(default_factory=RunShelf)
    verdicts: VerdictShelf = field(default_factory=VerdictShelf)
    costs: CostShelf = field(default_factory=CostShelf)
    progress: ProgressShelf = field(default_factory=ProgressShelf)
    shard_pictures: ShardPictureShelf = field(default_factory=ShardPictureShelf)
    uploads: Slots = field(default_factory=lambda: Slots("uploads", _UPLOADS))
    streams: Slots = field(default_factory=lambda: Slots("streams", _STREAMS))

    @property
    def root(self) -> Store:
        return self.pool.root

    def dataset(self, tenant: str, name: str) -> Store:
        """The store of the dataset ``<place>/<name>`` of a tenant. Raises ``SpecError``, ``AccessRefused``."""
        return open_store(self.places.dataset(tenant, name), self.settings.s3)

    def build(self, tenant: str, dataset: str, build_id: str) -> CommittedBuild:
        """A committed build of a tenant. Raises ``SpecError``, ``AccessRefused``, ``DatasetError``, ``StoreError``."""
        return self.shelf.find(self.dataset(tenant, dataset), build_id)

    def redact(self, text: str, tenant: str) -> str:
        """``text`` without the paths of the server: those of places become their names."""
        if "/" not in text:
            return text
        named = {self.root.url: "<root>"} | {url: name for name, url in self.places.places(tenant).items()}
        for url in sorted(named, key=len, reverse=True):  # a place below the root first
            path = parse_url(url).root if not is_remote(url) else ""
            for hidden in (url, path) if len(path) > 1 else ():
                text = text.replace(hidden, named[url])
        return text


def open_context(settings: Settings) -> ServerContext:
    """The context of a server. Nothing is connected yet. Raises ``SettingsError``."""
    settings = settings.model_copy(
        update={
            "s3_read_timeout": min(settings.s3_read_timeout, _S3_SECONDS),
            "s3_max_attempts": min(settings.s3_max_attempts, _S3_ATTEMPTS),
            "redis_timeout": min(settings.redis_timeout, _REDIS_SECONDS),
        }
    )
    pool = Pool(settings)
    settings = settings.model_copy(update={"root": pool.root.url})
    pool = Pool(settings)
    return ServerContext(
        settings=settings,
        pool=pool,
        client=PoolClient(pool),
        keys=KeyRing(lambda: pool.root),
        places=TenantPlaces(settings, absolute_url(pool.root.url), _local_places(settings, pool)),
        rates=RateLimit(settings.server_requests),
        columns=ColumnShelf(ColumnCache(settings.column_cache, settings.column_cache_bytes)),
    )


def _local_places(settings: Settings, pool: Pool) -> LocalPlaces | None:
    """The places of ``default`` in `latentmill up`, which says where it was started."""
    if settings.server_directory is None:
        return None
    known = dict[str, tuple[str, str]]()  # tenant and destination by job; they never change

    def destinations() -> Iterable[tuple[str, str]]:
        known.update({marker.job: (marker.tenant, marker.destination) for marker in read_markers(pool.root)})
        for job in pool.ledger.known_jobs():
            if job not in known and (facts := pool.ledger.facts(job)).keys() >= {"tenant", "destination"}:
                known[job] = facts["tenant"], facts["destination"]
        return known.values()

    return LocalPlaces(settings.server_directory, DEFAULT_TENANT, pool.root, destinations)


def context_of(request: Request) -> ServerContext:
    """The context of the server that got this request."""
    found: ServerContext = request.app.state.context
    return found
