"""What a request leaves behind: nothing that waits for the garbage collector, which looks only now and then."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import ROOT, clean_environment

ASK_OFTEN = """
import asyncio, gc, sys
import app, settings

async def main(method, path, body):
    service = app.create_app(settings.load())
    async with service.router.lifespan_context(service) as state:
        async def ask():
            async def receive():
                return {"type": "http.request", "body": body}
            async def send(message):
                pass
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": headers}
            await service(scope | {"query_string": b"", "root_path": "", "state": dict(state)}, receive, send)
        await ask()
        gc.disable()
        gc.collect()
        for _ in range(100):
            await ask()
        print(gc.collect())

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3].encode()))
"""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/health/live", ""), ("POST", "/v1/auth/refresh", '{"refresh_token": "x"}'), ("PUT", "/nowhere", "")],
)
def test_a_request_leaves_no_cycle_of_objects(method: str, path: str, body: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_OFTEN, method, path, body],
        cwd=ROOT,
        env=clean_environment({"DATA_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 100, "one object or more for each request"
