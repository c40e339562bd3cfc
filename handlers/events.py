"""Scheduled work: events from outside, each done once; `python app.py run TYPE` does the same from a job."""

from typing import Annotated

from msgspec import Meta

from infra.events.cloudevents import CloudEvent
from infra.events.tasks import run_once
from infra.http.operations import operation
from infra.http.problems import invalid
from infra.http.state import Request
from settings import EVENTS


class TaskEvent(CloudEvent, kw_only=True):
    """An event that asks for work; its data isn't read. In binary mode the attributes are in ce- headers."""

    type: Annotated[str, Meta(description="the work to do", examples=[f"{EVENTS}.events.deliver"])]


@operation(bearer="events_token")
async def receive_event(request: Request, event: TaskEvent) -> None:
    """Do the work that an event asks for, once.

    204: it is done, now or earlier. 5xx: it isn't, send the event again.
    """
    state = request.state
    task = state.tasks.get(event.type)
    if not task:
        raise invalid("type", f"expected one of {', '.join(state.tasks)}")
    await run_once(event, task, state.database, state.settings)
