"""What one ticket does: claim the next shard, make it, publish it; and commit the build when it was the last one."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

from generator.bundle import BundleCache
from generator.errors import (
    BundleMissing,
    EnvironmentMismatch,
    LatentmillError,
    ObjectMissing,
    OutsideError,
    SettingsError,
)
from generator.finishing import finish
from generator.mill import produce_shard
from generator.plan import Plan
from generator.publish import BuildPlace, fix_environment, found_place, is_finished
from generator.store import open_store
from workers.leases import LeaseKeeper, LeaseLost
from workers.ledger import Claim
from workers.pool import Pool
from workers.resident import Residents
from workers.settings import Settings

# What a worker lacks, and another may have: its job waits instead of failing.
_NOT_HERE = (EnvironmentMismatch, SettingsError, BundleMissing)


@dataclass(frozen=True)
class Served:
    """What came of a ticket, in words; and whether a shard was made or a build committed."""

    told: str
    made: bool = False


@dataclass
class Workshop:
    """One worker process: its pool, its resident decoders, and the jobs that it cannot serve."""

    pool: Pool
    residents: Residents
    declined: set[str] = field(default_factory=set)

    def serve(self) -> Served:
        """Serve one ticket. Raises ``BrokerUnavailable`` when Redis is away."""
        claim = self.pool.ledger.claim(self.pool.settings.lease_seconds, self.declined)
        if claim is None:
            return self._commit_finished()
        try:
            return self._make(claim)
        except LeaseLost as lost:
            self.pool.ledger.release(claim)
            return Served(f"stopped: {lost} is no longer ours")
        except _NOT_HERE as unable:
            self.pool.ledger.release(claim)
            return self._decline(claim.job, unable)
        except OutsideError as fault:
            return self._postpone(claim, str(fault))
        except LatentmillError as final:
            return self._fail(claim.job, str(final))
        except Exception:
            return self._postpone(claim, traceback.format_exc())

    def _make(self, claim: Claim) -> Served:
        clock, place = time.perf_counter(), self._place(claim.job)
        if not is_finished(place, claim.shard):
            maker = self.residents.maker(place)
            fix_environment(place, maker.environment)
            with LeaseKeeper(self.pool.ledger, claim, self.pool.settings.lease_seconds) as keeper:
                produce_shard(place, maker, claim.shard, lease=claim.nonce, on_batch=keeper.on_batch)
        count, seconds = Plan(place.recipe).size(claim.shard), time.perf_counter() - clock
        told = f"{claim.job} shard {claim.shard}: {count} images in {seconds:.2f} s"
        if self.pool.ledger.complete(claim):
            told = f"{told}; {self._commit(claim.job).told}"
        return Served(told, made=True)

    def _commit_finished(self) -> Served:
        for job in self.pool.ledger.active():
            if job not in self.declined and self.pool.ledger.counts(job).finished:
                return self._commit(job)
        return Served("nothing to do")

    def _commit(self, job: str) -> Served:
        """Commit in the build's own environment only: the preview is encoded here, and must be repeatable."""
        if not self.pool.ledger.claim_commit(job, self.pool.settings.lease_seconds):
            return Served(f"{job} is being committed by another worker, or will be tried again later")
        try:
            if (marker := self.pool.still_wanted(job)) is None:
                return Served(f"{job} is no longer wanted")
            place = marker.place(self.pool.settings.s3)
            fix_environment(place, self.residents.maker(place).environment)
            manifest = finish(place, self.residents.bundle(place.recipe).info)
        except _NOT_HERE as unable:
            return self._decline(job, unable)
        except ObjectMissing as missing:
            self._read_store_again(job)  # the ledger believed in a receipt that is not stored
            return self._postpone_commit(job, str(missing))
        except OutsideError as fault:
            return self._postpone_commit(job, str(fault))
        except LatentmillError as final:
            return self._fail(job, str(final))
        except Exception:
            return self._postpone_commit(job, traceback.format_exc())
        self.pool.conclude(job, marker)
        return Served(f"committed {job}: {manifest.samples} images at {place.url}", made=True)

    def _read_store_again(self, job: str) -> None:
        if (marker := self.pool.still_wanted(job)) is not None:
            self.pool.activate(marker)

    def _decline(self, job: str, unable: LatentmillError) -> Served:
        """Another worker may be able to: the job waits for it, and says what this one lacked."""
        self.declined.add(job)
        self.pool.ledger.note(job, f"declined by a worker: {unable}")
        return Served(f"declined {job}: {unable}")

    def _postpone(self, claim: Claim, error: str) -> Served:
        faults = self.pool.ledger.postpone(claim)
        return self._after_fault(claim.job, f"shard {claim.shard}", faults, error)

    def _postpone_commit(self, job: str, error: str) -> Served:
        return self._after_fault(job, "the commit", self.pool.ledger.postpone_commit(job), error)

    def _after_fault(self, job: str, what: str, faults: int, error: str) -> Served:
        if faults >= self.pool.settings.max_shard_attempts:
            return self._fail(job, f"{what} failed {faults} times; the last error: {error}")
        self.pool.ledger.note(job, f"{what}, fault {faults}: {error}")
        return Served(f"postponed {job}: {what}, fault {faults}: {error}")

    def _fail(self, job: str, error: str) -> Served:
        self.pool.fail(job, error)
        return Served(f"failed {job}: {error}")

    def _place(self, job: str) -> BuildPlace:
        facts = self.pool.ledger.facts(job)
        if "url" not in facts:  # forgotten since it was claimed
            raise LeaseLost(f"{job}, which the ledger no longer knows,")
        return found_place(open_store(facts["url"], self.pool.settings.s3), facts["name"])


def open_workshop(settings: Settings) -> Workshop:
    """A worker process with nothing resident yet."""
    pool = Pool(settings)
    cache = BundleCache(settings.cache_dir, settings.cache_bytes)
    return Workshop(pool, Residents(cache, (pool.root,), settings.device, settings.resident_bytes))
