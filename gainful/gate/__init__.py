"""The gate: numbers in, decision out.  Pure mathematics with the standard library; it imports nothing of ours.

A test is fixed before the first held-out case and judges paired differences: ``SignTest`` for pass/fail scores,
``EProcess`` for graded ones or a margin.  ``Budget`` says at which level, so that a lifetime of tests on one hold-out
errs with probability at most alpha.  ``lower_bound`` is the number to quote afterwards, ``certifiable_gain`` the one
to quote before.  Bad numbers raise ``ValueError``.
"""

from gainful.gate.budget import Budget, epoch_alpha
from gainful.gate.change import evidence_of_harm
from gainful.gate.e_process import EProcess, beta_binomial_e_value
from gainful.gate.intervals import interval, lower_bound, mean_interval, present_bound, proportion_interval
from gainful.gate.judgement import Decision, Judgement, Look
from gainful.gate.power import cases_for, certifiable_gain
from gainful.gate.sign_test import SignTest

__all__ = [
    "Budget",
    "Decision",
    "EProcess",
    "Judgement",
    "Look",
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
]
