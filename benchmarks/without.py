"""The service less one feature of the hot path: what that feature costs. `without.py FEATURE` in place of app.py."""

import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import app
from infra import request_limits, requests


class NoTimeout(AbstractAsyncContextManager["NoTimeout"]):
    def __init__(self, seconds: float) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


async def pass_on(self: Any, message: Any) -> None:
    self.status = message.get("status", getattr(self, "status", 0))
    await self._send(message)


def remove(feature: str) -> None:
    if feature in ("access log", "all"):
        requests.Exchange.write_line = lambda self: None  # type: ignore[method-assign]
    if feature in ("trace context and headers", "all"):
        context = requests.RequestContext("", "", "", sampled=False)
        requests.context_of = lambda headers: context
        requests.Exchange.send = pass_on  # type: ignore[method-assign]
    if feature in ("time-out", "all"):
        request_limits.asyncio = SimpleNamespace(timeout=NoTimeout)  # type: ignore[assignment]
    if feature in ("body and load limits", "all"):
        request_limits.RequestLimits.__call__ = lambda self, *args: self.app(*args)  # type: ignore[method-assign]


if __name__ == "__main__":
    remove(sys.argv[1])
    os._exit(app.main([]))
