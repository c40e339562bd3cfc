"""Where the service sends its events: an HTTP server of the tests' own that answers what it is told to."""

import json
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.support.servers import free_port

LONG = 60.0  # seconds: longer than a claim of a crashed instance and the pauses after failures together


@dataclass(frozen=True)
class Delivery:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    event: dict[str, Any]
    status: int


class Sink:
    """`with` starts it. It answers 202, but the first request for an event with what `answers` holds, if anything."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}/events"
        self.certificate, self.key = certificate, key
        self.answers: list[int | bytes] = []
        self.deliveries: list[Delivery] = []
        self.asked = 0
        self.known: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.changed = threading.Condition()

    def start(self) -> Self:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with suppress(OSError):
                    sink.take(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                pass

        class HttpServer(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a handshake that the client gave up
                pass

        self.server = HttpServer(("127.0.0.1", self.port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        with self.changed:
            self.asked += 1
            first = body["id"] not in self.known
            self.known.add(body["id"])
            answer = self.answers.pop(0) if first and self.answers else 202
            self.changed.notify_all()
        self.open.wait()
        status = answer if isinstance(answer, int) else 0
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self.changed:
            self.deliveries.append(Delivery(request.path, headers, body, status))
            self.changed.notify_all()
        if isinstance(answer, bytes):
            request.wfile.write(answer)
        else:
            request.send_response(answer)
            request.end_headers()

    def hold(self) -> None:
        """Takes requests and answers none until `release`."""
        self.open.clear()

    def release(self) -> None:
        self.open.set()

    def stop(self) -> None:
        """Refuses connections until `start`."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def events_of(self, account_id: str) -> list[dict[str, Any]]:
        """Those that were answered 202, in the order in which they were."""
        with self.changed:
            taken = [delivery.event for delivery in self.deliveries if delivery.status == 202]
        return [event for event in taken if event["subject"] == account_id]

    def wait_for(self, account_id: str, *types: str, within: float = LONG) -> list[dict[str, Any]]:
        """The account's events, when there are as many as these types."""
        self._wait_until(lambda: len(self.events_of(account_id)) >= len(types), within)
        events = self.events_of(account_id)
        assert [event["type"].removeprefix("dev.berth.account.") for event in events] == list(types)
        return events

    def wait_until_taken(self, account_id: str, within: float = LONG) -> None:
        """At least one event of the account's."""
        self._wait_until(lambda: bool(self.events_of(account_id)), within)

    def wait_until_asked(self, times: int = 1, within: float = LONG) -> None:
        self._wait_until(lambda: self.asked >= times, within)

    def _wait_until(self, happened: Any, within: float) -> None:
        deadline = time.monotonic() + within
        while not happened():
            left = deadline - time.monotonic()
            assert left > 0, f"the sink has {self.deliveries} after {within:g} s"
            with self.changed:
                self.changed.wait(min(left, 0.1))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.release()
        self.stop()
