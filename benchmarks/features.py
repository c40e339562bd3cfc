"""What each feature of the hot path costs, by switching it off: instructions, CPU and rates of the whole beside those
of the service less this feature. `python -m benchmarks.features` only tries that each can be switched off.
"""

import http.client
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import instructions, load
from benchmarks.data import World
from benchmarks.subjects import BERTH, Service, Subject

# As without.py knows them; it can't be imported here, for that imports the app.
FEATURES = ("access log", "trace headers", "metrics", "time-outs", "body limit")
WHOLE = "everything on"
VARIANTS = (WHOLE, *FEATURES, "all")
PATHS = {name: instructions.PATHS[name] for name in ("health", "me from Redis")}
ROUTES = ("health", "me")

Costs = dict[str, dict[str, int]]
Loads = dict[str, dict[str, list[dict[str, float]]]]


def subject(variant: str) -> Subject:
    if variant == WHOLE:
        return BERTH
    return BERTH._replace(name=variant, title=variant, script="benchmarks/without.py", arguments=(variant,))


def check(world: World) -> None:
    for variant in VARIANTS:
        check_one(variant, world.env(redis=True), world.logins[0].access_token)


def check_one(variant: str, env: dict[str, str], access_token: str = "") -> None:
    """That this feature has gone and no other; that health, and `me` with the token, answer 200 without it."""
    gone = set(FEATURES) if variant == "all" else {variant}
    wanted, found = set(FEATURES) - gone, shown(variant, env, access_token)
    assert found == wanted, f"{variant}: shows {sorted(found)}, not {sorted(wanted)}; see benchmarks/without.py"


def shown(variant: str, env: dict[str, str], access_token: str) -> set[str]:
    """The features that can be seen from outside."""
    with tempfile.NamedTemporaryFile() as log:
        limits = {"REQUEST_TIMEOUT": "1", "MAX_BODY_BYTES": "1000"}
        with Service(subject(variant), env | limits, log=log.name) as service:
            service.first_answer("/health/live")
            if access_token:
                service.first_answer("/v1/auth/me", access_token)
            seen = {
                "trace headers": "traceparent" in answer(service, "GET", "/health/live")[1],
                "metrics": 'http_route="/health/live"' in scrape(service),
                "body limit": answer(service, "POST", "/v1/auth/login", b"x" * 2000)[0] == 413,
                "time-outs": answer(service, "POST", "/v1/auth/login", b"x", declared=900)[0] in {408, 504},
            }
        lines = Path(log.name).read_text()
    assert '"severity":"ERROR"' not in lines, f"{variant}: {lines[:2000]}"
    seen["access log"] = '"type":"access"' in lines
    return {name for name, present in seen.items() if present}


def answer(
    service: Service, method: str, path: str, body: bytes = b"", declared: int | None = None
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body; status 0 when there is no answer within three seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=3)
    length = len(body) if declared is None else declared
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", "Content-Length": str(length)})
        found = connection.getresponse()
        return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read().decode()
    except TimeoutError:
        return 0, {}, ""
    finally:
        connection.close()


def scrape(service: Service) -> str:
    return answer(service, "GET", "/metrics")[2]


def measure_instructions(world: World) -> Costs:
    return {
        variant: instructions.count(world, redis=True, paths=PATHS, subject=subject(variant)) for variant in VARIANTS
    }


def measure_loads(world: World, rounds: int, seconds: int) -> Loads:
    """At 32 connections, all variants of a route one after the other in each round.

    Each round starts them anew: where code and data come to lie makes a process up to a tenth slower than its like.
    """
    loads: Loads = {route: {variant: [] for variant in VARIANTS} for route in ROUTES}
    for number in range(rounds):
        with ExitStack() as running:
            services = {
                variant: running.enter_context(Service(subject(variant), world.env(redis=True))) for variant in VARIANTS
            }
            for service in services.values():
                service.first_answer("/health/live")
                load.warm_up(world, service, ROUTES)
            for route in ROUTES:
                # the other way round every second time, lest what comes before or after another always does
                for variant in VARIANTS if number % 2 == 0 else reversed(VARIANTS):
                    found = load.run(world, services[variant], route, 32, seconds)
                    loads[route][variant].append({"rate": found.rate, "cpu": found.cpu})
    return loads


if __name__ == "__main__":
    with World() as world:
        check(world)
    print("each can be switched off")
