"""Weights learned: low-rank adapters trained by TRL and PEFT, in a process of their own.

Importing this package imports no torch; the extra ``train`` brings it to the worker (``missing`` says whether it is
there).
"""

from gainful.train.answers import read_prompts, sample_replies
from gainful.train.extra import missing
from gainful.train.folders import forget_words
from gainful.train.headers import check_family
from gainful.train.jobs import (
    Hear,
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
    Reward,
    Sampling,
    Trained,
    Work,
    processes,
)
from gainful.train.kept import Kept
from gainful.train.parity import FEWEST_PROMPTS, Parity, parity
from gainful.train.stop import Stop
from gainful.train.training import fine_tune

__all__ = [
    "FEWEST_PROMPTS",
    "Hear",
    "Kept",
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
    "Reward",
    "Sampling",
    "Stop",
    "Trained",
    "Work",
    "check_family",
    "fine_tune",
    "forget_words",
    "missing",
    "parity",
    "processes",
    "read_prompts",
    "sample_replies",
]
