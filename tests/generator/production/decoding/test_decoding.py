"""The resident decoder: rounding, batches, devices, and running out of memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from generator.errors import DeviceExhausted, InvalidOutput, SettingsError
from generator.models.autoencoders.factory import build_decoder
from generator.models.bundle import Bundle, load_bundle
from generator.production.decoding import ResidentDecoder
from generator.production.decoding.batch_norm import fold_batch_norm
from generator.production.pipeline.filters import valid_images
from generator.store import open_store
from tests.support.bundles import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(open_store(str(tiny_bundle(tmp_path_factory.mktemp("b") / "tiny", size=12, channels=3))))


class Applied(torch.nn.Module):
    """A function as a module."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.run(z)


class Exhausted(torch.nn.Module):
    """Simulates a device that is out of memory for the first ``times`` batches, as a CPU never is."""

    def __init__(self, inner: torch.nn.Module, times: int) -> None:
        super().__init__()
        self.inner, self.times = inner, times

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.times -= 1
        if self.times >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        found: torch.Tensor = self.inner(z)
        return found


def decoder(bundle: Bundle, batch: int = 8, dtype: str = "float32") -> ResidentDecoder:
    return ResidentDecoder(bundle, batch=batch, dtype=dtype, device="cpu")


def test_levels_are_rounded_to_nearest(bundle: Bundle) -> None:
    network = build_decoder(bundle.info.autoencoder)
    network.load_state_dict({name: torch.from_numpy(weight) for name, weight in bundle.decoder.items()})
    z_BD = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    with torch.inference_mode():
        x_BCHW = network.eval()(torch.from_numpy(z_BD))
    exact = x_BCHW.numpy().transpose(0, 2, 3, 1) * 255.0
    found = decoder(bundle).decode(z_BD)
    assert found.shape == (8, 12, 12, 3)
    assert np.abs(found - exact).max() <= 0.5 + 1e-3  # folding the batch norms changes rounding


def test_folding_leaves_no_normalisation_and_the_same_function(bundle: Bundle) -> None:
    network = build_decoder(bundle.info.autoencoder)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1.0, 1.0)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -1.0, 1.0)
    network.eval().requires_grad_(False)
    z_BD = torch.randn(8, 4)
    before = network(z_BD)
    folded = fold_batch_norm(network)
    assert not [part for part in folded.modules() if "BatchNorm" in type(part).__name__]
    assert torch.allclose(folded(z_BD), before, atol=1e-5)


@pytest.mark.parametrize("bad_value", [float("nan"), float("inf")])
def test_a_single_value_that_is_not_finite_is_an_error(bundle: Bundle, bad_value: float) -> None:
    broken = decoder(bundle)
    inner = broken._module.network

    def poisoned(z: torch.Tensor) -> torch.Tensor:
        x = inner(z).clone()
        x[5, 1, 3, 4] = bad_value
        return x

    broken._module.network = None
    broken._module.network = Applied(poisoned)
    with pytest.raises(InvalidOutput, match="finite"):
        broken.decode(np.zeros((8, 4), dtype=np.float32))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_that_compute_or_decode_side_by_side_change_nothing(bundle: Bundle, threads: int) -> None:
    z_NBD = np.random.default_rng(0).normal(size=(6, 8, 4)).astype(np.float32)
    resident, before, interval = decoder(bundle), torch.get_num_threads(), sys.getswitchinterval()
    wanted = [resident.decode(z_BD) for z_BD in z_NBD]
    torch.set_num_threads(threads)
    try:
        assert all(np.array_equal(resident.decode(z), images) for z, images in zip(z_NBD, wanted, strict=True))
    finally:
        torch.set_num_threads(before)
    with resident.lanes() as (_, enter), ThreadPoolExecutor(threads, initializer=enter) as lanes:
        found = list(lanes.map(resident.decode, z_NBD))
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert (torch.get_num_threads(), sys.getswitchinterval()) == (before, interval)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_types_stay_within_a_few_levels(bundle: Bundle, dtype: str) -> None:
    z_BD = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    exact, short = decoder(bundle).decode(z_BD), decoder(bundle, dtype=dtype).decode(z_BD)
    assert np.abs(exact.astype(int) - short).max() <= 6


@pytest.mark.slow
def test_memory_that_runs_out_once_changes_nothing(bundle: Bundle) -> None:
    z_BD = np.ones((3, 4), dtype=np.float32)
    whole, retrying = decoder(bundle), decoder(bundle)
    retrying._module = Exhausted(retrying._module, times=1)
    assert np.array_equal(retrying.decode(z_BD), whole.decode(z_BD))


@pytest.mark.slow
def test_memory_that_runs_out_twice_is_a_typed_error_that_names_the_batch(bundle: Bundle) -> None:
    retrying = decoder(bundle)
    retrying._module = Exhausted(retrying._module, times=2)
    with pytest.raises(DeviceExhausted, match="batch of 8"):
        retrying.decode(np.ones((3, 4), dtype=np.float32))


def test_a_device_that_is_not_there_is_a_typed_error(bundle: Bundle) -> None:
    for name in ("cuda:7", "abacus"):
        with pytest.raises(SettingsError, match="device"):
            ResidentDecoder(bundle, batch=8, dtype="float32", device=name)


def test_images_that_show_nothing_are_not_valid() -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    images[1, 2, 2, 0] = 1
    images[2] = 255
    assert valid_images(images).tolist() == [False, True, False]
