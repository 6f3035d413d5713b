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
        ramp=(0.05, 0.2, 0.5),  # ten blocks of 100 requests, for a stage of 1 %, would take an hour by themselves
        probes=40,
        probe_hours=0.2,  # twelve minutes, a probe each eighteen seconds: on one core, callers come first
    ),
)
