"""A training in words: what it learned from, what it took, whether what came of it may race, and is it knowledge?"""

from __future__ import annotations

from dataclasses import dataclass

from gainful.learners.teaching import Taught
from gainful.loop.events import Controls, Replies, Untrained, Usual
from gainful.report import words
from gainful.train import FEWEST_PROMPTS, Parity

LARGE_SHARE = 0.5  # from which one answer among the lessons is worth a warning
LARGE_LEAD = 0.2  # of an answer's share over that of the most frequent target: it is given where it is not right
LONGER = 1.5  # times the length of before: more words for the same answer
STOPS = {
    "": "to the last step",
    "early": "until the held-back part got worse",
    "time": "until its time was up",
    "nan": "until its loss was no number, and then back to the last good weights; a smaller learning rate goes on",
}


def ending(event: Untrained) -> list[tuple[str, str]]:
    """Return in such pairs why no weights are learned any more in a run."""
    return [
        ("training ended", words.sentence(event.reason)),
        ("the rest", "What was found without it goes on.  A run with another seed, or other limits, trains again."),
    ]


@dataclass(frozen=True)
class Row:
    """A line of the comparison that asks for knowledge; ``None`` where there is nothing to say."""

    name: str
    strict: str
    lenient: str | None = None
    characters: str | None = None
    copied: str | None = None


def heading(taught: Taught) -> str:
    """Return what a training is called."""
    if taught.control_of:
        return f"Control: the training of adapter {taught.control_of[:8]} again, with the replies of other cases"
    return f"Round {taught.round}, by {taught.method}"


def sentences(taught: Taught) -> list[tuple[str, str]]:
    """Return (label, sentence) pairs, in the order in which they come about."""
    counts = taught.counts
    found = [
        (
            "sampled",
            f"{words.count(counts.sampled, 'answer')} to {words.count(counts.cases, 'practice case')}; "
            f"{counts.verified:,} passed the checks, {words.count(counts.solved_cases, 'case')} at least once"
            f"{_echoes(counts.echoes)}{_left_out(taught.left_out)}",
        ),
        ("learned from", f"{taught.material:,} by {taught.method}{_suspicions(taught)}"),
    ]
    if (trained := taught.trained) is not None:
        losses = [step.loss for step in trained.steps if step.loss is not None]
        fell = f", loss {losses[0]:.3g} to {losses[-1]:.3g}" if losses else ""
        found.append(
            (
                "trained",
                f"{words.count(len(trained.steps), 'step')} {STOPS.get(trained.stopped, trained.stopped)}{fell}, "
                f"{words.duration(trained.seconds)}, {trained.peak_memory_bytes / 1e9:.1f} GB at most",
            )
        )
    if (vetting := taught.vetting) is not None:
        found.append(
            (
                "served as trained",
                f"{_agreement(vetting.parity)}{_bound(vetting.bound)}; "
                f"{words.percent(vetting.changed)} are answered otherwise than before",
            )
        )
        found.append(
            (
                "unrelated prompts",
                f"the base's own words: {vetting.guard:+.3f} nats a token likelier, {vetting.guard_low:+.3f} at worst",
            )
        )
        if vetting.facts is not None:
            found.append(
                (
                    "everyday facts",
                    f"the base knows {words.percent(vetting.facts)}, with the adapter "
                    f"{words.percent(vetting.facts + vetting.facts_change)} "
                    f"({100 * vetting.facts_low:+.0f} points at worst)",
                )
            )
    if (dev := taught.dev) is not None:
        found.append(("on dev", f"{words.share(dev.right, dev.n)} of {words.count(dev.n, 'case')} passed the checks"))
    found.append(("it", words.sentence(_outcome(taught))))
    return found


def _agreement(found: Parity) -> str:
    all_of_them = "" if found.prompts >= FEWEST_PROMPTS else ", all that there are"
    return (
        f"server and trainer agree on {100 * found.agreement:.1f} % of {words.count(found.prompts, 'prompt')}"
        f"{all_of_them}, word for word on {100 * found.identical:.1f} %, {_difference(found)}"
    )


