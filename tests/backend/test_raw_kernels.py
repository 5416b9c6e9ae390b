"""Every CUDA source in needle compiles to PTX: by CuPy's binding of NVRTC, which needs no GPU."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import needle

PACKAGE = Path(needle.__file__).parent
MAKERS = {"RawKernel", "RawModule"}  # of CuPy; their argument `code` is a CUDA source
ARCHITECTURE = "compute_75"  # the oldest GPUs that CUDA 13 supports


def kernels(folder):
    """Yield (place, CUDA source) for every call that compiles one: a literal, or a constant of the module."""
    for path in sorted(Path(folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in MAKERS:
                named = {keyword.arg: keyword.value for keyword in call.keywords}
                code = named.get("code") or call.args[0]
                code = constants.get(code.id, code) if isinstance(code, ast.Name) else code
                yield f"{path.name}:{call.lineno}", ast.literal_eval(code)


def ptx(source):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed: nothing compiles CUDA")
    try:
        program = nvrtc.createProgram(source, "kernel.cu", (), ())
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed beside CuPy (pip install 'cupy-cuda12x[ctk]'): {error}")
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={ARCHITECTURE}",))
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    return nvrtc.getPTX(program)


def test_every_source_in_needle_compiles():
    for place, source in kernels(PACKAGE):
        assert ptx(source), place


PLANTED = '''
import cupy
GOOD = 'extern "C" __global__ void f(float* x) { x[threadIdx.x] = 1; }'
def f():
    return cupy.RawKernel(GOOD, "f")
def g():
    return cupy.RawModule(code=r"""extern "C" __global__ void g(float* x) { x[threadIdx.x] = y; }""")
'''


def test_sources_are_found_and_those_that_do_not_compile_are_reported(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED, "utf-8")
    (first, good), (second, bad) = kernels(tmp_path)
    assert (first, second) == ("planted.py:5", "planted.py:7")
    assert b".entry f" in ptx(good)
    with pytest.raises(AssertionError, match='"y" is undefined'):
        ptx(bad)
