"""The root of the command line: the table of commands by section, and the printing of errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import version

import click

from generator.errors import LatentmillError
from generator.production.heap import keep_freed_memory
from generator.spec.machine import available_memory
from workers.cli.threads import set_thread_variables

_MODULES = {
    "demo": "workers.cli.demo",
    "sources": "workers.cli.sources",
    "train": "workers.cli.train",
    "fit": "workers.cli.fit",
    "label": "workers.cli.label",
    "import": "workers.cli.import_network",
    "inspect": "workers.cli.inspect",
    "push": "workers.cli.bundles",
    "pull": "workers.cli.bundles",
    "channels": "workers.cli.channels",
    "generate": "workers.cli.datasets",
    "verify": "workers.cli.datasets",
    "replay": "workers.cli.datasets",
    "sign": "workers.cli.sign",
    "lineage": "workers.cli.lineage",
    "export": "workers.cli.export",
    "measure": "workers.cli.measure",
    "report": "workers.cli.report",
    "builds": "workers.cli.retention",
    "gate": "workers.cli.promotion",
    "promote": "workers.cli.promotion",
    "rollback": "workers.cli.promotion",
    "pin": "workers.cli.promotion",
    "unpin": "workers.cli.promotion",
    "retain": "workers.cli.retention",
    "submit": "workers.cli.jobs",
    "jobs": "workers.cli.jobs",
    "status": "workers.cli.jobs",
    "watch": "workers.cli.jobs",
    "preview": "workers.cli.preview",
    "pause": "workers.cli.jobs",
    "resume": "workers.cli.jobs",
    "cancel": "workers.cli.jobs",
    "schedule": "workers.cli.schedule",
    "scheduler": "workers.cli.scheduler",
    "up": "workers.cli.service",
    "worker": "workers.cli.service",
    "health": "workers.cli.service",
    "serve": "workers.cli.serve",
    "keys": "workers.cli.keys",
    "bench": "workers.cli.bench",
    "doctor": "workers.cli.doctor",
    "store": "workers.cli.store",
    "sweep": "workers.cli.sweep",
}
_SECTIONS = {
    "Start here": ("demo",),
    "Models": ("sources", "train", "import", "fit", "label", "inspect", "push", "pull", "channels"),
    "Datasets": ("generate", "sign", "verify", "replay", "lineage", "export", "measure", "report"),
    "Promotion and retention": ("builds", "gate", "promote", "rollback", "pin", "unpin", "retain"),
    "Jobs": ("preview", "submit", "jobs", "status", "watch", "pause", "resume", "cancel"),
    "Schedules": ("schedule", "scheduler"),
    "Service": ("bench", "doctor", "store", "up", "worker", "serve", "keys", "health", "sweep"),
}
# Commands whose batches need the same memory again and again. Those that train or measure have temporaries of many
# sizes, which take more memory in a heap that keeps them: they do so only where there is plenty.
_DECODING = {"generate", "bench", "worker"}
_TRAINING = {"demo", "train", "import", "fit", "label", "inspect", "measure", "gate", "promote"}
_PLENTY_BYTES = 8 * 2**30
_SUMMARIES = {
    "demo": "Train on digits, start a pool, build 10,000 images.",
    "sources": "Look at real images: what would be trained on.",
    "train": "Train an autoencoder on real images; writes a bundle.",
    "import": "Make a bundle of an existing decoder or autoencoder.",
    "fit": "Fit another latent distribution to a bundle.",
    "label": "Label images with a bundle's judge.",
    "inspect": "Describe a bundle and diagnose its latent space.",
    "push": "Copy a bundle into the store root.",
    "pull": "Copy a bundle out of the store root.",
    "channels": "List, show or move channels (pointers to bundles).",
    "generate": "Build a dataset in this process.",
    "sign": "Sign a build or a bundle; make a key for it.",
    "verify": "Re-hash a dataset and compare it with its manifest.",
    "replay": "Make one sample again and compare it with the stored one.",
    "lineage": "Trace a build or an image to recipe, bundle and source.",
    "export": "Copy a build into the form of another reader.",
    "measure": "Measure the quality of a dataset against real images.",
    "report": "Show the cost of a build and the time of each stage.",
    "builds": "List the builds of a dataset.",
    "gate": "Evaluate gates on a build.",
    "promote": "Make a build the one that readers get.",
    "rollback": "Go back to the build promoted before.",
    "pin": "Protect a build from retention.",
    "unpin": "Remove the pin of a build.",
    "retain": "Delete builds that the retention rule does not keep.",
    "preview": "Show the first images of a spec, at once.",
    "submit": "Submit a job to the pool.",
    "jobs": "List jobs.",
    "status": "Show the state of one job.",
    "watch": "Follow a job until it ends.",
    "pause": "Pause a job.",
    "resume": "Continue a job.",
    "cancel": "Stop a job.",
    "schedule": "Add and manage schedules (recurring builds).",
    "scheduler": "Run the scheduler: starts due builds, promotes good ones.",
    "up": "Run Redis, workers, a scheduler and a server on this machine.",
    "worker": "Run one worker on a given Redis.",
    "serve": "Run the HTTP server: API and pages.",
    "keys": "Make, list and revoke keys of the HTTP server.",
    "health": "Check that the workers on this host are alive.",
    "bench": "Measure how fast this machine makes images.",
    "doctor": "Check everything that a worker needs.",
    "store": "Test a store against the store contract.",
    "sweep": "Find or remove leftovers of crashes and abandoned builds.",
}


class CommandGroup(click.Group):
    """Lists commands by section without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in _SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(import_module(_MODULES[cmd_name]), f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _SUMMARIES[name]) for name in names])


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("latentmill"), prog_name="latentmill")
def root() -> None:
    """Synthetic image datasets from a learned latent space.

    Learn a decoder and a latent distribution from real images (train), sample and decode novel images (generate here,
    submit to a pool), and get sharded, labelled, reproducible datasets with the provenance of every image.
    """


def _reuses_memory(command: str = "") -> bool:
    return command in _DECODING or (command in _TRAINING and available_memory() >= _PLENTY_BYTES)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 bad input."""
    as_json = "--json" in sys.argv
    set_thread_variables(os.environ)  # before a command imports torch
    if _reuses_memory(*sys.argv[1:2]):
        keep_freed_memory()
    try:
        code = root.main(standalone_mode=False)  # returns the code of click's Exit
        sys.exit(code if isinstance(code, int) else 0)
    except LatentmillError as error:
        _print_error(error.facts() if as_json else None, f"error: {error}")
        sys.exit(error.exit_code)
    except click.ClickException as usage:
        usage.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _print_error(None, "interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as bug:
        _print_error({"error": "InternalError", "got": repr(bug)} if as_json else None, _bug_text(bug))
        sys.exit(1)


def _print_error(facts: dict[str, str] | None, text: str) -> None:
    click.echo(json.dumps(facts) if facts else text, err=True)


def _bug_text(bug: Exception) -> str:
    last = traceback.extract_tb(bug.__traceback__)[-1]
    return f"internal error: {bug!r}, in {last.name} ({last.filename}:{last.lineno}). This is a bug in latentmill."
