"""Peer (e), the floor: a bare ASGI function on the same uvicorn, without log, routing or parts."""

BODY = b'{"status":"ok","checks":{}}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope, receive, send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
