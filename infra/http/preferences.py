"""What a client would like (RFC 7240): `Prefer: return=representation`, where the answer would be empty without."""

import re

REPRESENTATION = "return=representation"
LONGEST = 256  # characters that are looked at; nobody has to be given what they prefer


def prefers_representation(prefer: str | None) -> bool:
    """Of a preference that stands there twice the first one counts (section 2)."""
    unquoted = re.sub(r'"([^",;\\]*)"|"(?:[^"\\]|\\.)*"', r"\1", (prefer or "")[:LONGEST])
    for preference in unquoted.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "return":
            return value.strip().lower() == "representation"
    return False
