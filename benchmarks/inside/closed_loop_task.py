"""The task of ``closed_loop.py``: tool calls of BFCL from a poor start, improving while it is served."""

from dataclasses import replace

from gainful.tasks import load
from gainful.tasks.improving import Improving

calls = replace(
    load("bfcl:simple_python"),
    name="calls",
    improving=Improving(
        after_errors=20,
        calls_per_day=20_000,
        shadow=0.25,
        holdback=0.05,
        probes=80,
        probe_hours=0.2,  # twelve minutes, a probe each nine seconds
    ),
)
