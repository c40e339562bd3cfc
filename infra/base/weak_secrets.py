"""Secrets that anybody could guess: published with the source, short, or with little in them."""

import re
from itertools import pairwise

from infra.base.kinds import KEY, KEYS, TOKEN, Kind
from infra.base.published_secrets import BEGINNINGS, PUBLISHED

LONG = 16  # characters; a published secret that is so long isn't part of another one by chance
# How much `content` tells apart what was made by chance: 32 hexadecimal digits have 14 once in 20,000 times.
KEY_CONTENT, TOKEN_CONTENT = 14, 6
KEYBOARD = {ord(char): place for place, char in enumerate("1234567890qwertyuiopasdfghjklzxcvbnm")}
# What every guide has in its place, and what is tried first.
EXAMPLES = re.compile("change-?_?(me|this)|your-(256-bit-)?secret|django-insecure|password\\d")
FIRST_TRIED = frozenset({"admin", "changeme", "password", "passwd", "root", "123456", "12345678", "123456789"})


def weakness(secret: str, kind: Kind) -> str:
    """What is expected in its place; nothing when it is good enough."""
    if is_published(secret):
        return "one that is not published with the source"
    if EXAMPLES.search(secret.casefold()) or secret.casefold() in FIRST_TRIED:
        return "one that nobody guesses, as openssl rand -hex 32 makes"
    if kind in (KEY, KEYS) and (content(secret) < KEY_CONTENT or is_phrase(secret)):
        return "at least 32 bytes made by chance, as openssl rand -hex 32 does"
    if kind is TOKEN and (len(secret) < LONG or content(secret) < TOKEN_CONTENT):
        return f"at least {LONG} characters made by chance, as openssl rand -hex 32 does"
    return ""


def is_published(secret: str) -> bool:
    folded = secret.strip().casefold()
    return folded.startswith(BEGINNINGS) or any(
        known == folded or (len(known) >= LONG and known in folded) for known in PUBLISHED
    )


def is_phrase(secret: str) -> bool:
    """Words, most likely: of 32 letters of base64 made by chance, one in a billion has no capital and no digit."""
    return secret in (secret.lower(), secret.upper()) and not any(char.isdigit() for char in secret)


def content(secret: str) -> int:
    """How many of its bytes can't be foreseen from those before them, be it all or every second one that is read."""
    text = secret.lower().encode()
    return min(unforeseen(text), unforeseen(text[::2]) + unforeseen(text[1::2]))


def unforeseen(text: bytes) -> int:
    """Those that neither repeat the one before, nor continue it in the alphabet or on the keyboard, nor a pair."""
    seen: set[tuple[int, int]] = set()
    count = 1
    for pair in pairwise(text):
        count += pair not in seen and not follows(*pair)
        seen.add(pair)
    return count


def follows(one: int, next_one: int) -> bool:
    places = KEYBOARD.get(one, -9), KEYBOARD.get(next_one, 99)
    return abs(next_one - one) <= 1 or abs(places[1] - places[0]) <= 1
