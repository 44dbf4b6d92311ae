"""The root of the command line: its commands by section, and how errors reach the user."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from importlib.metadata import version

import click

from generator.errors import LatentmillError

_MODULES = {
    "demo": "workers.cli.demo",
    "train": "workers.cli.train",
    "fit": "workers.cli.fit",
    "label": "workers.cli.label",
    "import": "workers.cli.import_decoder",
    "inspect": "workers.cli.inspect",
    "push": "workers.cli.bundles",
    "pull": "workers.cli.bundles",
    "channels": "workers.cli.channels",
    "generate": "workers.cli.datasets",
    "verify": "workers.cli.datasets",
    "replay": "workers.cli.datasets",
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
    "pause": "workers.cli.jobs",
    "resume": "workers.cli.jobs",
    "cancel": "workers.cli.jobs",
    "schedule": "workers.cli.schedule",
    "scheduler": "workers.cli.scheduler",
    "up": "workers.cli.service",
    "worker": "workers.cli.service",
    "health": "workers.cli.service",
    "bench": "workers.cli.bench",
    "doctor": "workers.cli.doctor",
    "sweep": "workers.cli.sweep",
}
_SECTIONS = {
    "Start here": ("demo",),
    "Models": ("train", "import", "fit", "label", "inspect", "push", "pull", "channels"),
    "Datasets": ("generate", "verify", "replay", "measure", "report"),
    "What readers get": ("builds", "gate", "promote", "rollback", "pin", "unpin", "retain"),
    "Jobs": ("submit", "jobs", "status", "watch", "pause", "resume", "cancel"),
    "Every night": ("schedule", "scheduler"),
    "Service": ("bench", "doctor", "up", "worker", "health", "sweep"),
}
_SUMMARIES = {
    "demo": "Train on digits, start a pool, build 10,000 images.",
    "train": "Real images in, a bundle out.",
    "import": "A decoder that exists in, a bundle out.",
    "fit": "Another latent distribution for a bundle.",
    "label": "Label images as a bundle's judge sees them.",
    "inspect": "What a bundle is and how it was made.",
    "push": "Copy a bundle into the store root.",
    "pull": "Copy a bundle out of the store root.",
    "channels": "Lines of bundles, and the newest of each.",
    "generate": "Build a dataset in this process.",
    "verify": "Re-hash a whole dataset.",
    "replay": "Make one sample again and compare it.",
    "measure": "How good a dataset is, beside real images.",
    "report": "What a build cost, and where its time went.",
    "builds": "The builds of a dataset.",
    "gate": "Do the gates hold for a build?",
    "promote": "Let readers of a dataset get a build.",
    "rollback": "Let them get the build before.",
    "pin": "Keep a build from retention.",
    "unpin": "Let retention decide again.",
    "retain": "Delete the builds that nobody needs to keep.",
    "submit": "Hand a job to the pool.",
    "jobs": "List jobs.",
    "status": "How one job stands.",
    "watch": "Follow a job until it ends.",
    "pause": "Let a job wait.",
    "resume": "Let a job go on.",
    "cancel": "Stop a job.",
    "schedule": "Datasets that are built again and again.",
    "scheduler": "Begin what is due, promote what is good.",
    "up": "Redis, workers and scheduler on this machine.",
    "worker": "One worker on a given Redis.",
    "health": "Is the worker on this host alive?",
    "bench": "How fast is this machine, and what limits it?",
    "doctor": "Is everything there that a worker needs?",
    "sweep": "Remove what crashes and given-up builds left.",
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
    submit to a pool), and get sharded, labelled, repeatable datasets that say where every image came from.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 bad input."""
    as_json = "--json" in sys.argv
    try:
        code = root.main(standalone_mode=False)  # what a command raises as click's Exit is returned here
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
