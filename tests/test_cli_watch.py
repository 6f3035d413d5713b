"""The levers as an operator meets them: the real command line in this process, real stores, real exit codes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapters import kept
from production_store import lived
from serving import serving
from test_proxy_chat import echo, talk
from worlds import QUICK, scripted, store_in, sums

import gainful
from gainful import cli
from gainful.core import Answer, Attempt, Case, Demo, Exchange, Policy, canonical, digest
from gainful.models import ScriptedModel
from gainful.proxy.keys import make_key
from gainful.store import Banked, SQLiteStore, Tally, open_store
from gainful.tasks.split import content
from gainful.watch.service import ALONE, FORCED, PINNED, TAKEN_BACK, Helm, service_key, watch_lease

BASELINE, BETTER, OTHER = (Policy(instructions=word) for word in ("Answer.", "Add.", "Count."))
TASK = "support: mood"
AT = 1.79e9  # 2026-09-21 14:13


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a task is served, and two policies are known."""
    place = tmp_path_factory.mktemp("served") / "store.db"
    with SQLiteStore(place, clock=lambda: AT) as opened:
        opened.set_champion(TASK, BASELINE, "baseline")
        opened.set_champion("another", BASELINE, "baseline")
        for policy in (BETTER, OTHER):
            opened.put_policy(policy)
    return place


