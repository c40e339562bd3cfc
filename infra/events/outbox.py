"""Domain events on their way out: written in the transaction that they tell of, then sent to K_SINK.

Any number of instances may deliver from one outbox. An attempt at an event claims it first, and a subject's next event
waits until the one before has left the table, so that each arrives at least once and a subject's in their order.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from infra.base.errors import Unavailable, describe
from infra.base.ids import new_id
from infra.base.times import now_ms
from infra.events.cloudevents import STRUCTURED, CloudEvent
from infra.events.sink import TIMEOUT, Sink
from infra.logs import get_logger, request_context
from infra.metrics.counters import Family
from infra.sql.database import Connection, Database
from settings import Settings

BATCH = 10  # events sent at the same time
POLL = 2  # seconds between looks for what other instances left behind
CLAIM = 2 * TIMEOUT  # seconds until an attempt that told nothing more counts as lost
LONGEST_PAUSE, LONGEST_RETRY = 30, 300  # seconds: of all deliveries while none succeeds, of one event

DUE = (
    "SELECT id, event, attempts FROM outbox o WHERE attempt_at <= :now AND NOT EXISTS"
    " (SELECT 1 FROM outbox earlier WHERE earlier.subject = o.subject AND earlier.id < o.id)"
    " ORDER BY attempt_at LIMIT :count"
)

log = get_logger("task")


class DueEvent(NamedTuple):
    id: str
    json: str
    attempts: int


class Outbox:
    """Without K_SINK nothing is written and nothing sent."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.extensions = settings.k_ce_overrides
        self.sink = Sink(settings) if settings.k_sink else None
        self.source = f"/{settings.name}"
        self.filled = asyncio.Event()  # set after a transaction that has added something
        self.delivered = self.failed = 0

    async def next_id(self, transaction: Connection, subject: str, after: str) -> str:
        """An id above `after` and those of the subject's events that are still here, wherever a clock was ahead.

        For a transaction that has locked something of the subject.
        """
        newest = "SELECT id FROM outbox WHERE subject = :subject ORDER BY id DESC LIMIT 1"
        row = await transaction.fetch_one(newest, {"subject": subject}) if self.sink else None
        return new_id(after=max(after, row[0]) if row else after)

    async def add(self, transaction: Connection, event_type: str, subject: str, event_id: str, data: object) -> None:
        """Writes what the transaction has done; `event_id` is above those of the subject's earlier events."""
        if not self.sink:
            return
        context = request_context.get()
        event = CloudEvent(
            specversion="1.0",
            id=event_id,
            source=self.source,
            type=event_type,
            subject=subject,
            time=datetime.now(UTC),
            datacontenttype="application/json",
            traceparent=context.traceparent if context else None,
            data=data,
        )
        await transaction.execute(
            "INSERT INTO outbox (id, subject, event, attempts, attempt_at) VALUES (:id, :subject, :event, 0, :now)",
            {"id": event_id, "subject": subject, "event": msgspec.json.encode(event).decode(), "now": now_ms()},
        )

    async def redact(self, transaction: Connection, subject: str, data: object) -> None:
        """Puts `data` in place of what the subject's events say that aren't sent yet. They still come first.

        A delivery that has read one and not claimed it yet reads it again, since an attempt more is counted.
        """
        rows = await transaction.fetch_all(
            "SELECT id, event FROM outbox WHERE subject = :subject", {"subject": subject}
        )
        for event_id, event in rows:
            redacted = msgspec.structs.replace(msgspec.json.decode(event, type=CloudEvent), data=data)
            await transaction.execute(
                "UPDATE outbox SET event = :event, attempts = attempts + 1 WHERE id = :id",
                {"id": event_id, "event": msgspec.json.encode(redacted).decode()},
            )

    def collect(self) -> Iterator[Family]:
        yield Family(
            "counter",
            "{service}_event_deliveries",
            "Attempts to send domain events to K_SINK",
            [({"outcome": "delivered"}, self.delivered), ({"outcome": "failed"}, self.failed)],
        )

    async def run(self) -> None:
        """Delivers until cancelled: at once what this instance adds, a little later what others left behind."""
        failures = 0
        self.filled.set()  # it may be: by an instance that crashed
        while True:
            if failures:
                await asyncio.sleep(backoff(failures, LONGEST_PAUSE))
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self.filled.wait()
            self.filled.clear()
            with suppress(Unavailable):
                failures = 0 if await self.deliver_due() else failures + 1

    async def deliver_due(self) -> bool:
        """Sends what is due, until nothing is left or all of a batch fails, and then returns False."""
        while self.sink and (due := await self.due()):
            async with asyncio.TaskGroup() as group:  # cancelled, it waits for each to give its claim back
                deliveries = [group.create_task(self.deliver(self.sink, event)) for event in due]
            if not any(delivery.result() for delivery in deliveries):
                return False
        return True

    async def due(self) -> list[DueEvent]:
        return await self.database.fetch_all(DUE, {"now": now_ms(), "count": BATCH}, into=DueEvent)

    async def deliver(self, sink: Sink, event: DueEvent) -> bool:
        """Whether the event has left the outbox, or another instance is at it."""
        event_id, attempts = event.id, event.attempts
        claim = {"id": event_id, "attempts": attempts, "until": now_ms() + CLAIM * 1000}
        try:
            claimed = await self.database.execute(
                "UPDATE outbox SET attempts = attempts + 1, attempt_at = :until"
                " WHERE id = :id AND attempts = :attempts",
                claim,
            )
            if not claimed:
                return True
            refusal = await self.send(sink, event.json)
            if refusal is None:
                await self.database.execute("DELETE FROM outbox WHERE id = :id", {"id": event_id})
                self.delivered += 1
                return True
            self.failed += 1
            await self.database.execute(
                "UPDATE outbox SET attempt_at = :later WHERE id = :id",
                {"id": event_id, "later": now_ms() + round(backoff(attempts + 1, LONGEST_RETRY) * 1000)},
            )
            log.warning("event not delivered: %s", refusal, extra={"event_id": event_id, "attempts": attempts + 1})
        except Unavailable:  # the claim runs out and whoever comes next tries again
            pass
        except asyncio.CancelledError:  # this instance stops: the next one must not have to wait for the claim's end
            with suppress(Unavailable):
                await self.give_back(claim)
            raise
        return False

    async def give_back(self, claim: dict[str, Any]) -> None:
        """Makes the event due, unless the attempt has ended meanwhile or another instance's has begun."""
        await self.database.execute(
            "UPDATE outbox SET attempt_at = :now WHERE id = :id AND attempts = :attempts + 1 AND attempt_at = :until",
            claim | {"now": now_ms()},
        )

    async def send(self, sink: Sink, text: str) -> str | None:
        """None, or why the sink has not taken it."""
        body = msgspec.json.encode(self.extensions | msgspec.json.decode(text))
        try:
            status = await sink.post(STRUCTURED, body)
        except (OSError, ValueError) as error:
            return describe(error)
        return None if 200 <= status < 300 else f"the sink answered {status}"


async def deliver_events(database: Database, settings: Settings) -> None:
    """Sends what is due in the outbox: where no instance has the CPU to do it in the background."""
    if not await Outbox(database, settings).deliver_due():
        raise Unavailable("the sink takes no events")


def backoff(failures: int, longest: float) -> float:
    """1, 2, 4... seconds, with jitter."""
    return min(2.0 ** min(failures - 1, 10), longest) * random.uniform(0.5, 1)  # noqa: S311 - jitter
