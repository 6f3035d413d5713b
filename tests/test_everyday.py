"""What no task asks for: what is learned along is not what harm is measured by."""

import re

from gainful.loop.everyday import facts, rehearsed, unrelated


def words(question: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", question.lower()))


def test_nothing_is_learned_along_that_a_vetting_asks() -> None:
    """Word for word, or the same words in another order."""
    learned = {words(question) for question in rehearsed()}
    asked = {words(question) for question in [*unrelated(), *(fact.question for fact in facts())]}

    assert (len(rehearsed()), len(unrelated()), len(facts())) == (212, 32, 200)
    assert len(learned) == len(rehearsed())
    assert not learned & asked


def test_each_form_in_which_facts_are_asked_for_is_learned_along() -> None:
    """Two words in which many begin, such as `How many`."""
    beginnings = [" ".join(fact.question.split()[:2]) for fact in facts()]
    forms = {one for one in beginnings if beginnings.count(one) >= 3}

    assert len(forms) == 12
    assert forms <= {" ".join(question.split()[:2]) for question in rehearsed()}
