"""The access log of the lean peers, as pure ASGI."""

import time

from parts import log_request


class AccessLog:
    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_and_note(message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self.app(scope, receive, send_and_note)
        agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
        log_request(scope["method"], scope["path"], status, started, client=scope["client"][0], user_agent=agent)
