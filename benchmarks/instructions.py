"""Instructions for one request, counted by callgrind: unlike times they are nearly the same on a busy machine.

`make bench-check` compares them with instructions.json and fails when one has grown; `--write` keeps today's.
"""

import http.client
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.data import World
from benchmarks.subjects import BERTH, Service, Subject

KEPT = Path(__file__).with_name("instructions.json")
WARM_UP, COUNTED = 300, 500  # requests
TOLERANCE = 0.03  # other figures for the same code differ by less; ticks of the event loop are in them
PATHS = {"health": "/health/live", "me from Redis": "/v1/auth/me", "me from MySQL": "/v1/auth/me"}


def count(world: World, *, redis: bool, paths: dict[str, str], subject: Subject = BERTH) -> dict[str, int]:
    env = {**world.env(redis=redis), "PYTHONHASHSEED": "0", "STARTUP_TIMEOUT": "120", "REDIS_TIMEOUT": "30"}
    out = world.folder / f"callgrind.{len(list(world.folder.iterdir()))}"
    valgrind = f"valgrind --quiet --tool=callgrind --callgrind-out-file={out} --error-limit=no"
    subject = subject._replace(prefix=tuple(valgrind.split()))
    counts = {}
    with Service(subject, env) as service:
        service.first_answer("/health/live", within=600)
        for name, path in paths.items():
            get(service, path, world.logins[0].access_token, WARM_UP)
            dump(service, out)
            get(service, path, world.logins[0].access_token, COUNTED)
            counts[name] = dump(service, out) // COUNTED
    return counts


def dump(service: Service, out: Path) -> int:
    """Instructions since the last dump."""
    env = {**os.environ, "HOST": "127.0.0.1", "TMPDIR": "/tmp"}  # in the name of valgrind's pipe, as the service's are
    command = ["callgrind_control", "--dump", str(service.process.pid)]
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    newest = max(out.parent.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:]))
    return int(newest.read_text().rpartition("\ntotals: ")[2].split()[0])


def get(service: Service, path: str, token: str, times: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    for _ in range(times):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


def measure() -> dict[str, int]:
    with World() as world:
        names = list(PATHS)
        counts = count(world, redis=True, paths={name: PATHS[name] for name in names[:2]})
        return counts | count(world, redis=False, paths={names[2]: PATHS[names[2]]})


def main(arguments: list[str]) -> int:
    counts = measure()
    here = {"python": platform.python_version(), "machine": platform.machine()}
    if arguments == ["--write"]:
        KEPT.write_text(json.dumps({**here, "instructions": counts}, indent=2) + "\n")
    kept = json.loads(KEPT.read_text())
    for name, value in here.items():
        if kept[name] != value:
            print(f"counted with {name} {kept[name]}, this is {value}: compare with care")
    grown = [name for name, now in counts.items() if now > kept["instructions"][name] * (1 + TOLERANCE)]
    for name, now in counts.items():
        before = kept["instructions"][name]
        mark = f"  more than {TOLERANCE:.0%} up" if name in grown else ""
        print(f"{name:15} {before:>9,} -> {now:>9,}  {now / before - 1:+.1%}{mark}")
    return 1 if grown else os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
