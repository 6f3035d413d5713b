"""What every store promises of serving, on each store there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gainful.core import Exchange, Policy, StoreError, Trial, Usage, Verdict, digest
from gainful.store import Feedback, Key, Store, encode_exchange, open_store

Opener = Callable[[], Store]


@pytest.fixture
def reopen(place: str) -> Opener:
    """Opens the same store again and again."""
    return lambda: open_store(place)


@pytest.fixture
def store(reopen: Opener) -> Iterator[Store]:
    with reopen() as store:
        yield store


POLICY = Policy(instructions="Answer.")
FULL = Exchange(
    id="chatcmpl-1",
    at=1_790_000_000.123456,
    task="task",
    policy=POLICY.id,
    model="model",
    verdict="corrected",
    status=201,
    key="web",
    request={"messages": [{"role": "user", "content": "é\0 \U0001f600"}], "seed": 2**70, "top_p": 0.1 + 0.2},
    reply={"id": "chatcmpl-1", "choices": [{"message": {"content": None}}]},
    value=[1.5, None, {"a": "b"}],
    draft="before",
    verdicts=(Verdict(check="schema", trusted=True, score=1.0), Verdict(check="judge", trusted=False)),
    p_wrong=0.25,
    correction="vote",
    usage=Usage(calls=4, prompt_tokens=9, completion_tokens=5, elapsed_ms=0.3, cost_usd=1e-7),
    added_ms=1.25,
)


def exchange(number: int, task: str = "task", **fields: Any) -> Exchange:
    known = {"id": f"reply-{number}", "policy": POLICY.id, "model": "model", "verdict": "unverified"}
    return Exchange(at=float(number), task=task, **(known | fields))


def trial(number: int, **fields: Any) -> Trial:
    known = {"task": "task", "model": "model", "method": "vote", "case": digest(number), "before": 0.0, "after": 1.0}
    return Trial(**(known | fields))


def key(name: str, **fields: Any) -> Key:
    return Key(name=name, sha256=digest(name), created_at=1.5, **fields)


# --- exchanges


def test_an_exchange_comes_back_whole(store: Store) -> None:
    store.put_policy(POLICY)
    store.put_exchanges([FULL])

    assert store.exchange("chatcmpl-1") == FULL
    assert store.exchange("chatcmpl-2") is None


def test_of_several_exchanges_with_one_id_the_latest_is_returned_and_all_are_kept(store: Store) -> None:
    store.put_exchanges([exchange(1, status=200), exchange(1, status=500)])
    store.put_exchanges([exchange(1, status=201)])

    found = store.exchange("reply-1")
    assert found is not None
    assert found.status == 201
    assert [one.status for one in store.exchanges("task")] == [201, 500, 200]


@pytest.mark.parametrize("policy", ["", "a name", digest("never stored")])
def test_an_exchange_is_stored_whatever_policy_it_names(store: Store, policy: str) -> None:
    store.put_policy(POLICY)
    store.put_exchanges([exchange(1, policy=policy), exchange(2)])

    assert store.exchanges("task") == [exchange(2), exchange(1, policy=policy)]


def test_a_policy_stored_later_is_named_the_same(store: Store) -> None:
    store.put_exchanges([exchange(1)])
    store.put_policy(POLICY)
    store.put_exchanges([exchange(2)])

    assert store.exchanges("task") == [exchange(2), exchange(1)]


def test_exchanges_come_newest_first_and_are_read_page_by_page_while_others_arrive(store: Store) -> None:
    store.put_exchanges(exchange(number, task) for number in range(7) for task in ("other", "task"))
    end = store.exchange_count("task")
    pages = []
    for before in range(end, 0, -3):
        pages.append([int(one.at) for one in store.exchanges("task", limit=3, before=before)])
        store.put_exchanges([exchange(99)])

    assert pages == [[6, 5, 4], [3, 2, 1], [0]]
    assert [one.at for one in store.exchanges("task", limit=4)] == [99, 99, 99, 6]
    assert store.exchanges("task", limit=0) == store.exchanges("task", before=0) == store.exchanges("nothing") == []
    assert store.exchanges("task", limit=-1) == store.exchanges("task", before=-5) == []
    assert [int(one.at) for one in store.exchanges("task", before=2)] == [1, 0]


def test_exchanges_are_counted_by_task_and_in_all(store: Store) -> None:
    store.put_exchanges([exchange(1), exchange(2), exchange(3, "other")])

    assert (store.exchange_count(), store.exchange_count("task"), store.exchange_count("nothing")) == (3, 2, 0)


@pytest.mark.parametrize("size", [0, 1, 999, 2500])
def test_a_batch_of_any_size_is_stored_in_order(store: Store, size: int) -> None:
    store.put_exchanges([exchange(number) for number in range(size)])

    assert [one.at for one in store.exchanges("task", limit=size + 1)] == list(range(size))[::-1]


def test_exchanges_are_stored_all_or_none(store: Store) -> None:
    def arriving() -> Iterator[Exchange]:
        yield exchange(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_exchanges(arriving())
    assert store.exchange_count() == 0


def test_half_a_character_is_stored_as_a_replacement_and_its_reply_is_found(store: Store) -> None:
    broken = exchange(1, id="reply-\ud800", value="half \ud83d", request={"messages": [{"\udc00": math.inf}]})
    store.put_exchanges([broken])
    store.put_feedback(Feedback(reply="reply-\ud800", score=1.0, at=1.0, comment="\ud800"))

    mended = exchange(1, id="reply-?", value="half \ufffd", request={"messages": [{"\ufffd": None}]})
    assert store.exchange("reply-\ud800") == store.exchange("reply-?") == mended
    assert store.feedback("reply-\ud800") == [Feedback(reply="reply-?", score=1.0, at=1.0, comment="\ufffd")]


@pytest.mark.parametrize("at", [math.nan, math.inf])
def test_an_exchange_without_a_time_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match=rf"exchange 'chatcmpl-1' is of time {at!r}; give Unix time"):
        encode_exchange(Exchange(id="chatcmpl-1", at=at, task="t", policy="", model="m", verdict="unverified"))


# --- feedback


def test_feedback_comes_back_in_order_with_its_reply(store: Store) -> None:
    store.put_exchanges([exchange(1), exchange(2)])
    written = [
        Feedback(reply="reply-1", score=0.0, at=2.5, comment="wrong", key="web", target={"a": [1, None]}),
        Feedback(reply="reply-1", score=1.0, at=1.0),
    ]
    for feedback in [*written, Feedback(reply="reply-2", score=0.5, at=3.0)]:
        store.put_feedback(feedback)

    assert store.feedback("reply-1") == written
    assert store.feedback("reply-3") == []


def test_feedback_on_a_reply_id_that_came_twice_is_there_once(store: Store) -> None:
    store.put_exchanges([exchange(1), exchange(1)])
    feedback = Feedback(reply="reply-1", score=1.0, at=1.0)
    store.put_feedback(feedback)

    assert store.feedback("reply-1") == [feedback]


def test_feedback_on_an_unknown_reply_is_refused(store: Store) -> None:
    store.put_exchanges([exchange(1)])

    with pytest.raises(StoreError, match="holds no reply 'reply-2'; give the id of a stored reply"):
        store.put_feedback(Feedback(reply="reply-2", score=1.0, at=1.0))
    assert store.feedback("reply-2") == []


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_feedback_beyond_the_scale_is_refused(store: Store, score: float) -> None:
    store.put_exchanges([exchange(1)])

    with pytest.raises(StoreError, match=r"feedback on 'reply-1' has score .*; give a number in \[0, 1\]"):
        store.put_feedback(Feedback(reply="reply-1", score=score, at=1.0))
    assert store.feedback("reply-1") == []


# --- trials and detectors


def test_trials_come_back_whole_the_oldest_first_and_only_the_last_ones(store: Store) -> None:
    written = [
        trial(1, extra=Usage(calls=3, prompt_tokens=7, cost_usd=0.5), source="traffic"),
        trial(2, case="a name", before=0.1 + 0.2),
        trial(3, source="feedback"),
    ]
    store.put_trials([*written, trial(4, task="other"), trial(5, model="other")])

    assert store.trials("task", "model") == written
    assert store.trials("task", "model", limit=2) == written[1:]
    assert store.trials("task", "nobody") == store.trials("task", "model", limit=-1) == []


def test_a_trial_on_a_case_made_again_replaces_the_earlier_one(store: Store) -> None:
    store.put_trials([trial(1), trial(1, method="refine"), trial(2), trial(1, task="other")])
    store.put_trials([trial(1, after=0.0), trial(1, after=0.5)])

    assert store.trials("task", "model") == [trial(1, method="refine"), trial(2), trial(1, after=0.5)]
    assert store.trials("other", "model") == [trial(1, task="other")]


@pytest.mark.parametrize("source", ["traffic", "feedback"])
def test_trials_from_traffic_are_all_kept(store: Store, source: str) -> None:
    store.put_trials([trial(1, source=source), trial(1)])
    store.put_trials([trial(1, source=source)])

    assert store.trials("task", "model") == [trial(1, source=source), trial(1), trial(1, source=source)]


def test_trials_are_stored_all_or_none(store: Store) -> None:
    def arriving() -> Iterator[Trial]:
        yield trial(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_trials(arriving())
    assert store.trials("task", "model") == []


def test_the_latest_detector_is_in_use(store: Store) -> None:
    assert store.detector("task", "model") is None
    for content in ({"x": [0.1 + 0.2]}, {"x": [0.5, None], "é": {}}):
        store.put_detector("task", "model", content)
    store.put_detector("task", "other", {})
    store.put_detector("other", "model", {"other": 1})

    assert store.detector("task", "model") == {"x": [0.5, None], "é": {}}
    assert store.detector("task", "other") == {}


# --- keys


def test_keys_come_back_whole_and_are_found_by_what_their_secret_hashes_to(store: Store) -> None:
    written = [key("web"), key("batch", revoked=True, requests_per_minute=60, own_data=True)]
    written.append(key("clinic", own_task=True))
    for one in written:
        store.put_key(one)

    assert store.keys() == written
    assert store.find_key(digest("batch")) == written[1]
    assert store.find_key(digest("nobody")) is store.find_key("no hash") is None


def test_a_key_s_name_and_secret_are_given_once(store: Store) -> None:
    store.put_key(key("web"))
    store.revoke_key("web")

    for again in (Key("web", digest("another"), 2.0), Key("other", digest("web"), 2.0)):
        with pytest.raises(StoreError, match=rf"holds key '{again.name}' or its secret already; give another name"):
            store.put_key(again)
    assert store.keys() == [key("web", revoked=True)]


def test_a_secret_given_in_place_of_its_hash_is_neither_stored_nor_said(store: Store) -> None:
    with pytest.raises(StoreError, match="key 'web' comes without a SHA-256") as raised:
        store.put_key(Key("web", "gk-secret", 1.0))
    assert "gk-secret" not in str(raised.value)
    assert store.keys() == []


def test_a_revoked_key_stays_revoked_and_is_found_as_such(store: Store) -> None:
    store.put_key(key("web"))
    store.put_key(key("batch"))
    store.revoke_key("web")
    store.revoke_key("web")

    assert store.find_key(digest("web")) == key("web", revoked=True)
    assert store.find_key(digest("batch")) == key("batch")


def test_revoking_an_unknown_key_says_which_are_known(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no key 'web'; give one of: none yet"):
        store.revoke_key("web")
    store.put_key(key("batch"))
    with pytest.raises(StoreError, match="holds no key 'web'; give one of: batch"):
        store.revoke_key("web")


# --- life


def test_everything_is_there_when_the_store_is_opened_again(reopen: Opener) -> None:
    with reopen() as store:
        store.put_exchanges([FULL])
        store.put_feedback(Feedback(reply=FULL.id, score=1.0, at=1.0))
        store.put_trials([trial(1)])
        store.put_detector("task", "model", {"x": 1})
        store.put_key(key("web"))

    with reopen() as store:
        assert store.exchange(FULL.id) == FULL
        assert store.feedback(FULL.id) == [Feedback(reply=FULL.id, score=1.0, at=1.0)]
        assert store.trials("task", "model") == [trial(1)]
        assert store.detector("task", "model") == {"x": 1}
        assert store.keys() == [key("web")]


def test_two_open_stores_see_each_other_s_exchanges_keys_and_revocations(reopen: Opener, store: Store) -> None:
    with reopen() as second:
        store.put_exchanges([exchange(1)])
        second.put_exchanges([exchange(2)])
        store.put_key(key("web"))
        second.revoke_key("web")

        assert store.exchanges("task") == second.exchanges("task") == [exchange(2), exchange(1)]
        assert store.find_key(digest("web")) == key("web", revoked=True)
