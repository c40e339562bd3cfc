"""Two requests at the same instant, on MySQL and on SQLite. `make soak` plays each a thousand times."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import TEST_SETTINGS, backend_settings
from tests.faults.load import QuickService, rows_of
from tests.faults.races import RACES, Race, run_race
from tests.support.servers import MariaDB

ROUNDS = 24


@pytest.fixture(scope="module")
def service(backend: str, request: pytest.FixtureRequest) -> Iterator[QuickService]:
    """Its own: that nothing is half made is asked of the whole database, where other tests put what they like."""
    with QuickService({**TEST_SETTINGS, **backend_settings(backend, request)}) as own:
        yield own


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_whoever_comes_first_it_ends_as_it_must(service: QuickService, mariadb: MariaDB, race: Race) -> None:
    statuses, remembered = asyncio.run(run_race(race, service.port, ROUNDS))
    RACES[race](statuses, remembered, rows_of(service.env, mariadb))
