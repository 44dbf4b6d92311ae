"""The ticket handler: claims the next shard, makes and publishes it, and commits the build after its last shard."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from generator.errors import (
    BundleMissing,
    ClockSkewed,
    CredentialsExpired,
    DeviceExhausted,
    EnvironmentMismatch,
    LatentmillError,
    ObjectMissing,
    OutsideError,
    SettingsError,
)
from generator.models.bundle import BundleCache
from generator.production.commit import BuildLocation, is_shard_finished
from generator.production.commit.finish import finish_build
from generator.production.commit.segments import gather_segment
from generator.production.mill import produce_shard
from generator.production.pipeline.decoders import CompileOptions
from generator.production.pipeline.run_record import RunRecord
from generator.production.pipeline.shard_maker import ShardMaker
from generator.spec.plan import Plan
from workers.jobs.markers import DeadLetter, new_dead_letter
from workers.jobs.pool import DECLINED_PREFIX, Pool
from workers.ledger.claims import Claim
from workers.ledger.leases import LeaseKeeper, LeaseLost
from workers.settings import Settings
from workers.telemetry import Meter, NullMeter
from workers.worker.build_cache import BuildCache
from workers.worker.decoder_cache import DecoderCache
from workers.worker.query_handler import QueryHandler

# Errors that another worker may not have: the job waits for one instead of failing.
_DECLINE_ERRORS = (EnvironmentMismatch, SettingsError, BundleMissing, ClockSkewed, CredentialsExpired)
_DECLINED_SECONDS = 60.0  # then this worker tries again: the job may have been resumed, the bundle pushed
_FIRST_PAUSE_SECONDS = 5.0  # with expired credentials; then twice as long each time, up to the above


@dataclass(frozen=True)
class TicketResult:
    """The result of a ticket: a line for the log, and whether a shard was finished or a build committed."""

    summary: str
    progressed: bool = False


@dataclass
class TicketHandler:
    """Serves the tickets of one worker process, with its resident decoders and the jobs that it declined lately.

    Every lease nonce begins with ``nonce_prefix``, so that the main process can release the leases of its children.
    """

    pool: Pool
    decoders: DecoderCache
    builds: BuildCache
    nonce_prefix: str = ""
    produce: Callable[..., RunRecord] = produce_shard
    meter: Meter = field(default_factory=NullMeter)
    _declined: dict[str, float] = field(default_factory=dict)
    _expiries: int = 0  # tickets in a row that ended with expired credentials

    def serve(self) -> TicketResult:
        """Serve one ticket: a query if one waits, else a shard. Raises ``BrokerUnavailable`` without Redis."""
        if (answered := QueryHandler(self.pool, self.decoders).serve()) is not None:
            return TicketResult(answered)
        claim = self.pool.ledger.claim(
            self.pool.settings.lease_seconds, self._declined_jobs(), worker=self.nonce_prefix
        )
        if claim is None:
            job = self.pool.ledger.job_to_commit(self._declined_jobs())
            return self._commit(job) if job else TicketResult("nothing to do")
        try:
            return self._make_shard(claim)
        except LeaseLost as lost:
            self.meter.count_shard("lost")
            self.pool.ledger.release(claim)
            return TicketResult(f"stopped: {lost} is no longer ours")
        except _DECLINE_ERRORS as unable:
            self.meter.count_shard("declined")
            self.pool.ledger.release(claim)
            return self._decline(claim.job, unable)
        except OutsideError as fault:
            return self._postpone(claim, fault)
        except LatentmillError as final:
            self.meter.count_shard("failed")
            self.meter.count_fault(final)
            return self._fail(
                claim.job, str(final), new_dead_letter(claim.shard, 1, str(final), traceback.format_exc())
            )
        except Exception as unexpected:
            return self._postpone(claim, unexpected)

    def _make_shard(self, claim: Claim) -> TicketResult:
        started, ledger, settings = time.perf_counter(), self.pool.ledger, self.pool.settings
        seconds, label = settings.lease_seconds, f"{claim.job}, shard {claim.shard},"
        keeper = LeaseKeeper(lambda made: ledger.renew(claim, seconds, made), seconds, label)
        with keeper, self.builds.use(settings.check_allowed(claim.url), claim.name) as location:
            if is_shard_finished(location, claim.shard):
                self.meter.count_shard("found")
            else:
                maker = self._matching_maker(location)
                self.meter.record_run(
                    self.produce(location, maker, claim.shard, lease=claim.nonce, on_batch=keeper.on_batch)
                )
        self._expiries = 0
        plan, elapsed = Plan(location.recipe), time.perf_counter() - started
        summary = f"{claim.job} shard {claim.shard}: {plan.size(claim.shard)} images in {elapsed:.2f} s"
        segment = plan.segment_of(claim.shard)
        outcome = ledger.complete(claim, segment)
        if outcome.finished:
            summary = f"{summary}; {self._commit(claim.job).summary}"
        elif segment is not None and outcome.segment_finished:
            self._gather(location, segment)
        elif outcome.stuck and (marker := self.pool.sync_intent(claim.job)) is not None:
            self.pool.fail_stuck(claim.job, marker)
        return TicketResult(summary, progressed=True)

    def _gather(self, location: BuildLocation, segment: range) -> None:
        """Write the segment of shards that are finished. Where that fails, the commit does it or says what is wrong."""
        try:
            gather_segment(location, segment)
        except LatentmillError as fault:
            self.meter.count_fault(fault)

    def _matching_maker(self, location: BuildLocation) -> ShardMaker:
        """A shard maker whose environment is the build's. Raises ``EnvironmentMismatch`` if we cannot match it."""
        maker = self.decoders.maker(location)
        try:
            self.builds.ensure_environment(location, maker.environment)
        except EnvironmentMismatch:  # another worker fixed it first, perhaps with another execution only
            self.decoders.forget_execution(location)
            again = self.decoders.maker(location)
            if again.environment == maker.environment:
                raise
            self.builds.ensure_environment(location, again.environment)
            return again
        return maker

    def _commit(self, job: str) -> TicketResult:
        """Commit the build, in its own environment only: the preview is encoded here and must be reproducible."""
        ledger, seconds = self.pool.ledger, self.pool.settings.lease_seconds
        claim = ledger.claim_commit(job, seconds)
        if claim is None:
            return TicketResult(f"{job} is being committed by another worker, or will be tried again later")
        try:
            with LeaseKeeper(lambda _: ledger.renew_commit(claim, seconds), seconds, f"the commit of {job}"):
                return self._commit_claimed(job)
        except LeaseLost as lost:
            self.meter.count_commit("lost")
            ledger.renew_commit(claim, 0.001)
            return TicketResult(f"stopped: {lost} is no longer ours")
        except _DECLINE_ERRORS as unable:
            self.meter.count_commit("declined")
            ledger.renew_commit(claim, 0.001)  # another worker may be able to commit, and need not wait
            return self._decline(job, unable)
        except ObjectMissing as missing:
            self._correct_ledger(job)
            return self._postpone_commit(job, missing)
        except OutsideError as fault:
            return self._postpone_commit(job, fault)
        except LatentmillError as final:
            self.meter.count_commit("failed")
            self.meter.count_fault(final)
            return self._fail(job, str(final), new_dead_letter(None, 1, str(final), traceback.format_exc()))
        except Exception as unexpected:
            return self._postpone_commit(job, unexpected)

    def _commit_claimed(self, job: str) -> TicketResult:
        if (marker := self.pool.sync_intent(job)) is None:
            return TicketResult(f"{job} is no longer open")
        location = self.pool.location(marker)
        self._matching_maker(location)

        def check() -> None:
            if self.pool.sync_intent(job) is None:
                raise LeaseLost(f"the commit of {job}")

        manifest = finish_build(location, self.decoders.bundle(location.recipe).info, before_commit=check)
        self.meter.count_commit("committed")
        self.pool.mark_committed(job, marker)
        return TicketResult(f"committed {job}: {manifest.samples} images at {location.url}", progressed=True)

    def _correct_ledger(self, job: str) -> None:
        """Correct a ledger that holds a shard as finished whose receipt is not stored."""
        if (marker := self.pool.sync_intent(job)) is not None:
            self.pool.correct_ledger(marker)

    def _declined_jobs(self) -> list[str]:
        now = time.monotonic()
        self._declined = {job: until for job, until in self._declined.items() if until > now}
        return list(self._declined)

    def _decline(self, job: str, unable: LatentmillError) -> TicketResult:
        """Leave the job to other workers for ``_DECLINED_SECONDS``; its status gives the reason.

        With expired credentials for less, as new ones may come at any time; the store says for how long that is
        no fault (``S3Settings.credentials_seconds``).
        """
        seconds = _DECLINED_SECONDS
        if isinstance(unable, CredentialsExpired):
            seconds = min(seconds, _FIRST_PAUSE_SECONDS * 2**self._expiries) * random.uniform(0.5, 1.0)
            self._expiries = min(self._expiries + 1, 10)
        self._declined[job] = time.monotonic() + seconds
        self.pool.ledger.record_error(job, f"{DECLINED_PREFIX}{unable}")
        return TicketResult(f"declined {job}: {unable}")

    def _postpone(self, claim: Claim, fault: Exception) -> TicketResult:
        """Release the shard for a later attempt of any worker; after too many faults, give it up."""
        error, trace = _describe(fault), traceback.format_exc()
        if isinstance(fault, DeviceExhausted):
            self.decoders.clear()  # decoders of other recipes may occupy the missing memory
        self.meter.count_fault(fault)
        faults = self.pool.ledger.postpone(claim)
        description = f"shard {claim.shard}, fault {faults}: {error}"
        given_up = faults >= self.pool.settings.max_shard_attempts
        self.meter.count_shard("given_up" if given_up else "postponed")
        if given_up:
            self.pool.give_up_shard(claim.job, new_dead_letter(claim.shard, faults, error, trace))
            return TicketResult(f"gave up {claim.job}: {description}")
        self.pool.ledger.record_error(claim.job, description)
        return TicketResult(f"postponed {claim.job}: {description}")

    def _postpone_commit(self, job: str, fault: Exception) -> TicketResult:
        error, trace = _describe(fault), traceback.format_exc()
        self.meter.count_fault(fault)
        faults = self.pool.ledger.postpone_commit(job)
        failed = faults >= self.pool.settings.max_shard_attempts
        self.meter.count_commit("failed" if failed else "postponed")
        if failed:
            reason = f"the commit failed {faults} times; the last error: {error}"
            return self._fail(job, reason, new_dead_letter(None, faults, error, trace))
        self.pool.ledger.record_error(job, f"the commit, fault {faults}: {error}")
        return TicketResult(f"postponed {job}: the commit, fault {faults}: {error}")

    def _fail(self, job: str, error: str, letter: DeadLetter) -> TicketResult:
        self.pool.fail(job, error, letter)
        return TicketResult(f"failed {job}: {error}")


def open_ticket_handler(settings: Settings, worker: str = "", meter: Meter | None = None) -> TicketHandler:
    """A ticket handler with empty caches; ``worker`` is the prefix of its lease nonces."""
    pool = Pool(settings)
    cache = BundleCache(settings.cache_dir, settings.cache_bytes)
    compiling = CompileOptions(settings.compile, settings.compile_cache)
    decoders = DecoderCache(cache, (pool.root,), settings.device, settings.resident_bytes, compiling)
    return TicketHandler(pool, decoders, BuildCache(settings.s3), worker, meter=meter or NullMeter())


def _describe(fault: Exception) -> str:
    """The message of an exception; an unexpected one with its type."""
    return str(fault) if isinstance(fault, LatentmillError) else f"{type(fault).__name__}: {fault}"