@pytest.fixture
def store(served: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copy(served, tmp_path / "store.db"))


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command, and returns what it printed; of one that is to fail, what it complained of."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "100")

    def gainful(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["gainful", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        return err if code else out

    yield gainful
    signal.signal(signal.SIGTERM, before)


def helm(store: SQLiteStore, task: str = TASK, at: float = AT) -> Helm:
    return Helm(store, task, lambda: at)


def ledger(place: Path, task: str = TASK) -> list[tuple[str, Any]]:
    with SQLiteStore(place) as store:
        return [(line.kind, line.content.get("void")) for line in store.ledger(service_key(task))]


def champion(place: Path, task: str = TASK) -> str | None:
    with SQLiteStore(place) as store:
        return store.champion(task)


# --- status


def test_status_says_all_there_is_to_know_of_a_busy_task(store: Path, run: Run) -> None:
    with SQLiteStore(store) as opened:
        helm(opened).force(BETTER.id, "5eed", 0.03)
        helm(opened, at=AT + 3600).stage(OTHER.id, "canary", 0.05, "5eed", "ab" * 32)
        helm(opened).alarm("quality", {"n": 3})
        helm(opened).pause()
        helm(opened).pin()
        opened.put_exchanges(Exchange(f"r{n}", AT, TASK, BETTER.id, "m", "unverified") for n in range(7))
        tallies = [Tally(497222, BETTER.id, "champion", requests=4), Tally(497222, OTHER.id, "shadow", requests=2)]
        cases = [
            Banked(digest(n), Case(({"role": "user", "content": str(n)},)), side, AT, AT)
            for n, side in enumerate(("dev", "dev", "held-out", "never", "dev"))
        ]
        opened.take_in(TASK, "intake", 6, cases, tallies)
        opened.take_lease(watch_lease(TASK), "ann's machine 4711", 60.0)

    shown = run("status", TASK, "--store", store)
    found = json.loads(run("status", TASK, "--store", store, "--json"))

    for words in (
        f"champion   {BETTER.id[:12]} since ",
        "put into service by a person",
        FORCED,
        f"canary     {OTHER.id[:12]} answers 5 % of requests, step 1, since 2026-09-21 15:13",
        f"hold-back  {BASELINE.id[:12]} answers 3 % of requests, since 2026-09-21 14:13",
        "paused and pinned",
        "last alarm quality, 2026-09-21 14:13",
        "watcher    ann's machine 4711",
        "last run   none yet",
        "4 of this task taken in; 7 stored so far, of all tasks",
        "3 to learn from, 1 held out and unused, 1 for nobody",
    ):
        assert words in shown
    assert found["champion"] == BETTER.id
    assert (found["canary"]["policy"], found["canary"]["share"], found["canary"]["step"]) == (OTHER.id, 0.05, 0)
    assert (found["is_paused"], found["is_pinned"], found["watcher"]) == (True, True, "ann's machine 4711")
    assert found["cases"] == {"dev": 3, "held_out": 1, "never": 1}
    assert found["budget"] is None


def test_status_of_a_quiet_task_says_that_nothing_goes_on(store: Path, run: Run) -> None:
    shown = run("status", "another", "--store", store)

    assert f"champion   {BASELINE.id[:12]} since 2026-09-21 14:13, the task's own policy" in shown
    assert "nobody is on the way in" in shown
    assert "hold-back  none" in shown
    assert "neither paused nor pinned" in shown
    assert "nobody learns or takes back" in shown
    assert "whole: no run has used it" in shown


def test_stages_that_were_begun_against_another_champion_are_not_shown_as_under_way(store: Path, run: Run) -> None:
    with SQLiteStore(store) as opened:
        helm(opened).force(BETTER.id, "5eed", 0.03)
        opened.set_champion(TASK, OTHER, "confirmed")
    found = json.loads(run("status", TASK, "--store", store, "--json"))

    assert (found["champion"], found["came"], found["holdback"], found["former"]) == (OTHER.id, "confirmed", None, None)


@pytest.fixture
def lively(tmp_path: Path) -> Path:
    lived(tmp_path / "lively.db")
    return tmp_path / "lively.db"


def test_status_says_how_evidence_stands_and_what_it_takes_and_why_nothing_is_tried(lively: Path, run: Run) -> None:
    shown = run("status", "calls", "--store", lively)
    found = json.loads(run("status", "calls", "--store", lively, "--json"))

    for words in (
        "48 comparisons in this stage, too few or undecided, said 2026-09-23 16:00",
        "quality: 260 comparisons, +3.1 points; to go on 7.5 of 20, to be taken back 0.6 of 25",
        "294 comparisons, +26.2 points on the former champion, to be taken back 0.002 of 10,000; "
        "failing more often 0.4 of 10,000; 2,600 scores, held against 0.571, alarm 1.3 of 10,000; "
        "against 0.310, what was before, 0 of 10,000; said 2026-09-23 16:00",
        "learning   waits: A challenger is on its way in; left today: 16,200 calls, $4.20; said 2026-09-23 16:00",
        "first failure to certified 19 h 44 min, to service 22 h 44 min; 4 labels; "
        "1,105 calls, 341,040 tokens in 1 run",
        "correction 46 calls, 12,000 tokens, $0.0050 per 1,000 requests, of which 46 were corrected",
    ):
        assert words in shown, words
    assert found["canary"]["evidence"]["seen"] == 48
    assert found["canary"]["evidence"]["bets"][0]["worth_needed"] == 20.0
    assert (found["held"]["gain"], found["learning"]["calls_left"]) == (0.262, 16_200)
    assert (found["promotions"][0]["minutes"], found["promotions"][0]["spent"]["calls"]) == (1364.0, 1105)


def test_history_says_what_a_promotion_took(lively: Path, run: Run) -> None:
    shown = run("history", "calls", "--store", lively)
    lines = json.loads(run("history", "calls", "--store", lively, "--json"))

    assert "took: first failure to certified 19 h 44 min, to service 22 h 44 min; 4 labels; 1,105 calls" in shown
    assert [line["kind"] for line in lines if line["took"]] == ["promoted"]
    assert next(line["took"]["minutes_to_service"] for line in lines if line["took"]) == 180.0


def test_policies_lists_what_is_and_was_in_service_and_by_what_right(store: Path, run: Run) -> None:
    with SQLiteStore(store, clock=lambda: AT) as opened:
        helm(opened).force(BETTER.id, "5eed", 0.03)
        helm(opened, at=AT + 3600).stage(OTHER.id, "canary", 0.05, "5eed", "ab" * 32)
    shown = run("policies", TASK, "--store", store).splitlines()
    found = json.loads(run("policies", TASK, "--store", store, "--json"))

    baseline, better, other = (policy.id[:12] for policy in (BASELINE, BETTER, OTHER))
    assert shown == [
        f'{baseline}  2026-09-21 14:13  former      the task\'s  "Answer." in words',
        f'{better}  2026-09-21 14:13  in service  forced in   "Add." in words',
        f'{other}  2026-09-21 15:13  canary      certified   "Count." in words',
    ]
    assert [(one["role"], one["right"]) for one in found] == [
        ("former", "own"),
        ("in service", "forced"),
        ("canary", "certified"),
    ]


def test_policies_shows_one_whole_by_the_beginning_of_its_id(store: Path, run: Run) -> None:
    shown = run("policies", TASK, OTHER.id[:8], "--store", store)

    assert f"policy     {OTHER.id}" in shown
    assert "it never was in service here, nor staged or proven" in shown
    assert '"instructions": "Count."' in shown
    assert json.loads(run("policies", TASK, OTHER.id, "--store", store, "--json")) == {"instructions": "Count."}
    assert "no policy '123456'" in run("policies", TASK, "123456", "--store", store, code=2)


def test_a_policy_that_lost_its_words_is_listed_still(store: Path, run: Run) -> None:
    with SQLiteStore(store, clock=lambda: AT) as opened:
        helm(opened).force(BETTER.id)
        helm(opened).roll_back("a person asked for it")
        opened.forget_key("nobody", [BETTER.id])

    assert f"{BETTER.id[:12]}  2026-09-21 14:13  -           forced in   its words were forgotten" in run(
        "policies", TASK, "--store", store
    )


@pytest.mark.parametrize(
    ("lever", "says"),
    [
        ("pin", "automatic roll-back stops"),
        ("pause", "use `gainful pin`"),
        ("promote", "hold-out and canary are skipped"),
        ("unlock", "Hold-out and canary are skipped"),
        ("rollback", "from the next request on"),
        ("forget", "no byte stays on the disk"),
    ],
)
def test_the_help_of_a_lever_says_what_it_stops_or_skips(run: Run, lever: str, says: str) -> None:
    assert says in " ".join(run(lever, "--help").split())


@pytest.fixture(scope="module")
def improved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a run with the scripted model has proven something."""
    folder = tmp_path_factory.mktemp("improved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        assert gainful.improve(sums(), scripted(), store_in(folder), QUICK).finished.promoted
    return store_in(folder)


@pytest.mark.slow
def test_status_shows_the_last_run_and_what_is_left_of_the_error_budget(improved: Path, run: Run) -> None:
    shown = run("status", "sums", "--store", improved)
    found = json.loads(run("status", "sums", "--store", improved, "--json"))

    assert "confirmed by a run of its own" in shown
    assert "found a policy that was proven better" in shown
    assert "1.3 % chance of a false promotion left of 5 %" in shown
    assert found["budget"] == {
        "alpha": 0.05,
        "left": 0.0127163392268,
        "level": pytest.approx(0.0127163392268 / 3.931949, rel=1e-4),
        "confirmations": 1,
        "promotions": 1,
        "fresh": False,
    }


# --- history


def test_history_tells_what_happened_why_and_what_it_voids_the_oldest_first(store: Path, run: Run) -> None:
    with SQLiteStore(store) as opened:
        evidence = {"quality": {"n": 500, "mean": 0.032, "harm": 0.1, "worth": 90.0}}
        helm(opened, at=AT + 60).stage(BETTER.id, "shadow", 0.25, "5eed", "ab" * 32)
        helm(opened, at=AT + 120).stage(BETTER.id, "canary", 0.05, "5eed", "ab" * 32, evidence)
        helm(opened, at=AT + 180).promote("5eed", 0.03, evidence)
        helm(opened, at=AT + 240).stage(OTHER.id, "shadow", 0.25, "5eed", "cd" * 32)
        helm(opened, at=AT + 300).reject("latency: slower\x1b[31m")
        helm(opened, at=AT + 360).pin()
        helm(opened, at=AT + 420).roll_back("a person asked for it")
        for move in (Helm.pause, Helm.resume, Helm.unpin):
            move(helm(opened, at=AT + 480))
        helm(opened, at=AT + 540).alarm("model", {"n": 40})
        helm(opened, at=AT + 600).forgot({"exchanges": 2})
    shown = run("history", TASK, "--store", store)
    lines = json.loads(run("history", TASK, "--store", store, "--json"))

    better, other, baseline = (policy.id[:12] for policy in (BETTER, OTHER, BASELINE))
    assert shown.splitlines() == [
        f"2026-09-21 14:13  {baseline} in service: the task's own policy",
        f"2026-09-21 14:14  {better} answers 25 % of requests unheard, beside the champion",
        f"                  why: confirmed in registration {'ab' * 8}",
        f"2026-09-21 14:15  {better} answers 5 % of requests",
        "                  why: quality +3.2 on 500 comparisons",
        f"2026-09-21 14:16  {better} in service; {baseline} keeps 3 % of requests",
        "                  why: quality +3.2 on 500 comparisons",
        f"2026-09-21 14:17  {other} answers 25 % of requests unheard, beside the champion",
        f"                  why: confirmed in registration {'cd' * 8}",
        f"2026-09-21 14:18  {other} does not come in",
        "                  why: latency: slower�[31m",
        "2026-09-21 14:19  the champion is pinned",
        f"                  voids: {PINNED}",
        f"2026-09-21 14:20  {baseline} back in service, {better} out",
        "                  why: a person asked for it",
        f"                  voids: {TAKEN_BACK}",
        "2026-09-21 14:21  learning is paused",
        "2026-09-21 14:21  learning goes on",
        "2026-09-21 14:21  the champion may be replaced again",
        "2026-09-21 14:22  alarm: model",
        "2026-09-21 14:23  a caller was forgotten",
    ]
    assert [line["kind"] for line in lines][:2] == ["baseline", "staged"]
    assert lines[7]["void"] == TAKEN_BACK
    assert len(json.loads(run("history", TASK, "--store", store, "--json", "--limit", 3))) == 3
    assert run("history", TASK, "--store", store, "--limit", 1) == shown.splitlines()[-1] + "\n"


# --- levers


@pytest.mark.parametrize(
    ("lever", "said"),
    [("pause", "Learning is paused"), ("pin", "The champion is pinned")],
)
def test_a_switch_is_one_line_in_the_ledger_and_the_same_again_changes_nothing(
    store: Path, run: Run, lever: str, said: str
) -> None:
    back = {"pause": "resume", "pin": "unpin"}[lever]
    first = run(lever, TASK, "--store", store)
    again = run(lever, TASK, "--store", store)
    after = json.loads(run(back, TASK, "--store", store, "--json"))

    assert said in first
    assert "it was so already" in again
    kinds = {"pause": ["paused", "resumed"], "pin": ["pinned", "unpinned"]}[lever]
    assert [kind for kind, _ in ledger(store)] == kinds
    assert after == {"task": TASK, "moved": kinds[1], "champion": BASELINE.id, "void": ""}


def test_a_person_may_ask_for_a_run_and_is_told_what_it_waits_for(store: Path, run: Run) -> None:
    alone = run("learn", TASK, "--store", store)
    with SQLiteStore(store) as opened:
        opened.take_lease(watch_lease(TASK), "ann's machine 4711", 3600.0)
        opened.put_standing(TASK, "learning", AT, {"state": "nothing new", "why": "nothing new to learn"})
    told = run("learn", TASK, "--store", store)
    with SQLiteStore(store) as opened:
        opened.put_standing(TASK, "learning", AT, {"state": "cases", "why": "12 of 20 dev cases so far"})
    waiting = run("learn", TASK, "--store", store)
    found = json.loads(run("learn", TASK, "--store", store, "--json"))

    assert alone == f"The watcher of {TASK!r} is asked to try.\nNone is at work now: start gainful watch, or " + (
        "gainful serve --improve.\n"
    )
    assert told == f"The watcher of {TASK!r} is asked to try.\n"
    assert waiting == told + "It said last: 12 of 20 dev cases so far.\n"
    assert found == {"task": TASK, "moved": "asked", "is_watched": True, "waits_for": "12 of 20 dev cases so far"}
    assert [kind for kind, _ in ledger(store)] == ["asked"] * 4
    assert run("history", TASK, "--store", store, "--limit", 1).endswith("  a person asked for an improvement\n")


def test_pinning_says_what_it_voids(store: Path, run: Run) -> None:
    assert PINNED in run("pin", TASK, "--store", store)
    assert ledger(store) == [("pinned", PINNED)]


def test_promote_by_the_beginning_of_an_id_says_what_it_voids_and_holds_a_share_back(store: Path, run: Run) -> None:
    shown = run("promote", TASK, BETTER.id[:6], "--store", store)

    assert f"Policy {BETTER.id[:12]} is in service" in shown
    assert FORCED in shown
    assert champion(store) == BETTER.id
    with SQLiteStore(store) as opened:
        stage = helm(opened).state.holdback
        assert stage is not None
        assert (stage.share, stage.policy, len(stage.seed)) == (0.03, BASELINE.id, 64)


def test_promote_refuses_a_policy_that_was_tried_on_another_task_alone(store: Path, run: Run) -> None:
    answered = Attempt(case="c", policy=BETTER.id, answer=Answer(text="yes"))
    with SQLiteStore(store) as opened:
        opened.put_attempts("another", [answered])
    said = run("promote", TASK, BETTER.id, "--store", store, code=2)

    assert f"policy {BETTER.id[:12]} has answered cases of 'another' and none of {TASK!r}" in said
    assert champion(store) == BASELINE.id
    with SQLiteStore(store) as opened:
        opened.put_attempts(TASK, [answered])
    run("promote", TASK, BETTER.id, "--store", store)
    assert champion(store) == BETTER.id


def test_promote_may_leave_nothing_on_the_former_champion(store: Path, run: Run) -> None:
    found = json.loads(run("promote", TASK, BETTER.id, "--holdback", "0", "--store", store, "--json"))

    assert found == {"task": TASK, "moved": "promoted", "champion": BETTER.id, "void": f"{FORCED}; {ALONE}"}
    with SQLiteStore(store) as opened:
        assert helm(opened).state.holdback is None


def test_rollback_goes_back_one_or_to_a_policy_that_was_in_service(store: Path, run: Run) -> None:
    for policy in (BETTER, OTHER):
        run("promote", TASK, policy.id, "--store", store)

    shown = run("rollback", TASK, "--store", store)
    assert f"Policy {BETTER.id[:12]} is back in service" in shown
    assert TAKEN_BACK in shown
    run("rollback", TASK, "--to", BASELINE.id[:10], "--store", store)
    assert champion(store) == BASELINE.id
    assert [kind for kind, _ in ledger(store)] == ["promoted", "promoted", "rolled-back", "rolled-back"]


async def test_the_first_promotion_of_a_served_task_holds_its_own_policy_back(run: Run, tmp_path: Path) -> None:
    place, own = tmp_path / "store.db", talk().baseline.id
    async with serving(talk(), ScriptedModel(echo), place):
        with SQLiteStore(place) as opened:
            opened.put_policy(BETTER)
        run("promote", "talk", BETTER.id, "--store", place)
        with SQLiteStore(place) as opened:
            held = helm(opened, "talk").state.holdback
        run("rollback", "talk", "--store", place)

    assert held is not None
    assert (held.policy, held.share) == (own, 0.03)
    assert champion(place, "talk") == own


@pytest.mark.slow
async def test_a_task_file_that_was_edited_is_followed_until_somebody_has_moved_or_pinned(
    run: Run, tmp_path: Path
) -> None:
    place, first = tmp_path / "store.db", talk()
    edited = replace(first, baseline=BETTER)
    in_service = []
    for task, lever in ((first, None), (edited, "pin"), (first, "unpin"), (edited, "rollback"), (edited, None)):
        async with serving(task, ScriptedModel(echo), place):
            in_service.append(champion(place, "talk"))
        if lever:
            run(lever, "talk", "--store", place)

    assert in_service == [first.baseline.id, BETTER.id, BETTER.id, BETTER.id, first.baseline.id]


@pytest.mark.slow
def test_what_a_run_of_its_own_promoted_is_taken_back_by_hand(improved: Path, run: Run, tmp_path: Path) -> None:
    place = Path(shutil.copy(improved, tmp_path / "copy.db"))
    before = champion(place, "sums")
    run("rollback", "sums", "--store", place)

    assert champion(place, "sums") == sums().baseline.id != before


def test_a_task_file_stands_for_the_name_in_it_and_nothing_of_it_is_loaded(store: Path, run: Run) -> None:
    file = store.with_name("task.toml")
    file.write_text(f'name = "{TASK}"\ncases = "nowhere.jsonl"\n')
    run("pause", file, "--store", store)

    assert [kind for kind, _ in ledger(store)] == ["paused"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pause", "nobody"), f"knows no task 'nobody'; give one of: {TASK}, another"),
        (("status", "nobody.toml"), "there is no task file 'nobody.toml'"),
        (("history", "tasks.py:task"), f"knows no task 'tasks.py:task'; give one of: {TASK}, another"),
        (("promote", TASK, "abc"), "'abc' names no policy; give at least 6 digits"),
        (("promote", TASK, "abcdef"), "no policy 'abcdef'; give 6 digits or more of the id"),
        (("promote", TASK, BASELINE.id), "is in service already"),
        (("rollback", TASK), "there is no former champion to go back to"),
        (("rollback", TASK, "--to", BETTER.id), "never was in service; promote it instead"),
        (("lock", TASK, "-o", "/nowhere/lock.json"), "cannot be written"),
        (("unlock", "nowhere.json"), "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    store: Path, run: Run, words: tuple[str, ...], sentence: str
) -> None:
    said = run(*words, "--store", store, code=2)

    assert sentence in said
    assert said.startswith("gainful: ")
    assert len(said.splitlines()) == 1
    assert ledger(store) == []


@pytest.mark.parametrize("lever", ["status", "history", "pause", "resume", "pin", "unpin", "rollback", "lock"])
def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, run: Run, lever: str) -> None:
    assert "there is no store at" in run(lever, TASK, "--store", tmp_path / "nowhere.db", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "after"), [("n", 3, BASELINE), ("y", 0, BETTER)])
def test_a_person_at_a_terminal_is_asked_first(store: Path, answer: str, code: int, after: Policy) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gainful.cli", "promote", TASK, BETTER.id, "--store", str(store)]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        os.write(ours, f"{answer}\n".encode())
        _, err = it.communicate(timeout=60)
    for end in (ours, theirs):
        os.close(end)

    assert FORCED in err
    assert it.returncode == code
    assert champion(store) == after.id


@pytest.mark.usefixtures("apart")  # forgetting empties the caches of trainers
def test_a_caller_is_forgotten_with_the_policy_that_carries_their_words(store: Path, run: Run) -> None:
    asked = Case(({"role": "user", "content": "my name is Ann"},))
    carrier = Policy(instructions="Answer.", demos=(Demo(asked, "hello"),))
    with SQLiteStore(store) as opened:
        _, key = make_key("ann")
        opened.put_key(key)
        opened.put_exchanges([Exchange("r", AT, TASK, BASELINE.id, "m", "unverified", key="ann")])
        opened.take_in(TASK, "intake", 1, [Banked(content(asked), asked, "dev", AT, AT, key="ann")])
        opened.put_policy(carrier)
        helm(opened).force(carrier.id)
    shown = run("forget", "--key", "ann", "--store", store)
    again = json.loads(run("forget", "--key", "ann", "--store", store, "--json"))

    assert f"Removed: 1 exchange, 1 case. 1 policy lost its words. Taken out of service for {TASK!r}." in shown
    assert (again["exchanges"], again["cases"], again["taken_back"]) == (0, 0, [])
    assert champion(store) == BASELINE.id
    assert b"Ann" not in store.read_bytes()
    assert "a caller was forgotten" in run("history", TASK, "--store", store)


def test_a_key_that_nobody_has_is_named_with_those_there_are(store: Path, run: Run) -> None:
    with SQLiteStore(store) as opened:
        opened.put_key(make_key("ann")[1])

    assert "no key 'bob' is known; give one of: ann" in run("forget", "--key", "bob", "--store", store, code=2)


# --- lock files


@pytest.mark.slow
def test_a_lock_restores_the_very_same_champion_elsewhere_and_says_what_that_voids(
    improved: Path, tmp_path: Path, run: Run
) -> None:
    file, elsewhere = tmp_path / "champion.lock", tmp_path / "elsewhere.db"
    run("lock", "sums", "-o", file, "--store", improved)
    locked = json.loads(file.read_bytes())
    shown = run("unlock", file, "--store", elsewhere)

    with SQLiteStore(improved) as here, SQLiteStore(elsewhere) as there:
        id = here.champion("sums")
        assert id is not None
        assert there.champion("sums") == id == locked["id"]
        assert canonical(there.policy(id)) == canonical(here.policy(id))
        holdout = here.ledger(sums().holdout.digest)
        assert (locked["holdout"], locked["ledger"]) == (holdout[-1].key, holdout[-1].hash)
        assert locked["registration"] == holdout[-1].content["registration"]
        assert locked["model"] == digest(here.runs()[0].spec["model"])
    ((kind, void),) = ledger(elsewhere, "sums")
    assert kind == "promoted"
    assert f"the receipt of registration {locked['registration'][:16]}" in void
    assert void in shown
    again = run("unlock", file, "--store", elsewhere)
    assert "it was so already" in again
    assert len(ledger(elsewhere, "sums")) == 1


@pytest.mark.slow
def test_the_same_champion_gives_the_same_bytes_on_standard_output(improved: Path, tmp_path: Path, run: Run) -> None:
    shown = run("lock", "sums", "--store", improved)
    run("lock", "sums", "-o", tmp_path / "lock", "--store", improved)

    assert (tmp_path / "lock").read_text() == shown == run("lock", "sums", "--store", improved, "--json")
    assert shown.encode() == canonical(json.loads(shown)) + b"\n"


@pytest.mark.slow
def test_a_champion_that_came_back_names_the_confirmation_it_once_had(improved: Path, tmp_path: Path, run: Run) -> None:
    place = Path(shutil.copy(improved, tmp_path / "copy.db"))
    first = json.loads(run("lock", "sums", "--store", place))
    run("rollback", "sums", "--store", place)
    baseline = json.loads(run("lock", "sums", "--store", place))
    run("promote", "sums", first["id"], "--store", place)
    again = json.loads(run("lock", "sums", "--store", place))

    assert (baseline["registration"], baseline["ledger"], baseline["model"]) == (None, None, None)
    assert again == first


@pytest.mark.slow
def test_a_champion_that_a_watcher_brought_in_names_its_confirmation_too(
    improved: Path, tmp_path: Path, run: Run
) -> None:
    place = Path(shutil.copy(improved, tmp_path / "copy.db"))
    with SQLiteStore(place) as store:
        registration = store.ledger(sums().holdout.digest)[-1].content["registration"]
        store.put_policy(OTHER)
        helm(store, "sums").stage(OTHER.id, "canary", 0.5, "5eed", registration)
        helm(store, "sums").promote("5eed", 0.03)
    found = json.loads(run("lock", "sums", "--store", place))

    assert (found["id"], found["registration"]) == (OTHER.id, registration)


def test_what_nothing_confirmed_says_so_where_it_is_restored(store: Path, tmp_path: Path, run: Run) -> None:
    run("lock", TASK, "-o", tmp_path / "lock", "--store", store)
    with open_store(tmp_path / "elsewhere.db") as there:
        there.set_champion(TASK, OTHER, "baseline")
    shown = run("unlock", tmp_path / "lock", "--store", tmp_path / "elsewhere.db")

    assert "names no confirmation" in shown
    assert champion(tmp_path / "elsewhere.db") == BASELINE.id
    with SQLiteStore(tmp_path / "elsewhere.db") as there:
        stage = helm(there).state.holdback
    assert stage is not None
    assert (stage.policy, stage.share) == (OTHER.id, 0.03)  # who was in service there can still be compared with


def test_a_lock_file_in_which_anything_was_changed_is_refused(store: Path, tmp_path: Path, run: Run) -> None:
    file, elsewhere = tmp_path / "lock", tmp_path / "elsewhere.db"
    whole = run("lock", TASK, "--store", store).encode()
    found = json.loads(whole)
    forged = {**found, "policy": {**found["policy"], "max_tokens": 9}}
    swapped = {**forged, "id": digest(forged["policy"])}
    swapped["sha256"] = digest({**swapped, "sha256": ""})
    wrong = {**forged, "sha256": digest({**forged, "sha256": ""})}
    changed = [
        canonical(forged) + b"\n",
        canonical(wrong) + b"\n",
        json.dumps(found).encode(),
        whole.replace(b"Answer.", b"answer."),
        whole[:-40],
        b"\xff\xfe",
        b"[]",
        canonical({**found, "more": 1}) + b"\n",
        canonical({**found, "gainful": "9.9.9"}) + b"\n",
        canonical({**found, "format": "urn:gainful:lock:v9"}) + b"\n",
    ]
    for data in changed:
        file.write_bytes(data)
        said = run("unlock", file, "--store", elsewhere, code=2)
        assert len(said.splitlines()) == 1, said
        assert not elsewhere.exists()

    file.write_bytes(canonical(swapped) + b"\n")  # whoever computes the digest too has written another lock file
    run("unlock", file, "--store", elsewhere)
    assert champion(elsewhere) == swapped["id"]


def test_a_run_is_refused_while_a_person_has_pinned_the_champion(run: Run, tmp_path: Path) -> None:
    task, place = tmp_path / "task" / "task.toml", tmp_path / "store.db"
    run("init", task.parent)
    with SQLiteStore(place) as opened:
        opened.set_champion("support-routing", BASELINE, "baseline")
        helm(opened, "support-routing").pin()

    said = run("improve", task, "--store", place, code=2)

    assert "the champion of task 'support-routing' is pinned; `gainful unpin support-routing` lets it go" in said
    with SQLiteStore(place) as opened:
        assert opened.runs() == []


def test_a_run_is_refused_in_a_sentence_while_a_watcher_makes_one(run: Run, tmp_path: Path) -> None:
    task, place = tmp_path / "task" / "task.toml", tmp_path / "store.db"
    run("init", task.parent)
    with SQLiteStore(place) as opened, opened.lock_run("support-routing"):
        said = run("improve", task, "--store", place, code=2)

    assert f"run 'support-routing' is under way in process {os.getpid()}; wait for it, or stop it" in said
    assert len(said.splitlines()) == 1


def test_a_champion_with_an_adapter_is_told_in_words_and_restored_only_where_its_files_are(
    store: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "here"))
    adapter = kept(tmp_path / "made", "base")
    policy, file, elsewhere = Policy(adapter=adapter), tmp_path / "lock", tmp_path / "elsewhere.db"
    with SQLiteStore(store) as opened:
        opened.put_policy(policy)
    run("promote", TASK, policy.id, "--store", store, "--yes")

    assert f"; adapter {adapter.sha256[:8]}, rank 2" in run("status", TASK, "--store", store)
    locked = run("lock", TASK, "-o", file, "--store", store)
    assert f"It needs {adapter.label}: take along {tmp_path / 'here' / adapter.sha256}" in locked

    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "there"))
    complaint = run("unlock", file, "--store", elsewhere, "--yes", code=2)
    assert f"{adapter.label}: {tmp_path / 'there'}" in complaint
    assert "copy the folder from where it was trained" in complaint
    assert ledger(elsewhere, TASK) == []

    shutil.copytree(tmp_path / "here", tmp_path / "there")
    run("unlock", file, "--store", elsewhere, "--yes")
    with SQLiteStore(elsewhere) as there:
        assert there.champion(TASK) == policy.id
