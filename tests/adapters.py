"""Adapters as small as they can be: files that only have digests, and random weights that llama.cpp really adds."""

import hashlib
import json
import struct
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


def random_gguf(path: Path, seed: int, scale: float = 0.08, width: int = 576) -> bytes:
    """Return random low-rank weights for SmolLM2-135M, strong enough to change its words, in llama.cpp's format.

    Another *width* than the model's makes an adapter for another model.
    """
    import gguf
    import numpy as np

    rng, rank = np.random.default_rng(seed), 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer in range(30):
        for name, width_in, width_out in (("attn_q", width, width), ("ffn_down", 1536, width)):
            for part, shape in (("a", (rank, width_in)), ("b", (width_out, rank))):
                values = (rng.normal(size=shape) * scale).astype(np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def gguf_header(file: Path, family: str, weights: int) -> str:
    """Write the header of a GGUF file of *family* with one tensor of so many weights."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    metadata = text("general.architecture") + struct.pack("<I", 8) + text(family)
    tensor = text("token_embd.weight") + struct.pack("<IQIQ", 1, weights, 0, 0)
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + metadata + tensor)
    return str(file)
