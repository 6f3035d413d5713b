"""Weights in a whole run: sampled through the memo, trained by a script, vetted, raced, proven."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from adapters import gguf_header
from msgspec.structs import replace
from worlds import QUICK, call, case, luck, numbers, scripted, sums

from gainful.checks.agreement import Agreement
from gainful.core import Adapter, Case, Demo, Format, JsonObject, Learner, ModelError, Policy, TrainError, Vote
from gainful.learners.format import Formats
from gainful.learners.teaching import Changes, Taught, Teaching, changes
from gainful.learners.weights import RECIPES
from gainful.loop import improve as improving
from gainful.loop import session
from gainful.loop import trainer as training
from gainful.loop.events import Controls, Event, Finished, Proposed, Unconfirmed, Untrained
from gainful.loop.everyday import facts, rehearsed, unrelated
from gainful.loop.journal import Journal, read_events
from gainful.loop.run import Run
from gainful.loop.vetting import evenly
from gainful.models import ScriptedModel
from gainful.models.adapters import carry_receipt
from gainful.report.training import ending, sentences
from gainful.store import MemoModel, SQLiteStore
from gainful.train import Hear, Lesson, Preference, Progress, Question, Reading, Sampling, Trained, Work, missing

pytestmark = pytest.mark.slow  # a server, or a run, each

ADAPTER = Adapter(sha256="a" * 64, base="scripted", rank=4, alpha=8.0)
TEACHING = Teaching(cases=20, samples=4, least=5, rounds=1)


@dataclass
class ScriptedTrainer:
    """Trains nothing: notes what it was given, and reads prompts as told."""

    answer: Callable[[JsonObject, int], str] = lambda body, sample: talks_until_trained(body, sample)
    greedy: Callable[[str], str] = str
    likelier: float = 0.0
    apart: float = 0.01
    apart_from_base: float = 1.0
    fails: str = ""
    fails_after: int = 0
    works: list[Work] = field(default_factory=list)
    worth: list[float] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    guarded: list[str] = field(default_factory=list)
    compared: list[int] = field(default_factory=list)

    async def fine_tune(
        self,
        work: Work,
        watch: Hear,
        reward: Callable[[str, Sequence[str]], Sequence[float]],
    ) -> Trained:
        self.works.append(work)
        if self.fails and len(self.works) > self.fails_after:
            raise TrainError(self.fails)
        watch(Progress(step=1, steps=1, loss=0.5))
        for one in work.material:
            if isinstance(one, Question):
                self.worth += reward(one.case, ["nonsense"])
        return Trained(work.id, ADAPTER, (Progress(1, 1, 0.5),), 1.0, 1, 10)

    async def sample(
        self, adapter: Adapter | None, prompts: Sequence[Sequence[JsonObject]], how: Sampling, watch: Hear
    ) -> Sequence[Sequence[str]]:
        if prompts[0][0]["content"] == rehearsed()[0]:
            return [["It is so. And it is"] for _ in prompts]
        bodies = [{"messages": prompt, **({"adapter": 1} if adapter else {})} for prompt in prompts]
        self.drawn += [self.answer(body, sample) for body in bodies for sample in range(how.samples)]
        return [[self.answer(body, sample) for sample in range(how.samples)] for body in bodies]

    async def read(
        self,
        adapter: Adapter | None,
        prompts: Sequence[Sequence[JsonObject]],
        served: Sequence[Reading],
        max_tokens: int,
        watch: Hear,
    ) -> Sequence[Reading]:
        """The server is sure of all that it says; the trainer is not, of what the adapter and the base would say."""
        watch(Progress(len(prompts), len(prompts)))
        replies = [one.greedy for one in served]
        if prompts[0][0]["content"] in unrelated():
            self.guarded += map(str, map(tuple, prompts))
            return [Reading(reply, (-1.0 + (self.likelier if adapter else 0.0),)) for reply in replies]
        self.compared.append(len(prompts))
        apart = self.apart if adapter else self.apart_from_base
        return [Reading(self.greedy(reply), (-apart,)) for reply in replies]


def talks_until_trained(body: JsonObject, sample: int) -> str:
    """Right in 3 of 10 samples; in 8 of 10 cases, at any temperature, where it was trained."""
    a, b = numbers(body) if "Please add" in str(body["messages"][-1]["content"]) else (0, 0)
    if "adapter" in body:
        return call(a, b) if luck(body, "trained") < 0.8 else call(b, a)
    return call(a, b) if luck(body, f"sample {sample}") < 0.3 else "The sum is easily found."


async def run(
    folder: Path,
    trainer: ScriptedTrainer,
    teaching: Teaching = TEACHING,
    champion: Policy | None = None,
    model: ScriptedModel | None = None,
    learners: Sequence[Learner] = (),
    budget: int | None = None,
) -> list[Event]:
    """Run the loop with weights, and *learners* that cost less; return its records."""
    world = sums()
    champion = champion or world.baseline
    with SQLiteStore(folder / "gainful.db") as store:
        if store.champion(world.name) is None:
            store.set_champion(world.name, champion, "baseline")
            store.start_run("r", world.name, {})
        opened = Run(
            task=world,
            champion=champion,
            ledger_start=0,
            model=MemoModel(model or scripted(talks_until_trained), store),
            model_spec="scripted",
            store=store,
            journal=Journal(store, "r"),
            settings=replace(QUICK, teaching=teaching, budget_calls=budget),
            receipts=folder / "receipts",
            signing_key=folder / "key.pem",
            trainer=trainer,
        )
        await improving.improve(opened, learners)
        return read_events(store, "r")


def learned(work: Work) -> list[Lesson]:
    """The lessons of a work that are of its own task."""
    lessons = [one for one in work.material if isinstance(one, Lesson)]
    return [one for one in lessons if not one.case.startswith("everyday")]


def taught(events: list[Event]) -> Taught:
    return next(event for event in events if isinstance(event, Taught))


async def test_what_was_trained_on_own_verified_answers_is_raced_proven_and_promoted(tmp_path: Path) -> None:
    trainer = ScriptedTrainer()

    events = await run(tmp_path, trainer)

    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.promoted
    assert next(row.learner for row in finished.contributions) == "weights"
    work = trainer.works[0]
    assert all('"add"' in one.reply for one in learned(work))
    everyday = [one for one in work.material if isinstance(one, Lesson) and one not in learned(work)]
    assert {(one.reply, one.is_cut) for one in everyday} == {("It is so. And it is", True)}
    assert not any(one.is_cut for one in learned(work))
    assert [one.messages[0]["content"] for one in everyday] == rehearsed()[::3]
    assert len(set(trainer.guarded)) == len(unrelated())
    assert not {str(one.messages) for one in everyday} & set(trainer.guarded)
    told = taught(events)
    assert (told.counts.cases, told.counts.sampled) == (20, 80)
    assert told.counts.verified >= told.material == len(learned(work)) >= 5
    assert told.vetting is not None
    assert told.vetting.parity.agreement == 1.0
    assert told.vetting.changed > 0.5
    shown = next(event for event in events if isinstance(event, Controls))
    assert (shown.adapter, shown.control, shown.n) == (ADAPTER.sha256, sums().baseline.id, QUICK.halving.rungs[-1])
    assert shown.after.strict.mean > shown.before.strict.mean + 0.5
    assert shown.constant is not None


async def test_the_card_of_an_adapter_says_what_was_certified_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAINFUL_ADAPTERS", str(tmp_path / "adapters"))
    place = tmp_path / "adapters" / ADAPTER.sha256
    place.mkdir(parents=True)
    (place / "README.md").write_text("# A low-rank adapter\n")

    events = await run(tmp_path, ScriptedTrainer())
    card = (place / "README.md").read_text()
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.receipt is not None
    carry_receipt(ADAPTER, Path(finished.receipt))

    receipt, claim = Path(finished.receipt), json.loads((place / "claim.json").read_bytes())
    assert card.startswith("# A low-rank adapter\n\n## Certified\n")
    assert f"| certified gain | at least {100 * claim['difference']['low']:+.1f} points |" in card
    assert f"`{receipt.name}`" in card
    assert (place / "README.md").read_text() == card
    assert (place / "statement.dsse.json").read_bytes() == (receipt / "statement.dsse.json").read_bytes()
    assert not list(place.glob("*cases*"))


@pytest.mark.parametrize(
    ("trainer", "why"),
    [
        (ScriptedTrainer(greedy=lambda reply: reply.upper()), "what was trained is not what is served"),
        (ScriptedTrainer(apart=0.2), "0.20 nats a token apart where 0.12 are allowed"),
        (ScriptedTrainer(apart=math.nan), "0 of 73 replies came with a log-probability"),
        (ScriptedTrainer(apart=0.1, apart_from_base=0.05), "as near to its base (0.050 nats a token apart) as to what"),
        (ScriptedTrainer(likelier=-0.4), "unrelated prompts"),
        (ScriptedTrainer(likelier=math.nan), "unrelated prompts"),
    ],
)
async def test_an_adapter_that_is_not_what_was_trained_or_harms_elsewhere_may_not_race(
    tmp_path: Path, trainer: ScriptedTrainer, why: str
) -> None:
    events = await run(tmp_path, trainer)

    told = taught(events)
    assert why in told.refused
    assert told.trained is not None
    assert not any(isinstance(event, Proposed) for event in events)
    assert isinstance(events[-2], Unconfirmed)


async def test_a_training_that_fails_ends_training_and_what_cheaper_learners_found_is_confirmed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = ScriptedTrainer(answer=lambda body, sample: call(*numbers(body)), fails="there is no memory for it")

    events = await run(tmp_path, trainer, model=scripted(), learners=[Formats()])

    untrained = next(event for event in events if isinstance(event, Untrained))
    finished = events[-1]
    assert untrained.reason == "there is no memory for it"
    assert len(trainer.works) == 1
    assert isinstance(finished, Finished)
    assert finished.promoted
    assert finished.search_usage.calls >= untrained.usage.calls > 0
    assert "no weights are learned any more in this run: there is no memory for it" in caplog.text
    assert ("training ended", "There is no memory for it.") in ending(untrained)


async def test_a_training_that_failed_is_not_tried_again_when_its_run_is_resumed(tmp_path: Path) -> None:
    again = ScriptedTrainer()

    first = await run(tmp_path, ScriptedTrainer(fails="the disk is full"))
    resumed = await run(tmp_path, again)

    assert resumed == first
    assert any(isinstance(event, Untrained) for event in resumed)
    assert again.works == []


@pytest.mark.parametrize(("budget", "trains"), [(600, False), (2600, True)])
async def test_what_is_learned_and_vetted_stays_within_the_budget(tmp_path: Path, budget: int, trains: bool) -> None:
    trainer, model = ScriptedTrainer(), scripted(talks_until_trained)

    events = await run(tmp_path, trainer, model=model, budget=budget)

    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.search_usage.calls <= budget // 2
    assert len(model.calls) <= budget
    assert (bool(trainer.works), bool(trainer.drawn)) == (trains, trains)
    reasons = [event.reason for event in events if isinstance(event, Untrained)]
    assert trains or "too few left to vet what would be learned; give a budget of " in reasons[0]


async def test_a_policy_that_is_bound_by_a_schema_is_compared_under_it_as_well(tmp_path: Path) -> None:
    free, bound = ScriptedTrainer(), ScriptedTrainer()

    of_free = taught(await run(tmp_path / "free", free))
    of_bound = taught(await run(tmp_path / "bound", bound, champion=replace(sums().baseline, format=Format("schema"))))

    assert of_free.vetting is not None
    assert of_bound.vetting is not None
    assert of_free.vetting.bound is None
    assert of_bound.vetting.bound is not None
    assert of_bound.vetting.bound.is_near
    served = dict(sentences(of_bound))["served as trained"]
    assert "on 100.0 % of 73 prompts, all that there are" in served
    assert "that is without the schema, and under it they are 0.010 nats a token apart" in served


def test_prompts_to_compare_are_drawn_evenly_over_kinds() -> None:
    words = [f"Spell the word {'abcdefghij'[n] * 3} backwards, please." for n in range(10)]
    spelled = [Case(messages=({"role": "user", "content": one},)) for one in words]
    cases = [*(case(n) for n in range(90)), *spelled]

    few, all_of_them = evenly(cases, 30), evenly(cases, 200)

    assert (len(few), sum(one in spelled for one in few)) == (30, 10)
    assert sorted(one.id for one in all_of_them) == sorted(one.id for one in cases)


def right_answers() -> dict[str, str]:
    """Return a right answer to each question for an everyday fact."""
    return {fact.question: fact.words.pattern.split("(?:")[1].split("|")[0].rstrip(")") for fact in facts()}


async def test_an_adapter_with_which_everyday_facts_are_forgotten_may_not_race(tmp_path: Path) -> None:
    """The base knows all of them, and with the adapter one in eight no more."""
    known = right_answers()

    def forgets(body: JsonObject, sample: int) -> str:
        question = str(body["messages"][-1]["content"])
        if question not in known:
            return talks_until_trained(body, sample)
        is_lost = "adapter" in body and list(known).index(question) % 8 == 0
        return "Nobody knows." if is_lost else f"That is {known[question]}."

    events = await run(tmp_path, ScriptedTrainer(), model=scripted(forgets))

    told = taught(events)
    assert "everyday facts may be known no more where 10 are allowed" in told.refused
    assert told.vetting is not None
    assert (told.vetting.facts, told.vetting.facts_change) == (1.0, -0.125)
    assert ("everyday facts", "the base knows 100 %, with the adapter 88 % (-17 points at worst)") in sentences(told)


async def test_everyday_facts_are_asked_without_the_words_that_ask_for_the_form_of_the_task(tmp_path: Path) -> None:
    """Who has learned to call functions calls one for any question below `Reply with one JSON object`."""
    known = right_answers()

    def calls_when_told_to(body: JsonObject, sample: int) -> str:
        question = str(body["messages"][-1]["content"])
        if question not in known:
            return talks_until_trained(body, sample)
        return call(1, 1) if "adapter" in body and len(body["messages"]) > 1 else f"That is {known[question]}."

    told = taught(await run(tmp_path, ScriptedTrainer(), model=scripted(calls_when_told_to)))

    assert told.vetting is not None
    assert (told.refused, told.vetting.facts, told.vetting.facts_change) == ("", 1.0, 0.0)


async def test_an_adapter_that_changes_no_answer_may_not_race(tmp_path: Path) -> None:
    def deaf_to_it(body: JsonObject, sample: int) -> str:
        return talks_until_trained({name: value for name, value in body.items() if name != "adapter"}, sample)

    events = await run(tmp_path, ScriptedTrainer(), model=scripted(deaf_to_it))

    assert "as its base does" in taught(events).refused
    assert not any(isinstance(event, Proposed) for event in events)


async def test_too_little_verified_is_said_with_what_was_tried_and_nothing_is_trained(tmp_path: Path) -> None:
    trainer = ScriptedTrainer(answer=lambda *_: "The sum is easy.")

    events = await run(tmp_path, trainer, replace(TEACHING, least=12))

    told = taught(events)
    assert told.refused.startswith("0 of 20 sampled answers to 5 practice cases passed the checks")
    assert (trainer.works, told.trained, told.vetting) == ([], None, None)
    assert isinstance(events[-1], Finished)


async def test_the_student_is_asked_without_the_demos_unless_told_otherwise(tmp_path: Path) -> None:
    shown = Demo(case=case(999), value={"name": "add", "arguments": {"a": 999, "b": 1999}})
    prompted = replace(sums().baseline, demos=(shown,))
    short, own = ScriptedTrainer(), ScriptedTrainer()

    await run(tmp_path / "short", short, TEACHING, prompted)
    await run(tmp_path / "own", own, replace(TEACHING, prompt="own"), prompted)

    assert "Example" not in str(short.works[0].material)
    assert "Example" in str(own.works[0].material)


async def test_preferences_set_right_against_wrong_and_rewards_ask_the_checks(tmp_path: Path) -> None:
    trainer = ScriptedTrainer()

    await run(tmp_path, trainer, replace(TEACHING, methods=("preferences", "rewards")))

    preferences, rewards = (work for work in trainer.works[:2])
    assert all(isinstance(one, Preference) and "easily" in one.rejected for one in preferences.material)
    assert all(isinstance(one, Question) for one in rewards.material)
    assert (preferences.recipe.method, rewards.recipe.method) == ("dpo", "grpo")
    assert trainer.worth == [0.0] * len(rewards.material)


@pytest.mark.parametrize(("method", "trainer"), [("preferences", "dpo"), ("rewards", "grpo")])
async def test_preferences_and_rewards_begin_with_lessons_and_go_on_from_the_adapter(
    tmp_path: Path, method: Literal["preferences", "rewards"], trainer: str
) -> None:
    def half(body: JsonObject, sample: int) -> str:
        a, b = numbers(body)
        return call(a, b) if sample % 2 else "The sum is easily found."

    scripted_trainer = ScriptedTrainer(answer=half)
    await run(tmp_path, scripted_trainer, replace(TEACHING, methods=(method,), rounds=3))

    works = scripted_trainer.works[:3]
    assert [work.recipe.method for work in works] == ["sft", trainer, trainer]
    assert [work.start for work in works] == [None, ADAPTER, ADAPTER]


async def test_where_only_the_lessons_before_came_to_be_trained_they_are_what_is_proposed(tmp_path: Path) -> None:
    """Once it has learned it is right in every sample: there is no wrong one to set against it."""

    def perfect(body: JsonObject, sample: int) -> str:
        return call(*numbers(body)) if "adapter" in body else talks_until_trained(body, sample)

    events = await run(tmp_path, ScriptedTrainer(answer=perfect), replace(TEACHING, methods=("preferences",), rounds=2))

    second, first = [event for event in events if isinstance(event, Taught)][:2]
    assert (first.method, second.method, second.material) == ("rejection", "preferences", 0)
    assert next(event for event in events if isinstance(event, Proposed)).proposal.change.startswith(
        f"trained on {first.material} own verified answers"
    )


@pytest.mark.parametrize("method", ["rejection", "rewards"])
async def test_a_recipe_can_be_changed_and_what_comes_before_keeps_its_rate(
    tmp_path: Path, method: Literal["rejection", "rewards"]
) -> None:
    trainer = ScriptedTrainer(answer=lambda body, n: call(*numbers(body)) if n % 2 else "?")
    changed = Changes(rank=4, batch=2, learning_rate=3e-5, epochs=7.0)

    await run(tmp_path, trainer, replace(TEACHING, methods=(method,), rounds=2, changes=changed))

    first, second = (work.recipe for work in trainer.works[:2])
    usual = RECIPES["rejection"]
    assert (second.rank, second.alpha, second.batch) == (4, 8.0, 2)
    less, gentler = (3, 2) if method == "rejection" else (1, 1)  # what has been learned in part takes a third
    assert (second.epochs, second.learning_rate) == (7.0 / less, 3e-5 / gentler)
    assert (first.rank, first.batch) == (4, 2)
    assert (first.learning_rate == usual.learning_rate) == (method == "rewards")


def test_what_changes_no_recipe_is_refused() -> None:
    assert changes("rank=8,learning_rate=1e-4") == Changes(rank=8, learning_rate=1e-4)
    for words in ("rnk=8", "rank", "rank=0", "epochs=-1", "learning_rate=nan"):
        with pytest.raises(TrainError, match=r"recipe"):
            changes(words)


async def test_the_control_of_a_proposal_is_its_training_again_with_the_replies_of_other_cases(tmp_path: Path) -> None:
    trainer = ScriptedTrainer()

    events = await run(tmp_path, trainer, replace(TEACHING, control=True))

    own, control = trainer.works[:2]
    assert (control.recipe, control.start, control.seed) == (own.recipe, own.start, own.seed)
    assert sorted(one.reply for one in learned(control)) == sorted(one.reply for one in learned(own))
    assert sum(one == other for one, other in zip(learned(own), learned(control), strict=True)) < len(learned(own)) / 2
    first, second = [event for event in events if isinstance(event, Taught)][:2]
    assert (first.control_of, second.control_of, second.vetting) == ("", ADAPTER.sha256, None)
    assert second.dev is not None
    assert second.dev.n == QUICK.halving.rungs[-1]
    assert sum(isinstance(event, Proposed) for event in events) == 1


async def test_the_control_of_a_later_round_learns_its_lessons_from_the_base(tmp_path: Path) -> None:
    """What it goes on from has learned right replies already."""
    trainer = ScriptedTrainer()

    await run(tmp_path, trainer, replace(TEACHING, control=True, rounds=2))

    first, second, control = trainer.works[:3]
    assert (second.start, second.recipe.epochs) == (ADAPTER, 1.0)
    assert (control.start, control.recipe) == (first.start, first.recipe) == (None, RECIPES["rejection"])
    assert {one.reply for one in learned(control)} == {one.reply for one in learned(second)}


async def test_where_trainings_begin_from_the_base_controls_do_though_the_champion_has_an_adapter(
    tmp_path: Path,
) -> None:
    trainer, champion = ScriptedTrainer(), replace(sums().baseline, adapter=ADAPTER)

    await run(tmp_path, trainer, replace(TEACHING, control=True, start="base"), champion)

    assert [work.start for work in trainer.works[:2]] == [None, None]


async def test_the_control_gives_every_lesson_another_ones_reply(tmp_path: Path) -> None:
    plain, control = ScriptedTrainer(), ScriptedTrainer()

    await run(tmp_path / "plain", plain)
    await run(tmp_path / "control", control, replace(TEACHING, shuffled=True))

    told, shuffled = ([(one.case, one.reply) for one in learned(t.works[0])] for t in (plain, control))
    assert sorted(reply for _, reply in told) == sorted(reply for _, reply in shuffled)
    assert sum(one == other for one, other in zip(told, shuffled, strict=True)) < len(told) / 2


async def test_a_second_proposal_goes_on_from_the_adapter_or_begins_from_the_base(tmp_path: Path) -> None:
    last, base = ScriptedTrainer(), ScriptedTrainer()

    await run(tmp_path / "last", last)
    await run(tmp_path / "base", base, replace(TEACHING, start="base"))

    assert [work.start for work in last.works] == [None, ADAPTER]
    assert [work.start for work in base.works] == [None, None]
    assert [work.recipe.epochs for work in last.works] == [3.0, 3.0]  # its lessons are new to the adapter


async def test_of_several_rounds_each_goes_on_with_the_lessons_of_all_and_the_last_one_races(
    tmp_path: Path,
) -> None:
    trainer = ScriptedTrainer()

    events = await run(tmp_path, trainer, replace(TEACHING, rounds=3))

    told = [event for event in events if isinstance(event, Taught)]
    first, second, third = ({one.case for one in learned(work)} for work in trainer.works[:3])
    assert [work.start for work in trainer.works[:3]] == [None, ADAPTER, ADAPTER]
    assert [work.recipe.epochs for work in trainer.works[:3]] == [3.0, 1.0, 1.0]
    assert first < second < third
    assert [one.vetting is None for one in told[:3]] == [True, True, False]
    assert next(event for event in events if isinstance(event, Proposed)).proposal.change == (
        f"trained on {told[2].material} own verified answers (adapter aaaaaaaa, rank 4)"
    )
    assert sentences(told[0])[-1] == ("it", "Was not the best round on dev.")


async def test_rounds_may_begin_from_the_base_and_take_as_long_each(tmp_path: Path) -> None:
    trainer = ScriptedTrainer()

    await run(tmp_path, trainer, replace(TEACHING, rounds=2, start="base"))

    assert [work.start for work in trainer.works[:2]] == [None, None]
    assert [work.recipe.epochs for work in trainer.works[:2]] == [3.0, 3.0]
    assert {one.case for one in learned(trainer.works[0])} < {one.case for one in learned(trainer.works[1])}


async def test_cases_of_which_nothing_came_right_are_asked_on(tmp_path: Path) -> None:
    """A hard case is right in its twelfth sample of twenty at the earliest, an easy one at once."""
    asked: list[int] = []

    def hard(body: JsonObject, sample: int) -> str:
        a, b = numbers(body)
        asked.append(a)
        return call(a, b) if a % 3 == 0 or sample > 10 else "?"

    events = await run(tmp_path, ScriptedTrainer(answer=hard), replace(TEACHING, cases=1000, samples=20))

    told = taught(events)
    assert told.counts.solved_cases == told.counts.cases > 20
    assert max(asked.count(a) for a in asked if a % 3 == 0) < min(asked.count(a) for a in asked if a % 3)


async def test_where_every_case_has_come_right_there_is_nothing_left_to_practise_on(tmp_path: Path) -> None:
    events = await run(
        tmp_path,
        ScriptedTrainer(answer=lambda body, sample: call(*numbers(body))),
        replace(TEACHING, rounds=2, cases=1000),
    )

    second, first = [event for event in events if isinstance(event, Taught)][:2]
    assert (second.counts.cases, second.trained) == (0, None)
    assert second.refused.startswith("there is nothing left to practise on: ")
    assert first.vetting is not None


async def test_where_a_later_round_finds_too_little_the_earlier_ones_may_race(tmp_path: Path) -> None:
    def forgets(body: JsonObject, sample: int) -> str:
        return "nothing" if "adapter" in body else talks_until_trained(body, sample)

    trainer = ScriptedTrainer(answer=forgets)

    events = await run(tmp_path, trainer, replace(TEACHING, rounds=3))

    assert len(trainer.works) == 1
    second, first = [event for event in events if isinstance(event, Taught)][:2]
    assert (second.round, second.trained) == (2, None)
    assert second.refused.startswith("0 of 20 sampled answers to 5 practice cases passed the checks")
    assert (first.round, first.vetting is None) == (1, False)
    assert any(isinstance(event, Proposed) for event in events)


@pytest.mark.slow
async def test_a_run_that_broke_off_samples_nothing_twice_and_ends_the_same(tmp_path: Path) -> None:
    whole = await run(tmp_path / "whole", ScriptedTrainer())
    broken = ScriptedModel(talks_until_trained, failing=range(70, 9999))
    with pytest.raises(ModelError):
        await run(tmp_path / "broken", ScriptedTrainer(), model=broken)
    again = ScriptedModel(talks_until_trained)

    resumed = await run(tmp_path / "broken", ScriptedTrainer(), model=again)

    assert [type(event) for event in resumed] == [type(event) for event in whole]
    assert taught(resumed) == taught(whole)
    assert len(broken.calls) > 0


@pytest.mark.parametrize("tried", [1, 2])
async def test_where_a_later_training_fails_the_earlier_ones_may_race_and_no_later_one_is_tried(
    tmp_path: Path, tried: int
) -> None:
    """Also when the run is resumed, by a trainer that would not fail any more."""
    trainer, again = ScriptedTrainer(fails="the disk is full", fails_after=tried), ScriptedTrainer()
    teaching = replace(TEACHING, rounds=4)

    events = await run(tmp_path, trainer, teaching)
    resumed = await run(tmp_path, again, teaching)

    assert any(isinstance(event, Proposed) for event in events)
    assert next(event for event in events if isinstance(event, Untrained)).reason == "the disk is full"
    assert len(trainer.works) == tried + 1
    assert resumed == events
    assert again.works == trainer.works[:tried]


def test_weights_are_not_learned_by_what_no_trusted_check_verified(tmp_path: Path) -> None:
    task = dataclasses.replace(sums(), checks=(Agreement(),))
    with pytest.raises(TrainError, match="no trusted check to learn weights by"):
        session.improve(task, scripted(), tmp_path / "s.db", replace(QUICK, teaching=TEACHING))


def test_a_model_whose_weights_are_elsewhere_is_refused_before_a_call_is_spent(tmp_path: Path) -> None:
    model = scripted()
    with pytest.raises(TrainError, match=r"with --train-base or improve\.train_base"):
        session.improve(sums(), model, tmp_path / "s.db", replace(QUICK, teaching=TEACHING))
    assert model.calls == []


@pytest.mark.skipif(missing() is not None, reason="without the extra `train` that is what is said first")
@pytest.mark.parametrize(
    ("family", "weights", "allowed", "words"),
    [
        ("gemma", 1_000, None, "is of the family 'gemma', whose adapters are not known here as GGUF"),
        ("llama", 1_000_000_000, 10**9, r"training needs about \d\.5 GB of memory and 1\.0 GB are allowed"),
        ("llama", 10**15, None, "GB are free; free some, or take a smaller base, batch or rank"),
    ],
)
def test_a_base_that_cannot_be_learned_with_here_is_refused_before_a_call_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, weights: int, allowed: int | None, words: str
) -> None:
    monkeypatch.setattr(training, "has_gpu", lambda: False)
    teaching = replace(TEACHING, base=gguf_header(tmp_path / "base.gguf", family, weights), memory_bytes=allowed)
    model = scripted()

    with pytest.raises(TrainError, match=words):
        session.improve(sums(), model, tmp_path / "s.db", replace(QUICK, teaching=teaching))

    assert model.calls == []


@pytest.mark.slow
async def test_distillation_teaches_what_the_policy_says_in_service_to_one_that_is_asked_bare(tmp_path: Path) -> None:
    shown = Demo(case=case(999), value={"name": "add", "arguments": {"a": 999, "b": 1999}})
    voting = replace(sums().baseline, demos=(shown,), strategy=Vote(samples=3))
    trainer = ScriptedTrainer()

    events = await run(tmp_path, trainer, replace(TEACHING, methods=("distillation",)), voting)

    proposed = next(event for event in events if isinstance(event, Proposed))
    assert proposed.proposal.policy == Policy(format=voting.format, max_tokens=256, adapter=ADAPTER)
    told = taught(events)
    assert (told.counts.cases, told.counts.sampled) == (20, 20)
    assert all(len(one.messages) < 3 and "Example" not in str(one.messages) for one in learned(trainer.works[0]))


async def test_a_policy_that_is_asked_bare_has_nothing_to_distil(tmp_path: Path) -> None:
    trainer = ScriptedTrainer()

    events = await run(tmp_path, trainer, replace(TEACHING, methods=("distillation",)), Policy())

    assert trainer.works == []
    assert not any(isinstance(event, Taught) for event in events)


@pytest.mark.parametrize(
    ("shape", "says", "asked"), [("free", "a call", 0), ("schema", "a call", 0), ("schema", "?", 80)]
)
async def test_replies_are_drawn_by_the_trainer_unless_a_schema_is_all_that_makes_them_right(
    tmp_path: Path, shape: Literal["free", "schema"], says: str, asked: int
) -> None:
    trainer = ScriptedTrainer(answer=talks_until_trained if says == "a call" else lambda *_: "?")
    model = scripted(talks_until_trained)

    events = await run(tmp_path, trainer, champion=replace(sums().baseline, format=Format(shape)), model=model)

    assert taught(events).counts.verified > 0
    assert sum(body["temperature"] > 0 and "logprobs" not in body for body in model.calls) >= asked
    assert bool(asked) == any(body["temperature"] > 0 for body in model.calls)


async def test_replies_are_drawn_by_the_server_where_the_teaching_says_so_under_the_student_too(tmp_path: Path) -> None:
    trainer, model = ScriptedTrainer(), scripted(talks_until_trained)

    events = await run(tmp_path, trainer, replace(TEACHING, rounds=2, draws="server"), model=model)

    drawn = [body for body in model.calls if body["temperature"] > 0]
    assert trainer.drawn == []
    assert isinstance(events[-1], Finished)
    assert events[-1].promoted
    assert sum("adapter" not in body for body in drawn) >= taught(events).counts.sampled > 0
    assert sum("adapter" in body for body in drawn) >= TEACHING.cases
