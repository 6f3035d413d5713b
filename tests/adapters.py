"""Adapters as small as they can be: files that only have digests, and random weights that llama.cpp really adds."""

import hashlib
import json
from pathlib import Path

from gainful.core import Adapter
from gainful.models.adapters import keep_adapter, read_adapter


def folder_of(at: Path, weights: bytes = b"weights", gguf: bytes | None = b"GGUF weights", rank: int = 2) -> Path:
    """Write the files of an adapter into *at*, as a training leaves them, and return it."""
    at.mkdir(parents=True)
    (at / "adapter_model.safetensors").write_bytes(weights)
    (at / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
    if gguf is not None:
        (at / "adapter.gguf").write_bytes(gguf)
    (at / "README.md").write_text("# A model card\n")
    return at


def kept(at: Path, base: str, weights: bytes = b"weights", gguf: bytes | None = b"GGUF weights") -> Adapter:
    """Keep such an adapter and return what a policy says of it."""
    return read_adapter(keep_adapter(folder_of(at, weights, gguf)), base)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
