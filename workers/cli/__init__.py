"""The ``latentmill`` command line. A command's module is imported when it is called, so that ``--help`` is fast."""

from workers.cli.main import main

__all__ = ["main"]
