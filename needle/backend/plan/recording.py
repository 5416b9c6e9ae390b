"""A plan: the calls that a tracer has noted, as a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from needle.backend.device import device_types
from needle.backend.plan.calls import Missed, run_calls
from needle.backend.plan.device import Tracing
from needle.backend.plan.traced import Traced
from needle.backend.plan.tracer import Tracer
from needle.backend.recording import Numbers, Recording

__all__ = ["Plan", "record"]
