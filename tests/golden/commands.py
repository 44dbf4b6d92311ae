"""Runs `latentmill` commands one after another in this process, and prints what each prints with ``--json``."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from workers.cli.main import root

for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = root.main([*words, "--json"], standalone_mode=False)
    assert not code, printed.getvalue()
    sys.stdout.write(json.dumps(json.loads(printed.getvalue())) + "\n")
