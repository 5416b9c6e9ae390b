"""Build the null device, and CuPy's module `runtime` against it, from the source distribution of the installed CuPy.

CuPy's wheel links CUDA's runtime into that module, so a stand-in for the runtime cannot be slipped under it. All other
modules of the wheel are used as they are, except for the names of the libraries that two of them link to. CuPy's module
of NCCL, which no wheel of CuPy brings along, finds the one built here. Nothing of CuPy is kept beside needle's sources:
the products lie in the kernel cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib import metadata, util
from pathlib import Path

from tests.gpu.kernels import made

HERE = Path(__file__).parent
SOURCES = ("device.cpp", "runtime.cpp", "driver.cpp", "libraries.cpp")
RUNTIME = "cupy_backends/cuda/api/runtime"
LIBRARIES = "cupy_backends/cuda/libs"
NAMES = ("cublas", "curand")  # modules of CuPy that link to a library of that name
NCCL = "libnccl.so.2"  # its name on every system
UNSUPPORTED = {"cuda": 801, "cublas": 15, "curand": 201, "nccl": 5}  # the errors that say so
OPTIONS = ["-std=c++17", "-fPIC", "-w"]


class CannotBuild(RuntimeError):
    """What is missing for the null device, and how to get it."""


def missing() -> str | None:
    """Why the null device cannot be built here; None if nothing is known to be missing."""
    if sys.platform != "linux":
        return "the null device needs Linux"
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            return f"{tool} must be installed (on Debian and Ubuntu: apt install g++)"
    if wheel() is None:
        return "CuPy must be installed: pip install cupy-cuda13x"
    if util.find_spec("Cython") is None:
        return "Cython must be installed: pip install cython"
    if headers() is None:
        return "CUDA's headers must be installed: pip install nvidia-cuda-runtime nvidia-cuda-crt"
    return None


def wheel() -> tuple[int, str] | None:
    """The installed CuPy: CUDA's major version and CuPy's version."""
    for major in (13, 12):
        try:
            return major, metadata.version(f"cupy-cuda{major}x")
        except metadata.PackageNotFoundError:
            continue
    return None


def headers() -> Path | None:
    """The folder of CUDA's headers that pip installed."""
    for base in sys.path:
        for folder in sorted(Path(base or ".").glob("nvidia/*/include"), reverse=True):
            if (folder / "cuda_runtime_api.h").exists() and (folder / "crt" / "host_defines.h").exists():
                return folder
    return None


