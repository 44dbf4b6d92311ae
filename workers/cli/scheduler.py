"""The command scheduler: a ticker in the foreground."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import click

from generator.errors import SettingsError

_BACKGROUND_THREADS = 2  # builds that are judged, or messages that are sent, at a time
_STUCK_SECONDS = 1800.0


@click.command("scheduler")
def scheduler_command() -> None:
    """Begin the runs of all schedules when they are due, and see them through, until it is stopped.

    Any number may run: they keep nothing, and each date is run once. LATENTMILL_SCHEDULES_DIR names a folder of
    schedules that is brought into the store and followed.
    """
    from workers.doctor import blocking_findings
    from workers.embedded import StopSignals
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
    _ = pool.ledger  # a URL that is none is refused; Redis itself may come later
    folder = ScheduleFolder(settings.schedules_dir, settings) if settings.schedules_dir else None
    logging.basicConfig(level=settings.log_level, format="[%(asctime)s: %(levelname)s] %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    root = pool.root
    courier = DeliveryThread(root, settings)
    hands = PoolService(settings, courier.wake)
    root.check_writable()
    for found in blocking_findings(settings, root.url):
        raise SettingsError("root", "a store that mixes up nothing", f"{found.check}: {found.found}", found.mend)
    aside, stopped = ThreadPoolExecutor(_BACKGROUND_THREADS, thread_name_prefix="aside"), threading.Event()
    ticker = Ticker(hands, SystemClock(), aside, every=settings.tick_seconds, folder=folder)
    heartbeat = Heartbeat(settings.heartbeat_dir, lambda: ticker.seconds_since_tick() < _STUCK_SECONDS)
    told = "Seconds since the scheduler last began to look at its schedules."
    exporter = Exporter(settings, "scheduler", {"scheduler_silent_seconds": (told, ticker.seconds_since_tick)})
    exporter.start()
    with StopSignals() as signals:
        heartbeat.start()
        courier.start()
        thread = threading.Thread(target=ticker.run, args=(stopped,), name="ticker", daemon=True)
        thread.start()
        logging.getLogger(__name__).info("scheduler: the schedules of %s", root.url)
        while not signals.stop_requested():
            time.sleep(0.1)
        stopped.set()
        thread.join(settings.grace_seconds)
        heartbeat.stop()
        exporter.stop()
    # What is being judged is judged again by the next ticker: nobody waits for it.
    logging.getLogger(__name__).info("scheduler: left")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
