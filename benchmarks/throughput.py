"""Requests per second and latency of every subject on every route, interleaved: round by round, subject by subject."""

from contextlib import ExitStack

from benchmarks import load
from benchmarks.data import World
from benchmarks.subjects import ALL, BARE, BERTH, Service

CONNECTIONS = {
    "health": (1, 32, 256, 1000),
    "me": (1, 32, 256, 1000),
    "me-mysql": (1, 32, 256, 1000),
    "sessions": (1, 32, 256, 1000),
    "refresh": (1, 32, 256, 1000),
    "login": (1, 8),  # a queue of hashes: more connections only wait longer
}

Cell = tuple[str, int, str]  # route, connections, subject


def measure(world: World, rounds: int, seconds: int) -> dict[Cell, list[load.Load]]:
    loads: dict[Cell, list[load.Load]] = {}
    with ExitStack() as running:
        services = {}
        for subject in ALL:
            for redis in (True, False):
                service = running.enter_context(Service(subject, world.env(redis=redis)))
                service.first_answer("/health/live")
                services[subject.name, redis] = service
        for service in services.values():
            if service.subject != BARE:
                load.warm_up(world, service)
        cells = [(route, connections) for route, counts in CONNECTIONS.items() for connections in counts]
        for _ in range(rounds):
            for route, connections in cells:
                for subject in ALL if route == "health" else [other for other in ALL if other != BARE]:
                    service = services[subject.name, route != "me-mysql"]
                    found = load.run(world, service, route.removesuffix("-mysql"), connections, seconds)
                    loads.setdefault((route, connections, subject.name), []).append(found)
        return loads


def memory_slope(world: World, requests: int, seconds: int) -> list[tuple[int, float]]:
    """Berth's anonymous memory in MiB after so many requests, health and `me` in turn, until there were enough."""
    with Service(BERTH, world.env(redis=True)) as service:
        service.first_answer("/health/live")
        load.warm_up(world, service)
        done, points = 0, [(0, service.pss("Pss_Anon"))]
        while done < requests:
            for route in ("health", "me"):
                done += load.run(world, service, route, 32, seconds).requests
            points.append((done, service.pss("Pss_Anon")))
        return points
