"""Calibration in a scripted world whose truth is known: what is noticed, what is tried, what is stored."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from worlds import QUICK, call, case, luck, store_in, sums

from gainful.answers.detect import Detector
from gainful.answers.rule import Rule
from gainful.checks import Grounding, ToolCall
from gainful.core import CalibrationError, JsonObject, Policy, RequestRefused
from gainful.core import ToolCall as Call
from gainful.loop.calibrate import Calibration, Plan
from gainful.loop.session import audit, calibrate, improve
from gainful.models import ScriptedModel
from gainful.report.audit import audit_json, calibration_json, show_calibration
from gainful.store import open_store
from gainful.tasks import Task, divide, make_task
from gainful.tasks.serving import Serving

pytestmark = pytest.mark.slow  # fitting takes seconds

TASK = sums()


def clumsy(body: JsonObject, sample: int) -> str:
    """Forgets an argument in 4 of 10 cases, which a check sees, and swaps them in 1 of 10, which none does.

    Told what went wrong it does better in 8 of 10; shown its draft it insists; sampled it swaps.
    """
    asked = next(str(m["content"]) for m in body["messages"] if m["role"] == "user")
    a, b = (int(number) for number in re.findall(r"\d+", asked)[:2])
    key = {"messages": [{"role": "user", "content": f"{a} {b}"}]}
    is_told = "went wrong" in asked and luck(key, "told") < 0.8
    if body["temperature"]:
        return call(b, a)
    if luck(key, "draft") < 0.5 or is_told:
        return call(a, b)
    return call(b, a) if luck(key, "draft") < 0.6 else json.dumps({"name": "add", "arguments": {"a": a}})


def unsure(body: JsonObject, sample: int) -> JsonObject:
    """As ``clumsy``, with log-probabilities that are lower where it swapped."""
    text = clumsy(body, sample)
    arguments = json.loads(text)["arguments"]
    logprob = -2.0 if arguments["a"] > arguments.get("b", math.inf) else -0.1
    content = [{"token": "x", "logprob": logprob}] if body.get("logprobs") else None
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": content}}]}


def calibrated(folder: Path, model: ScriptedModel | None = None, plan: Plan | None = None) -> Calibration:
    return calibrate(TASK, model or ScriptedModel(clumsy), store_in(folder), plan or Plan())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration, ScriptedModel]:
    """One calibration that several tests look at: its folder, what it found, and the model that was asked."""
    folder, model = tmp_path_factory.mktemp("calibrated"), ScriptedModel(clumsy)
    return folder, calibrated(folder, model), model


@pytest.fixture(scope="module")
def found(done: tuple[Path, Calibration, ScriptedModel]) -> Calibration:
    return done[1]


def test_what_pays_opens_and_what_does_not_stays_closed(found: Calibration) -> None:
    stands = {s.method: s for s in found.audit.standings}
    assert found.reason == ""
    assert found.drafts == len(TASK.dev)
    assert stands["reask"].is_open
    assert (stands["reask"].ecr or 0.0) == pytest.approx(0.8, abs=0.15)
    assert [m for m, s in stands.items() if s.is_open] == ["reask"]
    assert stands["refine"].fixed == stands["vote"].fixed == stands["escalate"].n == 0
    assert stands["reask"].n == stands["vote"].n == found.suspects


def test_suspects_are_those_that_the_check_objects_to_and_the_chance_is_calibrated(found: Calibration) -> None:
    detector = found.audit.detector

    assert detector is not None
    assert detector.auroc > 0.8
    assert detector.policy == TASK.baseline.id
    assert found.suspects < found.wrong < found.drafts
    assert (detector.p_wrong({"no_answer": 0.0, "check:tool_call": 0.0}) or 0.0) > 0.9
    assert (detector.p_wrong({"no_answer": 0.0, "check:tool_call": 1.0}) or 1.0) < 0.35


def test_log_probabilities_are_asked_for_where_the_model_gives_them_and_tell_more(
    tmp_path: Path, found: Calibration
) -> None:
    model = ScriptedModel(unsure)
    more = calibrated(tmp_path, model)

    assert found.audit.detector is not None
    assert more.audit.detector is not None
    assert "mean_logprob" in more.audit.detector.features
    assert "mean_logprob" not in found.audit.detector.features
    assert more.audit.detector.auroc > found.audit.detector.auroc
    assert all(body["logprobs"] for body in model.calls)


def test_a_calibration_repeats_from_the_memo_and_counts_no_case_twice(
    done: tuple[Path, Calibration, ScriptedModel],
) -> None:
    folder, found, _ = done
    model = ScriptedModel(clumsy)

    assert calibrated(folder, model) == found
    assert model.calls == []


def test_no_held_out_case_is_asked(done: tuple[Path, Calibration, ScriptedModel]) -> None:
    _, _, model = done
    dev = {str(case.messages[0]["content"]) for case in TASK.dev}
    asked = {str(m["content"]).split("\n")[0] for body in model.calls for m in body["messages"] if m["role"] == "user"}
    assert asked - dev == {w for w in asked if w.startswith("This is not right yet")}


def test_cases_methods_and_seed_are_the_plan_s(tmp_path: Path) -> None:
    plan = Plan(methods=("reask",), cases=40, seed=3)

    found = calibrated(tmp_path, plan=plan)

    assert found.drafts == 40
    assert [s.method for s in found.audit.standings if s.n] == ["reask"]


def test_too_few_cases_give_no_detector_and_say_why_but_make_trials(tmp_path: Path) -> None:
    found = calibrated(tmp_path, plan=Plan(cases=12))

    assert found.audit.detector is None
    assert "use more cases" in found.reason
    assert found.suspects > 0
    assert found.audit.standings[0].n == found.suspects


def test_a_case_that_the_model_refuses_is_no_draft(tmp_path: Path) -> None:
    def refusing(body: JsonObject, sample: int) -> str:
        if luck(body, "refused") < 0.2:
            raise RequestRefused("too long")
        return clumsy(body, sample)

    found = calibrated(tmp_path, ScriptedModel(refusing))

    assert found.refused > 0
    assert found.drafts + found.refused == len(TASK.dev)


def test_trials_of_another_policy_do_not_count(done: tuple[Path, Calibration, ScriptedModel]) -> None:
    with open_store(store_in(done[0])) as store:
        trials = store.trials(TASK.name, "scripted")

    assert Rule.of(trials, TASK.baseline.id).standings[0].is_open
    assert Rule.of(trials, Policy().id) == Rule()


def keyless(name: str, cases: int = 60) -> Task:
    bare = [msgspec.structs.replace(case(number), target=None) for number in range(cases)]
    return make_task(name, divide(bare), Call(), [Grounding()])


def test_where_no_truth_is_known_nothing_can_be_calibrated(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="nobody knows which answers are right"):
        calibrate(keyless("bare"), ScriptedModel(clumsy), store_in(tmp_path))


def test_a_trusted_check_without_targets_is_truth_enough(tmp_path: Path) -> None:
    bare = [msgspec.structs.replace(case(number), target=None) for number in range(100)]
    task = make_task("bare", divide(bare), Call(), [ToolCall()])

    found = calibrate(task, ScriptedModel(clumsy), store_in(tmp_path), Plan(methods=("reask",)))

    assert found.drafts == len(task.dev)
    assert found.audit.detector is not None


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(CalibrationError, match="'pray' is no method"):
        Plan(methods=("pray",))


def test_a_missing_package_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)

    with pytest.raises(CalibrationError, match="pip install"):
        calibrated(tmp_path)

    with open_store(store_in(tmp_path)) as store:
        assert store.trials(TASK.name, "scripted") == []


# --- a run refreshes the detector


def fresh_detector(folder: Path) -> Detector | None:
    return audit(TASK, ScriptedModel(clumsy), store_in(folder)).detector


def test_a_run_leaves_a_detector_of_its_champion_and_asks_nothing_for_it(tmp_path: Path) -> None:
    finished = improve(TASK, ScriptedModel(clumsy), store_in(tmp_path), QUICK).finished

    detector = fresh_detector(tmp_path)
    assert detector is not None
    assert detector.policy == finished.champion


def test_a_run_without_the_package_ends_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = improve(TASK, ScriptedModel(clumsy), store_in(tmp_path / "a"), QUICK)
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    without = improve(TASK, ScriptedModel(clumsy), store_in(tmp_path / "b"), QUICK)

    assert without.finished.champion == with_it.finished.champion
    assert fresh_detector(tmp_path / "a") is not None
    assert fresh_detector(tmp_path / "b") is None


def test_a_run_does_not_replace_what_a_calibration_of_the_same_policy_fitted(tmp_path: Path) -> None:
    before = calibrated(tmp_path, ScriptedModel(unsure)).audit.detector
    finished = improve(TASK, ScriptedModel(unsure), store_in(tmp_path), QUICK).finished

    after = fresh_detector(tmp_path)
    assert after is not None
    assert (after == before) == (finished.champion == TASK.baseline.id)


# --- shown


def shown(found: Calibration) -> str:
    page = io.StringIO()
    show_calibration(Console(width=140, file=page), found)
    return page.getvalue()


def test_the_table_says_what_is_open_and_why(found: Calibration) -> None:
    text = shown(found)
    assert f"{found.drafts} drafts with a known truth" in text
    assert "AUROC" in text
    assert "reask is open" in text
    assert "escalate is closed: the task's serve.methods leaves it out" in text


def test_a_method_that_the_task_is_not_served_with_is_closed_whatever_its_trials_say(
    done: tuple[Path, Calibration, ScriptedModel],
) -> None:
    folder, _, model = done

    found = audit(replace(TASK, serving=Serving(methods=("vote",))), model, store_in(folder))

    told = {method["method"]: method for method in audit_json(found)["methods"]}
    assert told["reask"]["n"] > 0
    assert not told["reask"]["is_open"]
    assert told["reask"]["why"].startswith("the task's serve.methods leaves it out")


def test_escalating_without_a_model_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    model = ScriptedModel(clumsy)

    with pytest.raises(CalibrationError, match=r"serve\.escalate names no model"):
        calibrated(tmp_path, model, Plan(methods=("escalate",)))
    assert not model.calls


def test_without_a_detector_the_table_says_that_p_wrong_is_unknown(tmp_path: Path) -> None:
    text = shown(calibrated(tmp_path, plan=Plan(cases=12)))

    assert "No detector was fitted: of 12 answers" in text
    assert "P(wrong) is unknown" in text


def test_the_json_holds_every_number_of_every_method(found: Calibration) -> None:
    content = json.loads(json.dumps(calibration_json(found)))
    assert content["audit"] == json.loads(json.dumps(audit_json(found.audit)))
    assert [m["method"] for m in content["audit"]["methods"]] == ["reask", "refine", "vote", "escalate"]
    assert content["audit"]["methods"][3]["fixed"] == 0
    assert content["audit"]["methods"][0]["is_open"] is True
