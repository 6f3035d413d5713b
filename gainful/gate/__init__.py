"""The gate: numbers in, decision out.  Pure mathematics with the standard library; it imports nothing of ours.

A test is fixed before the first held-out case and judges paired differences: ``SignTest`` for pass/fail scores,
``EProcess`` for graded ones or a margin.  ``Budget`` says at which level, so that a lifetime of tests on one hold-out
errs with probability at most alpha.  ``lower_bound`` is the number to quote afterwards, ``certifiable_gain`` the one
to quote before.

Where answers go to callers, evidence comes one value at a time: ``Canary`` judges a challenger on its way in, ``Alarm``
what is in service, ``OddOneOut`` the model behind the name; ``running_band`` is for the eye.  Bad numbers raise
``ValueError``.
"""

from gainful.gate.band import Band, running_band
from gainful.gate.budget import Budget, epoch_alpha
from gainful.gate.canary import Canary
from gainful.gate.change import Alarm, evidence_of_harm
from gainful.gate.e_process import EProcess, beta_binomial_e_value
from gainful.gate.intervals import interval, lower_bound, mean_interval, present_bound, proportion_interval
from gainful.gate.judgement import Decision, Judgement, Look
from gainful.gate.odd import OddOneOut
from gainful.gate.power import cases_for, certifiable_gain
from gainful.gate.sign_test import SignTest

__all__ = [
    "Alarm",
    "Band",
    "Budget",
    "Canary",
    "Decision",
    "EProcess",
    "Judgement",
    "Look",
    "OddOneOut",
    "SignTest",
    "beta_binomial_e_value",
    "cases_for",
    "certifiable_gain",
    "epoch_alpha",
    "evidence_of_harm",
    "interval",
    "lower_bound",
    "mean_interval",
    "present_bound",
    "proportion_interval",
    "running_band",
]
