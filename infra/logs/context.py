"""What every line of a request says about it."""

from contextvars import ContextVar
from typing import NamedTuple

import msgspec


class User(NamedTuple):
    """Who asks: the name of the field that says so, and the id in it."""

    field: str
    id: str


class RequestContext(msgspec.Struct):
    trace_id: str
    span_id: str
    request_id: str
    sampled: bool
    user: User | None = None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def name_user(field: str, user_id: str) -> None:
    """Puts who asks on the request's log lines, in this field (in ECS as user.id)."""
    if context := request_context.get():
        context.user = User(field, user_id)
