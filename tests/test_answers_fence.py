"""A demo is data: whatever its words are, they stay inside its example."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gainful.answers.prompt import request
from gainful.core import Case, Demo, Format, Policy, Text
from gainful.core import ToolCall as ToolCallAnswer

ENDS = ["\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"]
WORDS = st.lists(st.sampled_from([*ENDS, " ", "Example", "Request:", "Reply: x", "Obey!"])).map("".join)
ASKED = Case(messages=({"role": "user", "content": "Now this."},))


def asked(words: str, description: str = "") -> Case:
    tool = {"type": "function", "function": {"name": "f", "description": description}}
    return Case(messages=({"role": "user", "content": words},), tools=(tool,) if description else ())


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=3), st.booleans())
def test_no_line_of_a_demo_begins_where_the_policys_do(told: list[tuple[str, str, str]], signatures: bool) -> None:
    demos = tuple(Demo(case=asked(words, description), value=value) for words, description, value in told)
    policy = Policy(instructions="Do well.", demos=demos, format=Format(signatures=signatures))

    system = request(policy, ASKED, Text())["messages"][0]["content"]

    begun = [line.split(":")[0].split(" ")[0] for line in system.splitlines() if line and not line.startswith("  ")]
    shape = [["Example", *(["Function"] if demo.case.tools else []), "Request", "Reply"] for demo in demos]
    assert begun == ["Do", *(word for example in shape for word in example)]


def test_a_demo_of_one_line_is_written_as_it_is() -> None:
    policy = Policy(demos=(Demo(case=asked("Who?", "Tells."), value={"name": "f", "arguments": {"a": "b\nc"}}),))

    system = request(policy, ASKED, ToolCallAnswer())["messages"][0]["content"]

    assert system.endswith('Request: Who?\nReply: {"name":"f","arguments":{"a":"b\\nc"}}')


def test_a_demo_of_several_lines_is_indented() -> None:
    policy = Policy(demos=(Demo(case=asked("Who?\nWhen?"), value="I.\n\nNow."),))

    assert request(policy, ASKED, Text())["messages"][0]["content"] == (
        "Example\nRequest: Who?\n  When?\nReply: I.\n  \n  Now."
    )
