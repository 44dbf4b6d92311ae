"""The command scheduler: runs a ticker in the foreground."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import click

from generator.errors import SettingsError

_BACKGROUND_THREADS = 2  # gates that are evaluated, or other chores, at the same time
_STUCK_SECONDS = 1800.0


@click.command("scheduler")
def scheduler_command() -> None:
    """Start the runs of all schedules when they are due, and advance them until they end. Runs until stopped.

    Any number of schedulers may run: their state is in the store, and each date is run once. If
    LATENTMILL_SCHEDULES_DIR names a folder of schedule files, new and changed ones are copied into the store.
    """
    from workers.doctor import blocking_findings
    from workers.embedded import StopSignals
    from workers.jobs.discovery import Discovery
    from workers.jobs.pool import Pool
    from workers.notifications import DeliveryThread
    from workers.schedules.clock import SystemClock
    from workers.schedules.folder import ScheduleFolder
    from workers.schedules.service import PoolService
    from workers.schedules.ticker import Ticker
    from workers.settings import load_settings
    from workers.telemetry import Exporter
    from workers.worker.heartbeat import Heartbeat

    settings = load_settings()
    pool = Pool(settings)
    _ = pool.ledger  # raises for an invalid URL; Redis itself may start later, and the identity is read then
    folder = ScheduleFolder(settings.schedules_dir, settings) if settings.schedules_dir else None
    logging.basicConfig(level=settings.log_level, format="[%(asctime)s: %(levelname)s] %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    root = pool.root
    delivery = DeliveryThread(root, settings)
    service = PoolService(settings, delivery.wake)
    root.check_writable()
    for found in blocking_findings(settings, root.url):
        raise SettingsError(
            "root", "a store that cannot lose or mix up data", f"{found.check}: {found.found}", found.mend
        )
    executor, stopped = ThreadPoolExecutor(_BACKGROUND_THREADS, thread_name_prefix="background"), threading.Event()
    ticker = Ticker(service, SystemClock(), executor, interval=settings.tick_seconds, folder=folder)
    heartbeat = Heartbeat(settings.heartbeat_dir, lambda: ticker.seconds_since_tick() < _STUCK_SECONDS)
    help_text = "Seconds since the last pass of the scheduler started."
    exporter = Exporter(settings, "scheduler", {"scheduler_silent_seconds": (help_text, ticker.seconds_since_tick)})
    exporter.start()
    with StopSignals() as signals:
        heartbeat.start()
        delivery.start()
        thread = threading.Thread(target=ticker.run, args=(stopped,), name="ticker", daemon=True)
        thread.start()
        # No worker may be running: the gauges must tell of open builds that a Redis which restarted has lost.
        threading.Thread(target=Discovery(pool).run, args=(stopped,), name="discovery", daemon=True).start()
        logging.getLogger(__name__).info("scheduler: the schedules of %s", root.url)
        while not signals.stop_requested():
            time.sleep(0.1)
        stopped.set()
        thread.join(settings.grace_seconds)
        heartbeat.stop()
        exporter.stop()
    # Do not wait for gates that are being evaluated: the next ticker evaluates them again.
    logging.getLogger(__name__).info("scheduler: stopped")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
