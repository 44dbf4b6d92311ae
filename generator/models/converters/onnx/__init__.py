"""ONNX files as graphs: read with onnx's own protobuf reader; nothing of a file is executed."""

from generator.models.converters.onnx.convert import convert_onnx

__all__ = ["convert_onnx"]
