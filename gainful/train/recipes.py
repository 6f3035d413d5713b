"""The recipes as TRL's trainers: one strategy a method, each told the same but for what makes it that method.

Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from gainful.core import TrainError
from gainful.train.base import Reader
from gainful.train.device import has_bfloat16
from gainful.train.jobs import Progress, Work
from gainful.train.rows import Row, at_once
from gainful.train.together import worth

WARM_UP = 0.1  # share of the steps in which the learning rate rises
LARGEST_GRADIENT = 1.0  # a longer gradient is cut to this length


class Hearing(Protocol):
    """Who hears of steps, and says what replies are worth."""

    def tell(self, progress: Progress) -> None: ...

    def ask(self, case: str, replies: tuple[str, ...]) -> tuple[float, ...]: ...


class Data(NamedTuple):
    """What to learn from, what is held back, how many sequences of a step each process takes, and where files go."""

    rows: list[Row]
    held_back: list[Row]
    batch: int
    folder: Path


def _supervised(model: dict[str, Any], work: Work, reader: Reader, data: Data, hear: Hearing) -> Any:
    """Learn replies word for word; no token of a prompt is learned."""
    return SFTTrainer(
        **model,
        args=SFTConfig(**_arguments(work, data), max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(data.rows),
        eval_dataset=Dataset.from_list(data.held_back) if data.held_back else None,
        processing_class=reader.tokenizer,
    )


def _preferred(model: dict[str, Any], work: Work, reader: Reader, data: Data, hear: Hearing) -> Any:
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


def _rewarded(model: dict[str, Any], work: Work, reader: Reader, data: Data, hear: Hearing) -> Any:
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


METHODS: dict[str, Callable[[dict[str, Any], Work, Reader, Data, Hearing], Any]] = {
    "sft": _supervised,
    "dpo": _preferred,
    "grpo": _rewarded,
}


def _arguments(work: Work, data: Data) -> dict[str, Any]:
    """Return what all of TRL's trainers are told."""
    recipe, evaluates, batch = work.recipe, bool(data.held_back), data.batch
    size = at_once(recipe, data.rows, batch)
    return {
        "output_dir": str(data.folder),
        "per_device_train_batch_size": size,
        "per_device_eval_batch_size": size,
        "gradient_accumulation_steps": batch // size,
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
        "restore_callback_states_from_checkpoint": True,  # for how long nothing held back has got better
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,  # every weight of the adapter is used in every step
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    }
