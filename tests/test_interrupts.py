"""Modes are restored after an interrupt at any line."""

from __future__ import annotations

import contextlib
import sys

import needle as ndl
from needle import kernels
from needle.kernels.conv import dispatch
from tests.interrupts import interrupt_everywhere


def test_grad_mode():
    def run():
        with ndl.no_grad():
            assert not ndl.is_grad_enabled()
        (ndl.Tensor([2.0]) * 3).backward(create_graph=False)

    places = []
    for place in interrupt_everywhere(run, contextlib, sys.modules["needle.grad_mode"]):
        assert ndl.is_grad_enabled(), place
        places.append(place)
    assert {place.split(":")[0] for place in places} >= {"no_grad", "grad_mode", "__enter__", "__exit__"}


def test_conv_algorithm():
    def run():
        with kernels.conv_algorithm("taps"):
            assert dispatch._requested.get()

    places = []
    for place in interrupt_everywhere(run, contextlib, dispatch):
        assert dispatch._requested.get() == {}, place
        places.append(place)
    assert {place.split(":")[0] for place in places} >= {"conv_algorithm", "__enter__", "__exit__"}
