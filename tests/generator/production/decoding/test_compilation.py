"""Compiled decoders: when decoders are compiled, their output, and the protection of the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch._inductor import codecache

from generator.datasets.replay import replay
from generator.errors import EnvironmentMismatch, SettingsError
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import BuildLocation, begin_build, fix_environment, locate_build
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.compilation import ensure_private_directory, missing_compiler, resolve_execution
from generator.production.decoding.resident import LaneLayout
from generator.production.mill import build
from generator.production.pipeline.decoders import (
    CompileOptions,
    estimate_decoding_seconds,
    fixed_execution,
    open_decoder,
)
from generator.production.pipeline.shard_maker import ShardMaker, open_shard_maker
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.command_server import run_script

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(bool(missing_compiler("cpu")), reason="no C++ compiler here")

_PROCESS = """
import sys
from pathlib import Path
from torch._dynamo.utils import counters
from generator.models.bundle import load_bundle
from generator.production.decoding import ResidentDecoder
from generator.store import open_store
import torch
torch.set_num_threads(2)
bundle = load_bundle(open_store(sys.argv[1]))
ResidentDecoder(bundle, batch=4, dtype="float32", device="cpu", execution="compiled", cache=Path(sys.argv[2]))
print("hits", counters["inductor"]["fxgraph_cache_hit"], "misses", counters["inductor"]["fxgraph_cache_miss"])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiling")


@pytest.fixture(scope="module")
def bundle(home: Path) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(home / "tiny", size=8, channels=3))))


@pytest.fixture(scope="module")
def compiled(compile_cache: Path, bundle: Bundle) -> Iterator[ResidentDecoder]:
    before, threads = os.environ.get("TORCHINDUCTOR_CACHE_DIR"), torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecache, "_precompile_header", _refuse)
        made = ResidentDecoder(
            bundle, batch=8, dtype="float32", device="cpu", execution="compiled", cache=compile_cache
        )
    yield made
    torch.set_num_threads(threads)
    if before is None:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("a header is looked for where other users can put theirs")


