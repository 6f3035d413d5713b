"""The folder of adapters, and the adapter of a policy on its way to a model."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from adapters import folder_of, kept, sha256

from gainful.answers.answer import Asking, judge_by
from gainful.answers.correct import Draft, correct
from gainful.answers.prompt import request
from gainful.answers.shape import shape
from gainful.core import (
    Adapter,
    AdapterNotFound,
    Answer,
    Case,
    JsonObject,
    ModelNotFound,
    Policy,
    RequestRefused,
    Text,
)
from gainful.models import ReplayModel, ScriptedModel
from gainful.models.adapters import (
    adapter_folder,
    find_adapter,
    keep_adapter,
    note_cases,
    read_adapter,
    remove_adapter,
    taken_out,
    trained_on,
)
from gainful.store.memo import memo_key

CASE = Case(messages=({"role": "user", "content": "Name a fruit."},))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))


def test_a_finished_folder_moves_to_the_place_of_its_weights(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "made")

    place = keep_adapter(made)

    assert place == tmp_path / "adapters" / sha256(b"weights")
    assert sorted(path.name for path in place.iterdir() if not path.name.endswith(".sha256.json")) == [
        "README.md",
        "adapter.gguf",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not made.exists()
    assert os.listdir(tmp_path / "adapters") == [place.name]


def test_the_cases_that_an_adapter_was_trained_on_are_noted_by_their_ids(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "made")
    note_cases(made, ["b", "a", "b"])
    adapter = read_adapter(keep_adapter(made), "small")
    other = Adapter("c" * 64, "small", rank=2, alpha=4.0)

    assert trained_on(adapter) == {"a", "b"}
    assert trained_on(other) is None


def test_a_removed_adapter_is_gone_and_removing_it_again_does_nothing(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "made")
    note_cases(made, ["a"])
    adapter = read_adapter(keep_adapter(made), "small")

    remove_adapter(adapter)
    remove_adapter(adapter)

    assert os.listdir(tmp_path / "adapters") == []
    with pytest.raises(AdapterNotFound):
        find_adapter(adapter)


def test_what_was_kept_is_found_as_the_policy_names_it(tmp_path: Path) -> None:
    place = keep_adapter(folder_of(tmp_path / "made"))
    adapter = read_adapter(place, "small")

    assert adapter == Adapter(sha256(b"weights"), "small", rank=2, alpha=4.0, gguf=sha256(b"GGUF weights"))
    assert find_adapter(adapter) == place


def test_the_same_weights_kept_twice_stay_as_they_are(tmp_path: Path) -> None:
    place = keep_adapter(folder_of(tmp_path / "one"))
    before = (place / "README.md").stat().st_ino

    assert keep_adapter(folder_of(tmp_path / "two")) == place
    assert (place / "README.md").stat().st_ino == before
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter.gguf"])
def test_an_adapter_that_was_broken_since_is_replaced(tmp_path: Path, name: str) -> None:
    place = keep_adapter(folder_of(tmp_path / "one"))
    whole = (place / name).read_bytes()
    (place / name).write_bytes(b"wei")

    keep_adapter(folder_of(tmp_path / "two"))

    assert find_adapter(read_adapter(place, "small")) == place
    assert (place / name).read_bytes() == whole
    assert os.listdir(tmp_path / "adapters") == [place.name]


def test_many_at_once_keep_one_whole_adapter(tmp_path: Path) -> None:
    made = [folder_of(tmp_path / f"made-{n}") for n in range(16)]
    with ThreadPoolExecutor(16) as threads:
        places = set(threads.map(keep_adapter, made))

    (place,) = places
    assert find_adapter(read_adapter(place, "small")) == place
    assert os.listdir(tmp_path / "adapters") == [place.name]


@pytest.mark.parametrize("missing", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_unfinished_folder_is_not_kept(tmp_path: Path, missing: str) -> None:
    made = folder_of(tmp_path / "made")
    (made / missing).unlink()

    with pytest.raises(AdapterNotFound, match=r"cannot be kept in .* \(No such file or directory\); it needs"):
        keep_adapter(made)
    assert made.is_dir()


def test_a_missing_adapter_is_told_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    adapter = Adapter("ab" * 32, "small", rank=8, alpha=16.0)

    with pytest.raises(
        ModelNotFound, match=r"adapter abababab, rank 8: .*adapter_model.safetensors cannot be read"
    ) as at:
        find_adapter(adapter)
    assert str(tmp_path / "adapters" / adapter.sha256) in str(at.value)
    assert "set GAINFUL_ADAPTERS" in str(at.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter.gguf"])
def test_a_changed_file_is_told_even_after_it_was_found_once(tmp_path: Path, name: str) -> None:
    adapter = kept(tmp_path / "made", "small")
    place = find_adapter(adapter)
    (place / name).write_bytes(b"something else")

    with pytest.raises(AdapterNotFound, match=rf"{name} has sha256 {sha256(b'something else')[:16]} where"):
        find_adapter(adapter)


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"r": 0, "lora_alpha": 1}', '{"r": 8, "lora_alpha": "high"}'])
def test_a_configuration_of_something_else_is_refused(tmp_path: Path, config: str) -> None:
    made = folder_of(tmp_path / "made")
    (made / "adapter_config.json").write_text(config)

    with pytest.raises(AdapterNotFound, match="holds no adapter"):
        read_adapter(made, "small")


def test_without_a_folder_of_ones_own_adapters_lie_in_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAINFUL_ADAPTERS")

    assert adapter_folder().parts[-2:] == ("gainful", "adapters")


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": "../../etc"},
        {"sha256": "AB" * 32},
        {"sha256": ""},
        {"gguf": "ab"},
        {"base": ""},
        {"rank": 0},
        {"alpha": 0.0},
        {"alpha": float("nan")},
    ],
)
def test_what_is_no_adapter_cannot_be_made(wrong: JsonObject) -> None:
    with pytest.raises(ValueError, match="an adapter"):
        Adapter(**{"sha256": "ab" * 32, "base": "small", "rank": 8, "alpha": 16.0, **wrong})


# --- on its way to a model

ADAPTER = Adapter("ab" * 32, "small", rank=8, alpha=16.0, gguf="cd" * 32)


def test_a_policy_without_an_adapter_keeps_the_id_it_had() -> None:
    assert Policy().id == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert (
        Policy(instructions="Be brief.", max_tokens=64).id
        == "1f9e4d164960d0243b22b78c1018cfaf5a163293095aacdf26b7252a01e612d7"
    )
    assert Policy(adapter=ADAPTER).id != Policy().id


def test_a_request_carries_the_adapter_and_is_remembered_apart() -> None:
    plain = request(Policy(), CASE, Text())
    tuned = request(Policy(adapter=ADAPTER), CASE, Text())

    assert tuned == {
        **plain,
        "adapter": {"sha256": "ab" * 32, "base": "small", "rank": 8, "alpha": 16.0, "gguf": "cd" * 32},
    }
    assert memo_key({}, tuned) != memo_key({}, plain)
    assert taken_out(tuned) == (ADAPTER, plain)
    assert taken_out(plain)[1] is plain


@pytest.mark.parametrize("member", [None, "abc", {"sha256": "../.."}, {"sha256": "ab" * 32, "base": "m", "rank": 1}])
def test_an_adapter_that_is_none_is_refused(member: object) -> None:
    with pytest.raises(RequestRefused, match="the request's adapter is none"):
        taken_out({"adapter": member})


def test_a_callers_own_adapter_does_not_replace_the_policys() -> None:
    theirs: JsonObject = {"messages": list(CASE.messages), "adapter": {"sha256": "ef" * 32}}

    assert shape(Policy(adapter=ADAPTER), theirs, Text()).body["adapter"]["sha256"] == "ab" * 32
    assert "adapter" not in shape(Policy(instructions="Be brief."), theirs, Text()).body


async def test_a_stronger_model_is_asked_without_the_adapter() -> None:
    usual, stronger = ScriptedModel(["wrong", "again"]), ScriptedModel(["right"])
    asking = Asking(CASE, Policy(adapter=ADAPTER), usual, Text())
    message, found = await asking.ask(asking.body)
    draft = Draft(asking, message, found, stronger=stronger)

    outcome = await correct("escalate", draft, judge_by([]))

    assert outcome.answer == Answer("right", "right")
    assert "adapter" in usual.calls[0]
    assert stronger.calls == [request(Policy(), CASE, Text())]


async def test_a_remembered_answer_of_an_adapter_is_replayed_for_it_alone() -> None:
    tuned, identity = request(Policy(adapter=ADAPTER), CASE, Text()), {"engine": "scripted", "name": "m"}
    reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "kiwi"}, "finish_reason": "stop"}]}
    replay = ReplayModel({memo_key(identity, tuned): reply}, identity)

    assert (await replay.complete(tuned)).message["content"] == "kiwi"
    with pytest.raises(Exception, match="no stored reply"):
        await replay.complete(request(Policy(), CASE, Text()))
