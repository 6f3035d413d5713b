"""What a base says of itself before its weights are read: of which family it is, and how many weights it has.

Imports no torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from gainful.core import TrainError
from gainful.models.gguf import check_gguf, read_header

FAMILY = "llama"  # the one whose adapters are known here as GGUF


def is_gguf(base: str) -> bool:
    """Whether *base* is a file; folders and names on the hub are torch's own."""
    return Path(base).is_file()


def check_family(base: str) -> None:
    """Raise ``TrainError`` for a GGUF file whose adapters llama.cpp could not be given afterwards.

    Raises ``ModelNotFound`` for a file that is no GGUF.
    """
    if not is_gguf(base):
        return
    check_gguf(Path(base))
    family = read_header(Path(base)).metadata.get("general.architecture")
    if family != FAMILY:
        raise TrainError(
            f"{base} is of the family {family!r}, whose adapters are not known here as GGUF; train on a model of the "
            f"family {FAMILY}, or on its Hugging Face folder and serve that with vLLM"
        )


def parameters(base: str) -> int | None:
    """Return how many weights *base* has; ``None`` where its files or the hub do not say."""
    try:
        if is_gguf(base):
            return read_header(Path(base)).weights
        if Path(base).is_dir():
            return sum(map(_elements, _weights(Path(base))))
        from huggingface_hub import get_safetensors_metadata

        return sum(get_safetensors_metadata(base).parameter_count.values())
    except Exception:  # noqa: BLE001 - the hub's client raises what it likes; what is wrong is said by who loads it
        return None


def _weights(folder: Path) -> list[Path]:
    """Return the files that the weights of a Hugging Face folder lie in."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in set(json.loads(index.read_text())["weight_map"].values())]
    return [folder / "model.safetensors"]


def _elements(safetensors: Path) -> int:
    """Return how many numbers the file holds: its header, JSON after its length, says the shape of each tensor."""
    with safetensors.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
