"""Prefer (RFC 7240): what counts as a wish for the whole answer."""

import pytest

from infra.http.preferences import prefers_representation


@pytest.mark.parametrize(
    "prefer",
    [
        "return=representation",
        "Return = Representation",
        'return="representation"',
        "return=representation; foo=1",
        "respond-async, wait=10,return=representation",
        ", ,return=representation",
        'a="b, return=minimal", return=representation',
    ],
)
def test_a_client_that_prefers_the_representation_gets_it(prefer: str) -> None:
    assert prefers_representation(prefer)


@pytest.mark.parametrize(
    "prefer",
    [
        None,
        "",
        "return",
        "return=minimal",
        "return=minimal, return=representation",
        "returns=representation",
        'a="b, return=representation"',
        '"' * 60_000,
        " " * 60_000 + "return=representation",
    ],
    ids=lambda value: str(value)[:40],
)
def test_any_other_client_does_not(prefer: str | None) -> None:
    assert not prefers_representation(prefer)
