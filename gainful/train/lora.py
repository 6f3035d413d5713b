"""The recipes: low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on all linear layers, by TRL's own trainers.

Guarantees: the same work on the same machine ends with the same weights, also where it was killed in between; a step
whose gradients are not finite is not taken.  Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, EarlyStoppingCallback, TrainerCallback, set_seed
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from gainful.core import TrainError
from gainful.train.base import Reader, has_bfloat16, load_model
from gainful.train.checkpoint import mark_whole
from gainful.train.jobs import Lesson, Material, Preference, Progress, Question, Recipe, Work
from gainful.train.memory import Shape, check_memory, free_bytes, needed_bytes
from gainful.train.orders import FineTune, Fitted
from gainful.train.together import count, count_here, gathered, is_finite, whole_weights, worth
from gainful.train.tree import EAGER_NODES, share_beginnings

WARM_UP = 0.1  # share of the steps in which the learning rate rises
LARGEST_GRADIENT = 1.0  # a longer gradient is cut to this length
TOKENS_AT_ONCE = 1024  # of a batch; more are taken in several goes, since attention and memory grow with their square
FEWEST_TO_HOLD_BACK = 20  # lessons or pairs, below which a tenth says nothing about when to stop
SAVED_EVERY_S = 60.0  # a checkpoint takes about 0.3 s


Row: TypeAlias = dict[str, Any]
"""A lesson, pair or question as its trainer reads it."""


class Hearing(Protocol):
    """Who hears of steps, and says what replies are worth."""

    def tell(self, progress: Progress) -> None: ...

    def ask(self, case: str, replies: tuple[str, ...]) -> tuple[float, ...]: ...


class NotFinite(Exception):
    """The gradients of the step under way are no numbers."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells of every step, keeps checkpoints, and stops at the time limit or before a step that is not finite."""

    def __init__(self, tell: Callable[[Progress], None], order: FineTune) -> None:
        self.is_late = False
        self._tell = tell
        self._order = order
        self._began = time.monotonic()
        self._saved_at = -math.inf

    @property
    def spent(self) -> float:
        """Seconds of training, those before this process began among them."""
        return self._order.spent + time.monotonic() - self._began

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **has: Any) -> None:
        gradients = [weight.grad for weight in has["model"].parameters() if weight.grad is not None]
        if not all(gathered(all(map(is_finite, gradients)))):
            raise NotFinite

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
        for step in _steps(state.log_history[-1:], state.max_steps):
            self._tell(step)


def fit(order: FineTune, source: str, reader: Reader, folder: Path, hear: Hearing) -> Fitted:
    """Train as *order* says and leave the adapter in *folder*/adapter, which the first of several processes writes.

    Checkpoints are kept in *folder*.  Raises ``TrainError``.
    """
    set_seed(order.work.seed)
    recipe = order.work.recipe
    batch = _batch(recipe)
    watch = Watch(hear.tell, order)
    rows, held_back = _split(order.work, reader)
    check_memory(_needed_bytes(source, recipe, rows, batch) * count_here(), order.memory_bytes, free_bytes())
    model = _adapted(load_model(source), order)
    trainer = METHODS[recipe.method](model, order.work, reader, _Data(rows, held_back, batch, folder), hear)
    adapted = trainer.model
    trainer.add_callback(watch)
    if held_back:
        trainer.add_callback(EarlyStoppingCallback(recipe.patience))
    if not torch.cuda.is_available():
        share_beginnings(adapted.get_base_model(), recipe.temperature if recipe.method == "grpo" else 1.0)
    stopped = _train(trainer, order.resume, watch)
    state = trainer.state
    if state.global_step == 0:
        raise TrainError(
            f"the first step's gradients are not finite at learning rate {recipe.learning_rate:g}; take a lower one"
        )
    adapted.peft_config["default"].base_model_name_or_path = order.work.base  # PEFT writes the path on this machine
    weights = whole_weights(trainer.model)
    if state.is_world_process_zero:
        adapted.save_pretrained(folder / "adapter", selected_adapters=["default"], state_dict=weights)
    steps = tuple(_steps(state.log_history, state.max_steps))
    return Fitted(steps=steps, seconds=watch.spent, tokens=state.num_input_tokens_seen, stopped=stopped)


