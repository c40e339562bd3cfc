"""Who asks and how, when a proxy of FORWARDED_ALLOW_IPS says it. Middleware in pure ASGI."""

import functools
from collections.abc import Awaitable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from infra.http.clients import TrustedProxies, address_of, peer_address
from infra.http.fields import members


class ForwardedHeaders:
    """Takes client and scheme from X-Forwarded-For and X-Forwarded-Proto, when a trusted proxy sends them.

    The client is the nearest that isn't a trusted proxy. What isn't an address names nobody: whoever sent it counts.
    """

    def __init__(self, app: ASGIApp, proxies: str) -> None:
        self.app = app
        self.proxies = TrustedProxies(proxies)
        self.look_up = functools.lru_cache(maxsize=1024)(self.find)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            peer, port = scope.get("client") or (None, 0)
            address, trusted = self.look_up(peer)
            if address != peer:
                scope["client"] = (address, port)
            if trusted:
                self.read(scope)
        return self.app(scope, receive, send)

    def find(self, peer: str | None) -> tuple[str | None, bool]:
        """The peer's address, and whether it is a proxy's that is trusted. The socket of a file system has none."""
        address = peer_address(peer) if peer else None
        return address or peer, address in self.proxies

    def read(self, scope: Scope) -> None:
        hops, protocols = [], []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops.append(value.decode("latin-1"))
            elif name == b"x-forwarded-proto":
                protocols.append(value.decode("latin-1"))
        if protocols and (said := [one.lower() for one in members(protocols)]) and said[0] in {"http", "https"}:
            scope["scheme"] = said[0]
        if hops and (client := self.client_of(members(hops))):
            scope["client"] = (client, 0)

    def client_of(self, hops: Sequence[str]) -> str | None:
        """Each proxy has added whom it heard from at the end."""
        client = None
        for hop in reversed(hops):
            address = address_of(hop)
            if address is None:
                break
            client = address
            if address not in self.proxies:
                break
        return client
