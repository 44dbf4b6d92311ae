"""What one ticket does: claim the next shard, make it, publish it; and commit the build when it was the last one."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass, field

from generator.bundle import BundleCache
from generator.errors import EnvironmentMismatch, LatentmillError, ObjectMissing, OutsideError
from generator.finishing import finish
from generator.mill import produce_shard
from generator.plan import Plan
from generator.provenance.manifest import build_prefix, receipt_key
from generator.publish import BuildPlace, fix_environment, found_place
from generator.store import open_store
from workers.leases import LeaseKeeper, LeaseLost
from workers.ledger import Claim
from workers.pool import Pool
from workers.resident import Residents
from workers.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class Workshop:
    """One worker process: its pool, its resident decoders, and the jobs whose environment it does not have."""

    pool: Pool
    residents: Residents
    declined: set[str] = field(default_factory=set)

    def serve(self) -> str:
        """Serve one ticket; what came of it, for the log. Raises ``BrokerUnavailable`` when Redis is away."""
        ledger, settings = self.pool.ledger, self.pool.settings
        claim = ledger.claim(settings.lease_seconds, self.declined)
        if claim is None:
            return self._commit_finished()
        try:
            return self._make(claim)
        except LeaseLost as lost:
            ledger.release(claim)
            return f"stopped: {lost} is no longer ours"
        except EnvironmentMismatch as mismatch:
            self.declined.add(claim.job)
            ledger.release(claim)
            return f"declined {claim.job}: {mismatch}"
        except OutsideError as fault:
            return self._postpone(claim, str(fault))
        except LatentmillError as final:
            self.pool.fail(claim.job, str(final))
            return f"failed {claim.job}: {final}"
        except Exception:
            return self._postpone(claim, traceback.format_exc())

    def _make(self, claim: Claim) -> str:
        clock, place = time.perf_counter(), self._place(claim.job)
        if place.store.head(receipt_key(claim.shard)) is None:
            maker = self.residents.maker(place)
            fix_environment(place, maker.environment)
            with LeaseKeeper(self.pool.ledger, claim, self.pool.settings.lease_seconds) as keeper:
                produce_shard(place, maker, claim.shard, lease=claim.nonce, on_batch=keeper.on_batch)
        if self.pool.ledger.complete(claim):
            self._commit(claim.job, place)
        count = Plan(place.recipe).size(claim.shard)
        return f"{claim.job} shard {claim.shard}: {count} images in {time.perf_counter() - clock:.2f} s"

    def _postpone(self, claim: Claim, error: str) -> str:
        faults = self.pool.ledger.postpone(claim)
        if faults >= self.pool.settings.max_shard_attempts:
            self.pool.fail(claim.job, f"shard {claim.shard} failed {faults} times; the last error: {error}")
            return f"failed {claim.job} after {faults} faults of shard {claim.shard}: {error}"
        return f"postponed {claim.job} shard {claim.shard} after fault {faults}: {error}"

    def _commit_finished(self) -> str:
        for job in self.pool.ledger.active():
            if job not in self.declined and self.pool.ledger.counts(job).finished:
                return self._commit(job, self._place(job))
        return "nothing to do"

    def _commit(self, job: str, place: BuildPlace) -> str:
        """Commit in the build's own environment only: the preview is encoded here, and must be repeatable."""
        try:
            maker = self.residents.maker(place)
            fix_environment(place, maker.environment)
            manifest = finish(place, self.residents.bundle(place.recipe).info)
        except EnvironmentMismatch as mismatch:
            self.declined.add(job)
            return f"declined to commit {job}: {mismatch}"
        except ObjectMissing:
            marker = self.pool.marker(job)  # the ledger believed in a receipt that is not stored
            if marker is not None:
                self.pool.activate(marker)
            return f"{job}: a receipt was missing; read the store again"
        except OutsideError as fault:
            return f"{job}: commit put off: {fault}"
        except LatentmillError as final:
            self.pool.fail(job, str(final))
            return f"failed {job}: {final}"
        self.pool.conclude(job)
        return f"committed {job}: {manifest.samples} images at {place.url}"

    def _place(self, job: str) -> BuildPlace:
        facts = self.pool.ledger.facts(job)
        destination = open_store(facts["destination"], self.pool.settings.s3)
        return found_place(destination.at(build_prefix(facts["name"], facts["build_id"])), facts["name"])


def open_workshop(settings: Settings) -> Workshop:
    """A worker process with nothing resident yet."""
    pool = Pool(settings)
    cache = BundleCache(settings.cache_dir, settings.cache_bytes)
    return Workshop(pool, Residents(cache, (pool.root,), settings.device, settings.resident_bytes))
