"""Load from wrk, a process of its own: a closed loop, whose percentiles leave out what a stalled server kept from
being sent (coordinated omission), for each subject alike."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import PASSWORD, World
from benchmarks.subjects import Service

SCRIPT = Path(__file__).with_name("wrk.lua")


class Load(NamedTuple):
    requests: int
    seconds: float
    refused: int  # answers of 400 and above
    broken: int
    p50: float  # milliseconds
    p99: float
    p999: float
    max: float
    cpu: float  # microseconds of the service's CPU for each request
    pss: float  # MiB, when it had settled

    @property
    def rate(self) -> float:
        return (self.requests - self.refused) / self.seconds


def run(world: World, service: Service, route: str, connections: int, seconds: int) -> Load:
    """`route`: health, me, sessions, refresh or login. Login queues its hashes: few connections, or it takes long."""
    tokens = world.folder / f"{service.subject.name}.{route}"
    tokens.write_text("\n".join(items(world, route, connections)) + "\n")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    before = service.cpu()
    done = subprocess.run([*command, service.url, "--", route, str(tokens)], capture_output=True, text=True, check=True)
    service.settle()
    figures = json.loads(done.stdout.splitlines()[-1])
    return Load(**figures, cpu=(service.cpu() - before) * 1e6 / max(1, figures["requests"]), pss=service.pss())


def items(world: World, route: str, connections: int) -> list[str]:
    if route == "login":
        return [json.dumps({"login": login.username, "password": PASSWORD}) for login in world.logins[:100]]
    if route == "refresh":  # wrk spends a few before it starts
        fresh = world.log_in([(login.account_id, login.username) for login in world.logins[: connections + 16]])
        return [login.refresh_token for login in fresh]
    return [login.access_token for login in world.logins]


def warm_up(world: World, service: Service, routes: Sequence[str] = ("health", "me", "sessions", "refresh")) -> None:
    for route in routes:
        run(world, service, route, 32, 1)
