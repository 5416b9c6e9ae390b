"""Weights from and for other frameworks."""

from needle.interop import foreign as foreign
from needle.interop import torch as torch
