"""Scheduled work: events from outside, each done once; `python app.py run TYPE` does the same from a job."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from infra.events.cloudevents import CloudEvent
from infra.events.tasks import Task, run_once
from infra.http.operations import Declaration, operation
from infra.http.problems import invalid
from infra.http.state import Request


def receiver_of(tasks: Mapping[str, Task]) -> Declaration:
    """The handler of events that ask for one of the `tasks`."""

    class TaskEvent(CloudEvent, kw_only=True):
        """An event that asks for work; its data isn't read. In binary mode the attributes are in ce- headers."""

        type: Annotated[str, Meta(extra_json_schema={"enum": list(tasks)})]

    @operation(bearer="events_token")
    async def receive_event(request: Request, event: TaskEvent) -> None:
        """Do the work that an event asks for, once.

        204: it is done, now or earlier. 5xx: it isn't, send the event again.
        """
        if event.type not in tasks:
            raise invalid("type", f"expected one of {', '.join(tasks)}")
        await run_once(event, tasks[event.type], request.state.database, request.state.settings)

    return receive_event
