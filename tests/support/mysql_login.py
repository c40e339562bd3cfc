"""As much of MySQL 8.4 as a login needs: the handshake, and caching_sha2_password, which MariaDB doesn't have.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html
"""

import hashlib
import socketserver
import ssl
import threading
from pathlib import Path
from typing import Self

from pymysql.constants import CLIENT

from tests.support.servers import LOOPBACK_NAMES, make_certificates

NONCE = b"twenty bytes of noise"[:20]
PLUGIN = b"caching_sha2_password"
FAST_AUTH_OK, FULL_AUTH, PUBLIC_KEY_PLEASE = b"\x01\x03", b"\x01\x04", b"\x02"
OK, EOF = b"\0\0\0\2\0\0\0", b"\xfe\0\0\2\0"
NOT_OFFERED = CLIENT.SSL | CLIENT.COMPRESS | CLIENT.CONNECT_ATTRS


class Login(socketserver.StreamRequestHandler):
    """One connection: greets, authenticates, then has an answer for the one query with rows that opening asks."""

    server: "LoginServer"
    rbufsize = 0  # what follows a request for TLS is TLS's
    sequence = 0

    def handle(self) -> None:
        flags = CLIENT.CAPABILITIES & ~NOT_OFFERED | CLIENT.PLUGIN_AUTH | (CLIENT.SSL if self.server.tls else 0)
        low, high = flags.to_bytes(4, "little")[:2], flags.to_bytes(4, "little")[2:]
        self.send(
            b"\x0a8.4.0\0\1\0\0\0%b\0%b\xff\2\0%b\x15%b%b\0%b\0" % (NONCE[:8], low, high, bytes(10), NONCE[8:], PLUGIN)
        )
        response = self.read()
        if len(response) == 32:  # asks for TLS
            self.start_tls()
            response = self.read()
        if self.authenticated(response):
            self.send(OK)
            while command := self.read():
                self.answer(command)

    def authenticated(self, response: bytes) -> bool:
        if self.server.remembers:
            right = scramble(self.server.password) in response
            self.send(FAST_AUTH_OK if right else b"\xff\x15\x04#28000Access denied")
            return right
        self.send(FULL_AUTH)
        answer = self.read()
        if answer == PUBLIC_KEY_PLEASE:
            self.send(b"\x01-----BEGIN PUBLIC KEY-----")
            answer = self.read()
        self.server.received.append(answer)
        return answer == self.server.password + b"\0"

    def start_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.folder / "server.pem", self.server.folder / "server.key")
        self.request = context.wrap_socket(self.request, server_side=True)
        self.setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def answer(self, command: bytes) -> None:
        self.sequence = 1
        if b"@@max_connections" not in command:
            self.send(OK)
            return
        column = b"\3def\0\0\0\1x\0\x0c\xff\0\xff\0\0\0\xfd\0\0\0\0\0"
        for packet in (b"\2", column, column.replace(b"\xfd", b"\x08"), EOF, b"\0058.4.0\003151", EOF):
            self.send(packet)

    def send(self, payload: bytes) -> None:
        self.wfile.write(len(payload).to_bytes(3, "little") + bytes([self.sequence]) + payload)
        self.sequence += 1

    def read(self) -> bytes:
        head = self.rfile.read(4)
        if len(head) < 4:
            return b""
        self.sequence = head[3] + 1
        return self.rfile.read(int.from_bytes(head[:3], "little"))


class LoginServer(socketserver.ThreadingTCPServer):
    """`remembers`: it has seen the account's password since it started, which makes the fast exchange possible."""

    daemon_threads = True

    def __init__(self, folder: Path, password: str, *, tls: bool = False, remembers: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Login)
        self.folder, self.password, self.tls, self.remembers = folder, password.encode(), tls, remembers
        self.received: list[bytes] = []  # what clients sent as the password
        if tls:
            make_certificates(folder, LOOPBACK_NAMES)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def environment(self) -> dict[str, str]:
        host, port = self.server_address[:2]
        return {"MYSQL_HOST": str(host), "MYSQL_PORT": str(port), "MYSQL_PASSWORD": self.password.decode()}

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def __enter__(self) -> Self:
        return self


def scramble(password: bytes) -> bytes:
    """What proves the password without telling it."""
    once = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(once).digest() + NONCE).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))
