"""UUIDv7 (RFC 9562, section 5.7): ids made by the application, in the order of time; and what they are made of."""

import io
import os
import time
import uuid
from typing import Annotated

from msgspec import Meta

BLOCK = 4096  # bytes from the kernel at a time: to ask for each id's own costs more than all else of the id
VERSION_7 = 0x7 << 76 | 0b10 << 62  # and the variant
ID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)"

Id = Annotated[
    str,
    Meta(
        description="a UUIDv7",
        examples=["01a20cc4-61db-78ba-be5f-cae656cb245f"],
        extra_json_schema={"format": "uuid"},
    ),
]
GivenId = Annotated[Id, Meta(pattern=ID_PATTERN)]  # one that a client gives: checked, while our own are not


class RandomBytes:
    """What `os.urandom` gives, in advance: whoever has seen any number of ids can't tell the next one.

    Nothing is given twice, in no thread: each read moves on before another one can begin.
    """

    def __init__(self) -> None:
        self.block = io.BytesIO()

    def __call__(self, count: int) -> bytes:
        """`count` bytes, fewer than a block has."""
        found = self.block.read(count)
        while len(found) < count:
            self.block = block = io.BytesIO(os.urandom(BLOCK))
            found = block.read(count)
        return found


random_bytes = RandomBytes()


def new_id(after: str | None = None) -> str:
    """A UUIDv7 whose `rand_a` holds the fraction of the millisecond (method 3 of section 6.2).

    It is above the id `after` even where that one's clock was ahead.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | (nanoseconds * 4096 // 1_000_000) << 64 | VERSION_7
    value |= int.from_bytes(random_bytes(8)) >> 2
    if after:
        value = max(value, uuid.UUID(after).int + 1)
    text = value.to_bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
