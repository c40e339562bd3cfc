"""Ids: in the order of time, never twice, and none can be told from those before it."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from infra.base.ids import BLOCK, new_id, random_bytes
from infra.http.frame import context_of

MADE: dict[str, Callable[[], str]] = {
    "id": lambda: new_id()[19:],  # without the time
    "trace id": lambda: context_of({}).trace_id,
    "span id": lambda: context_of({}).span_id,
    "request id": lambda: context_of({}).request_id[19:],
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_no_id_comes_from_a_generator_whose_state_can_be_told(make: Callable[[], str]) -> None:
    """104 answers used to give away the state of `random`, and with it every id from then on."""
    state = random.getstate()
    first = {make() for _ in range(BLOCK // 4)}  # more than are made of one block
    random.setstate(state)
    assert first.isdisjoint({make() for _ in range(BLOCK // 4)})


def test_random_bytes_are_as_many_as_were_asked_for_over_the_end_of_each_block() -> None:
    counts = [24, 8, 8, 7, 1, 24] * (BLOCK // 24)
    assert [len(random_bytes(count)) for count in counts] == counts


def test_of_many_ids_made_in_many_threads_none_is_the_same_as_another() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = [
            each for batch in threads.map(lambda _: [random_bytes(8) for _ in range(4000)], range(8)) for each in batch
        ]
    assert len(set(made)) == len(made)


def test_an_id_is_a_uuid_version_7_in_the_order_of_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert {(UUID(each).version, UUID(each).variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert [each[:18] for each in ids] == sorted(each[:18] for each in ids)
