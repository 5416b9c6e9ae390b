"""What needle.onnx refuses, with its messages."""

import re
import runpy
import sys

import pytest

import needle as ndl


def without_onnx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        runpy.run_path(f"{ndl.__path__[0]}/onnx/__init__.py")


# fmt: off
ERRORS = [
    (without_onnx, ImportError,
     r"needle\.onnx: needs the package onnx, which `pip install 'needle-dl\[onnx\]'` installs, but got: .*"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
