"""The service less one feature of the hot path: what that feature costs. `without.py FEATURE` in place of app.py.

features.py tries each: it must answer as the whole does, and show that this feature and no other has gone.
"""

import inspect
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import app
from infra.base import time_limits
from infra.http import frame, limits
from infra.logs import RequestContext
from infra.metrics.counters import RequestMetrics


class NoLimit:
    expired = False

    def __enter__(self) -> "NoLimit":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class UncountedBody:
    declared = limit = held = 0
    complete = True
    awaited = ended_early = False

    def __init__(self, *_: Any) -> None:
        pass

    async def end(self) -> None:
        pass


def only_observe(self: Any, metrics: Any) -> None:
    route = getattr(self.scope.get("route"), "path", None)
    metrics.observe(self.scope["method"], route, self.scope["status"], time.perf_counter() - self.started)


def put(owner: Any, name: str, value: Any) -> None:
    """Fails when the name has gone: a feature that nothing removes would look free."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def leave_out(owner: Any, name: str, *marks: str) -> None:
    """The same function less its lines with these marks; what is left of it is as it is today."""
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    lines = textwrap.dedent(inspect.getsource(getattr(owner, name))).splitlines()
    for mark in marks:
        assert any(mark in line for line in lines), f"no line of {owner}.{name} has {mark} any more"
    kept = [line for line in lines if not any(mark in line for mark in marks)]
    made: dict[str, Any] = {}
    exec("\n".join(kept), vars(sys.modules[owner.__module__]), made)
    setattr(owner, name, made[name])


def without_access_log() -> None:
    put(frame.Exchange, "write_line", only_observe)


def without_trace_headers() -> None:
    context = RequestContext("", "", "", sampled=False)
    put(frame, "context_of", lambda headers: context)
    leave_out(frame.Exchange, "headers_of", "x-request-id", "traceparent")


def without_metrics() -> None:
    leave_out(frame.Frame, "__call__", "metrics.in_flight")
    put(RequestMetrics, "observe", lambda *_: None)


def without_time_outs() -> None:
    """The request's, a query's and a Redis command's; and a body's pace."""
    put(time_limits.TimeLimit, "__call__", lambda _: NoLimit())
    leave_out(limits.RequestBody, "next_part", "asyncio.timeout_at")


def without_body_limit() -> None:
    put(limits, "RequestBody", UncountedBody)


REMOVALS = {
    "access log": without_access_log,
    "trace headers": without_trace_headers,
    "metrics": without_metrics,
    "time-outs": without_time_outs,
    "body limit": without_body_limit,
}


def remove(feature: str) -> None:
    for name, removal in REMOVALS.items():
        if feature in (name, "all"):
            removal()


if __name__ == "__main__":
    remove(sys.argv[1])
    os._exit(app.main([]))