def _train(trainer: Any, checkpoint: str, watch: Watch) -> Literal["", "early", "time", "nan"]:
    """Train to the end; return why it came early, empty where it did not."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint or None)
    except NotFinite:
        return "nan"  # the weights are those of the step before
    if watch.is_late:
        return "time"
    return "early" if trainer.state.global_step < trainer.state.max_steps else ""


def _adapted(model: Any, order: FineTune) -> dict[str, Any]:
    """Return the model as TRL takes it: with the adapter to begin from, or with the settings of a new one.

    TRL keeps a copy of an adapter that it finds, as DPO's reference; with a new one that is the base.
    """
    if order.start:
        return {"model": PeftModel.from_pretrained(model, order.start, is_trainable=True)}
    recipe = order.work.recipe
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return {"model": model, "peft_config": config}


# --- one strategy a method, over the trainer of that name


class _Data(NamedTuple):
    rows: list[Row]
    held_back: list[Row]
    batch: int  # sequences a step in each process
    folder: Path


def _supervised(model: dict[str, Any], work: Work, reader: Reader, data: _Data, hear: Hearing) -> Any:
    """Learn replies word for word; no token of a prompt is learned."""
    return SFTTrainer(
        **model,
        args=SFTConfig(**_arguments(work, data), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(data.rows),
        eval_dataset=Dataset.from_list(data.held_back) if data.held_back else None,
        processing_class=reader.tokenizer,
    )


def _preferred(model: dict[str, Any], work: Work, reader: Reader, data: _Data, hear: Hearing) -> Any:
    """Learn to prefer right replies to wrong ones (Rafailov et al. 2023, arXiv 2305.18290)."""
    return _TokenDPOTrainer(
        **model,
        args=DPOConfig(**_arguments(work, data), max_length=None, beta=work.recipe.beta),
        train_dataset=Dataset.from_list(data.rows),
        eval_dataset=Dataset.from_list(data.held_back) if data.held_back else None,
        processing_class=reader.tokenizer,
    )


class _TokenDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on what is cut into tokens already: the reader's cut is the server's."""

    def _prepare_dataset(self, dataset: Any, *settings: Any) -> Any:
        return dataset


def _rewarded(model: dict[str, Any], work: Work, reader: Reader, data: _Data, hear: Hearing) -> Any:
    """Learn from what own samples are worth, each against its group's mean (Shao et al. 2024, arXiv 2402.03300)."""
    recipe = work.recipe

    def rewards(prompts: Sequence[str], completions: Sequence[str], case: Sequence[str], **_: Any) -> list[float]:
        return worth(hear.ask, list(zip(case, completions, strict=True)))

    trainer = GRPOTrainer(
        **model,
        args=GRPOConfig(
            **_arguments(work, data),
            num_generations=recipe.samples,
            temperature=recipe.temperature,
            max_completion_length=max(row["max_tokens"] for row in data.rows),
        ),
        reward_funcs=rewards,
        train_dataset=Dataset.from_list(data.rows),
        processing_class=reader.tokenizer,
    )
    if (
        trainer.processing_class("a", add_special_tokens=True)["input_ids"]
        != trainer.processing_class("a", add_special_tokens=False)["input_ids"]
    ):
        raise TrainError("this tokenizer adds tokens of its own to a rendered prompt, which GRPO would see; use sft")
    return trainer


METHODS: dict[str, Callable[[dict[str, Any], Work, Reader, _Data, Hearing], Any]] = {
    "sft": _supervised,
    "dpo": _preferred,
    "grpo": _rewarded,
}


