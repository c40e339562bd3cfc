"""MySQL's answers as they arrive, mostly all at once: nothing is waited for but the first packet.

aiomysql awaits two coroutines for each packet, and parses the same columns anew for each answer. What is read here is
what asyncio has buffered, some 128 KiB at most; payloads of 16 MiB, which go on in another packet, never are.
https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
"""

from collections.abc import Mapping
from typing import Any

import aiomysql
from aiomysql.connection import MySQLResult
from pymysql.connections import MysqlPacket
from pymysql.constants import COMMAND

HEADER_BYTES = 4  # three of the payload's length, one of the sequence number
ERROR, EOF = 0xFF, 0xFE  # the first byte of a packet that is no row
NULL = 0xFB  # in place of a value's length
LENGTH_BYTES = {0xFC: 2, 0xFD: 3, 0xFE: 8}  # page_protocol_basic_dt_integers.html


class Connection(aiomysql.Connection):  # type: ignore[misc] # without types
    """aiomysql's, from its first statement on: aiomysql's pool makes its own, with no way to name others."""

    known_columns: dict[int, list[tuple[bytes, Any]]]  # packets and what was made of them, by the packets' number
    _next_seq_id: int

    async def _read_packet(self, packet_type: Any = MysqlPacket) -> Any:
        buffer = received(self)
        end = end_of_packet(buffer, 0)
        if end <= HEADER_BYTES or buffer[3] != self._next_seq_id or buffer[HEADER_BYTES] == ERROR:
            return await super()._read_packet(packet_type)
        payload = bytes(buffer[HEADER_BYTES:end])
        self.skip(end, packets=1)
        return packet_type(payload, self._encoding)

    def skip(self, length: int, *, packets: int) -> None:
        self._next_seq_id = (self._next_seq_id + packets) % 256
        del received(self)[:length]
        self._reader._maybe_resume_transport()  # noqa: SLF001


class Answer(MySQLResult):  # type: ignore[misc] # without types
    async def _get_descriptions(self) -> None:
        connection, buffer = self.connection, received(self.connection)
        count = self.field_count + 1  # an EOF packet ends them
        known = connection.known_columns.setdefault(count, [])
        for packets, converters in known:
            if buffer.startswith(packets):
                self.converters = converters
                connection.skip(len(packets), packets=count)
                return
        packets = first_packets(buffer, count)
        await super()._get_descriptions()
        if packets:
            known.append((packets, self.converters))

    async def _read_rowdata_packet(self) -> None:
        rows: list[tuple[Any, ...]] = []
        while True:
            self.read_received_rows(rows)
            packet = await self.connection._read_packet()  # noqa: SLF001 - all but a row that has come whole
            if self._check_packet_is_eof(packet):
                break
            rows.append(self.row(packet.get_all_data()))
        self.affected_rows, self.rows = len(rows), rows

    def read_received_rows(self, rows: list[tuple[Any, ...]]) -> None:
        connection, buffer = self.connection, received(self.connection)
        start = count = 0
        while True:
            end = end_of_packet(buffer, start)
            row = start + HEADER_BYTES
            sequence_id = (connection._next_seq_id + count) % 256  # noqa: SLF001
            if end <= row or buffer[start + 3] != sequence_id or buffer[row] in (ERROR, EOF):
                break
            rows.append(self.row(bytes(buffer[row:end])))
            start, count = end, count + 1
        if count:
            connection.skip(start, packets=count)

    def row(self, data: bytes) -> tuple[Any, ...]:
        start = 0
        row: list[Any] = []
        for encoding, converter in self.converters:
            length = data[start]
            start += 1
            if length == NULL:
                row.append(None)
                continue
            if length > NULL:  # so many bytes more hold the length
                size = LENGTH_BYTES[length]
                length = int.from_bytes(data[start : start + size], "little")
                start += size
            value: Any = data[start : start + length]
            start += length
            if encoding:
                value = value.decode(encoding)
            row.append(converter(value) if converter else value)
        return tuple(row)


async def run(raw: Any, sql: str, values: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], int]:
    """The rows, and how many these are or were matched: what aiomysql's cursor makes of `sql` and `values`."""
    if raw.__class__ is not Connection:
        raw.__class__, raw.known_columns = Connection, {}
    text = sql % {name: raw.escape(value) for name, value in values.items()}
    await raw._execute_command(COMMAND.COM_QUERY, text.encode(raw.encoding))  # noqa: SLF001
    answer = Answer(raw)
    await answer.read()
    if answer.server_status is not None:  # of an answer without rows
        raw.server_status = answer.server_status
    return answer.rows or [], answer.affected_rows


def received(connection: aiomysql.Connection) -> bytearray:
    """What has come and isn't read yet."""
    buffer: bytearray = connection._reader._buffer  # noqa: SLF001 - asyncio's StreamReader has no other way to it
    return buffer


def end_of_packet(buffer: bytearray, start: int) -> int:
    """Where the packet ends that begins at `start`; 0 while it hasn't come whole."""
    end = start + HEADER_BYTES + int.from_bytes(buffer[start : start + 3], "little")
    return end if end <= len(buffer) else 0


def first_packets(buffer: bytearray, count: int) -> bytes:
    """Nothing while they haven't all come."""
    end = 0
    for _ in range(count):
        end = end_of_packet(buffer, end)
        if not end:
            return b""
    return bytes(buffer[:end])
