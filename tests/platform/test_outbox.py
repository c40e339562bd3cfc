"""Domain events out: written with what they tell of, delivered at least once, an account's in their order."""

import asyncio
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infra.base.background import background
from infra.base.ids import new_id
from tests.conftest import TEST_SETTINGS, Sql, StartService, starter
from tests.support.servers import LOOPBACK_NAMES, make_certificates, wait_until
from tests.support.service import Account, Service, parse, run_app
from tests.support.sink import Sink

DELIVER = "dev.berth.events.deliver"
CLAIM = 20  # seconds: what nobody gave back is due again then
BATCH = 10  # events sent at the same time
WITHOUT_POLLS = "import sys, app; from infra.events import outbox; outbox.POLL = 3600; sys.exit(app.main([]))"


class ServiceWithoutPolls(Service):
    command = (sys.executable, "-c", WITHOUT_POLLS)


@pytest.fixture
def start_service(start_quick_service: StartService) -> StartService:
    """No password is looked at here."""
    return start_quick_service


def delete(service: Service, account: Account) -> None:
    body = {"password": account.password}
    answer = service.client.request("DELETE", "/v1/auth/me", headers=account.headers, json=body)
    assert answer.status_code == 204


def change(service: Service, account: Account, **changes: str) -> dict[str, Any]:
    """The account after it."""
    body = {"current_password": account.password} | changes
    answer = service.client.patch("/v1/auth/me", headers=account.headers, json=body)
    assert answer.status_code == 200
    changed: dict[str, Any] = answer.json()
    return changed


def now_ms() -> int:
    return int(time.time() * 1000)


def wait_until_empty(service: Service, sql: Sql) -> None:
    """The outbox: what the sink has taken leaves it a moment later."""
    wait_until(lambda: not sql(service, "SELECT * FROM outbox"), "the empty outbox", within=5)


def restart(start_service: StartService, service: Service, **settings: object) -> Service:
    """Another instance on the same database."""
    shared: dict[str, Any] = {name: value for name, value in service.env.items() if name not in ("PATH", "PORT")}
    return start_service(**shared | settings)


# What is sent


def test_a_registration_and_a_deletion_are_told_as_cloudevents(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=f"{sink.url}?a=b", K_CE_OVERRIDES='{"extensions": {"tenant": "é"}}')
    account = service.sign_up()
    delete(service, account)
    registered, deleted = sink.wait_for(account.id, "registered", "deleted")
    data = registered.pop("data")
    trace = service.wait_for_log(type="access", path="/v1/auth/register")["trace_id"]
    assert registered.pop("traceparent").split("-")[1] == trace
    assert datetime.fromisoformat(registered.pop("time")).tzinfo
    assert registered == {
        "specversion": "1.0",
        "id": account.id,
        "source": "/berth",
        "type": "dev.berth.account.registered",
        "subject": account.id,
        "datacontenttype": "application/json",
        "tenant": "é",
    }
    assert data.items() >= {"id": account.id, "username": account.username, "email": account.email}.items()
    assert deleted["data"] == {"id": account.id}
    assert deleted["id"] > registered["id"]
    delivery = sink.deliveries[0]
    assert (delivery.path, delivery.headers["content-type"]) == ("/events?a=b", "application/cloudevents+json")
    assert delivery.headers["host"] == f"127.0.0.1:{sink.port}"
    wait_until_empty(service, sql)


