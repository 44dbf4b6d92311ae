"""What one ticket does: claim the next shard, make it, publish it; and commit the build when it was the last one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from generator.errors import (
    BundleMissing,
    DeviceExhausted,
    EnvironmentMismatch,
    LatentmillError,
    ObjectMissing,
    OutsideError,
    SettingsError,
)
from generator.models.bundle import BundleCache
from generator.production.commit import BuildPlace, is_finished
from generator.production.commit.finish import finish
from generator.production.mill import produce_shard
from generator.production.pipeline.decoders import Compiling
from generator.production.pipeline.run_record import Run
from generator.production.pipeline.shard_maker import Maker
from generator.spec.plan import Plan
from workers.jobs.markers import DeadLetter, letter_of
from workers.jobs.pool import DECLINED, Pool
from workers.ledger.claims import Claim
from workers.ledger.leases import LeaseKeeper, LeaseLost
from workers.settings import Settings
from workers.telemetry import Meter, Silent
from workers.worker.build_cache import Places
from workers.worker.decoder_cache import Residents

# What a worker lacks, and another may have: its job waits instead of failing.
_NOT_HERE = (EnvironmentMismatch, SettingsError, BundleMissing)
_DECLINED_SECONDS = 60.0  # then it is tried again: the job may have been resumed, the bundle pushed


@dataclass(frozen=True)
class Served:
    """What came of a ticket, in words; and whether a shard was made or a build committed."""

    told: str
    made: bool = False


@dataclass
class Workshop:
    """One worker process: its pool, its resident decoders, and the jobs that it cannot serve for now.

    ``worker`` begins the nonce of every lease, so that the main process can hand back what its children hold.
    """

    pool: Pool
    residents: Residents
    places: Places
    worker: str = ""
    produce: Callable[..., Run] = produce_shard
    meter: Meter = field(default_factory=Silent)
    _declined: dict[str, float] = field(default_factory=dict)

    def serve(self) -> Served:
        """Serve one ticket. Raises ``BrokerUnavailable`` when Redis is away."""
        claim = self.pool.ledger.claim(self.pool.settings.lease_seconds, self._unable(), worker=self.worker)
        if claim is None:
            job = self.pool.ledger.finished_job(self._unable())
            return self._commit(job) if job else Served("nothing to do")
        try:
            return self._make(claim)
        except LeaseLost as lost:
            self.meter.shard("lost")
            self.pool.ledger.release(claim)
            return Served(f"stopped: {lost} is no longer ours")
        except _NOT_HERE as unable:
            self.meter.shard("declined")
            self.pool.ledger.release(claim)
            return self._decline(claim.job, unable)
        except OutsideError as fault:
            return self._postpone(claim, fault)
        except LatentmillError as final:
            self.meter.shard("failed")
            self.meter.fault(final)
            return self._fail(claim.job, str(final), letter_of(claim.shard, 1, str(final), traceback.format_exc()))
        except Exception as unexpected:
            return self._postpone(claim, unexpected)

    def _make(self, claim: Claim) -> Served:
        clock, ledger, seconds = time.perf_counter(), self.pool.ledger, self.pool.settings.lease_seconds
        held, settings = f"{claim.job}, shard {claim.shard},", self.pool.settings
        keeper = LeaseKeeper(lambda made: ledger.renew(claim, seconds, made), seconds, held)
        with keeper, self.places.at(settings.check_allowed(claim.url), claim.name) as place:
            if is_finished(place, claim.shard):
                self.meter.shard("found")
            else:
                maker = self._agreed(place)
                self.meter.made(self.produce(place, maker, claim.shard, lease=claim.nonce, on_batch=keeper.on_batch))
        count, taken = Plan(place.recipe).size(claim.shard), time.perf_counter() - clock
        told = f"{claim.job} shard {claim.shard}: {count} images in {taken:.2f} s"
        outcome = ledger.complete(claim)
        if outcome.finished:
            told = f"{told}; {self._commit(claim.job).told}"
        elif outcome.stuck and (marker := self.pool.still_wanted(claim.job)) is not None:
            self.pool.fail_stuck(claim.job, marker)
        return Served(told, made=True)

    def _agreed(self, place: BuildPlace) -> Maker:
        """A maker in the build's own environment. Raises ``EnvironmentMismatch`` where there is none here."""
        maker = self.residents.maker(place)
        try:
            self.places.agree(place, maker.environment)
        except EnvironmentMismatch:  # another worker was first, and may have fixed but another way to decode
            self.residents.forget(place)
            again = self.residents.maker(place)
            if again.environment == maker.environment:
                raise
            self.places.agree(place, again.environment)
            return again
        return maker

    def _commit(self, job: str) -> Served:
        """Commit in the build's own environment only: the preview is encoded here, and must be repeatable."""
        ledger, seconds = self.pool.ledger, self.pool.settings.lease_seconds
        claim = ledger.claim_commit(job, seconds)
        if claim is None:
            return Served(f"{job} is being committed by another worker, or will be tried again later")
        try:
            with LeaseKeeper(lambda _: ledger.renew_commit(claim, seconds), seconds, f"the commit of {job}"):
                return self._commit_claimed(job)
        except LeaseLost as lost:
            self.meter.commit("lost")
            ledger.renew_commit(claim, 0.001)
            return Served(f"stopped: {lost} is no longer ours")
        except _NOT_HERE as unable:
            self.meter.commit("declined")
            ledger.renew_commit(claim, 0.001)  # another worker may be able to, and need not wait
            return self._decline(job, unable)
        except ObjectMissing as missing:
            self._read_store_again(job)
            return self._postpone_commit(job, missing)
        except OutsideError as fault:
            return self._postpone_commit(job, fault)
        except LatentmillError as final:
            self.meter.commit("failed")
            self.meter.fault(final)
            return self._fail(job, str(final), letter_of(None, 1, str(final), traceback.format_exc()))
        except Exception as unexpected:
            return self._postpone_commit(job, unexpected)

    def _commit_claimed(self, job: str) -> Served:
        if (marker := self.pool.still_wanted(job)) is None:
            return Served(f"{job} is no longer wanted")
        place = self.pool.place(marker)
        self._agreed(place)

        def check() -> None:
            if self.pool.still_wanted(job) is None:
                raise LeaseLost(f"the commit of {job}")

        manifest = finish(place, self.residents.bundle(place.recipe).info, before_commit=check)
        self.meter.commit("committed")
        self.pool.conclude(job, marker)
        return Served(f"committed {job}: {manifest.samples} images at {place.url}", made=True)

    def _read_store_again(self, job: str) -> None:
        """The ledger believed in a receipt that is not stored."""
        if (marker := self.pool.still_wanted(job)) is not None:
            self.pool.correct(marker)

    def _unable(self) -> list[str]:
        now = time.monotonic()
        self._declined = {job: until for job, until in self._declined.items() if until > now}
        return list(self._declined)

    def _decline(self, job: str, unable: LatentmillError) -> Served:
        """Another worker may be able to: the job waits for it, and says what this one lacked."""
        self._declined[job] = time.monotonic() + _DECLINED_SECONDS
        self.pool.ledger.note(job, f"{DECLINED}{unable}")
        return Served(f"declined {job}: {unable}")

    def _postpone(self, claim: Claim, fault: Exception) -> Served:
        """Try again later, by whoever is free then; after too many faults the shard is given up."""
        error, trace = _text(fault), traceback.format_exc()
        if isinstance(fault, DeviceExhausted):
            self.residents.let_go_of_all()  # what other recipes hold on the device may be what was lacking
        self.meter.fault(fault)
        faults = self.pool.ledger.postpone(claim)
        what = f"shard {claim.shard}, fault {faults}: {error}"
        given_up = faults >= self.pool.settings.max_shard_attempts
        self.meter.shard("given_up" if given_up else "postponed")
        if given_up:
            self.pool.bury(claim.job, letter_of(claim.shard, faults, error, trace))
            return Served(f"gave up {claim.job}: {what}")
        self.pool.ledger.note(claim.job, what)
        return Served(f"postponed {claim.job}: {what}")

    def _postpone_commit(self, job: str, fault: Exception) -> Served:
        error, trace = _text(fault), traceback.format_exc()
        self.meter.fault(fault)
        faults = self.pool.ledger.postpone_commit(job)
        failed = faults >= self.pool.settings.max_shard_attempts
        self.meter.commit("failed" if failed else "postponed")
        if failed:
            told = f"the commit failed {faults} times; the last error: {error}"
            return self._fail(job, told, letter_of(None, faults, error, trace))
        self.pool.ledger.note(job, f"the commit, fault {faults}: {error}")
        return Served(f"postponed {job}: the commit, fault {faults}: {error}")

    def _fail(self, job: str, error: str, letter: DeadLetter) -> Served:
        self.pool.fail(job, error, letter)
        return Served(f"failed {job}: {error}")


def open_workshop(settings: Settings, worker: str = "", meter: Meter | None = None) -> Workshop:
    """A worker process with nothing resident yet."""
    pool = Pool(settings)
    cache = BundleCache(settings.cache_dir, settings.cache_bytes)
    compiling = Compiling(settings.compile, settings.compile_cache)
    residents = Residents(cache, (pool.root,), settings.device, settings.resident_bytes, compiling)
    return Workshop(pool, residents, Places(settings.s3), worker, meter=meter or Silent())


def _text(fault: Exception) -> str:
    """One line that says what happened; an unexpected exception with its type."""
    return str(fault) if isinstance(fault, LatentmillError) else f"{type(fault).__name__}: {fault}"
