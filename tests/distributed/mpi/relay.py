"""Hand IP packets from machine to machine after a delay: `python relay.py SECONDS PID...`.

Each process is one of a machine; the interface eth0 that this program makes there (a "tun") gives it the packets that
the machine sends. The n-th machine has the address 10.77.0.n.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
SET_INTERFACE, IS_TUN, NO_PREFIX = 0x400454CA, 1, 0x1000  # TUNSETIFF, IFF_TUN, IFF_NO_PI
LONGEST_PACKET = 9000  # bytes


def interface_of(pid):
    """A new interface eth0 in the network of a process: the file from which its packets are read."""
    with open(f"/proc/{pid}/ns/net") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"setns: no way into the network of process {pid}")
    interface = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(interface, SET_INTERFACE, struct.pack("16sH22x", b"eth0", IS_TUN | NO_PREFIX))
    return interface


def relay(delay, interfaces):
    """Hand on packets, each `delay` seconds after it came, until the program is killed."""
    under_way = deque()  # (when it is due, to whom, packet)
    while True:
        wait = max(0.0, under_way[0][0] - time.perf_counter()) if under_way else None
        for interface in select.select(interfaces, [], [], wait)[0]:
            packet = os.read(interface, LONGEST_PACKET)
            number = packet[19] - 1 if packet[0] >> 4 == 4 else -1  # the last byte of an IPv4 packet's destination
            if 0 <= number < len(interfaces):
                under_way.append((time.perf_counter() + delay, interfaces[number], packet))
        while under_way and under_way[0][0] <= time.perf_counter():
            _, interface, packet = under_way.popleft()
            os.write(interface, packet)


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # at once, though all cores are taken by ranks that wait
    made = [interface_of(pid) for pid in sys.argv[2:]]
    os.write(sys.stdout.fileno(), b"ready\n")
    relay(float(sys.argv[1]), made)
