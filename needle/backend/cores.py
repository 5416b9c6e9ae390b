"""How many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """The cores of the process's affinity; fewer if its control groups have a quota of time, as containers do.

    `root` and `membership` are where Linux shows control groups, of version 1 or 2. At least 1.

    Source: the Linux kernel's documentation, "Control Group v2", cpu.max, and "CFS Bandwidth Control".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        for line in membership.read_text("utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                top = root / "cpu" if controllers else root
                group = top / name.strip("/")
                for place in (group, *group.parents[: len(group.parts) - len(top.parts)]):
                    cores = min([cores, *map(int, _quota(place))])
    return max(1, cores)


def _quota(group: Path) -> Iterator[float]:
    """How many cores' time a control group may take, if it has a limit."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text("utf-8").split()
        yield int(quota) / int(period)  # without a limit the quota is "max"
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)
