#!/usr/bin/env bash
# mpi4py 4.1.2 from PyPI with MPICH 4.0.2 of Debian 12: the wheel looks for libmpi.so, libmpi.so.12 (MPICH's ABI) and
# libmpi.so.40 (Open MPI), but Debian's file is libmpich.so.12, without a link: "cannot load MPI library". Naming it by
# MPI4PY_LIBMPI, the documented way, only moves the failure: mpi4py loads it, recognizes MPICH and picks its module for
# that ABI, which is linked to libmpi.so.12: ImportError. So neither an installed MPI nor its full path helps, and the
# error is a RuntimeError first and an ImportError then. With a link named libmpi.so.12 the same library works.
# Needs Debian 12 (amd64) with apt; downloads packages without installing them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq download libmpich12=4.0.2-3+b1 libhwloc15 libfabric1 libpsm-infinipath1 libpsm2-2 librdmacm1 libibverbs1 \
    libnl-3-200 libnl-route-3-200 libucx0 libslurm38 libmunge2 libgfortran5 libquadmath0 libnuma1 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mpi4py==4.1.2
libraries="$folder/root/usr/lib/x86_64-linux-gnu:$folder/root/lib/x86_64-linux-gnu"
file="$folder/root/usr/lib/x86_64-linux-gnu/libmpich.so.12"
try() {
    echo "-- $1"
    shift
    env LD_LIBRARY_PATH="$libraries" "$@" venv/bin/python -c '
from mpi4py import MPI
print(MPI.Get_library_version().split("\n")[0].strip(), "with", MPI.COMM_WORLD.Get_size(), "process")' 2>&1 | tail -7 || true
}
{
    try "as it is" X=1
    try "MPI4PY_LIBMPI=.../libmpich.so.12" MPI4PY_LIBMPI="$file"
    mkdir links
    ln -s "$file" links/libmpi.so.12
    libraries="$folder/links:$libraries"
    try "with a link libmpi.so.12" X=1
} | tee output
grep -q "RuntimeError: cannot load MPI library" output
grep -q "ImportError: libmpi.so.12: cannot open shared object file" output
grep -q "MPICH Version:.*4.0.2 with 1 process" output
