"""The picture of a task: true to the store, small however much was served, silent about prompts where it must be."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import msgspec
import pytest
from production_store import (
    CHAMPION,
    EVIDENCE,
    HOURS,
    MODEL,
    ONE_DEMO,
    REFINE,
    START,
    TASK,
    Clock,
    hour,
    lived,
    tallies,
)
from report_runs import EVIL

from gainful.core import Case, JsonObject, StoreError
from gainful.dashboard.data import Reader, Snapshot, snapshot
from gainful.dashboard.errors import in_traffic
from gainful.dashboard.quality import MOST_POINTS, quality, rate
from gainful.store import Banked, SQLiteStore, Tally, open_for_reading
from gainful.watch.service import Helm
from gainful.watch.standings import Evidence

HOUR_S = 3600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("life") / "store.db"
    lived(path)
    return path


@pytest.fixture(scope="module")
def picture(place: Path) -> Snapshot:
    with open_for_reading(place) as store:
        return snapshot(store, TASK, START + HOURS * HOUR_S)


def test_quality_follows_the_champion_and_the_band_starts_anew_with_it(picture: Snapshot) -> None:
    shown = picture.quality

    champion = next(points for points in shown.arms if points.arm == "champion")
    assert (shown.hours, len(shown.at), shown.at[0]) == (1, HOURS, START)
    assert shown.policies[22:24] == (CHAMPION.id, ONE_DEMO.id)
    assert shown.band_mean[23] == champion.mean[23]
    for mean, low, high in zip(shown.band_mean, shown.band_low, shown.band_high, strict=True):
        assert mean is not None
        assert low is not None
        assert high is not None
        assert low < mean < high
    assert (shown.band_high[71] or 0) - (shown.band_low[71] or 0) < (shown.band_high[23] or 0) - (
        shown.band_low[23] or 0
    )


def test_every_move_is_told_in_order_with_its_time(picture: Snapshot) -> None:
    told = [(move.kind, move.at, move.to_the_hour) for move in picture.moves]

    assert told == [
        ("baseline", START, True),
        ("staged", START + 20 * HOUR_S, False),
        ("staged", START + 21 * HOUR_S, False),
        ("promoted", START + 23 * HOUR_S, False),
        ("alarm", START + 43 * HOUR_S, False),
        ("staged", START + 44 * HOUR_S, False),
    ]
    assert picture.moves[3].text == f"in service; {CHAMPION.id[:12]} keeps 3 % of requests"


def test_what_is_in_service_and_on_its_way_in(picture: Snapshot) -> None:
    canary, holdback = picture.staged

    assert (picture.champion.policy, picture.champion.former) == (ONE_DEMO.id, CHAMPION.id)
    assert (canary.mode, canary.policy, canary.share, canary.ours.requests) == ("canary", REFINE.id, 0.05, 28 * 12)
    assert canary.diff
    assert holdback.evidence is None
    assert (holdback.mode, holdback.policy, holdback.ours.requests) == ("holdback", CHAMPION.id, 49 * 6)


def test_the_newest_run_is_shown_with_race_and_boundary(picture: Snapshot) -> None:
    shown = picture.trying

    assert shown is not None
    assert shown.looks is not None
    assert shown.race is not None
    assert (shown.run, shown.state, shown.looks.promoted) == ("run-2", "confirming", None)
    assert (shown.why, shown.at) == ("20 new errors: not JSON", START)
    assert shown.looks.boundary[-1] is not None
    assert [racer.label for racer in shown.race.racers] == ["c5", "c6", "c7"]


def test_errors_are_counted_before_and_after_with_examples(picture: Snapshot) -> None:
    traffic, proof = picture.errors

    assert (traffic.n_before, traffic.n_after) == (20, 20)
    assert sum(group.before for group in traffic.groups) == 17
    assert traffic.groups[0].examples_before[0].asked.startswith("What is 2 + 2?")
    assert (proof.where, proof.groups[0].group) == ("held-out cases", "not JSON")


def test_errors_that_only_untrusted_checks_see_are_shown_apart_as_such() -> None:
    asked = Case(messages=({"role": "user", "content": "?"},))
    cases = [
        Banked(str(n), asked, "dev", 1.0, 1.0, signal=signal, score=0.0, group="wrong value", policy="p")
        for n, signal in enumerate(("check", "judged", "feedback", "judged", "judged"))
    ]

    found = in_traffic(cases, "p", with_text=False)  # type: ignore[arg-type]

    assert [(one.group, one.after, one.is_judged) for one in found.groups] == [
        ("wrong value", 3, True),
        ("wrong value", 2, False),
    ]


def test_rates_of_what_comes_back_have_an_interval_and_are_unknown_without_evidence(
    picture: Snapshot, tmp_path: Path
) -> None:
    assert (picture.repeated.count, picture.repeated.n) == (3, 12)
    assert (picture.forgotten.count, picture.forgotten.n) == (1, 10)
    assert (picture.probed.count, picture.probed.n) == (2, 20)
    assert picture.probed.low is not None
    assert picture.probed.low < 0.1 < (picture.probed.high or 0)
    assert picture.labels == 4
    with SQLiteStore(tmp_path / "empty.db") as store:
        empty = snapshot(store, TASK, START)
    assert (empty.forgotten.n, empty.forgotten.low, empty.budget, empty.trying) == (0, None, None, None)
    assert (empty.quality.at, empty.champion.score.mean, empty.spend.all.cost_usd) == ((), None, None)


def test_evidence_is_that_of_the_present_stage_with_its_boundary_and_counts_to_the_minute(picture: Snapshot) -> None:
    found = picture.staged[0].evidence

    assert found is not None
    assert (found.at, found.seen, found.verdict) == (START + 49 * HOUR_S, 48, "hold")
    assert [(bet.name, bet.n, bet.worth) for bet in found.bets] == [
        ("quality", 260, 7.5),
        ("errors", 260, 7.5),
        ("latency", 260, 7.5),
    ]
    assert (found.bets[0].harm_needed, found.bets[0].worth_needed) == (25.0, 20.0)
    assert picture.held is not None
    assert (picture.held.compared, picture.held.gain, picture.held.needed) == (294, 0.262, 10_000)


@pytest.mark.parametrize("said", [None, {"stage": "another", "seen": 9, "evidence": {}, "verdict": "hold", "why": ""}])
def test_what_was_said_of_another_stage_is_not_taken_for_this_one(tmp_path: Path, said: JsonObject | None) -> None:
    with SQLiteStore(tmp_path / "store.db") as store:
        store.set_champion(TASK, CHAMPION, "baseline")
        store.put_policy(REFINE)
        Helm(store, TASK, Clock(START)).stage(REFINE.id, "shadow", 0.25, "5e" * 32, "9d" * 32)
        if said is not None:
            store.put_standing(TASK, "canary", START + 9.0, said)
        store.put_standing(TASK, "hold-back", START, {"champion": REFINE.id, "stage": "", "compared": 3})
        picture = snapshot(store, TASK, START)

    assert picture.staged[0].evidence == Evidence(())
    assert picture.held is None


def test_a_shadow_has_its_evidence_and_boundary_too(tmp_path: Path) -> None:
    with SQLiteStore(tmp_path / "store.db") as store:
        store.set_champion(TASK, CHAMPION, "baseline")
        store.put_policy(REFINE)
        state = Helm(store, TASK, Clock(START)).stage(REFINE.id, "shadow", 0.25, "5e" * 32, "9d" * 32)
        assert state.canary is not None
        said = {"stage": state.canary.id, "seen": 212, "evidence": EVIDENCE, "verdict": "hold", "why": "too early"}
        store.put_standing(TASK, "canary", START + 61.0, said)
        (shadow,) = snapshot(store, TASK, START).staged

    assert shadow.mode == "shadow"
    assert shadow.evidence is not None
    assert (shadow.evidence.bets[0].n, shadow.evidence.bets[0].worth_needed) == (212, 20.0)


def test_why_nothing_is_tried_and_what_is_left_of_the_day_is_told(picture: Snapshot) -> None:
    found = picture.learning

    assert found is not None
    assert (found.state, found.why) == ("waits", "A challenger is on its way in.")
    assert (found.calls_left, found.usd_left, found.at % 60) == (16_200, 4.2, 0)


def test_each_promotion_says_how_long_it_took_who_helped_and_what_it_cost(picture: Snapshot) -> None:
    (one,) = picture.promotions
    shadow = next(tally for tally in tallies(HOURS) if tally.arm == "shadow")

    assert (one.policy, one.run, one.runs, one.labels) == (ONE_DEMO.id, "run-1", 1, 4)
    assert one.first_failure_at == START + 60 * 11 + 300  # the first case that one answers wrongly, the other rightly
    assert (one.minutes_to_certified, one.minutes_to_service) == (20 * 60 - 16, 180.0)
    assert one.minutes == 23 * 60 - 16
    assert one.spent is not None
    assert one.spent.calls == 1084 + shadow.calls


def test_corrections_cost_so_much_a_thousand_requests(picture: Snapshot) -> None:
    found = picture.spend.correction

    assert found is not None
    assert (round(found.tokens), round(found.usd or 0, 6)) == (12_000, 0.005)
    assert 40 < found.calls < 50


def test_the_promotion_says_where_its_receipt_lies(picture: Snapshot) -> None:
    baseline, promoted = picture.policies

    assert (baseline.receipt, baseline.diff) == (None, ())
    assert promoted.at == START + 23 * HOUR_S
    assert promoted.receipt == "receipts/20260914-3f2a71"
    assert promoted.diff
    assert any('"shape": "arguments"' in line.text for line in promoted.diff)


def test_the_error_budget_is_that_of_the_hold_out(picture: Snapshot) -> None:
    budget = picture.budget

    assert budget is not None
    assert (budget.confirmations, budget.promotions, budget.alpha) == (2, 1, 0.05)
    assert budget.left == 0.00516443850493  # a promotion in the second place hands on the second level
    assert budget.level < budget.left


def test_corrections_stand_as_the_rule_judges_them(picture: Snapshot) -> None:
    standings = {method.method: (method.is_open, method.fixed, method.broken) for method in picture.corrections}

    assert picture.correction_model == MODEL
    assert standings == {
        "reask": (True, 60, 0),
        "refine": (False, 0, 0),
        "vote": (False, 0, 5),
        "escalate": (False, 0, 0),
    }


def test_spend_counts_what_shadows_cost_too(picture: Snapshot) -> None:
    found = tallies(HOURS)

    assert picture.spend.all.calls == sum(tally.calls for tally in found)
    assert picture.spend.all.requests == sum(tally.requests for tally in found if tally.arm != "shadow")
    assert picture.spend.day.requests < picture.spend.all.requests / 2
    assert picture.spend.all.extra_calls == sum(
        tally.calls - tally.requests for tally in found if tally.arm != "shadow"
    )
    assert (picture.spend.runs, picture.spend.learning.calls) == (1, 1084)


# --- what must not be shown


@pytest.mark.parametrize("stored", ["hash", "none"])
def test_no_word_of_a_prompt_is_told_where_prompts_are_not_stored_in_full(tmp_path: Path, stored: str) -> None:
    end = lived(tmp_path / "store.db", words="xyzzy", stored=stored)

    with open_for_reading(tmp_path / "store.db") as store:
        picture = snapshot(store, TASK, end)

    told = msgspec.json.encode(picture).decode()
    assert not picture.has_text
    assert "xyzzy" not in told
    assert "triangle" not in told  # of the demo that the policy in service carries
    assert "1 demos in place of 0, not shown" in told


def test_the_server_may_keep_words_back_that_the_store_has(place: Path) -> None:
    with open_for_reading(place) as store:
        told = msgspec.json.encode(snapshot(store, TASK, START, with_text=False)).decode()

    assert "What is" not in told
    assert "triangle" not in told


def test_text_from_traffic_holds_nothing_that_a_display_obeys(tmp_path: Path) -> None:
    end = lived(tmp_path / "store.db", words=EVIL)

    with open_for_reading(tmp_path / "store.db") as store:
        told = msgspec.json.encode(snapshot(store, TASK, end)).decode()

    assert "<script>" in told  # shown as it is: escaping is the page's, by text nodes
    assert not {"\x1b", "\u202e", "\x00"} & set(told)


def test_of_what_is_quarantined_only_the_reason_is_shown(tmp_path: Path) -> None:
    end = lived(tmp_path / "store.db")
    with SQLiteStore(tmp_path / "store.db") as store:
        (one, *_) = store.banked(TASK, "dev", limit=1)
        attack = msgspec.structs.replace(one, id="e" * 64, quarantine="instruction-shaped", reply="ATTACK", score=0.0)
        attack = msgspec.structs.replace(attack, last_at=end, group="not JSON")
        store.take_in(TASK, "cases", 11, [attack])
        told = msgspec.json.encode(snapshot(store, TASK, end)).decode()

    assert "kept back: instruction-shaped" in told
    assert "ATTACK" not in told


# --- reading


def test_reading_never_writes(place: Path) -> None:
    before = place.read_bytes()

    with open_for_reading(place) as store:
        Reader(TASK).read(store, START)
        with pytest.raises(StoreError, match="cannot be written"):
            store.set_champion(TASK, REFINE, "by hand")

    assert place.read_bytes() == before


def test_a_store_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*; name the one to look at"):
        open_for_reading(tmp_path / "none.db")

    assert list(tmp_path.iterdir()) == []


def test_a_store_of_an_older_version_is_left_as_it_is(tmp_path: Path) -> None:
    lived(tmp_path / "store.db")
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()

    with pytest.raises(StoreError, match="is of version 2 and reading it takes version"):
        open_for_reading(tmp_path / "store.db")


def test_points_stay_few_however_long_a_task_is_served() -> None:
    for hours in (1, 399, 400, 401, 8_760, 200_000):
        ends = [Tally(hour=start + k, policy="p", arm="champion", requests=1) for start in (7,) for k in (0, hours - 1)]

        assert 1 <= len(quality(ends).at) <= MOST_POINTS


def test_graded_scores_have_a_rate_too() -> None:
    found = rate([Tally(hour=1, policy="p", arm="champion", requests=10, known=8, right=6.5)])

    assert (found.requests, found.known, found.mean) == (10, 8, 6.5 / 8)
    assert found.low is not None
    assert found.low < 0.5


def test_a_forced_promotion_says_what_it_voids_and_claims_no_speed(tmp_path: Path) -> None:
    end = lived(tmp_path / "store.db")
    with SQLiteStore(tmp_path / "store.db") as store:
        Helm(store, TASK, Clock(end)).force(CHAMPION.id)
        picture = snapshot(store, TASK, end)

    assert picture.moves[-1].text == f"in service, by a person, {ONE_DEMO.id[:12]} out"
    assert "no confirmation" in picture.moves[-1].void
    assert [one.policy for one in picture.promotions] == [ONE_DEMO.id]


def test_a_rollback_is_the_last_move_and_moves_the_champion(tmp_path: Path) -> None:
    end = lived(tmp_path / "store.db")
    with SQLiteStore(tmp_path / "store.db") as store:
        Helm(store, TASK, Clock(end)).roll_back("quality fell")
        picture = snapshot(store, TASK, end)

    assert (picture.moves[-1].kind, picture.moves[-1].text) == (
        "rolled-back",
        f"back in service, {ONE_DEMO.id[:12]} out: quality fell",
    )
    assert picture.champion.policy == CHAMPION.id
    assert picture.staged == ()


@pytest.mark.slow
def test_a_year_of_tallies_becomes_as_many_points_as_a_screen_has_columns_for(tmp_path: Path) -> None:
    rng = random.Random(1)
    year = [
        hour(rng, k, policy, arm, 38, 0.6)  # a million requests in all
        for k in range(8_760)
        for policy, arm in ((ONE_DEMO, "champion"), (CHAMPION, "former"), (REFINE, "challenger"))
    ]
    with SQLiteStore(tmp_path / "store.db") as store:
        store.take_in(TASK, "tallies", 1, (), year)
    with open_for_reading(tmp_path / "store.db") as store:
        picture = snapshot(store, TASK, START + 8_760 * HOUR_S)

    assert picture.spend.all.requests == 8_760 * 3 * 38
    assert 300 <= len(picture.quality.at) <= 400
