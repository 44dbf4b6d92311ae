"""ONNX files of both exporters of torch give what onnxruntime gives, in as few operations as the network has."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from generator.errors import SpecError
from generator.models.autoencoders.factory import load_decoder, load_encoder
from generator.models.converters.onnx import convert_onnx
from generator.models.converters.onnx.convert import ConvertedOnnx
from generator.models.learning import join_graphs
from tests.support.foreign_networks import (
    AttentionDecoder,
    DecoderOf,
    EncoderOf,
    StyleGenerator,
    kl_autoencoder,
    tiny_autoencoder,
    with_random_weights,
)

pytestmark = pytest.mark.slow
EXPORTS = [("legacy", True), ("legacy", False), ("dynamo", True), ("dynamo", False)]


@pytest.fixture(scope="module", autouse=True)
def one_registry() -> Iterator[None]:
    """The exporter makes the list of its functions once: it takes a third of the time of an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


def export(network: nn.Module, inputs: tuple[Tensor, ...], path: Path, exporter: str, symbolic: bool) -> Path:
    """Write ``network`` to ``path``. ``symbolic``: with an open batch; otherwise a batch of one."""
    names = ["first", "second"][: len(inputs)]
    options: dict[str, Any] = {"input_names": names, "dynamo": exporter == "dynamo"}
    inputs = inputs if symbolic else tuple(value[:1] for value in inputs)
    if exporter == "dynamo":
        options |= {"external_data": False, "verbose": False}
        batch = torch.export.Dim("batch")
        options |= {"dynamic_shapes": tuple({0: batch} for _ in inputs)} if symbolic else {}
    elif symbolic:
        options["dynamic_axes"] = {name: {0: "batch"} for name in names}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, inputs, str(path), **options)
    return path


def run(path: Path, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), inputs, strict=True)}
    result: np.ndarray = session.run(None, named)[0]
    return result


def decode(converted: ConvertedOnnx, code: Tensor, *labels: Tensor) -> np.ndarray:
    network = join_graphs(converted.encoder, converted.decoder, converted.classes)
    weights = {name: torch.from_numpy(weight) for name, weight in network.decoder.items()}
    with torch.inference_mode():
        images: np.ndarray = load_decoder(network.config, weights)(code.flatten(1), *labels).numpy()
    return images


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * max(1.0, float(np.abs(wanted).max()))


def operations(converted: ConvertedOnnx) -> Counter[str]:
    return Counter(node.op for node in converted.decoder.graph.nodes)


@pytest.mark.parametrize(("exporter", "symbolic"), EXPORTS)
@pytest.mark.parametrize("kind", ["tiny", "kl"])
def test_autoencoders(kind: str, exporter: str, symbolic: bool, tmp_path: Path) -> None:
    model = tiny_autoencoder(2, 16) if kind == "tiny" else kl_autoencoder((16, 32))
    x_BCHW = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        code = EncoderOf(model)(2.0 * x_BCHW - 1.0)
    encoder = export(EncoderOf(model), (x_BCHW,), tmp_path / "encoder.onnx", exporter, symbolic)
    decoder = export(DecoderOf(model), (code,), tmp_path / "decoder.onnx", exporter, symbolic)
    converted = convert_onnx(decoder, encoder, symmetric=True)
    count = 2 if symbolic else 1
    images = run(decoder, code[:count])
    assert_close(decode(converted, code[:count]), np.clip(images / 2.0 + 0.5, 0.0, 1.0))
    network = join_graphs(converted.encoder, converted.decoder)
    assert network.encoder is not None
    weights = {name: torch.from_numpy(weight) for name, weight in network.encoder.items()}
    with torch.inference_mode():
        found = load_encoder(network.config, weights)(x_BCHW[:count]).view_as(code[:count])
    assert_close(found.numpy(), run(encoder, 2.0 * x_BCHW[:count] - 1.0))
    counted = operations(converted)
    assert counted["group_norm"] == (14 if kind == "kl" else 0)
    assert counted["attention"] == (1 if kind == "kl" else 0)
    assert set(counted) <= {
        *(
            "conv",
            "group_norm",
            "activation",
            "add",
            "reshape",
            "permute",
            "linear",
            "attention",
            "conv_transpose",
            "scale",
        ),
        "clamp",
    }


@pytest.mark.parametrize(("exporter", "symbolic"), EXPORTS)
@pytest.mark.parametrize("one_hot", [False, True])
def test_a_generator_of_classes(exporter: str, symbolic: bool, one_hot: bool, tmp_path: Path) -> None:
    model = with_random_weights(StyleGenerator(one_hot=one_hot))
    z, labels = torch.randn(2, model.dims), torch.tensor([3, 1])  # type: ignore[arg-type]
    given = torch.eye(5)[labels] if one_hot else labels
    path = export(model, (z, given), tmp_path / "generator.onnx", exporter, symbolic)
    converted = convert_onnx(path, symmetric=True)
    assert converted.classes == 5
    count = 2 if symbolic else 1
    images = run(path, z[:count], given[:count])
    assert_close(decode(converted, z[:count], labels[:count]), images / 2.0 + 0.5)
    counted = operations(converted)
    assert counted["sum"] == 0  # the normalisation of weights is a small product
    assert not any(len(shape) > 3 for shape in converted.decoder.graph.shapes().values())


@pytest.mark.parametrize(("exporter", "symbolic"), EXPORTS)
def test_attention_with_heads(exporter: str, symbolic: bool, tmp_path: Path) -> None:
    model, code = with_random_weights(AttentionDecoder()), torch.randn(2, 8, 8, 8)
    path = export(model, (code,), tmp_path / "decoder.onnx", exporter, symbolic)
    converted, count = convert_onnx(path), 2 if symbolic else 1
    assert_close(decode(converted, code[:count]), np.clip(run(path, code[:count]), 0.0, 1.0))
    counted = operations(converted)
    assert counted["attention"] == 1
    assert counted["layer_norm"] == 2
    assert counted["softmax"] == 0
    assert counted["affine"] == 1  # the batch norm, which follows a product
    assert {node.function for node in converted.decoder.graph.nodes if node.op == "activation"} >= {"gelu"}


def test_open_height_and_width(tmp_path: Path) -> None:
    model, code = tiny_autoencoder(3, 8), torch.randn(1, 4, 16, 16)
    path, axes = tmp_path / "decoder.onnx", {"first": {0: "batch", 2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(DecoderOf(model), (code,), str(path), input_names=["first"], dynamic_axes=axes, dynamo=False)
    with pytest.raises(SpecError, match="give --size"):
        convert_onnx(path)
    converted = convert_onnx(path, size=96, symmetric=True)
    assert converted.decoder.graph.shapes()["code"] == (4, 24, 24)
    code = torch.randn(1, 4, 24, 24)
    assert_close(decode(converted, code), np.clip(run(path, code) / 2.0 + 0.5, 0.0, 1.0))
    oblong = convert_onnx(path, size=(64, 96), symmetric=True)
    assert oblong.decoder.graph.shapes()["code"] == (4, 24, 16)
    code = torch.randn(1, 4, 24, 16)
    assert_close(decode(oblong, code), np.clip(run(path, code) / 2.0 + 0.5, 0.0, 1.0))
    with pytest.raises(SpecError, match=r"a size that the decoder can make, got 97; it makes 388|got 97"):
        convert_onnx(path, size=97)
    with pytest.raises(SpecError, match=r"a size that the decoder can make, got 96x97"):
        convert_onnx(path, size=(96, 97))
