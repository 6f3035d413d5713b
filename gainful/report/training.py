"""A training in words: what it learned from, what it took, and whether what came of it may race."""

from __future__ import annotations

from gainful.learners.teaching import Taught
from gainful.loop.events import Untrained
from gainful.report import words
from gainful.train import FEWEST_PROMPTS, Parity

LARGE_SHARE = 0.5  # from which one answer among the lessons is worth a warning
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


def facts(taught: Taught) -> list[tuple[str, str]]:
    """Return (label, sentence) pairs, in the order in which they come about."""
    counts = taught.counts
    found = [
        (
            "sampled",
            f"{words.count(counts.sampled, 'answer')} to {words.count(counts.cases, 'practice case')}; "
            f"{counts.verified:,} passed the checks, {words.count(counts.solved_cases, 'case')} at least once",
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
    return "may race" if taught.vetting is not None else "is where the next round begins"


def _suspicions(taught: Taught) -> str:
    """Name what looks like learning and is none."""
    counts = taught.counts
    found = []
    if counts.usual_share >= LARGE_SHARE:
        found.append(f"one answer makes up {words.percent(counts.usual_share)} of them")
    if counts.copied:
        found.append(f"{counts.copied:,} repeat a demo's answer")
    return f" ({', '.join(found)})" if found else ""
