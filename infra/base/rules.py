"""What any service may ask of its variables. A rule yields each name that is wrong, and what was expected."""

from collections.abc import Iterator, Mapping

from infra.base.certificates import belong_together
from infra.base.kinds import RATE, RateLimit
from infra.base.networks import network_of
from infra.base.variables import Reading
from infra.base.weak_secrets import weakness

DAY = 86400  # seconds
LOOPBACK = {"localhost", "127.0.0.1", "::1"}  # this machine's own: a proxy beside it, a tunnel
WIDEST_NETWORK = 8  # bits of its prefix


def wrong_pair(reading: Reading, certificate: str, key: str) -> Iterator[tuple[str, str]]:
    """Of a certificate's file and its key's there are both or none, and they belong together."""
    for one, other in ((certificate, key), (key, certificate)):
        if reading.found(other) and not reading.found(one):
            yield one, f"{reading.variables[one].kind.expected}, since {other} is set"
    files = reading.values[certificate], reading.values[key]
    if all(files) and not belong_together(*files):
        yield key, f"the private key of {certificate}, as PEM without a passphrase"


def weak_secrets(reading: Reading) -> Iterator[tuple[str, str]]:
    """Of a variable that holds several, the first that is weak is enough."""
    for name, line in reading.variables.items():
        value = reading.values[name]
        if line.kind.type == "secret" and value:
            faults = (weakness(secret, line.kind) for secret in ((value,) if isinstance(value, str) else value))
            if fault := next(filter(None, faults), ""):
                yield name, fault


def odd_rates(reading: Reading) -> Iterator[str]:
    """A warning for each limit of attempts that hardly limits them, or whose time is hardly over again."""
    for name, line in reading.variables.items():
        if line.kind is RATE and reading.values[name] and not is_sensible(reading.values[name]):
            yield f"{name} is {reading.texts[name]}: expected at most one attempt a second, over a day at most"


def is_sensible(rate: RateLimit) -> bool:
    return rate.attempts <= rate.seconds <= DAY


def odd_lifetimes(reading: Reading, sensible: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """A warning for each number of seconds that isn't from the least to the most that is sensible."""
    for name, (least, most) in sensible.items():
        value = reading.values[name]
        if value is not None and not least <= value <= most:
            yield f"{name} is {value}: expected from {least} to {most} seconds"


def believes_anyone(proxies: str) -> bool:
    """Also by networks that are a half or a quarter of all addresses."""
    return proxies == "*" or any(network_of(part).prefixlen < WIDEST_NETWORK for part in proxies.split(",") if part)


def is_elsewhere(host: str | None) -> bool:
    return bool(host) and host not in LOOPBACK