def _arguments(work: Work, data: _Data) -> dict[str, Any]:
    """Return what all of TRL's trainers are told."""
    recipe, evaluates, batch = work.recipe, bool(data.held_back), data.batch
    at_once = batch if recipe.method == "grpo" else _at_once(data.rows, batch)
    return {
        "output_dir": str(data.folder),
        "per_device_train_batch_size": at_once,
        "per_device_eval_batch_size": at_once,
        "gradient_accumulation_steps": batch // at_once,
        "num_train_epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": WARM_UP,
        "max_grad_norm": LARGEST_GRADIENT,
        "seed": work.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": has_bfloat16(),
        "gradient_checkpointing": False,  # a third more work for memory that adapters on short sequences do not need
        "eval_strategy": "epoch" if evaluates else "no",
        "save_strategy": "epoch" if evaluates else "no",  # `Watch` asks for more
        "load_best_model_at_end": evaluates,
        "save_total_limit": 2,  # one may be cut off by a kill
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,  # every weight of the adapter is used in every step
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    }


def _batch(recipe: Recipe) -> int:
    """Return how many sequences of a step each process takes; raises ``TrainError`` where they cannot be dealt out."""
    batch, processes = recipe.batch, count()
    if recipe.method == "grpo":
        batch = math.ceil(batch / recipe.samples) * recipe.samples  # whole groups
    if batch % processes:
        raise TrainError(f"{batch} sequences a step cannot be dealt out to {processes} processes; take a multiple")
    return batch // processes


def _needed_bytes(source: str, recipe: Recipe, rows: Sequence[Row], batch: int) -> int:
    """Return the memory that a step over *batch* of *rows* takes at most."""
    config = AutoConfig.from_pretrained(source)
    files = [file.stat().st_size for file in Path(source).glob("*.safetensors")]  # none of a model on the hub
    shape = Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        weights_bytes=sum(files) * (1 if has_bfloat16() else 2),
        element_bytes=2 if has_bfloat16() else 4,
    )
    lengths = [_length(row) for row in rows]
    nodes = max(max(lengths), min(TOKENS_AT_ONCE, round(batch * sum(lengths) / len(lengths))))
    return needed_bytes(shape, recipe.rank, nodes, EAGER_NODES)


def _length(row: Row) -> int:
    """Return how many tokens the model reads of *row*, about."""
    if "prompt" in row:
        return len(row["prompt"]) // 2 + int(row["max_tokens"])
    return sum(len(value) for name, value in row.items() if name != "labels")


def _at_once(rows: Sequence[Row], batch: int) -> int:
    """Return how many of a batch's rows to take in one go: a divisor of *batch*."""
    mean = sum(map(_length, rows)) / len(rows)
    most = max(1, min(batch, int(TOKENS_AT_ONCE / mean)))
    return next(size for size in range(most, 0, -1) if batch % size == 0)


# --- material as tokens


def _split(work: Work, reader: Reader) -> tuple[list[Row], list[Row]]:
    """Return the material as tokens, and a tenth of the cases' apart, to see when to stop."""
    rows = [_row(one, reader) for one in work.material]
    recipe = work.recipe
    if not recipe.patience or recipe.method == "grpo" or len(rows) < FEWEST_TO_HOLD_BACK:
        return rows, []
    cases = sorted({one.case for one in work.material})
    back = set(random.Random(work.seed).sample(cases, len(cases) // 10))
    paired = list(zip(work.material, rows, strict=True))
    return [row for one, row in paired if one.case not in back], [row for one, row in paired if one.case in back]


def _row(one: Material, reader: Reader) -> Row:
    """Return *one* as its trainer reads it."""
    prompt = reader.prompt(one.messages)
    match one:
        case Lesson():
            reply = reader.reply(one.reply)
            return {"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply}
        case Preference():
            return {
                "prompt_ids": prompt,
                "chosen_ids": reader.reply(one.chosen),
                "rejected_ids": reader.reply(one.rejected),
            }
        case Question():
            return {"prompt": reader.rendered(one.messages), "case": one.case, "max_tokens": one.max_tokens}


def _steps(history: Sequence[dict[str, Any]], most: int) -> list[Progress]:
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
