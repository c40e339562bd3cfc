"""`make soak`: all faults, many times and for long, against real servers; a table of what was done and what was lost.

ARGS="--scale 0.01 --minutes 1 --only races" shortens it. The exit status is 1 when anything was lost.
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import TEST_SETTINGS
from tests.faults.hang_ups import hang_up
from tests.faults.load import Load, QuickService, new_account, rows_of
from tests.faults.overload import Overload, exceed_concurrency, exhaust_pool, flood_with_logins, percentile_99
from tests.faults.races import RACES, run_race
from tests.faults.stops import kill_and_restart, stop_under_load
from tests.faults.troubles import Servers, seconds_until, troubles
from tests.support.servers import MariaDB, Redis
from tests.support.service import Service, parse, run_app

Environment = dict[str, str]
SETTINGS = {
    **TEST_SETTINGS,
    "LOGIN_RATE_LIMIT": "1000000/300",
    "REGISTER_RATE_LIMIT": "100000000/300",
    "REFRESH_RATE_LIMIT": "1000000/60",
    "SECRET_KEY": "one key for every start of the service",
}
FAULT_LASTS = 4  # seconds
BACK_WITHIN = 5  # seconds
LIVE_WITHIN = 0.25  # seconds
MACHINE_ADDS = 2  # seconds, when it has other work to do
BACKENDS = ("sqlite", "mysql+redis")


@dataclass
class Report:
    """The table, and the line that says how far it is."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    failed: bool = False
    started: float = field(default_factory=time.monotonic)

    def progress(self, text: str) -> None:
        line = f"{time.monotonic() - self.started:6.0f} s  {text}"
        print(f"\r\x1b[K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)

    @contextmanager
    def row(self, name: str) -> Iterator[list[str]]:
        """Collects what was done; what breaks a promise is what was lost."""
        done: list[str] = []
        self.progress(name)
        try:
            yield done
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is played and the table printed
            what = "LOST" if isinstance(error, AssertionError) else f"FAILED, {type(error).__name__}"
            self.rows.append((name, "; ".join(done), f"{what}: {error}"[:400]))
            self.failed = True
        else:
            self.rows.append((name, "; ".join(done), "nothing"))

    def print_table(self) -> None:
        print("\n| what | done | lost |\n|---|---|---|")
        for row in self.rows:
            print(f"| {' | '.join(row)} |")


@dataclass
class Ground:
    """The servers that the scenarios share, and new databases on them."""

    mariadb: MariaDB
    redis: Redis
    folder: Path
    template: str

    def environment(self, backend: str) -> Environment:
        env = {**SETTINGS, "DATA_DIR": tempfile.mkdtemp(dir=self.folder)}
        if backend == "sqlite":
            return env
        return (
            env | self.mariadb.environment(self.mariadb.create_database(like=self.template)) | self.redis.environment()
        )


def kept(pid: int) -> dict[str, float]:
    """What a process holds: MiB of memory, file descriptors, threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "MiB": int(fields["VmRSS"].split()[0]) / 1024,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(fields["Threads"]),
    }


def tasks_of(service: Service) -> int:
    """Asks a QuickService for the number of its asyncio tasks."""
    before = len(service.output)
    service.signal(signal.SIGUSR1)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in service.output[before:]:
            if '"tasks"' in line:
                return int(parse(line)["count"])
        time.sleep(0.02)
    raise AssertionError("the service did not tell its tasks")


def play_races(report: Report, ground: Ground, scale: float) -> None:
    rounds = max(8, round(1000 * scale))
    for backend in BACKENDS:
        env = ground.environment(backend)
        with QuickService(env) as service:
            for race, check in RACES.items():
                with report.row(f"{race.__name__.replace('_', ' ')}, {backend}") as done:
                    statuses, remembered = asyncio.run(run_race(race, service.port, rounds))
                    pairs = ", ".join(f"{pair[0]}+{pair[1]}: {count}" for pair, count in sorted(statuses.items()))
                    done.append(f"{len(remembered)} rounds ({pairs})")
                    check(statuses, remembered, rows_of(env, ground.mariadb))


def play_hang_ups(report: Report, ground: Ground, scale: float) -> None:
    count = max(400, round(10_000 * scale))
    for backend in BACKENDS:
        env = ground.environment(backend) | {"MYSQL_POOL_MAX_SIZE": "5", "REDIS_MAX_CONNECTIONS": "5"}
        with report.row(f"clients that hang up, {backend}") as done, QuickService(env) as service:
            asyncio.run(hang_up(service, count // 5))  # what is opened and cached once
            before = kept(service.pid)
            result = asyncio.run(hang_up(service, count, seed=2))
            time.sleep(2)
            after = kept(service.pid)
            done.append(f"{result.left} left, {result.checked} answers to others checked, {result.refused} refused")
            done.append(", ".join(f"{name} {before[name]:.0f} -> {after[name]:.0f}" for name in before))
            errors = [line["message"] for line in service.lines if line["severity"] in ("ERROR", "CRITICAL")]
            assert not result.wrong, (len(result.wrong), result.wrong[:3])
            assert not errors, (len(errors), errors[:3])
            assert after["descriptors"] <= before["descriptors"] + 10, "descriptors"
            assert after["MiB"] < before["MiB"] + 16, "memory"


def play_kills(report: Report, ground: Ground, scale: float) -> None:
    for backend in BACKENDS:
        env = ground.environment(backend)
        with report.row(f"SIGKILL under load, {backend}") as done:
            kills = max(2, round(50 * scale))
            load = asyncio.run(kill_and_restart(env, rows_of(env, ground.mariadb), kills))
            done.append(f"{kills} kills; {len(load.accounts)} registrations, {len(load.spent)} refreshes acknowledged")
            done.append(f"{load.broken} requests cut off unanswered")


def play_stops(report: Report, ground: Ground, scale: float) -> None:
    for backend in BACKENDS:
        env = ground.environment(backend)
        with report.row(f"SIGTERM during 200 requests, {backend}") as done:
            stops = []
            for _ in range(max(2, round(20 * scale))):
                with QuickService(env) as service:
                    stops.append(asyncio.run(stop_under_load(service, requests=200)))
            unanswered = statistics.median(stop.under_way for stop in stops)
            done.append(f"{len(stops)} stops, at the signal {unanswered:.0f} unanswered (median)")
            done.append(f"{sum(stop.answered for stop in stops)} answers")
            assert {(stop.reset, stop.wrong, stop.status, stop.lines_missing) for stop in stops} == {(0, 0, 0, 0)}, (
                stops
            )


def play_overload(report: Report, ground: Ground, scale: float) -> None:
    env = ground.environment("mysql+redis")
    without_redis = {name: value for name, value in env.items() if not name.startswith("REDIS_")}
    port, reads, logins = ground.mariadb.port, max(500, round(5000 * scale)), max(200, round(800 * scale))
    loads: dict[str, Callable[[], Overload]] = {
        "the pool": lambda: exhaust_pool(without_redis, port, reads),
        "MAX_CONCURRENCY": lambda: exceed_concurrency(without_redis, port, reads),
        "the logins": lambda: flood_with_logins(env, logins),
    }
    for name, play in loads.items():
        with report.row(f"ten times the capacity of {name}") as done:
            result = play()
            done.extend(result.told())
            assert not result.wrong, (len(result.wrong), result.wrong[:3])
            assert percentile_99(result.accepted) < result.bound + MACHINE_ADDS, "p99 of the accepted"
            assert max(result.live) < LIVE_WITHIN + MACHINE_ADDS, "/health/live"


class Soak:
    """Mixed load through proxies, and a fault every so many seconds."""

    def __init__(self, report: Report, ground: Ground, minutes: float, every: float) -> None:
        self.report = report
        self.seconds = minutes * 60
        self.every = every
        self.servers = Servers(ground.mariadb, ground.redis)
        database = ground.mariadb.create_database(like=ground.template)
        self.env = {**ground.environment("sqlite"), **self.servers.environment(database), "MYSQL_QUERY_TIMEOUT": "2"}
        self.env |= {"MYSQL_CONNECT_TIMEOUT": "2", "MYSQL_POOL_TIMEOUT": "2"}
        self.rows = rows_of(self.env, ground.mariadb)
        self.samples: list[dict[str, float]] = []
        self.back: dict[str, float] = {}  # by fault: seconds until it all worked again, the longest

    async def run(self, done: list[str]) -> None:
        with QuickService(self.env) as service:
            load = Load(service.port, pause=0.1)
            async with load.running(clients=10):
                await self.make_trouble(service)
            self.tell(done, load)
            broken = {kind: count for kind, count in load.check(self.rows).items() if count}
            assert not broken, (broken, load.wrong[:3])
            assert not load.broken, f"{load.broken} connections broke"
            late = {name: seconds for name, seconds in self.back.items() if seconds > BACK_WITHIN}
            assert not late, late

    async def make_trouble(self, service: Service) -> None:
        chance = random.Random(1)
        started = time.monotonic()
        names: list[str] = []
        while time.monotonic() - started < self.seconds:
            faults = troubles(self.servers)
            names = names or chance.sample(sorted(faults), len(faults))
            name = names.pop()
            begun = time.monotonic()
            await self.play(service, name, *faults[name])
            await asyncio.sleep(max(0, begun + self.every - time.monotonic() - 1))
            sample = kept(service.pid) | {"tasks": await asyncio.to_thread(tasks_of, service)}
            self.samples.append(sample | {"at": time.monotonic() - started})

    async def play(self, service: Service, name: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
        await asyncio.to_thread(begin)
        await asyncio.sleep(FAULT_LASTS)
        await asyncio.to_thread(end)
        seconds = await asyncio.to_thread(seconds_until, lambda: works(service), 30)
        self.back[name] = max(seconds, self.back.get(name, 0))
        self.report.progress(f"soak: {name}, back after {seconds:.1f} s; {kept(service.pid)['MiB']:.0f} MiB")

    def tell(self, done: list[str], load: Load) -> None:
        asked = sum(load.statuses.values())
        done.append(f"{self.seconds / 60:g} minutes, {asked} answers ({dict(sorted(load.statuses.items()))})")
        done.append(f"{len(load.accounts)} registrations, {len(load.spent)} refreshes acknowledged")
        done.append(f"{len(self.samples)} faults, back after at most {max(self.back.values()):.1f} s")
        done.append(f"longest answer {max(load.seconds):.1f} s")
        for name in ("MiB", "descriptors", "threads", "tasks"):
            values = [sample[name] for sample in self.samples]
            done.append(f"{name} {values[0]:.0f} -> {values[-1]:.0f} ({min(values):.0f} to {max(values):.0f})")
        later = self.samples[len(self.samples) // 3 :]
        if len(later) > 2:
            slope = statistics.linear_regression([one["at"] for one in later], [one["MiB"] for one in later]).slope
            done.append(f"slope of the memory over the last two thirds {slope * 3600:+.1f} MiB an hour")


def works(service: Service) -> bool:
    """Both servers are in use, and what must be written is."""
    ready = service.client.get("/health/ready")
    return ready.json()["status"] == "ok" and service.client.post("/v1/auth/register", json=new_account()).is_success


def play_soak(report: Report, ground: Ground, minutes: float, every: float) -> None:
    with report.row(f"soak with a fault every {every:g} s") as done:
        asyncio.run(Soak(report, ground, minutes, every).run(done))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1, help="of the counts: 1,000 rounds, 50 kills")
    parser.add_argument("--minutes", type=float, default=15, help="of the soak")
    parser.add_argument("--every", type=float, default=30, help="seconds from one fault of the soak to the next")
    parser.add_argument("--only", choices=["races", "hang-ups", "kills", "stops", "overload", "soak"])
    chosen = parser.parse_args()
    report = Report()
    with MariaDB() as mariadb, Redis() as redis, tempfile.TemporaryDirectory() as folder:
        template = mariadb.create_database()
        assert run_app("migrate", env={**SETTINGS, **mariadb.environment(template)}).returncode == 0
        ground = Ground(mariadb, redis, Path(folder), template)
        parts: dict[str, Callable[[], None]] = {
            "races": lambda: play_races(report, ground, chosen.scale),
            "hang-ups": lambda: play_hang_ups(report, ground, chosen.scale),
            "kills": lambda: play_kills(report, ground, chosen.scale),
            "stops": lambda: play_stops(report, ground, chosen.scale),
            "overload": lambda: play_overload(report, ground, chosen.scale),
            "soak": lambda: play_soak(report, ground, chosen.minutes, chosen.every),
        }
        for name, play in parts.items():
            if chosen.only in (None, name):
                play()
    report.print_table()
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
