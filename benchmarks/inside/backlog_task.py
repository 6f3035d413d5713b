"""The task whose backlog ``traffic_store.py`` lets a watcher take in; nothing is learned from it, nobody is asked."""

from dataclasses import replace

from gainful.tasks import load
from gainful.tasks.improving import Improving

other = replace(load("bfcl:simple_python"), name="other", improving=Improving(calls_per_day=0, probes=0))