def location_for(bundle: Bundle, name: str, count: int = 20) -> BuildLocation:
    fields = {"classes": bundle.info.classes, "counts": (count,) * 3, "shard_size": max(25, count // 1000), "batch": 8}
    recipe = Recipe.model_validate({"bundle": bundle.digest, **fields})
    return locate_build(JobSpec(recipe=recipe, order=Order(destination=f"memory://{name}", name="compiled")))


def test_a_new_build_is_compiled_where_it_pays_or_is_asked_for() -> None:
    assert resolve_execution("auto", None, "cpu", seconds=10.0) == "eager"
    assert resolve_execution("never", None, "cpu", seconds=1e9) == "eager"
    if not missing_compiler("cpu"):
        assert resolve_execution("auto", None, "cpu", seconds=1e6) == "compiled"
        assert resolve_execution("always", None, "cpu", seconds=0.0) == "compiled"


def test_what_is_fixed_is_followed_whatever_the_setting() -> None:
    for setting in ("auto", "always", "never"):
        assert resolve_execution(setting, "eager", "cpu", seconds=1e9) == "eager"
    with pytest.raises(SettingsError, match=r"compile.*never"):
        resolve_execution("never", "compiled", "cpu", seconds=0.0)


@torch._inductor.config.patch({"cpp.cxx": ("/no/such/compiler",)})
def test_a_missing_compiler_is_logged_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert resolve_execution("auto", None, "cpu", seconds=1e6) == "eager"
    assert "no C++ compiler" in caplog.text
    assert "apt-get install" in caplog.text
    for setting, fixed in (("always", None), ("auto", "compiled")):
        with pytest.raises(SettingsError, match=r"no C\+\+ compiler.*install"):
            resolve_execution(setting, fixed, "cpu", seconds=0.0)  # type: ignore[arg-type]


def test_the_cache_is_this_users_alone(tmp_path: Path) -> None:
    made = ensure_private_directory(tmp_path / "deep" / "cache")
    assert made.stat().st_mode & 0o777 == 0o700
    assert ensure_private_directory(made) == made
    made.chmod(0o750)
    with pytest.raises(SettingsError, match=r"0750.*chmod 700"):
        ensure_private_directory(made)
    made.chmod(0o700)
    (tmp_path / "link").symlink_to(made)
    (tmp_path / "file").touch(mode=0o600)
    for name, got in (("link", "symbolic link"), ("file", "File exists")):
        with pytest.raises(SettingsError, match=f"compile_cache.*{got}"):
            ensure_private_directory(tmp_path / name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_cache_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(SettingsError, match="user 12345"):
        ensure_private_directory(tmp_path / "cache")


@needs_compiler
def test_a_compiled_decoder_shows_what_an_eager_one_shows(bundle: Bundle, compiled: ResidentDecoder) -> None:
    eager = ResidentDecoder(bundle, batch=8, dtype="float32", device="cpu")
    z_BD = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    one, other = eager.decode(z_BD), compiled.decode(z_BD)
    assert np.abs(one.astype(int) - other).max() <= 1
    assert (one != other).mean() < 0.01


@needs_compiler
def test_compiled_rows_depend_on_neither_neighbours_nor_threads(compiled: ResidentDecoder, bundle: Bundle) -> None:
    z_BD = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    whole = compiled.decode(z_BD)
    for step in (1, 3, 5):
        parts = [compiled.decode(z_BD[begin : begin + step]) for begin in range(0, 8, step)]
        assert np.array_equal(np.concatenate(parts), whole)
    location = location_for(bundle, "width")
    shards = [
        _maker(location, bundle, compiled, lanes).make(Plan(location.recipe).shard(1), "x") for lanes in (1, 2, 4)
    ]
    assert shards[0] == shards[1] == shards[2]


def _maker(location: BuildLocation, bundle: Bundle, decoder: ResidentDecoder, lanes: int) -> ShardMaker:
    decoder._lane_layout = LaneLayout(lanes, 1)
    return open_shard_maker(location, bundle, decoder)


@needs_compiler
def test_a_compiled_build_says_so_and_every_process_follows(
    compile_cache: Path, bundle: Bundle, compiled: ResidentDecoder
) -> None:
    location, always = location_for(bundle, "compiled"), CompileOptions("always", compile_cache)
    maker = open_shard_maker(location, bundle, compiled)
    begin_build(location)
    fix_environment(location, maker.environment)
    assert fixed_execution(location) == "compiled"
    with pytest.raises(SettingsError, match="never"):
        build(location, bundle, device="cpu", compiling=CompileOptions("never"))
    eager = open_shard_maker(location, bundle, ResidentDecoder(bundle, batch=8, dtype="float32", device="cpu"))
    with pytest.raises(EnvironmentMismatch, match="execution eager instead of compiled"):
        fix_environment(location, eager.environment)
    manifest = build(location, bundle, device="cpu", compiling=CompileOptions("auto", always.cache))
    assert [facts["execution"] for facts in manifest.environments.values()] == ["compiled"]
    assert manifest.shards[1] == maker.make(Plan(location.recipe).shard(1), "compiled").receipt


@needs_compiler
def test_an_eager_build_stays_eager(compile_cache: Path, bundle: Bundle) -> None:
    location = location_for(bundle, "eager")
    maker = open_shard_maker(location, bundle, ResidentDecoder(bundle, batch=8, dtype="float32", device="cpu"))
    begin_build(location)
    fix_environment(location, maker.environment)
    assert open_decoder(location, bundle, "cpu", CompileOptions("always", compile_cache)).execution == "eager"


@needs_compiler
def test_a_process_finds_what_another_one_compiled(
    home: Path, bundle: Bundle, compile_cache: Path, tmp_path: Path
) -> None:
    """With a batch that no other test has."""
    script = tmp_path / "compile.py"
    script.write_text(_PROCESS)
    done = [run_script(script, home / "tiny", compile_cache) for _ in range(2)]
    assert [each.stdout for each in done] == ["hits 0 misses 1\n", "hits 1 misses 0\n"], done[0].stderr
    assert compile_cache.stat().st_mode & 0o777 == 0o700


def test_work_ahead_is_measured_by_a_batch(bundle: Bundle) -> None:
    decoder = ResidentDecoder(bundle, batch=8, dtype="float32", device="cpu")
    small, large = (
        estimate_decoding_seconds(location_for(bundle, "w", count).recipe, decoder) for count in (30_000, 30_000_000)
    )
    assert 0.0 < small < large


def test_replay_of_an_eager_sample_needs_no_compiler(bundle: Bundle) -> None:
    location = location_for(bundle, "replayed")
    build(location, bundle, device="cpu")
    assert replay(location.url, 3, bundle, device="cpu").identical
