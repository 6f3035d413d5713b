"""What this process computes on: a GPU where torch finds one, else the CPU, and how much memory is left there.

Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gainful.core import TrainError
from gainful.train.memory import Shape, check_memory, free_bytes
from gainful.train.together import processes_here


def has_bfloat16() -> bool:
    """Whether this machine computes in bfloat16, which takes half the time and memory of float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def element_bytes(*, exact: bool = False) -> int:
    """Return what a weight takes as it is loaded; *exact*: where float32 is asked for."""
    return 2 if has_bfloat16() and not exact else 4


def shape_of(source: str) -> Shape:
    """Return the shape of the model that torch would load from *source*; none of its weights is read."""
    config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def has_room(needed: int, allowed: int | None) -> bool:
    """Say whether ``check_room`` would let that pass."""
    try:
        check_room(needed, allowed)
    except TrainError:
        return False
    return True


def check_room(needed: int, allowed: int | None) -> None:
    """Raise ``TrainError`` where *needed* bytes are not free for each process here, or not *allowed* for all together.

    On a GPU its own memory counts, of which each process has one.
    """
    if torch.cuda.is_available():
        check_memory(needed, None, int(torch.cuda.mem_get_info()[0]))
    else:
        check_memory(needed * processes_here(), None, free_bytes())
    check_memory(needed * processes_here(), allowed, None)
