"""Bodies of requests that ask for another protocol, which is declined: the parser stops where theirs begin."""

from collections.abc import Callable, Iterable

import httptools


class BodyCallbacks:
    """What a parser needs that reads one body and nothing else."""

    def __init__(self, on_body: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self.on_body = on_body
        self.on_message_complete = on_end


def parser_of_body(
    headers: Iterable[tuple[bytes, bytes]], on_body: Callable[[bytes], None], on_end: Callable[[], None]
) -> httptools.HttpRequestParser:
    """For the body after the headers: calls back with each of its parts, and at its end."""
    parser = httptools.HttpRequestParser(BodyCallbacks(on_body, on_end))
    lines = b"".join(b"%s: %s\r\n" % header for header in framing(headers))
    parser.feed_data(b"POST / HTTP/1.1\r\n" + lines + b"\r\n")
    return parser


def framing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that say how long a body is, if there is one."""
    return [
        (name, value)
        for name, value in headers
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
    ]
