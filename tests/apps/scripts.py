"""Scripts run as a user runs them, and what they say when they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def finish(command):
    """Run Python with `command` from the root of the repository: its exit status, stdout and stderr."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    pipes = {"capture_output": True, "text": True, "check": False}
    process = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, env=environment, **pipes)
    return process.returncode, process.stdout, process.stderr


def error_of(script, capsys, *arguments):
    """What a script writes when it refuses `arguments`, as lines."""
    with pytest.raises(SystemExit) as caught:
        script.main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def without_speed(rows):
    return [{name: value for name, value in row.items() if not name.endswith("_per_second")} for row in rows]
