"""What goes on in a training: it is told, checkpoints are kept, and it ends when its time is up or a step is no number.

Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from gainful.train.checkpoint import mark_whole
from gainful.train.jobs import Progress
from gainful.train.orders import FineTune
from gainful.train.together import gathered, is_finite

SAVED_EVERY_S = 60.0  # a checkpoint takes about 0.3 s


class NotFinite(Exception):
    """The loss or the gradients of the step under way are no numbers."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells of every step, keeps checkpoints and the last good weights, and stops at the time limit.

    Weights are good once a loss and gradients were computed with them that are finite.  Before a step is taken by such
    as are not, ``NotFinite`` is raised.  ``good_steps`` is after how many steps the good weights were reached.
    """

    def __init__(self, tell: Callable[[Progress], None], order: FineTune) -> None:
        self.is_late = False
        self.good_steps = 0
        self._good: dict[str, Any] = {}
        self._under_way: dict[str, Any] = {}
        self._tell = tell
        self._order = order
        self._began = time.monotonic()
        self._saved_at = -math.inf

    @property
    def spent(self) -> float:
        """Seconds of training, those before this process began among them."""
        return self._order.spent + time.monotonic() - self._began

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **has: Any) -> None:
        learned = _learned(has["model"])
        if not all(gathered(all(is_finite(weight.grad) for weight in learned.values() if weight.grad is not None))):
            raise NotFinite
        self._under_way = {name: weight.detach().clone() for name, weight in learned.items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **has: Any) -> None:
        is_late = self.spent >= self._order.seconds and state.global_step < state.max_steps
        is_due = time.monotonic() - self._saved_at >= SAVED_EVERY_S
        all_say = gathered((is_late, is_due))  # no two clocks are alike
        if any(late for late, _ in all_say):
            self.is_late = True
            control.should_training_stop = True
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        if any(due for _, due in all_say):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **has: Any) -> None:
        gathered(None)  # each writes files of its own: the mark waits for all
        if state.is_world_process_zero:
            mark_whole(Path(args.output_dir), state.global_step, self.spent, self._order.processes)
        self._saved_at = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **has: Any) -> None:
        for step in steps(state.log_history[-1:], state.max_steps):
            self._tell(step)
            if step.loss is None:
                raise NotFinite
            self._good, self.good_steps = self._under_way, step.step - 1

    def go_back(self, model: Any) -> None:
        """Give *model* the last good weights again."""
        with torch.no_grad():
            for name, weight in _learned(model).items():
                weight.copy_(self._good[name])


def _learned(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def steps(history: Sequence[dict[str, Any]], most: int) -> list[Progress]:
    """Return the steps that Trainer's log tells of."""
    return [
        Progress(
            step=line["step"],
            steps=most,
            loss=line["loss"] if math.isfinite(line["loss"]) else None,
            reward=line.get("reward"),
            tokens=int(line.get("num_input_tokens_seen", 0)),
        )
        for line in history
        if "loss" in line
    ]
