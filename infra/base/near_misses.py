"""Names that look like one of ours with a slip of the finger in it."""

from collections.abc import Iterable, Iterator

LONG = 6  # letters: in a shorter name only swapped letters count, since PART, PORTS and POST are names of others


def near_misses(names: Iterable[str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each of the names that is one slip away from a known one, and which one; both without regard to case."""
    by_length: dict[int, list[str]] = {}
    for meant in known:
        by_length.setdefault(len(meant), []).append(meant)
    for name in names:
        folded = name.upper()
        for length in (len(name), len(name) - 1, len(name) + 1):
            meant = next((meant for meant in by_length.get(length, ()) if one_slip(folded, meant)), "")
            if meant:
                yield name, meant
                break


def one_slip(name: str, meant: str) -> bool:
    """Whether a letter is missing, too many or another one, or two neighbours are swapped; or nothing but the case."""
    if name[:1] != meant[:1] and name[-1:] != meant[-1:]:  # nearly all: one slip leaves one end as it is
        return False
    start = 0
    while start < min(len(name), len(meant)) and name[start] == meant[start]:
        start += 1
    rest, expected = name[start:], meant[start:]
    if rest[:2] == expected[1::-1] and rest[2:] == expected[2:]:  # swapped, or the same
        return True
    return len(meant) >= LONG and (rest[1:] == expected[1:] or rest[1:] == expected or rest == expected[1:])
