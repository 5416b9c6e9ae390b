"""Modules of needle as ONNX models."""

from needle.onnx.exporting.exporter import export as export

__all__ = ["export"]