def test_a_change_of_an_account_is_told_with_the_account_as_it_is_then(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    account = service.sign_up()
    changed = change(service, account, email="elsewhere@example.com")
    _, updated = sink.wait_for(account.id, "registered", "updated")
    assert (updated["type"], updated["subject"]) == ("dev.berth.account.updated", account.id)
    assert updated["data"] == changed
    assert updated["id"] > account.id
    change(service, account, email="elsewhere@example.com")  # as it is: nothing to tell
    wait_until_empty(service, sql)
    assert sink.asked == 2


def test_an_event_comes_after_those_of_an_instance_whose_clock_is_ahead(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    sink.answers = [500]
    service = start_service(backend, K_SINK=sink.url)
    account = service.sign_up()
    service.wait_for_log(type="task", event_id=account.id)
    ahead = f"{'f' * 8}{account.id[8:]}"
    sql(service, f"UPDATE outbox SET id = '{ahead}', attempt_at = 99999999999999")
    for name in ("Second-name", "Third-name"):
        change(service, account, username=name)
    delete(service, account)
    ids = [row["id"] for row in sql(service, "SELECT id FROM outbox ORDER BY id")]
    assert (len(set(ids)), ids[0]) == (4, ahead)
    sql(service, "UPDATE outbox SET attempt_at = 1")
    sink.wait_for(account.id, "registered", "updated", "updated", "deleted")


def held_up_account(service: Service, sink: Sink, sql: Sql) -> Account:
    """One whose registration the sink has refused, and that isn't told again until `attempt_at` says so."""
    sink.answers = [500]
    account = service.sign_up()
    service.wait_for_log(type="task", event_id=account.id)
    sql(service, "UPDATE outbox SET attempt_at = 99999999999999")
    return account


def test_what_was_not_sent_yet_of_a_deleted_account_says_no_more_than_its_id(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    account = held_up_account(service, sink, sql)
    change(service, account, username="Never-told", email="never-told@example.com")
    [attempts] = [row["attempts"] for row in sql(service, f"SELECT attempts FROM outbox WHERE id = '{account.id}'")]
    delete(service, account)
    other = service.sign_up()
    sink.wait_for(other.id, "registered")
    rows = sql(service, f"SELECT id, event, attempts FROM outbox WHERE subject = '{account.id}'")
    held = str(rows).lower()
    assert not [text for text in (account.username, account.email, "never-told") if text.lower() in held]
    # Whoever has read the event as it was must not be able to claim it.
    assert [row["attempts"] > attempts for row in rows if row["id"] == account.id] == [True]
    sql(service, "UPDATE outbox SET attempt_at = 1")
    events = sink.wait_for(account.id, "registered", "updated", "deleted")
    assert [event["data"] for event in events] == [{"id": account.id}] * 3
    assert sink.events_of(other.id)[0]["data"]["username"] == other.username


def test_what_an_instance_adds_or_finds_at_its_start_it_sends_without_waiting_for_its_next_look(
    request: pytest.FixtureRequest, sink: Sink, sql: Sql
) -> None:
    with starter(ServiceWithoutPolls, request) as start_one:
        service = start_one(K_SINK=sink.url)
        account = service.sign_up()
        wait_until_empty(service, sql)
        delete(service, account)
        wait_until_empty(service, sql)
        sink.stop()
        left = service.sign_up()
        kill_and_make_due(service, sql)
        sink.start()
        restart(start_one, service)
        wait_until_empty(service, sql)
    sink.wait_for(account.id, "registered", "deleted")
    sink.wait_for(left.id, "registered")


def test_what_is_rolled_back_is_not_told(start_service: StartService, sink: Sink, sql: Sql) -> None:
    service = start_service(K_SINK=sink.url)
    account = service.sign_up()
    body = {"username": account.username, "email": "other@example.com", "password": "pass 12345678"}
    assert service.client.post("/v1/auth/register", json=body).status_code == 409
    sink.wait_for(account.id, "registered")
    wait_until_empty(service, sql)
    assert sink.asked == 1


def test_without_a_sink_nothing_is_written(start_service: StartService, backend: str, sql: Sql) -> None:
    service = start_service(backend)
    delete(service, service.sign_up())
    assert sql(service, "SELECT * FROM outbox") == []


# A sink that fails


def test_what_the_sink_does_not_take_is_sent_again(start_service: StartService, sink: Sink) -> None:
    answers: list[int | bytes] = [500, 429, 302, 404, b"SSH-2.0-x\r\n", b"", b"x" * 70_000]
    sink.answers = list(answers)
    service = start_service(K_SINK=sink.url)
    accounts = [service.sign_up() for _ in answers]
    for account in accounts:
        sink.wait_for(account.id, "registered")
        line = service.wait_for_log(type="task", event_id=account.id)
        assert (line["severity"], line["attempts"]) == ("WARNING", 1)
    assert sink.asked == 2 * len(answers)


INFORMATIONAL = b"".join(
    b"HTTP/1.1 %d \r\nLink: </x>; rel=preload\r\nX-Status: HTTP/1.1 500\r\n\r\n" % status
    for status in (100, 102, 103, 103, 199)
)


def test_what_comes_before_the_answer_of_the_sink_is_not_its_answer(
    start_service: StartService, sink: Sink, sql: Sql
) -> None:
    taken, refused = INFORMATIONAL + b"HTTP/1.1 202 \r\n\r\n", INFORMATIONAL + b"HTTP/1.1 500 \r\n\r\n"
    nothing, upgraded = INFORMATIONAL, b"HTTP/1.1 101 \r\n\r\nHTTP/1.1 202 \r\n\r\n"
    sink.answers = [taken, refused, nothing, upgraded]
    service = start_service(K_SINK=sink.url)
    sent = len(sink.answers)
    for _ in range(sent):
        service.sign_up()
    sink.wait_until_asked(sent + 3)  # all but the first are sent again
    wait_until_empty(service, sql)
    refusals = sorted(line["message"] for line in service.log(type="task") if "event_id" in line)
    assert [message.removeprefix("event not delivered: ") for message in refusals] == [
        "ValueError: the answer is not HTTP/1.1",
        "the sink answered 101",
        "the sink answered 500",
    ]


def test_an_event_waits_for_the_one_before_it_of_its_account_and_for_no_other(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    held_up = held_up_account(service, sink, sql)
    delete(service, held_up)
    other = service.sign_up()
    sink.wait_for(other.id, "registered")
    assert sink.events_of(held_up.id) == []
    sql(service, "UPDATE outbox SET attempt_at = 1")
    sink.wait_for(held_up.id, "registered", "deleted")


def test_a_sink_that_is_down_costs_no_registration_and_gets_its_events_later(
    start_service: StartService, backend: str, sink: Sink
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.stop()
    account = service.sign_up()
    assert "refused" in service.wait_for_log(type="task", severity="WARNING")["message"].lower()
    sink.start()
    sink.wait_for(account.id, "registered")


def test_a_sink_that_is_slow_holds_up_no_request_and_no_exit(start_service: StartService, sink: Sink) -> None:
    service = start_service(K_SINK=sink.url)
    sink.hold()
    service.sign_up()
    sink.wait_until_asked()
    service.sign_up()
    started = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait_for_exit() == 0
    assert time.monotonic() - started < 5


def test_a_sink_that_says_nothing_is_given_up_and_asked_again(start_service: StartService, sink: Sink) -> None:
    service = start_service(K_SINK=sink.url)
    sink.hold()
    account = service.sign_up()
    line = service.wait_for_log(type="task", event_id=account.id, within=CLAIM)
    assert line["message"] == "event not delivered: no answer in time"
    sink.release()
    sink.wait_for(account.id, "registered", "registered")


def test_so_many_events_and_no_more_are_sent_at_the_same_time(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.hold()
    accounts = [service.sign_up() for _ in range(BATCH + 1)]
    sink.wait_until_asked()
    kill_and_make_due(service, sql)
    asked = sink.asked
    restart(start_service, service)
    sink.wait_until_asked(asked + BATCH)
    time.sleep(0.3)  # in which one more would have come
    assert sink.asked == asked + BATCH
    sink.release()
    for account in accounts:
        sink.wait_until_taken(account.id)


def test_a_sink_over_tls_is_verified(start_service: StartService, tmp_path: Path) -> None:
    make_certificates(tmp_path, LOOPBACK_NAMES)
    with Sink(tmp_path / "server.pem", tmp_path / "server.key") as sink:
        distrustful = start_service(K_SINK=sink.url)
        account = distrustful.sign_up()
        line = distrustful.wait_for_log(type="task", severity="WARNING")
        assert "CERTIFICATE_VERIFY_FAILED" in line["message"]
        assert distrustful.stop() == 0
        restart(start_service, distrustful, SSL_CERT_FILE=tmp_path / "ca.pem")
        sink.wait_for(account.id, "registered")


# Crashes, and several instances


def kill_and_make_due(service: Service, sql: Sql) -> None:
    """As it would be when its claims have run out."""
    service.signal(signal.SIGKILL)
    service.wait_for_exit()
    sql(service, "UPDATE outbox SET attempt_at = 1")


def test_what_was_not_sent_before_a_crash_is_sent_after_it(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.stop()
    account = service.sign_up()
    kill_and_make_due(service, sql)
    sink.start()
    restart(start_service, service)
    sink.wait_for(account.id, "registered")


def test_what_a_crash_cut_off_half_way_is_sent_again(
    start_service: StartService, backend: str, sink: Sink, sql: Sql
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.hold()
    account = service.sign_up()
    sink.wait_until_asked()
    service.signal(signal.SIGKILL)
    service.wait_for_exit()
    sink.release()
    [row] = sql(service, "SELECT * FROM outbox")
    assert row["attempt_at"] > now_ms()  # its claim, which nobody may take before
    sql(service, "UPDATE outbox SET attempt_at = 1")
    restart(start_service, service)
    events = sink.wait_for(account.id, "registered", "registered")
    assert events[0] == events[1]


def test_what_an_instance_is_sending_when_it_stops_is_sent_by_another_at_once(
    start_service: StartService, backend: str, sink: Sink
) -> None:
    one = start_service(backend, K_SINK=sink.url)
    sink.hold()
    sending = one.sign_up()
    sink.wait_until_asked()
    restart(start_service, one)
    assert one.stop() == 0
    sink.wait_until_asked(2, within=CLAIM / 2)
    sink.release()
    sink.wait_for(sending.id, "registered", "registered")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_instance_that_stops_leaves_all_that_it_was_sending_due(
    start_service: StartService, backend: str, sink: Sink, sql: Sql, number: signal.Signals
) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.stop()
    accounts = [service.sign_up() for _ in range(3)]
    service.stop()
    sink.hold()
    sink.start()
    sql(service, "UPDATE outbox SET attempt_at = 1")
    again = restart(start_service, service)
    sink.wait_until_asked(3)
    again.signal(number)
    assert again.wait_for_exit() == 0
    due = sql(service, f"SELECT id FROM outbox WHERE attempt_at <= {now_ms()}")
    assert {row["id"] for row in due} == {account.id for account in accounts}


def test_a_stop_leaves_what_another_instance_has_claimed_meanwhile(
    start_service: StartService, sink: Sink, sql: Sql
) -> None:
    service = start_service(K_SINK=sink.url)
    sink.hold()
    service.sign_up()
    sink.wait_until_asked()
    until = now_ms() + 60_000
    sql(service, f"UPDATE outbox SET attempts = attempts + 1, attempt_at = {until}")
    assert service.stop() == 0
    assert [row["attempt_at"] for row in sql(service, "SELECT attempt_at FROM outbox")] == [until]


def test_several_instances_deliver_each_event_once_and_in_order(
    start_service: StartService, backend: str, sink: Sink
) -> None:
    one = start_service(backend, K_SINK=sink.url)
    two = restart(start_service, one)

    def come_and_go(number: int) -> str:
        account = (one, two)[number % 2].sign_up()
        delete((one, two)[number // 2 % 2], account)
        return account.id

    with ThreadPoolExecutor(4) as threads:
        accounts = list(threads.map(come_and_go, range(8)))
    for account_id in accounts:
        sink.wait_for(account_id, "registered", "deleted")
    assert sink.asked == 16


def test_an_id_is_above_another_whose_clock_was_ahead() -> None:
    ahead = f"{'f' * 8}{new_id()[8:]}"
    assert new_id(after=ahead) > ahead
    assert new_id(after=new_id()) != new_id()


# From a job


def test_a_job_delivers_what_is_left(start_service: StartService, backend: str, sink: Sink, sql: Sql) -> None:
    service = start_service(backend, K_SINK=sink.url)
    sink.stop()
    account = service.sign_up()
    kill_and_make_due(service, sql)
    assert run_app("run", DELIVER, env=service.env).returncode == os.EX_UNAVAILABLE
    sink.start()
    sql(service, "UPDATE outbox SET attempt_at = 1")
    done = run_app("run", DELIVER, env=service.env)
    assert (done.returncode, done.stderr) == (0, "")
    sink.wait_for(account.id, "registered")


def test_a_job_without_a_sink_has_nothing_to_do(tmp_path: Path) -> None:
    done = run_app("run", DELIVER, env={**TEST_SETTINGS, "DATA_DIR": str(tmp_path)})
    assert done.returncode == 0
    assert not [line for line in map(parse, done.stdout.splitlines()) if line["severity"] != "INFO"]


# The task


def test_a_background_task_that_crashes_is_logged_and_starts_again(caplog: pytest.LogCaptureFixture) -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("a defect")
        again.set()
        await asyncio.sleep(60)

    async def main() -> None:
        async with asyncio.timeout(10), background("some work", work):
            await again.wait()

    again = asyncio.Event()
    asyncio.run(main())
    [record] = caplog.records
    assert (record.name, record.levelname, starts) == ("service.task", "ERROR", 2)
    assert "a defect" in str(record.exc_info)


def test_a_background_task_ends_with_the_lifespan_even_when_it_does_not_want_to() -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def main() -> None:
        async with asyncio.timeout(10), background("some work", stubborn):
            await asyncio.sleep(0)

    asyncio.run(main())
