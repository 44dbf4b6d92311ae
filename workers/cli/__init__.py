"""``latentmill``: the command line. Commands are imported when they are called, so that ``--help`` is quick."""

from workers.cli.main import main

__all__ = ["main"]
