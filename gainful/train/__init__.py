"""Weights learned: low-rank adapters trained by TRL and PEFT, in a process of their own.

Importing this package imports no torch; the extra ``train`` brings it to the worker (``missing`` says whether it is
there).
"""

from gainful.train.extra import missing
from gainful.train.jobs import (
    Launched,
    Lesson,
    Limits,
    Material,
    OnRay,
    Preference,
    Processes,
    Progress,
    Question,
    Reading,
    Recipe,
    Sampling,
    Trained,
    Work,
    processes,
)
from gainful.train.parity import LEAST_AGREEMENT, Parity, parity
from gainful.train.process import fine_tune, forget_words, read_prompts, sample_replies

__all__ = [
    "LEAST_AGREEMENT",
    "Launched",
    "Lesson",
    "Limits",
    "Material",
    "OnRay",
    "Parity",
    "Preference",
    "Processes",
    "Progress",
    "Question",
    "Reading",
    "Recipe",
    "Sampling",
    "Trained",
    "Work",
    "fine_tune",
    "forget_words",
    "missing",
    "parity",
    "processes",
    "read_prompts",
    "sample_replies",
]
