"""Case files: what is read, and the one sentence for what cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainful.core import Case, TaskError
from gainful.tasks import jsonl


def cases(folder: Path, content: str | bytes) -> list[Case]:
    path = folder / "cases.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(jsonl.read(path))


def test_a_line_becomes_a_case(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    line = {"id": 7, "input": "1 + 1?", "target": ["2", "two"], "metadata": {"level": 1}, "tools": [tool]}

    (case,) = cases(tmp_path, json.dumps(line))

    assert case == Case(
        messages=({"role": "user", "content": "1 + 1?"},),
        tools=(tool,),
        target=["2", "two"],
        name="7 (cases.jsonl:1)",
        metadata={"level": 1},
    )


def test_the_input_may_be_chat_messages_with_images(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": [image]}]

    (case,) = cases(tmp_path, json.dumps({"input": messages}))

    assert case.messages == tuple(messages)
    assert case.name == "cases.jsonl:1"


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    found = cases(tmp_path, '\ufeff{"input": "a"}\r\n\n{"input": "b"}\n  \n')

    assert [(case.text, case.name) for case in found] == [("a", "cases.jsonl:1"), ("b", "cases.jsonl:3")]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ("{", "cases.jsonl:2: b'{' is not JSON"),
        ('{"input": NaN}', "cases.jsonl:2: .* is not JSON"),
        (b'{"input": "\xff"}', "cases.jsonl:2: .* is not JSON"),
        (b'{"input": "\\ud800"}', "cases.jsonl:2: .* is not JSON"),
        ("[" * 5000, "cases.jsonl:2: .* is not JSON"),
        ("[]", r"cases.jsonl:2: \[\] is no JSON object"),
        (
            '{"input": "b", "id": "1"}',
            "cases.jsonl:2: id '1' is that of line 1 already; give each case an id of its own",
        ),
        ('{"input": "b", "targt": "x"}', r"cases.jsonl:2: member 'targt' is not known; did you mean 'target'\?"),
        ('{"input": "b", "zzz": "x"}', "cases.jsonl:2: member 'zzz' is not known; put what is your own under"),
        ('{"id": "2"}', "cases.jsonl:2: Object missing required field `input`"),
        ('{"input": 5}', "cases.jsonl:2: Expected `str | array`, got `int`"),
        ('{"input": "b", "metadata": []}', "cases.jsonl:2: Expected `object"),
        ('{"input": "b", "id": 1.5}', "cases.jsonl:2: Expected `int | str"),
        ('{"input": ""}', "cases.jsonl:2: the case has no text"),
        ('{"input": " \\n"}', "cases.jsonl:2: the case has no text"),
        ('{"input": []}', "cases.jsonl:2: the case has no text"),
        ('{"input": [{"role": "user"}]}', "cases.jsonl:2: the case has no text"),
        ('{"input": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}', "the case has no text"),
        ('{"input": [{"content": "b"}]}', "cases.jsonl:2: .* is no chat message"),
        ('{"input": [{"role": "user", "content": 5}]}', "cases.jsonl:2: .* is no chat message"),
        ('{"input": [{"role": "user", "content": ["b"]}]}', "cases.jsonl:2: .* is no chat message"),
        ('{"input": [{"role": "user", "content": [{"text": 5}]}]}', "cases.jsonl:2: .* is no chat message"),
        ('{"input": "b", "tools": [{"name": "add"}]}', "cases.jsonl:2: .* is no tool"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_its_number(
    tmp_path: Path, second: str | bytes, sentence: str
) -> None:
    with pytest.raises(TaskError, match=sentence):
        cases(tmp_path, b'{"id": "1", "input": "a"}\n' + (second if isinstance(second, bytes) else second.encode()))


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_file_without_a_case_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(TaskError, match=r"cases.jsonl holds no case; write one a line"):
        cases(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"there is no case file '.*none.jsonl'; correct the path"):
        list(jsonl.read(tmp_path / "none.jsonl"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read: Is a directory"):
        list(jsonl.read(tmp_path))


def test_lines_are_read_as_they_are_wanted() -> None:
    """A pipe that stays open: the first case is there before the second line is."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(b'{"input": "a"}\n')
        found = jsonl.read(Path(f"/dev/fd/{reading}"))

        assert next(found).text == "a"

        found.close()
        os.close(reading)


@given(st.binary(max_size=60))
def test_whatever_the_bytes_the_outcome_is_cases_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    content = b'{"input": "a"}\n' + data

    assert outcome(tmp_path_factory.mktemp("any"), content).startswith(("cases.jsonl:", "1 case", "2 case"))


def outcome(folder: Path, content: bytes) -> str:
    try:
        return f"{len(cases(folder, content))} cases"
    except TaskError as error:
        return str(error)
