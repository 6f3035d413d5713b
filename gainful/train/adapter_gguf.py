"""An adapter as llama.cpp reads it: PEFT's safetensors into GGUF (specification: ggml/docs/gguf.md, "LoRA")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy
from safetensors.numpy import load_file

from gainful.core import TrainError
from gainful.models.gguf import read_header
from gainful.train.headers import FAMILY, check_family

PREFIX = "base_model.model."  # PEFT's, before the names of the base's own layers
TURNED = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
"""Layers whose rows GGUF has in another order: llama.cpp turns neighbouring pairs where torch turns halves."""


def write_adapter_gguf(adapter: Path, alpha: float, base: Path, to: Path) -> None:
    """Write the adapter in the safetensors file *adapter*, made on the GGUF file *base*, to *to*.

    Raises ``TrainError`` for a base whose layers are arranged in a way that is not known here.
    """
    check_family(str(base))
    header = read_header(base).metadata
    blocks = header[f"{FAMILY}.block_count"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)
    scratch = to.with_name(to.name + ".new")
    writer = gguf.GGUFWriter(scratch, FAMILY)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, weights in sorted(load_file(adapter).items()):
        layer, _, side = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        theirs = names.get_name(layer)
        if theirs is None or side not in ("lora_A", "lora_B"):
            raise TrainError(
                f"{adapter} holds {name!r}, which llama.cpp has no place for; train the linear layers only"
            )
        turned = TURNED.get(theirs.rpartition(".")[2])
        if turned and side == "lora_B":
            weights = _in_pairs(weights, header[f"{FAMILY}.{turned}"])
        writer.add_tensor(f"{theirs}.weight.{side.lower()}", numpy.ascontiguousarray(weights, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(scratch, to)


def _in_pairs(weights: Any, heads: int) -> Any:
    """Return the rows of each head, two halves in torch, as neighbouring pairs."""
    rows, rank = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, rank).swapaxes(1, 2).reshape(rows, rank)
