"""Today's code beside itself with FAST=off, and beside other folders': `python -m benchmarks.compare [FOLDER...]`.

CPU for a request at 32 connections, the start, idle memory: on the same servers, with the same Python, in turn. Each
round starts all anew, for where code and data come to lie makes a process up to a tenth slower than its like. What else
the machine does slows all down alike: the ratios are of figures of the same round.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import cold_start, load
from benchmarks.data import World
from benchmarks.subjects import BERTH, Service, Subject

TODAY = BERTH._replace(name="today", title="today")
OFF = BERTH._replace(name="off", title="FAST=off", env={"FAST": "off"})
STARTS = {"me": "first `me`, ms", "cpu": "CPU until then, ms", "pss": "idle, MiB"}
ROUTES = {"health": "health, us", "me": "`me` from Redis, us", "me-mysql": "`me` from MySQL, us"}

Figures = dict[str, dict[str, list[float]]]  # by what is measured, by subject, of each round


def measure(world: World, subjects: list[Subject], rounds: int, starts: int, seconds: int) -> Figures:
    figures: Figures = {}
    for number in range(starts + 1):  # the first writes byte code, and doesn't count
        for subject in subjects:
            found = cold_start.start(world, subject)
            for name, title in STARTS.items() if number else ():
                keep(figures, title, subject, found[name])
    for number in range(rounds):
        measure_loads(world, subjects if number % 2 else subjects[::-1], seconds, figures)
    return figures


def measure_loads(world: World, subjects: list[Subject], seconds: int, figures: Figures) -> None:
    with ExitStack() as running:
        services = {}
        for subject in subjects:
            for redis, routes in ((True, ("health", "me")), (False, ("me",))):
                service = running.enter_context(Service(subject, world.env(redis=redis)))
                service.first_answer("/health/live")
                load.warm_up(world, service, routes)
                services[subject.name, redis] = service
        for route, title in ROUTES.items():
            for subject in subjects:
                service = services[subject.name, route != "me-mysql"]
                found = load.run(world, service, route.removesuffix("-mysql"), 32, seconds)
                print(f"{title}: {subject.title} {found.cpu:.1f}, of {found.requests:,} requests", flush=True)
                keep(figures, title, subject, found.cpu)


def keep(figures: Figures, title: str, subject: Subject, figure: float) -> None:
    figures.setdefault(title, {}).setdefault(subject.title, []).append(figure)


def table(figures: Figures) -> str:
    """Medians, and in brackets the median of today's in shares of the other's."""
    others = [title for title in next(iter(figures.values())) if title != TODAY.title]
    lines = [f"| | {TODAY.title} | {' | '.join(others)} |", f"| --- |{' ---: |' * (len(others) + 1)}"]
    for title, found in figures.items():
        today = found[TODAY.title]
        cells = [f"{median(today):.0f}"]
        for other in others:
            ratio = median(ours / theirs for ours, theirs in zip(today, found[other], strict=True))
            cells.append(f"{median(found[other]):.0f} ({ratio:.2f})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="with the code of other commits (git worktree add)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    options = parser.parse_args()
    others = [BERTH._replace(name=path.name, title=str(path), folder=path) for path in options.folders]
    with World() as world:
        figures = measure(world, [TODAY, OFF, *others], options.rounds, options.starts, options.seconds)
    print(table(figures))


if __name__ == "__main__":
    main()
