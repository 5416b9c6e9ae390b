"""Several machines out of one: network namespaces of Linux, with a link of chosen rate and delay between them.

A machine has a network, a host name, System V's shared memory and mounts of its own; files, processes and cores are
those of this computer. It is held by a process that reads from a pipe, so it goes where this program ends. With a
delay, packets go through a program, relay.py: the kernel delays nothing unless it has been built with `netem`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.distributed.mpi.ranks import is_open_mpi
from tests.distributed.mpi.relay import LONGEST_PACKET

__all__ = ["Machine", "machines", "missing", "starter"]

PATIENCE = 10  # seconds until a machine must have its network
TOOLS = ("unshare", "nsenter", "ip", "tc", "mount")


class Machine:
    """A machine of the name `name` and the address `address`, held by the process `pid`."""

    def __init__(self, number):
        self.name, self.address = f"machine{number}", f"10.77.0.{number + 1}"
        parts = ["unshare", "--net", "--uts", "--ipc", "--mount", "cat"]
        self.process = subprocess.Popen(parts, stdin=subprocess.PIPE, start_new_session=True)
        self.pid = self.process.pid
        own, deadline = os.readlink("/proc/self/ns/mnt"), time.monotonic() + PATIENCE
        while os.readlink(f"/proc/{self.pid}/ns/mnt") == own:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("unshare: the namespaces of a machine must come up, but they do not")
            time.sleep(0.01)
        self.run("hostname", self.name)
        self.run("mount", "-t", "sysfs", "sysfs", "/sys")  # there MPICH finds its interfaces
        self.run("ip", "link", "set", "lo", "up")

    @property
    def entering(self):
        """The beginning of a command that runs here."""
        return ["nsenter", f"--target={self.pid}", "--net", "--uts", "--ipc", "--mount", f"--wd={os.getcwd()}"]

    def run(self, *command):
        """The output of a command that runs here."""
        return subprocess.run([*self.entering, *command], check=True, capture_output=True, text=True).stdout

    def connect(self, rate):
        """Give the interface eth0 its address, and let it send at most `rate`: tc's words, as "1gbit"."""
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        if rate is not None:
            self.run(*f"tc qdisc add dev eth0 root tbf rate {rate} burst 32kb latency 100ms".split())

    def sent(self):
        """The bytes that have gone from here, with the headers of packets."""
        return int(self.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"))

    def processes(self):
        """The ids of all processes here."""
        network, found = os.readlink(f"/proc/{self.pid}/ns/net"), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns/net") == network:
                    found.append(int(entry.name))
        return found

    def end(self):
        """Kill all processes here; with the last one the machine is gone."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def machines(count, rate=None, delay=0.0):
    """`count` machines; each sends at most `rate`, in tc's words, and a packet takes `delay` seconds more."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            made.append(Machine(number))
            stack.callback(made[-1].end)
        if delay:
            stack.callback(lambda relay: (relay.kill(), relay.wait()), _relay(made, delay))
        else:
            switch = Machine(count)
            stack.callback(switch.end)
            _wire(made, switch)
        for machine in made:
            machine.connect(rate)
        deadline = time.monotonic() + PATIENCE
        while any("down" in machine.run("cat", "/sys/class/net/eth0/operstate") for machine in made):
            if time.monotonic() > deadline:
                raise RuntimeError("ip: the interfaces of all machines must come up, but they do not")
            time.sleep(0.05)
        yield made


def _wire(made, switch):
    """Give each machine an interface that leads to a bridge in the machine `switch`."""
    switch.run("ip", "link", "add", "bridge", "type", "bridge")
    switch.run("ip", "link", "set", "bridge", "up")
    for i, machine in enumerate(made):
        pair = f"ip link add eth0 netns {machine.pid} type veth peer name port{i} netns {switch.pid}"
        subprocess.run(pair.split(), check=True)
        switch.run("ip", "link", "set", f"port{i}", "master", "bridge", "up")


def _relay(made, delay):
    """Start the program that hands packets from each machine to each, `delay` seconds later."""
    program = [sys.executable, str(Path(__file__).with_name("relay.py")), str(delay), *(str(x.pid) for x in made)]
    relay = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert relay.stdout is not None
    with relay.stdout:
        if not relay.stdout.readline():
            raise RuntimeError("relay: the interfaces must be made, but they are not")
    for machine in made:
        machine.run("ip", "link", "set", "eth0", "mtu", str(LONGEST_PACKET))
    return relay


def starter(mpiexec, made, folder):
    """The beginning of a command by which the first machine starts ranks, one on each in turn.

    `mpiexec` is MPICH's, Intel MPI's or Open MPI's. In place of ssh, a script in `folder` enters the machine.
    """
    remote = Path(folder) / "remote.sh"
    cases = "\n".join(f'{x.address}|{x.name}) exec {" ".join(x.entering)} sh -c "$*" ;;' for x in made)
    remote.write_text(
        "#!/bin/sh\n# remote.sh HOST COMMAND...\n"
        'while case "$1" in -*) true ;; *) false ;; esac; do shift; done\n'
        f'host=$1; shift\ncase "$host" in\n{cases}\nesac\necho "no machine $host" >&2; exit 1\n'
    )
    remote.chmod(0o755)
    if is_open_mpi(mpiexec):
        hosts = ",".join(f"{machine.address}:99" for machine in made)
        # All machines have the same cores: bound to its machine's first one, each rank would wait for the others.
        options = ["--allow-run-as-root", "--map-by", "node", "--bind-to", "none", "--host", hosts]
        return [*made[0].entering, mpiexec, *options, "--prtemca", "plm_ssh_agent", str(remote)]
    hosts = ",".join(machine.address for machine in made)
    options = ["-iface", "eth0", "-ppn", "1"]  # Intel's looks for names, and fills the cores of the first machine
    return [*made[0].entering, mpiexec, *options, "-hosts", hosts, "-launcher", "ssh", "-launcher-exec", str(remote)]


def missing():
    """What this computer lacks for machines, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "root alone makes network namespaces"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"these programs are missing: {', '.join(lacking)}"
    try:
        for delay in (0.0, 1e-3):
            with machines(1, "1gbit", delay):
                pass
        return None
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"
