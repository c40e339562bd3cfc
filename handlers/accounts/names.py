"""Usernames and email addresses: what may be one, how it is kept, and what is compared.

Rules count what is kept, in one form for what looks the same (NFKC, UAX #15), so that the same text has the same answer
whatever keyboard it came from. An internationalized domain is one with its punycode (RFC 3492); unlike in IDNA's
ToASCII (RFC 3490), which the standard library has, any label is read that a registry may have given out since.
"""

import re
import unicodedata
from collections.abc import Collection
from typing import Annotated

from msgspec import Meta

from infra.http.openapi import ASKED_FOR

USERNAME_EXPECTED = "3 to 64 of the characters A-Z a-z 0-9 . _ -"
EMAIL_EXPECTED = "an email address of at most 254 characters"
USERNAME_PATTERN = r"^[A-Za-z0-9._-]+$(?!\n)"  # without @: it can't be taken for an email
EMAIL_PATTERN = r"^[^@\s\x00-\x1f\x7f]{1,64}@[^@\s.\x00-\x1f\x7f]+(\.[^@\s.\x00-\x1f\x7f]+)+$(?!\n)"
USERNAME_LENGTHS = (3, 64)
EMAIL_LENGTHS = (3, 254)  # RFC 5321, section 4.5.3.1.3, less the angle brackets
SENT_MAX = 1024  # characters before they are in one form: at most four of them become one
EMAIL_KEY_MAX = 320  # characters, as the column is wide; case folding makes two or three of some

# What no font draws, beside the general categories below: Default_Ignorable_Code_Point, and letters that are blanks.
BLANK_LETTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc"
    "\U0001107f\U00016fe4\U0001d159\U000e0000-\U000e0fff]"
)
UNSEEN_CATEGORIES = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
FULL_STOPS = "\u3002"  # of RFC 3490, section 3.1; NFKC makes this one, or a plain one, of the others
PUNYCODE = "xn--"
LABEL_MAX = 63  # octets: RFC 1035, section 2.3.4
BLANKS = " \u1680"  # NFKC makes the first one of every other

Username = Annotated[
    str,
    Meta(
        max_length=SENT_MAX,
        pattern=r"^ *([A-Za-z0-9._-]|[^\x00-\x7f])+ *$(?!\n)",
        description=USERNAME_EXPECTED,
        examples=["ada"],
        extra_json_schema={ASKED_FOR: {"minLength": 3, "maxLength": 64, "pattern": USERNAME_PATTERN}},
    ),
]
Email = Annotated[
    str,
    Meta(
        max_length=SENT_MAX,
        pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)",
        description=EMAIL_EXPECTED,
        examples=["ada@example.com"],
        extra_json_schema={ASKED_FOR: {"format": "email", "maxLength": 254, "pattern": None}},
    ),
]


def clean_username(sent: str, reserved: Collection[str] = ()) -> str:
    """The username as it is kept. Raises ValueError, whose text says what is wrong with it."""
    name = one_form(sent)
    if not re.search(USERNAME_PATTERN, name) or not within(name, USERNAME_LENGTHS):
        raise ValueError(f"expected {USERNAME_EXPECTED}")
    if unique_key(name) in map(unique_key, reserved):
        raise ValueError("is reserved")
    return name


def clean_email(sent: str) -> str:
    """The address as it is kept. Raises ValueError, whose text says what is wrong with it."""
    email = one_form(sent)
    if not all_seen(email):
        raise ValueError("must not contain characters that can't be seen")
    local, at, domain = email.rpartition("@")
    email = local + at + with_full_stops(domain)
    if not re.search(EMAIL_PATTERN, email) or not within(email, EMAIL_LENGTHS):
        raise ValueError(f"expected {EMAIL_EXPECTED}")
    key = email_key(email)
    if f"@{PUNYCODE}" in key or f".{PUNYCODE}" in key:
        raise ValueError("expected a domain whose punycode can be read")
    if len(key) > EMAIL_KEY_MAX:
        raise ValueError("expected an address without ligatures and the like")
    return email


def one_form(sent: str) -> str:
    """Without blanks around it: another keyboard, or a paste, adds one that nobody sees."""
    return unicodedata.normalize("NFKC", sent).strip(BLANKS)


def all_seen(text: str) -> bool:
    seen = not any(unicodedata.category(char) in UNSEEN_CATEGORIES for char in text.replace(" ", ""))
    return seen and not BLANK_LETTERS.search(text)


def within(text: str, lengths: tuple[int, int]) -> bool:
    least, most = lengths
    return least <= len(text) <= most


def with_full_stops(domain: str) -> str:
    return domain.replace(FULL_STOPS, ".")


def unique_key(name: str) -> str:
    """What is compared when names are: without case and blanks around it, one form for what looks the same."""
    return one_form(one_form(name).casefold())


def email_key(email: str) -> str:
    """As `unique_key`, the domain in Unicode whichever way it is written."""
    local, at, domain = unique_key(email).rpartition("@")
    return local + at + ".".join(map(unicode_label, with_full_stops(domain).split(".")))


def unicode_label(label: str) -> str:
    """A label of a domain, decoded when it is punycode of a label that may be; else as it is."""
    if not label.startswith(PUNYCODE) or len(label) > LABEL_MAX:
        return label
    try:
        decoded = label.removeprefix(PUNYCODE).encode("ascii").decode("punycode")
    except UnicodeError:
        return label
    key = unique_key(decoded)
    may_be = all_seen(decoded) and not decoded.isascii() and not re.search(rf"[\s@.{FULL_STOPS}]|^{PUNYCODE}", key)
    return key if may_be else label


def login_key(login: str) -> tuple[str, str]:
    """The column, and the value in it, of whom this is a username or an address of."""
    key = unique_key(login)
    return ("email_key", email_key(login)) if "@" in key else ("username_key", key)
