"""Worker processes of tests that start in a fraction of a second: the worker and its pool processes are forked."""

from __future__ import annotations

from pathlib import Path

from tests.support.fork_server import ForkClient, ForkedCommand, ForkedProcess
from workers.embedded import WorkerProcess, worker_command, worker_environment
from workers.settings import ENV_PREFIX, Settings


class ForkedWorker(WorkerProcess):
    """A worker as ``WorkerProcess`` starts it, with the same words and environment, in a session of its own.

    ``module``: where Celery finds the application.
    """

    def __init__(
        self, server: ForkClient, url: str, settings: Settings, log: Path, module: str = "workers.worker.tasks"
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        words = [module if word == "workers.worker.tasks" else word for word in worker_command(settings)]
        env = worker_environment(settings) | {f"{ENV_PREFIX}REDIS_URL": url}
        with log.open("ab") as output:
            command = ForkedCommand("worker", words[words.index("celery") + 1 :], Path.cwd(), env)
            self.process: ForkedProcess = server.start(command, output, output)  # type: ignore[assignment]
