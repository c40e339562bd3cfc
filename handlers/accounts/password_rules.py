"""Which passwords there may be: long enough, not one that everybody tries first, not made of what anybody knows.

NIST SP 800-63B-4, section 3.1.1.2, and OWASP ASVS 5.0, 6.2.4 and 6.2.11.
"""

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from handlers.accounts.names import SENT_MAX
from infra.http.openapi import ASKED_FOR

PASSWORD_LENGTHS = (8, 256)
GZIP = 31  # zlib's word for gzip with the largest window
# In lower case, a line each: the 10,000 commonest of at least 8 characters and more; where from: common_passwords.md.
COMMON = Path(__file__).with_name("common_passwords.txt.gz")
SEPARATORS = (r"\Z", "@", r"[@.]", r"[\W_]", r"[\W\d_]")  # a name as a whole, an address's sides, labels, words
SHORTEST_NAME = 3  # letters and digits: a shorter one is part of any word

NewPassword = Annotated[
    str,
    Meta(
        max_length=SENT_MAX,
        description="8 to 256 characters",
        examples=["correct horse"],
        extra_json_schema={ASKED_FOR: {"minLength": 8, "maxLength": 256}},
    ),
]
Password = Annotated[
    str,
    Meta(
        max_length=SENT_MAX,
        description="at most 256 characters",
        examples=["correct horse"],
        extra_json_schema={ASKED_FOR: {"maxLength": 256}},
    ),
]


def normalized(password: str) -> str:
    """What is hashed: NFKC, since the same password may arrive in other code points (NIST SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def folded(text: str) -> str:
    """What is compared: without case, too."""
    return normalized(normalized(text).casefold())


def check_new_password(password: str, names: Iterable[str]) -> str:
    """The password. Raises ValueError, whose text says why it may not be one; `names` are what anybody knows."""
    least, most = PASSWORD_LENGTHS
    if not least <= len(normalized(password)) <= most:
        raise ValueError(f"expected {least} to {most} characters")
    text = folded(password)
    if is_common(text):
        raise ValueError("is one of the commonest passwords")
    if is_made_of(text, names):
        raise ValueError("is made of the account's or the service's name")
    return password


def is_common(password: str) -> bool:
    seen = any(char.isprintable() and not char.isspace() for char in password)
    return not seen or f"\n{password.strip()}\n".encode() in common_passwords()


@functools.cache
def common_passwords() -> bytes:
    """Kept as the text it is, a tenth of what a set of them takes; to search it takes less than a hash does."""
    return zlib.decompress(COMMON.read_bytes(), GZIP)


def is_made_of(password: str, names: Iterable[str]) -> bool:
    """Whether it is nothing but names and their parts, once or more, with digits and signs around and between them."""
    left = letters_and_digits(password)
    for part in sorted(set(parts_of(names)), key=len, reverse=True):
        left = left.replace(part, " ")
    return " " in left and not any(char.isalpha() for char in left)


def parts_of(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        parts = (part for signs in SEPARATORS for part in re.split(signs, folded(name)))
        for part in map(letters_and_digits, parts):
            if len(part) >= SHORTEST_NAME:
                yield part
                yield part[::-1]


def letters_and_digits(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)
