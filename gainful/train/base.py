"""A base model in torch: from a GGUF file, a Hugging Face folder, or the hub.

A GGUF file is dequantised once and kept under the user's cache directory by its digest, since reading it takes ten
times as long as reading what comes of it.  Loaded by the worker alone: this module imports torch.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from gainful.core import JsonObject, TrainError
from gainful.models.files import cache_folder
from gainful.models.gguf import check_gguf, gguf_digest
from gainful.models.specials import Specials
from gainful.train.device import has_bfloat16
from gainful.train.headers import is_gguf


@dataclass(frozen=True)
class Reader:
    """Cuts conversations and replies into the tokens that llama.cpp cuts them into.

    ``end`` is the token that ends a reply.
    """

    tokenizer: Any
    specials: Specials
    end: int

    def prompt(self, messages: tuple[JsonObject, ...]) -> list[int]:
        """Return the tokens of *messages* up to where the model's reply begins."""
        return list(self.tokenizer(self.rendered(messages), add_special_tokens=False)["input_ids"])

    def rendered(self, messages: tuple[JsonObject, ...]) -> str:
        """Return the text that those tokens are cut from."""
        parted = self.specials.part({"messages": list(messages)})["messages"]
        return str(self.tokenizer.apply_chat_template(parted, tokenize=False, add_generation_prompt=True))

    def reply(self, text: str) -> list[int]:
        """Return the tokens of a reply, its end among them; marks in its text are letters, as in a request's."""
        parted = self.specials.part({"messages": [text]})["messages"][0]
        return [*self.tokenizer(parted, add_special_tokens=False)["input_ids"], self.end]

    def cut_reply(self, text: str, pieces: Sequence[str]) -> list[int]:
        """Return the tokens of a reply as it was cut into *pieces*; as ``reply`` cuts it where not all are known."""
        if not pieces or "".join(pieces).strip() != text.strip():
            return self.reply(text)
        tokens = [self.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
        return [*(token for (token,) in tokens), self.end] if all(len(one) == 1 for one in tokens) else self.reply(text)

    def text(self, tokens: list[int]) -> str:
        """Return what *tokens* say up to the reply's end."""
        said = tokens[: tokens.index(self.end)] if self.end in tokens else tokens
        return str(self.tokenizer.decode(said, skip_special_tokens=True))


def load_model(source: str, *, exact: bool = False) -> Any:
    """Return the model in memory, in bfloat16 where the machine has it; *exact*: in float32."""
    dtype = torch.bfloat16 if has_bfloat16() and not exact else torch.float32
    return AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True)


def load_reader(source: str, base: str) -> Reader:
    """Return the reader of the model whose torch files are *source* and that the user calls *base*."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    if tokenizer.chat_template is None:
        raise TrainError(f"{base} has no chat template, so nobody knows how it reads a conversation; take another base")
    specials = Specials.of(Path(base)) if is_gguf(base) else Specials(tokenizer.all_special_tokens)
    return Reader(tokenizer, specials, _end(tokenizer))


def torch_source(base: str) -> str:
    """Return what torch can load: *base* itself, or for a GGUF file the folder of its dequantised weights.

    Raises ``ModelNotFound`` for a file that is no GGUF, ``TrainError`` for one that transformers cannot read.
    """
    if not is_gguf(base):
        return base
    path = Path(base).resolve()
    check_gguf(path)
    folder = cache_folder() / "bases" / gguf_digest(path)[:16]
    if not folder.is_dir():
        _dequantise(path, folder)
    return str(folder)


def _dequantise(path: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dequantising-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        try:
            tokenizer = AutoTokenizer.from_pretrained(**where)
            model = AutoModelForCausalLM.from_pretrained(
                **where,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),  # otherwise it can be neither trained nor saved
            )
        except (ValueError, KeyError, NotImplementedError) as error:
            raise TrainError(
                f"{path} cannot be read into torch ({str(error).splitlines()[0]}); train on the Hugging Face folder of "
                "the same model"
            ) from error
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first with the same weights
                raise
            shutil.rmtree(whole)


def _end(tokenizer: Any) -> int:
    """Return the token that the chat template puts after a reply, as the model was taught."""
    asked = [{"role": "user", "content": "a"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "b"}], tokenize=False)
    if whole.startswith(prompt + "b"):
        after = tokenizer(whole[len(prompt) + 1 :], add_special_tokens=False)["input_ids"]
        if after and after[0] in tokenizer.all_special_ids:
            return int(after[0])
    return int(tokenizer.eos_token_id)