def packages() -> Path:
    """The folder that CuPy is installed in."""
    spec = util.find_spec("cupy_backends")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def run(*command: str | Path, where: Path | None = None, **environment: str) -> str:
    """The output of a command. Raises CannotBuild with what it says."""
    done = subprocess.run(
        [*map(str, command)], cwd=where, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotBuild(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def null_device() -> Path:
    """The folder with libnull.so and the modules of CuPy that link to it; built if need be."""
    problem = missing()
    if problem:
        raise CannotBuild(problem)
    text = b"".join((HERE / name).read_bytes() for name in (*SOURCES, "nccl.cpp", "device.h", "build.py"))
    mark = f"{wheel()} {metadata.version('cython')} {sys.version} {headers()}"
    return made(f"null-{hashlib.sha256(text + mark.encode()).hexdigest()[:16]}", _build).resolve()


def _build(folder: Path) -> None:
    folder.mkdir()
    include = headers()
    objects = [folder / f"{Path(name).stem}.o" for name in SOURCES]
    for name, target in zip(SOURCES, objects, strict=True):
        run("g++", "-O2", *OPTIONS, f"-I{include}", "-c", HERE / name, "-o", target)
    wanted = _wanted(_runtime_object(folder))
    modules = {name: next((packages() / LIBRARIES).glob(f"{name}.*.so")) for name in NAMES}
    for module in modules.values():
        wanted |= _wanted(module)
    missing_text = "".join(_absent(name) for name in sorted(wanted - _defined(*objects)))
    (folder / "absent.cpp").write_text(f"#include <cstdio>\n{missing_text}")
    link: list[str | Path] = ["g++", "-shared", *OPTIONS, f"-L{folder}", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed"]
    run(*link, folder / "absent.cpp", *objects, "-o", folder / "libnull.so", "-ldl")
    run(*link, folder / "cupy.o", "-o", folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}", "-lnull")
    _build_nccl(folder, link)
    (folder / "empty.cpp").write_text("")
    for name, module in modules.items():
        # A copy that asks for a library of another name: torch may bring the real one into the process.
        copy = module.read_bytes()
        for library in set(re.findall(rb"lib%b\.so\.\d+" % name.encode(), copy)):
            other = library.replace(b"libcu", b"libnu")
            copy = copy.replace(library, other)
            target = folder / other.decode()
            run(*link, f"-Wl,-soname,{target.name}", folder / "empty.cpp", "-o", target, "-lnull")
        (folder / module.name).write_bytes(copy)
    for left in (*folder.glob("*.o"), *folder.glob("*.cpp")):
        left.unlink()


def _build_nccl(folder: Path, link: list[str | Path]) -> None:
    target = folder / "nccl.o"
    run("g++", "-O2", *OPTIONS, f"-I{headers()}", "-c", HERE / "nccl.cpp", "-o", target)
    module = next((packages() / LIBRARIES).glob("nccl.*.so"))
    missing_text = "".join(_absent(name) for name in sorted(_wanted(module) - _defined(target)))
    (folder / "absent.cpp").write_text(f"#include <cstdio>\n{missing_text}")
    run(*link, f"-Wl,-soname,{NCCL}", folder / "absent.cpp", target, "-o", folder / NCCL, "-lnull")


def _runtime_object(folder: Path) -> Path:
    """CuPy's module `runtime`, compiled and not yet linked."""
    found = wheel()
    assert found is not None
    major, version = found
    with tempfile.TemporaryDirectory() as place:
        # Its setup looks for CUDA even when it is only downloaded, unless it shall build a stub.
        download = [sys.executable, "-m", "pip", "download", "--no-binary", "cupy", "--no-deps"]
        run(*download, "--dest", place, f"cupy=={version}", CUPY_INSTALL_USE_STUB="1")
        (archive,) = Path(place).glob("cupy-*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(place, filter="data")
        tree = Path(place) / f"cupy-{version}"
        constants = f"CUPY_CUDA_VERSION={major}000,CUPY_HIP_VERSION=0,CUPY_USE_CUDA_PYTHON=False"
        run(sys.executable, "-m", "cython", "-3", "--cplus", "-E", constants, f"{RUNTIME}.pyx", where=tree)
        extra = Path(place) / "include"  # of a package of its own that has little else
        extra.mkdir()
        (extra / "cuda_profiler_api.h").write_text(
            'extern "C" { cudaError_t cudaProfilerStart(); cudaError_t cudaProfilerStop(); }\n'
        )
        includes = [f"-I{folder}" for folder in (headers(), extra, sysconfig.get_paths()["include"])]
        run("g++", "-O1", *OPTIONS, *includes, "-c", f"{Path(RUNTIME).name}.cpp", "-o", folder / "cupy.o",
            where=tree / Path(RUNTIME).parent)  # fmt: skip
    return folder / "cupy.o"


def _wanted(binary: Path) -> set[str]:
    """The functions of CUDA that a binary needs."""
    kind = "-D" if binary.suffix == ".so" else "-g"
    names = {line.split()[-1].partition("@")[0] for line in run("nm", kind, "--undefined-only", binary).splitlines()}
    return {name for name in names if name.startswith(("cuda", "nccl", *NAMES))}


def _defined(*objects: Path) -> set[str]:
    return {line.split()[-1] for line in run("nm", "-g", "--defined-only", *objects).splitlines() if line}


def _absent(name: str) -> str:
    """A function that the null device lacks: it says so, and returns the error for what is not supported."""
    code = next(code for start, code in UNSUPPORTED.items() if name.startswith(start))
    return f'extern "C" int {name}() {{ fputs("null device: {name} is not there\\n", stderr); return {code}; }}\n'
