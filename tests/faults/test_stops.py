"""A service that is stopped, or killed, in the middle of its work. `make soak` does it 20 and 50 times."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import TEST_SETTINGS, backend_settings
from tests.faults.load import QuickService, rows_of
from tests.faults.stops import kill_and_restart, stop_under_load
from tests.support.servers import MariaDB


@pytest.fixture
def env(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    own = {"SECRET_KEY": "one key for every start of the service", "DATA_DIR": str(tmp_path)}
    return {**TEST_SETTINGS, **backend_settings(backend, request), **own}


def test_200_requests_under_way_are_answered_and_logged_when_it_is_stopped(env: dict[str, str]) -> None:
    with QuickService(env) as service:
        stop = asyncio.run(stop_under_load(service, requests=200))
    assert stop.under_way > 20
    assert (stop.answered, stop.reset, stop.wrong, stop.status, stop.lines_missing) == (200, 0, 0, 0, 0)


def test_what_was_acknowledged_before_a_kill_is_there_after_it(env: dict[str, str], mariadb: MariaDB) -> None:
    load = asyncio.run(kill_and_restart(env, rows_of(env, mariadb), kills=1))
    assert load.accounts
    assert load.spent
