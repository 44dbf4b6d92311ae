"""Variables that begin with LATENTMILL_ and are no settings are refused with the nearest name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from generator.errors import SettingsError
from workers.cli.main import root
from workers.client import Client
from workers.settings import ENV_PREFIX, known_variables, load_settings

REPOSITORY = Path(__file__).parents[2]
_PLACES = ("generator", "workers", "benchmarks", "deploy", "docs", "tests")
_FILES = ("Makefile", "README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", ".github", ".ci")
_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".example", ".sh", ".toml", ".service", ".tpl", ".json", ""}
_MISSPELT = {"DEVISE"}  # on purpose, in tests


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without ``LATENTMILL_`` variables."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("S3_ENDPIONT", "S3_ENDPOINT_URL"),
        ("S3_ENDPOINT", "S3_ENDPOINT_URL"),
        ("S3_SECRET", "S3_SECRET_KEY"),
        ("S3_SESION_TOKEN_FILE", "S3_SESSION_TOKEN_FILE"),
        ("REDIS_URI", "REDIS_URL"),
        ("REDIS_URL_FLIE", "REDIS_URL_FILE"),
        ("DEVISE", "DEVICE"),
        ("LEASE_SECOND", "LEASE_SECONDS"),
    ],
)
def test_the_nearest_name_is_said(clean: pytest.MonkeyPatch, misspelt: str, nearest: str) -> None:
    clean.setenv(f"{ENV_PREFIX}{misspelt}", "x")
    with pytest.raises(SettingsError, match=rf"did you mean {ENV_PREFIX}{nearest}\?") as wrong:
        load_settings()
    assert wrong.value.field == f"{ENV_PREFIX}{misspelt}"
    assert wrong.value.exit_code == 2


def test_a_name_like_none_points_to_the_list(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("LATENTMILL_XYZZY", "a-secret-value")
    with pytest.raises(SettingsError, match=r"env\.example") as wrong:
        load_settings()
    assert "a-secret-value" not in str(wrong.value)


def test_names_that_are_not_ours_to_judge(clean: pytest.MonkeyPatch) -> None:
    """Links of Kubernetes services, names of compose and tests, other prefixes, small letters."""
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    for name in [f"LATENTMILL_REDIS_{link}" for link in links]:
        clean.setenv(name, "tcp://10.0.0.1:80")
    clean.setenv("LATENTMILL_REDIS_PASSWORD", "x")
    clean.setenv("LATENTMILL_TEST_S3", "seaweedfs")
    clean.setenv("LATENTMILLS_ROOT", "x")
    clean.setenv("latentmill_queue", "small")
    assert load_settings().queue == "small"


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["worker"], ["scheduler"], ["serve"], ["up"], ["jobs"], ["health"], ["builds", "x"]],
    ids=" ".join,
)
def test_commands_and_services_refuse_it(clean: pytest.MonkeyPatch, words: list[str]) -> None:
    clean.setenv("LATENTMILL_S3_REGOIN", "x")
    error = CliRunner().invoke(root, words).exception
    assert isinstance(error, SettingsError)
    assert "LATENTMILL_S3_REGION" in error.hint


def test_clients_refuse_it(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("LATENTMILL_S3_REGOIN", "x")
    with pytest.raises(SettingsError, match="LATENTMILL_S3_REGION"):
        Client()


def test_every_name_in_the_repository_is_known() -> None:
    files = [path for place in _PLACES for path in (REPOSITORY / place).rglob("*") if path.is_file()]
    files += [path for name in _FILES for path in [REPOSITORY / name] if path.is_file()]
    named: dict[str, Path] = {}
    for path in files:
        if path.suffix in _SUFFIXES and path != Path(__file__) and "__pycache__" not in path.parts:
            text = path.read_text(errors="replace")
            named |= dict.fromkeys(re.findall(rf"\b{ENV_PREFIX}([A-Z0-9_]*[A-Z0-9])\b(?!_)", text), path)
    assert len(named) > 60
    unknown = {name: str(path) for name, path in named.items() if name not in known_variables() | _MISSPELT}
    assert unknown == {}
