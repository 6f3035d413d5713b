"""The marks of a chat template in a caller's text: parted, and nothing else is changed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful.core import ModelNotFound
from gainful.models import SMOLLM2, EmbeddedModel, wheel_file
from gainful.models.specials import PARTING, Specials

MARKS = ["<|im_start|>", "<|im_end|>", "<a>", "a><"]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(tokens: list[tuple[str, int]], version: int = 3) -> bytes:
    """The header of a GGUF file with this vocabulary, a number and a nested array before it."""
    words = (
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(text(t) for t, _ in tokens)
    )
    kinds = text("tokenizer.ggml.token_type") + struct.pack(
        f"<IIQ{len(tokens)}i", 9, 5, len(tokens), *(k for _, k in tokens)
    )
    number = text("some.number") + struct.pack("<Id", 12, 0.5)
    nested = text("some.array") + struct.pack("<IIQIQ?", 9, 9, 1, 7, 1, True)
    return struct.pack("<4sIQQ", b"GGUF", version, 0, 4) + number + nested + words + kinds


def said(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8}


@pytest.mark.parametrize(
    ("body", "parted"),
    [
        (said("a <|im_end|> b"), said(f"a <{PARTING}|im_end|> b")),
        (said([{"type": "text", "text": "<a>"}]), said([{"type": "text", "text": f"<{PARTING}a>"}])),
        (
            said("x")
            | {"tools": [{"function": {"name": "f", "parameters": {"properties": {"<a>": {"enum": ["<a>"]}}}}}]},
            said("x")
            | {
                "tools": [
                    {
                        "function": {
                            "name": "f",
                            "parameters": {"properties": {f"<{PARTING}a>": {"enum": [f"<{PARTING}a>"]}}},
                        }
                    }
                ]
            },
        ),
        (
            said("x") | {"chat_template_kwargs": {"s": "<a>"}},
            said("x") | {"chat_template_kwargs": {"s": f"<{PARTING}a>"}},
        ),
    ],
)
def test_marks_are_parted_wherever_a_prompt_takes_its_texts_from(body: Any, parted: Any) -> None:
    assert Specials(MARKS).part(body) == parted


def test_a_request_without_marks_is_the_same_object() -> None:
    body = said([{"type": "text", "text": "if a < b | c > d"}]) | {"grammar": "<a>", "stop": ["<a>"]}

    assert Specials(MARKS).part(body) is body
    assert Specials([]).part(said("<a>")) == said("<a>")


@given(st.lists(st.sampled_from([*"<a>|", *MARKS])).map("".join))
def test_no_mark_is_left_however_they_overlap(content: str) -> None:
    (message,) = Specials(MARKS).part(said(content))["messages"]

    assert not any(mark in message["content"] for mark in MARKS)
    assert message["content"].replace(PARTING, "") == content


def test_marks_are_read_from_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    words = [("hello", 1), ("<|eot|>", 1), ("<unk>", 2), ("<s>", 3), ("[INST]", 4), ("\n\n", 4), ("<0x0A>", 6), ("", 4)]
    path.write_bytes(gguf(words))
    specials = Specials.of(path)

    parted = {word: specials.part(said(word)) != said(word) for word, _ in words}

    assert [word for word in parted if parted[word]] == ["<|eot|>", "<s>", "[INST]"]


@pytest.mark.parametrize(
    "damaged", [gguf([("a", 1)])[:-3], gguf([("a", 1)], version=1), b"GGUF", gguf([])[:40] + b"\xff" * 99]
)
def test_a_header_that_cannot_be_read_is_told(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(damaged)

    with pytest.raises(ModelNotFound, match="its header is damaged"):
        Specials.of(path)


@pytest.mark.slow
async def test_the_real_model_reads_a_callers_marks_as_letters() -> None:
    """A mark that is read as one costs one token; the letters of it cost several."""
    model = EmbeddedModel(wheel_file(**SMOLLM2), slots=1)
    try:
        tokens = [
            (await model.complete(said(f"x{mark * 10}") | {"max_tokens": 1})).usage.prompt_tokens
            for mark in ("", "<|im_end|>", "<|endoftext|>", "<file_sep>")
        ]
        streamed = [piece async for piece in model.stream(said("Say yes.<|im_end|>") | {"max_tokens": 4})]
    finally:
        await model.close()

    assert all(count - tokens[0] >= 40 for count in tokens[1:])
    assert streamed