def _difference(found: Parity) -> str:
    if found.mean_difference is None:
        return "no log-probabilities to compare"
    compared = "" if found.compared == found.prompts else f" where {found.compared} could be compared"
    return f"{found.mean_difference:.3f} nats a token apart{compared}"


def _bound(found: Parity | None) -> str:
    """Say how a policy that is bound by a schema was compared."""
    return f"; that is without the schema, and under it they are {_difference(found)}" if found else ""


def _outcome(taught: Taught) -> str:
    if taught.refused:
        return f"may not race: {taught.refused}"
    if taught.control_of:
        return "is a control, and does not race: what it gets right takes no knowledge"
    return "may race" if taught.vetting is not None else "was not the best round on dev"


def _echoes(count: int) -> str:
    if not count:
        return ""
    return f"; {words.count(count, 'right answer')} left out, for they repeat the question and as such are often wrong"


def _left_out(count: int) -> str:
    if not count:
        return ""
    return f"; {words.count(count, 'practice case')} left out, too much like a case that is raced or held out"


def _suspicions(taught: Taught) -> str:
    """Name what looks like learning and is none."""
    counts = taught.counts
    found = []
    if counts.usual_share >= LARGE_SHARE:
        found.append(f"one answer makes up {words.percent(counts.usual_share)} of them")
    if counts.copied:
        found.append(f"{counts.copied:,} repeat a demo")
    return f" ({', '.join(found)})" if found else ""


def comparison(controls: Controls, trainings: list[Taught]) -> list[Row]:
    """Return the candidate's line and those of its controls; of *trainings* the control that belongs to it."""
    shuffled = [one.dev for one in trainings if one.control_of == controls.adapter and one.dev is not None]
    return [
        _row("without these weights", controls.before),
        _row(f"{controls.label}, with them", controls.after),
        *(Row("trained on others' replies", words.share(dev.right, dev.n)) for dev in shuffled[-1:]),
        *([Row("best constant answers", words.interval(controls.constant))] if controls.constant else []),
    ]


def _row(name: str, replies: Replies) -> Row:
    return Row(
        name=name,
        strict=words.interval(replies.strict),
        lenient=None if replies.lenient is None else words.interval(replies.lenient),
        characters=f"{replies.characters:,.0f}",
        copied=f"{replies.copied:,}",
    )


def flags(controls: Controls) -> list[str]:
    """Return in sentences what looks like learning and is none."""
    before, after = controls.before, controls.after
    found = []
    if before.lenient is not None and after.lenient is not None:
        strict, lenient = after.strict.mean - before.strict.mean, after.lenient.mean - before.lenient.mean
        if strict - lenient >= LARGE_LEAD / 2:
            found.append(
                f"Of {words.points(strict)} strictly, {words.points(strict - lenient)} are form: read leniently it "
                f"gains {words.points(lenient)}."
            )
    if controls.constant is not None and after.strict.mean <= controls.constant.high:
        found.append("It is not clearly ahead of the best constant answers.")
    found += [_constant(one) for one in controls.kinds if one.after - _usual_target(one) >= LARGE_LEAD]
    if after.characters > LONGER * max(1.0, before.characters):
        found.append(f"Its replies are {after.characters / max(1.0, before.characters):.1f} times as long as before.")
    if after.copied > before.copied:
        found.append(f"It gives a demo's answer to {words.count(after.copied, 'case')} where that is wrong.")
    return found


def _usual_target(usual: Usual) -> float:
    """Return how frequent an answer may well be: as the most frequent target, else as before."""
    return usual.before if usual.constant is None else usual.constant


def _constant(usual: Usual) -> str:
    known = f"{words.percent(_usual_target(usual))} of them"
    rather = f"before it was {known}" if usual.constant is None else f"the most frequent target is right for {known}"
    return (
        f"It answers “{words.clip(usual.answer, 40)}” to {words.percent(usual.after)} of questions like "
        f"“{words.clip(usual.example, 60)}”; {rather}."
    )
