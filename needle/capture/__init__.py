"""Captured steps: the work of a function, recorded once for each kind of arguments, and replayed in later calls."""

from needle.capture.captured import Captured as Captured
from needle.capture.captured import capture as capture

__all__ = ["Captured", "capture"]
