"""Two requests at the same instant, on MySQL and on SQLite. `make soak` plays each a thousand times."""

import asyncio

import pytest

from tests.faults.load import QuickService, rows_of
from tests.faults.races import RACES, Race, run_race
from tests.support.servers import MariaDB

ROUNDS = 24


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_whoever_comes_first_it_ends_as_it_must(quick_service: QuickService, mariadb: MariaDB, race: Race) -> None:
    statuses, remembered = asyncio.run(run_race(race, quick_service.port, ROUNDS))
    RACES[race](statuses, remembered, rows_of(quick_service.env, mariadb))
