"""Kernels of CUDA C compiled by g++, in place of NVRTC: CuPy's own and needle's."""

from __future__ import annotations

import ctypes
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from tests.gpu.kernels import KERNEL, SHIM, made, run_compiler, runtime_library
from tests.gpu.null.build import HERE, packages

# Headers that the prelude has, or that a host compiler cannot read.
REPLACED = re.compile(r"#include <cupy/(?:complex|carray|atomics|math_constants|bfloat16)[\w.]*>")
# Shared memory whose size the launch states: here as much as there is.
EXTERN = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\[\]")
PRELUDE = '#include "cpu.h"\n#include "cpu_mma.h"\n#include "cupy.h"\n'


@cache
def _options() -> list[str]:
    """What g++ is told. Products and sums are rounded apart, as NumPy's are; a GPU fuses them where it can."""
    options = ["-O1", "-std=c++17", "-fPIC", "-w", "-fpermissive", "-fno-strict-aliasing", "-ffp-contract=off"]
    return [*options, f"-I{SHIM}", f"-I{HERE}", f"-I{packages() / 'cupy' / '_core' / 'include'}"]


@cache
def _prelude() -> Path:
    """The folder of the precompiled header; its name tells all that kernels are compiled with."""
    files = [*sorted(SHIM.glob("*.h")), HERE / "cupy.h"]
    text = "".join([PRELUDE, *_options(), *(file.read_text("utf-8") for file in files)])

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "prelude.h").write_text(PRELUDE, "utf-8")
        run_compiler(*_options(), "-x", "c++-header", folder / "prelude.h", "-o", folder / "prelude.h.gch")

    return made(f"cupy-{hashlib.sha256(text.encode()).hexdigest()[:16]}", make)


def _instance(expression: str, name: str) -> str:
    """What CPU_KERNEL does, for an instance of a template."""
    kind = f"std::remove_pointer_t<decltype(&{expression})>"
    return (
        f'extern "C" void {name}_cpu(dim3 grid, dim3 block, size_t, void** arguments) {{ '
        f'cpu_launch(&{expression}, grid, block, arguments, "{expression}"); }}\n'
        f'extern "C" const size_t* {name}_sizes_of() {{ return cpu_sizes<{kind}>::of; }}\n'
    )


def compiled(source: str, defines: tuple[str, ...], instances: dict[str, str]) -> Path:
    """The library of the kernels of a source, from the cache or by g++; `instances` of templates have names."""
    prelude = _prelude()
    body = EXTERN.sub(r"__shared__ \1 \2[49152 / sizeof(\1)]", REPLACED.sub("", source))
    templates = {expression.partition("<")[0] for expression in instances}
    plain = [f"CPU_KERNEL({name})\n" for name in KERNEL.findall(body) if name not in templates]
    text = "".join([body, "\n", *plain, *(_instance(*instance) for instance in instances.items())])
    key = hashlib.sha256(" ".join([text, *defines]).encode()).hexdigest()[:24]

    def make(target: Path) -> None:
        unit = target.with_suffix(".cpp")
        unit.write_text(text, "utf-8")
        run_compiler(*_options(), *defines, "-include", prelude / "prelude.h", unit, "-shared", "-o", target)

    return made(f"{prelude.name}.kernels/{key[:2]}/{key}.so", make).resolve()


def replace(runs: bool) -> None:
    """Let CuPy's compiler be this one. Not `runs`: compile nothing, and launches do nothing."""
    from cupy.cuda import compiler, function

    def module(source: str, options: tuple[str, ...] = (), name_expressions: Any = (), **_: Any) -> Any:
        result = function.Module()
        instances = {expression: f"cpu_instance_{i}" for i, expression in enumerate(name_expressions or ())}
        result._set_mapping(instances)
        defines = tuple(option for option in options if option.startswith("-D"))
        result.load(f"HOST:{compiled(source, defines, instances)}".encode() if runs else b"NONE")
        return result

    if runs:  # the scheduler, which kernels find among the names of the process
        ctypes.CDLL(str(runtime_library()), mode=ctypes.RTLD_GLOBAL)
    compiler._compile_module_with_cache = module
