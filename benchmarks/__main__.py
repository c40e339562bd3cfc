"""`make bench`: measures everything, keeps the figures in results.json, writes docs/performance.md and its plots.

`--quick` tries it all out in a few minutes, `--only start,load` measures a part anew, `--report` only writes. More
rounds and seconds make steadier figures.
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cold_start, features, growth, interpreters, load, report, throughput
from benchmarks.data import World
from benchmarks.subjects import BERTH, BERTH_PYTHON, PEER_APPS, ROOT, Service, versions

RESULTS = Path(__file__).with_name("results.json")
STAGES = ("start", "load", "drivers", "slope", "growth", "features", "interpreters")
PACKAGES = "sqlalchemy aiomysql loguru PyJWT uvicorn uvloop httptools"
Options = argparse.Namespace
FRAMEWORKS = {"full": "fastapi pydantic redis", "lean": "fastapi", "litestar": "litestar", "blacksheep": "blacksheep"}


def measure_start(world: World, options: Options) -> Any:
    return cold_start.measure(world, options.rounds * 3)


def measure_load(world: World, options: Options) -> Any:
    loads = throughput.measure(world, options.rounds, options.seconds)
    return [{"cell": cell, "loads": [load._asdict() for load in found]} for cell, found in loads.items()]


def measure_drivers(world: World, options: Options) -> Any:
    """Answers a second of each driver alone and of Berth's `me`, in turn."""
    env = {**world.env(redis=True), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    token = world.keys.verify(world.logins[0].access_token)
    assert token
    rates: dict[str, list[tuple[float, float]]] = {"redis": [], "mysql": []}
    with Service(BERTH, world.env(redis=True)) as redis, Service(BERTH, world.env(redis=False)) as mysql:
        services = {"redis": redis, "mysql": mysql}
        for service in services.values():
            service.first_answer("/health/live")
            load.warm_up(world, service)
        for _ in range(options.rounds * 3):
            for name, found in rates.items():
                arguments = [name, token.account_id, token.session_id, str(options.seconds)]
                command = [BERTH_PYTHON, "benchmarks/drivers.py", *arguments]
                done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
                own = load.run(world, services[name], "me", 32, options.seconds).rate
                found.append((float(done.stdout.split()[-1]), own))
    return rates


def measure_slope(world: World, options: Options) -> Any:
    requests = 100_000 if options.rounds == 1 else 5_000_000
    return throughput.memory_slope(world, requests, options.seconds * 3)


def measure_growth(world: World, options: Options) -> Any:
    most = 100_000 if options.rounds == 1 else 1_000_000
    return {
        "accounts": growth.accounts(world, options.rounds, options.seconds, most),
        "sessions": growth.sessions(world, options.rounds, options.seconds),
        "instances": growth.instances(world, options.rounds, options.seconds),
    }


def measure_features(world: World, options: Options) -> Any:
    features.check(world)
    loads = features.measure_loads(world, options.rounds * 3, options.seconds)
    return {"instructions": features.measure_instructions(world), "loads": loads}


def measure_interpreters(world: World, options: Options) -> Any:
    given = [path for path in options.pythons.split(",") if path]
    return interpreters.measure(world, options.rounds, options.seconds, given)


MEASURES: dict[str, Callable[[World, Options], Any]] = {name: globals()[f"measure_{name}"] for name in STAGES}


def machine(world: World) -> dict[str, Any]:
    processor = next(
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{os.cpu_count()} cores of {processor}, {memory:.0f} GiB, Linux {platform.release()}",
        "python": platform.python_version(),
        "servers": f"MariaDB {world.mariadb.version()}, Redis {world.redis.version()}",
        "peers": {peer.title: versions(peer, f"{FRAMEWORKS[peer.name]} {PACKAGES}") for peer in PEER_APPS},
    }


def busy_with_others(seconds: float = 3) -> float:
    """The share of all cores' time that is used while nothing is measured (proc(5), /proc/stat)."""

    def times() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, total = times()
    time.sleep(seconds)
    idle_then, total_then = times()
    return 1 - (idle_then - idle) / (total_then - total)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="the same as --rounds 1")
    parser.add_argument("--only", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--pythons", default="", metavar="PATHS", help="interpreters not on PATH, for that stage")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for stage in () if options.report else options.only.split(","):
        started, busy = time.strftime("%Y-%m-%d %H:%M"), busy_with_others()
        print(f"{started} {stage}, {busy:.0%} of the cores busy with other work", flush=True)
        with World() as world:
            found = MEASURES[stage](world, options)
            results.update(machine(world))
        how = {"started": started, "busy": round(busy, 3), "rounds": options.rounds, "seconds": options.seconds}
        results[stage] = {"figures": found, **how}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results)


if __name__ == "__main__":
    main()
