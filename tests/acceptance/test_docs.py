"""The documentation is run: its links lead somewhere, its commands and settings exist, its examples work."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from generator.datasets.promotion import promote
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle, push
from generator.models.bundle.channels import move_channel
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.spec.canonical import sha256_hex
from generator.spec.recipe import Order, Recipe
from generator.store import open_store
from tests.support.bundles import screened_bundle, tiny_bundle
from workers.cli.main import _MODULES
from workers.cli.main import root as command_line
from workers.schedules.declare import check_schedule
from workers.schedules.schedule import Schedule, parse_schedule
from workers.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[2]
TOP_PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP_PAGES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "deploy/README.md"]
EXAMPLE = ROOT / "deploy/.env.example"
_READ_BY_USERS = ("README.md", "how-to.md", "operations.md", "nightly.md", "formats.md", "api.md")
READER_PAGES = [page for page in PAGES if page.name in _READ_BY_USERS]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_of_the_code_exist(page: Path) -> None:
    text = page.read_text()
    for path, rest in re.findall(r"(?<![\w/.-])((?:generator|workers|tests|benchmarks)/[\w/]+(?:\.py)?)([<*]?)", text):
        if rest:  # a pattern
            path = path.rpartition("/")[0]
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path
    for module in re.findall(r"`+(?:python -m )?((?:generator|workers|tests)(?:\.\w+)+)", text):
        parent = module.rpartition(".")[0].replace(".", "/")
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists() or (ROOT / parent).with_suffix(".py").exists(), module


def test_named_tests_exist() -> None:
    existing = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))))
    existing |= {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 10
    assert named <= existing


@pytest.mark.parametrize("page", READER_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    commands = re.findall(r"`latentmill ([a-z]+)", text)
    for block in blocks(page, "bash"):
        commands += re.findall(r"^latentmill ([a-z]+)", block, flags=re.MULTILINE)
    assert set(commands) <= set(_MODULES)
    names = {name.lower() for name in re.findall(rf"{ENV_PREFIX}([A-Z0-9_]+)", text)} - {"data"}
    in_compose = {name.lower() for name in re.findall(rf"{ENV_PREFIX}([A-Z0-9_]+)=", EXAMPLE.read_text())}
    assert names <= set(Settings.model_fields) | in_compose


def test_every_field_of_a_spec_is_explained() -> None:
    text = (ROOT / "docs/how-to.md").read_text()
    fields = (set(Recipe.model_fields) | set(Order.model_fields)) - {"recipe_version", "classes", "counts"}
    assert all(f"`{field}`" in text for field in fields)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The README's own spec, built small, in the directory that the examples run in."""
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "photos.bundle")
    (text,) = blocks(ROOT / "README.md", "yaml")
    spec, bundle = resolve_draft(parse_draft(yaml.safe_load(text) | {"count": 90, "shard_size": 40}))
    build(locate_build(spec), load_bundle(bundle), device="cpu")
    return tmp_path


def test_the_how_to_reads_one_image_of_a_shard(built: Path) -> None:
    script = next(block for block in blocks(ROOT / "docs/how-to.md", "python") if "read_table" in block)
    (build_id,) = (path.name for path in (built / "datasets/photos/builds").iterdir())
    found: dict[str, Any] = {}
    exec(script.replace("<id>", build_id), found)
    assert sha256_hex(found["image"]) == found["row"]["image_sha256"]
    table = re.search(r"\| `index`, `key`.*?\n\n", (ROOT / "docs/how-to.md").read_text(), flags=re.DOTALL)
    assert table is not None
    assert set(re.findall(r"`(\w+)`", re.sub(r"(?m)^(\|[^|]*\|).*$", r"\1", table[0]))) == set(found["row"])


def test_the_floors_of_the_screening_page_are_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    screened_bundle(tmp_path / "photos.bundle")
    (text,) = blocks(ROOT / "docs/screening.md", "yaml")
    spec, _ = resolve_draft(parse_draft(yaml.safe_load(text)))
    assert spec.recipe.classes == ("cat", "dog", "owl")
    assert spec.recipe.label_floors == (0.5, 0.9, None)


def test_the_specs_of_the_page_on_formats_build_what_it_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/formats.md"
    tiny_bundle(tmp_path / "photos.bundle")
    for text in blocks(page, "yaml"):
        spec, bundle = resolve_draft(parse_draft(yaml.safe_load(text)))
        build(locate_build(spec), load_bundle(bundle), device="cpu")
        assert verify_dataset(f"datasets/{spec.order.name}", deep=True).ok
    commands = [line for block in blocks(page, "bash") for line in block.splitlines() if "latentmill export" in line]
    assert len(commands) == 5
    for command in (line.split() for line in commands if "s3://" not in line and "c2pa" not in line):
        words = [word.replace("datasets/photos", "datasets/as-parquet") for word in command[1:]]
        done = CliRunner().invoke(command_line, words)
        assert done.exit_code == 0, done.output
        assert Path(words[-1]).is_dir()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine may have cores
def test_the_readmes_training_loop_runs(built: Path) -> None:
    loop = next(block for block in blocks(ROOT / "README.md", "python") if "open_dataset" in block)
    seen: list[int] = []
    exec(loop.replace("...", "seen.extend(label.tolist())"), {"seen": seen})
    assert sorted(seen) == [0] * 30 + [1] * 30 + [2] * 30


def test_the_schedules_of_the_nightly_page_build_what_its_script_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page, root, now = ROOT / "docs/nightly.md", open_store(str(tmp_path / "root")), datetime.now(UTC)
    tiny_bundle(tmp_path / "digits.bundle")
    move_channel(root, "digits", push(open_store("digits.bundle"), root), by="a test")
    schedules = [parse_schedule(text.encode(), "nightly.md") for text in blocks(page, "yaml")]
    few = [each.model_copy(update={"job": each.job | {"count": 90}}) for each in schedules]
    jobs = [check_schedule(schedule, root, Settings(root=root.url), now)[0] for schedule in few]
    assert [schedule.name for schedule in schedules] == ["digits", "by-month"]
    spec = jobs[0].spec
    build(locate_build(spec), load_bundle(jobs[0].bundle), device="cpu")
    dataset = open_store(f"{spec.order.destination}/{spec.order.name}")
    assert promote(dataset, spec.build_id, logical_date=now, by="a test").is_current
    (script,) = blocks(page, "python")
    seen: list[int] = []
    exec(script.replace("...", "seen.extend(label.tolist())"), {"seen": seen})
    assert len(seen) == 90


def test_every_field_of_a_schedule_is_explained() -> None:
    text = (ROOT / "docs/nightly.md").read_text()
    assert all(f"`{field}`" in text for field in Schedule.model_fields)


def test_the_ways_to_draw_of_the_how_to_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "photos.bundle")
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    modes = []
    for text in blocks(ROOT / "docs/how-to.md", "yaml"):
        spec, bundle = resolve_draft(parse_draft(yaml.safe_load(text)))
        manifest = build(locate_build(spec), load_bundle(bundle), device="cpu")
        assert manifest.samples == spec.recipe.total
        modes.append(spec.recipe.draw.mode)
    assert sorted(modes) == ["around", "between", "cluster"]
