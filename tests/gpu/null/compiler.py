"""Kernels of CUDA C compiled by g++, in place of NVRTC: CuPy's own and needle's."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.gpu.null.build import CACHE, HERE, OPTIONS, locked, packages, run

SHIM = Path(os.environ.get("SHIM", HERE.parent / "shim"))
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(")
# Headers that the prelude has, or that a host compiler cannot read.
REPLACED = re.compile(r"#include <cupy/(?:complex|carray|atomics|math_constants|bfloat16)[\w.]*>")
PRELUDE = '#include "cpu.h"\n#include "cupy.h"\n'


def options() -> list[str]:
    """What g++ is told. Products and sums are rounded apart, as NumPy's are; a GPU fuses them where it can."""
    include = packages() / "cupy" / "_core" / "include"
    more = ["-O1", "-fpermissive", "-fno-strict-aliasing", "-ffp-contract=off"]
    return [*OPTIONS, *more, f"-I{SHIM}", f"-I{HERE}", f"-I{include}"]


@cache
def _prelude() -> tuple[str, Path]:
    """A digest of all that kernels are compiled with, and the folder of the precompiled header and the scheduler."""
    files = [*sorted(SHIM.glob("*.h")), *sorted(SHIM.glob("*.cpp")), HERE / "cupy.h"]
    text = "".join([PRELUDE, str(options()), *(file.read_text() for file in files)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = CACHE / f"cupy-{digest}"
    with locked(folder):
        if not folder.exists():
            new = folder.with_suffix(".new")
            new.mkdir(exist_ok=True)
            (new / "prelude.h").write_text(PRELUDE)
            run("g++", *options(), "-x", "c++-header", new / "prelude.h", "-o", new / "prelude.h.gch")
            sources = sorted(SHIM.glob("*.cpp"))
            run("g++", "-O2", *OPTIONS, "-shared", f"-I{SHIM}", *sources, "-o", new / "libcpu.so", "-ldl")
            new.rename(folder)
    return digest, folder


def compiled(source: str, defines: tuple[str, ...] = ()) -> Path:
    """The shared object of a source, from the cache or by g++."""
    digest, folder = _prelude()
    body = REPLACED.sub("", source)
    text = f"{body}\n" + "".join(f"CPU_KERNEL({name})\n" for name in KERNEL.findall(body))
    key = hashlib.sha256(" ".join([digest, text, *defines]).encode()).hexdigest()[:24]
    path = folder / key[:2] / f"{key}.so"
    if path.exists():
        return path
    with locked(path), tempfile.TemporaryDirectory() as place:
        if not path.exists():
            unit, target = Path(place) / "kernels.cpp", path.with_suffix(".new")
            unit.write_text(text)
            link = [f"-L{folder}", "-lcpu", f"-Wl,-rpath,{folder}"]
            run("g++", *options(), *defines, "-include", folder / "prelude.h", unit, "-shared", *link, "-o", target)
            target.rename(path)
    return path


def replace(runs: bool) -> None:
    """Let CuPy's compiler be this one. Not `runs`: compile nothing, and launches do nothing."""
    from cupy.cuda import compiler, function

    def module(source: str, options: tuple[str, ...] = (), **_: Any) -> Any:
        made = function.Module()
        made._set_mapping({})
        defines = tuple(option for option in options if option.startswith("-D"))
        made.load(f"HOST:{compiled(source, defines)}".encode() if runs else b"NONE")
        return made

    compiler._compile_module_with_cache = module
