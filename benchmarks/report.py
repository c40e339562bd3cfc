"""docs/performance.md and its plots, from results.json. What was learned along the way is in notes.md, by hand."""

from collections.abc import Callable, Sequence
from html import escape
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cold_start import EMBEDDED, OPTIMIZED
from benchmarks.features import WHOLE
from benchmarks.subjects import ALL, BARE, ROOT
from benchmarks.throughput import CONNECTIONS

DOCS = ROOT / "docs"
NOTES = Path(__file__).with_name("notes.md")
TITLES = {subject.name: subject.title for subject in [*ALL, OPTIMIZED, EMBEDDED]}
TITLES["imports"] = "bare interpreter, Berth's packages imported"
ROUTES = {
    "health": "`GET /health/live`",
    "me": "`GET /v1/auth/me`, token checked, account from Redis",
    "me-mysql": "`GET /v1/auth/me`, Redis off, account from MySQL",
    "sessions": "`GET /v1/auth/sessions`, a page of 20",
    "refresh": "`POST /v1/auth/refresh`, a write transaction",
    "login": "`POST /v1/auth/login`, bound by scrypt",
}
DRIVERS = {"redis": ("coredis MGET", "me"), "mysql": ("aiomysql SELECT", "me-mysql")}  # what, in which route
BUSY = 0.1  # of the cores: more other work than that, and no aim is called reached
COLOURS = ("#2563eb", "#9ca3af")  # Berth, the others

Results = dict[str, Any]
Bar = tuple[str, list[float]]


def write(results: Results) -> None:
    DOCS.joinpath("performance").mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[Results, Any], list[str]]] = {
        "start": start,
        "load": loads,
        "drivers": drivers,
        "slope": slope,
        "growth": growth,
        "features": features,
        "interpreters": interpreters,
    }
    lines = ["# Performance", "", "Made by `make bench`; the figures are `benchmarks/results.json`.", ""]
    lines += aims(results)
    for name, part in parts.items():
        if name in results:
            stage = results[name]
            lines += part(results, stage["figures"])
            how = f"begun {stage['started']}, {stage['rounds']} rounds of {stage['seconds']} s"
            lines += ["", f"({how}; before, {stage['busy']:.0%} of the cores were busy with other work)", ""]
    lines += [*setting(results), NOTES.read_text()]
    DOCS.joinpath("performance.md").write_text("\n".join(lines).rstrip() + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in [head, marks, *rows]]


def spread(values: list[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def start(results: Results, figures: Any) -> list[str]:
    base = median(figures["full"]["me"])
    rows = []
    for name, found in figures.items():
        cells = [
            spread(found[kind], digits) if kind in found else ""
            for kind, digits in (("health", 0), ("me", 0), ("cpu", 0))
        ]
        last = found.get("me")
        memory = f"{median(found['pss']):.0f}" if "pss" in found else ""
        rows.append([TITLES[name], *cells, f"{median(last) / base:.2f}" if last else "", memory])
    bars("start", "To the first token-authenticated answer, ms", [
        (TITLES[name], found.get("me") or found["health"]) for name, found in figures.items() if name != "bare"
    ])  # fmt: skip
    head = ["", "first health, ms", "first `me`, ms", "CPU until then, ms", "of (a)", "PSS, MiB"]
    legend = "Median (least to most) from the spawn of the process; both servers connected before the first `me`."
    return ["## Cold start", "", legend, "", *table(head, rows), "", "![Cold start](performance/start.svg)"]


def by_cell(figures: Any) -> dict[tuple[str, int, str], list[Any]]:
    return {tuple(cell["cell"]): cell["loads"] for cell in figures}


def rates(loads: list[Any]) -> list[float]:
    return [(load["requests"] - load["refused"]) / load["seconds"] for load in loads]


def loads(results: Results, figures: Any) -> list[str]:
    cells = by_cell(figures)
    lines = ["## Throughput and latency", ""]
    lines.append(
        "Answers per second, median (least to most) of interleaved runs; below them p50 / p99 / p99.9 in ms. "
        "wrk is a closed loop: its percentiles leave out what a stalled server kept from being sent (coordinated "
        "omission). CPU is the service's own, for a request at 32 connections (login: 8); it suffers less than the "
        "rates from what else runs on the machine."
    )
    for route, title in ROUTES.items():
        counts = CONNECTIONS[route]
        names = [subject.name for subject in ALL if (route, counts[0], subject.name) in cells]
        rows = [[TITLES[name], *(cell_text(cells[route, count, name]) for count in counts)] for name in names]
        for row, name in zip(rows, names, strict=True):
            row.append(f"{median(load['cpu'] for load in cells[route, counts[1], name]):,.0f}")
        head = ["", *(f"{count:,} connection{'s' * (count > 1)}" for count in counts), "CPU, us"]
        bars(route, f"{title.replace('`', '')}: answers/s at {counts[1]} connections", [
            (TITLES[name], rates(cells[route, counts[1], name])) for name in names if name != "bare"
        ])  # fmt: skip
        lines += ["", f"### {title}", "", *table(head, rows), "", f"![{route}](performance/{route}.svg)"]
    memory = memory_after(cells)
    rows = [[TITLES[name], f"{pss:.0f}", f"{pss / memory['full']:.2f}"] for name, pss in memory.items()]
    bars("memory", "PSS after all of the load but logins, MiB", [(TITLES[name], [pss]) for name, pss in memory.items()])
    lines += ["", "### Memory after all of this but logins", "", *table(["", "PSS, MiB", "of (a)"], rows)]
    return [*lines, "", "![Memory](performance/memory.svg)"]


def memory_after(cells: dict[tuple[str, int, str], list[Any]]) -> dict[str, float]:
    """Each subject's PSS in MiB after its last load; a login's hash takes 32 MiB for as long as it runs."""
    return {name: found[-1]["pss"] for (route, _, name), found in cells.items() if route in ("health", "refresh")}


def cell_text(loads: list[Any]) -> str:
    if not any(rates(loads)):
        return "none in time"
    times = " / ".join(f"{median(load[kind] for load in loads):,.1f}" for kind in ("p50", "p99", "p999"))
    turned_away = sum(load["refused"] + load["broken"] for load in loads)
    note = f"<br>{turned_away:,} refused" if turned_away else ""
    return f"{spread(rates(loads))}<br>{times}{note}"


def drivers(results: Results, figures: Any) -> list[str]:
    rows = []
    for name, (driver, _) in DRIVERS.items():
        alone, own = map(list, zip(*figures[name], strict=True))
        rows.append([driver, spread(alone), spread(own), f"{median(own) / median(alone):.2f}"])
    head = ["32 at a time", "driver alone, /s", "Berth's `me`, /s", "ratio"]
    return ["## Beside the drivers alone", "", *table(head, rows)]


def slope(results: Results, figures: Any) -> list[str]:
    late = figures[len(figures) * 4 // 5]
    per_million = (figures[-1][1] - late[1]) / max(1, figures[-1][0] - late[0]) * 1e6
    rows = [[f"{done:,}", f"{memory:.1f}"] for done, memory in figures[:: max(1, len(figures) // 12)]]
    text = (
        f"Over the last fifth: {per_million:+.2f} MiB for a million requests (health and `me` in turn). Anonymous "
        "memory: the files' part of the PSS changes whenever another Python comes or goes."
    )
    return ["## Memory over time", "", text, "", *table(["requests", "anonymous memory, MiB"], rows)]


def growth(results: Results, figures: Any) -> list[str]:
    text = (
        "Answers per second at 32 connections (login: 1), median (least to most) of interleaved runs. They should stay "
        "as they are; an account with one session has a page of one."
    )
    lines = ["## What grows", "", text]
    for what, found in figures.items():
        names = list(next(iter(found.values())))
        rows = [
            [count, *(spread(of[name], int(median(of[name]) < 20)) for name in names)] for count, of in found.items()
        ]
        lines += ["", *table([what, *names], rows)]
    return lines


def features(results: Results, figures: Any) -> list[str]:
    text = (
        "The service less a feature, and what share of the whole that feature is: CPU and answers per second at 32 "
        "connections, median (least to most) of interleaved runs, each beside the whole's in the same round; "
        "instructions by callgrind."
    )
    lines = ["## What each feature costs", "", text]
    for route, path in (("health", "health"), ("me", "me from Redis")):
        loads, counts = figures["loads"][route], {name: found[path] for name, found in figures["instructions"].items()}
        rows = [feature_row(name, loads, counts) for name in loads]
        head = [path, "CPU, us", "share", "answers/s", "share", "instructions", "share"]
        lines += ["", *table(head, rows)]
    return lines


def feature_row(name: str, loads: Any, counts: dict[str, int]) -> list[str]:
    cpu, rate = (median(load[kind] for load in loads[name]) for kind in ("cpu", "rate"))
    whole = counts[WHOLE]
    if name == WHOLE:
        return [WHOLE, f"{cpu:,.1f}", "", f"{rate:,.0f}", "", f"{whole:,}", ""]
    by_cpu, by_rate = cost_shares(loads, name)
    share = 1 - counts[name] / whole
    shares = [spread_percent(by_cpu), spread_percent(by_rate), f"{share:.1%}"]
    values = [f"{cpu:,.1f}", f"{rate:,.0f}", f"{counts[name]:,}"]
    title = "less all of these" if name == "all" else f"less {name}"
    return [title, *(cell for pair in zip(values, shares, strict=True) for cell in pair)]


def cost_shares(loads: Any, name: str) -> tuple[list[float], list[float]]:
    """In each round, of the CPU that the whole takes for a request, and of the rate that the rest would reach."""
    pairs = list(zip(loads[WHOLE], loads[name], strict=True))
    by_cpu = [1 - rest["cpu"] / whole["cpu"] for whole, rest in pairs]
    return by_cpu, [1 - whole["rate"] / (rest["rate"] or inf) for whole, rest in pairs]


def spread_percent(shares: list[float]) -> str:
    return f"{median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"


def interpreters(results: Results, figures: Any) -> list[str]:
    text = (
        "Cold start as above, and 32 connections: answers per second, and below them the CPU for a request in us. "
        "Median (least to most) of interleaved runs. PSS in MiB: when idle, and after load."
    )
    rows = [interpreter_row(one) for one in figures["found"].values()]
    rows += [[f"Python {version}", why, *[""] * 6] for version, why in figures["missing"].items()]
    head = ["", "first health, ms", "first `me`, ms", "CPU until then, ms", "PSS", "health", "me", "me-mysql"]
    return ["## Each Python", "", text, "", *table(head, rows), "", locked_text(figures["found"])]


def interpreter_row(one: Any) -> list[str]:
    starts = [spread(one[kind]) for kind in ("health", "me", "cpu")]
    after = max(median(load["pss"] for load in loads) for loads in one["loads"].values())
    loads = [
        f"{spread([load['rate'] for load in found])}<br>{median(load['cpu'] for load in found):,.0f}"
        for found in one["loads"].values()
    ]
    return [one["title"], *starts, f"{median(one['pss']):.0f}, {after:.0f}", *loads]


def locked_text(found: Any) -> str:
    unneeded = [f"{', '.join(one['unneeded'])} on {one['title']}" for one in found.values() if one["unneeded"]]
    rest = f"; it holds what is of no use there: {'; '.join(unneeded)}" if unneeded else ", and each needs all of it"
    return f"`requirements.txt` installs, hashes checked, on {', '.join(one['title'] for one in found.values())}{rest}."


def aims(results: Results) -> list[str]:
    rows: list[list[str]] = []
    if "start" in results:
        rows += start_aims(results["start"]["figures"])
    if "load" in results:
        rows += load_aims(by_cell(results["load"]["figures"]))
    if "drivers" in results:
        rows += driver_aims(results["drivers"]["figures"])
    if "features" in results:
        rows += feature_aims(results["features"]["figures"]["loads"])
    stages = ("start", "load", "drivers", "features")
    busy = any(results[name]["busy"] > BUSY for name in stages if name in results)
    warning = (
        "**Not final: the machine had other work when this was measured, and the rates show it.** " if busy else ""
    )
    text = (
        "By CPU: the same ratio from the CPU that a request, or the start, takes; it suffers least from other work. "
        "By it alone a feature's share is judged: the rates differ by more from run to run."
    )
    if busy:
        rows = [[what, wanted, ratio, "open", by_cpu] for what, wanted, ratio, _, by_cpu in rows]
    head = ["aim, at 32 connections where nothing else is said", "wanted", "ratio", "reached", "by CPU"]
    return ["## Aims", "", warning + text, "", *table(head, rows), ""]


def at_most(what: str, most: float, ratio: float, by_cpu: float | None = None) -> list[str]:
    reached = "yes" if ratio <= most else "**no**"
    return [what, f"at most {most}", f"{ratio:.2f}", reached, f"{by_cpu:.2f}" if by_cpu else ""]


def at_least(what: str, least: float, ratio: float, by_cpu: float | None = None) -> list[str]:
    reached = "yes" if ratio >= least else "**no**"
    return [what, f"at least {least}", f"{ratio:.2f}", reached, f"{by_cpu:.2f}" if by_cpu is not None else ""]


def start_aims(figures: Any) -> list[list[str]]:
    found = {name: median(kinds.get("me", kinds["health"])) for name, kinds in figures.items()}
    cpu = median(figures["berth"]["cpu"]) / median(figures["full"]["cpu"])
    return [
        at_most("first `me` beside (a)", 0.6, found["berth"] / found["full"], cpu),
        at_most("first `me` beside importing the packages alone", 1.05, found["berth"] / found["imports"]),
    ]


def load_aims(cells: dict[tuple[str, int, str], list[Any]]) -> list[list[str]]:
    def beside(route: str, *others: str) -> tuple[float, float]:
        """Berth's rate beside the quickest other's, and their CPU for a request beside Berth's."""
        rate = {name: median(rates(cells[route, 32, name])) for name in ("berth", *others)}
        cpu = {name: median(load["cpu"] for load in cells[route, 32, name]) for name in ("berth", *others)}
        quickest = max(others, key=lambda name: rate[name])
        return rate["berth"] / (rate[quickest] or inf), min(cpu[name] for name in others) / cpu["berth"]

    memory = memory_after(cells)
    rows = [at_most("memory after load beside (a)", 0.6, memory["berth"] / memory["full"])]
    rows.append(at_least("health beside bare ASGI", 0.45, *beside("health", "bare")))
    for route, least in (("health", 8), ("me", 5), ("me-mysql", 4)):
        rows.append(at_least(f"{route} beside (a)", least, *beside(route, "full")))
    routes = [route for route in ROUTES if route != "login"]  # where all of them wait for the same hash
    for route in routes:
        rows.append(at_least(f"{route} beside (b)", 2.5, *beside(route, "lean")))
        rows.append(at_least(f"{route} beside the quicker of (c), (d)", 1.5, *beside(route, "litestar", "blacksheep")))
    for route in routes:
        own = median(load["p99"] for load in cells[route, 256, "berth"])
        theirs = median(load["p50"] for load in cells[route, 256, "full"]) or inf  # it answered none in time
        rows.append(at_most(f"{route}: p99 at 256 connections beside (a)'s p50", 1, own / theirs))
    return rows


def feature_aims(loads: Any) -> list[list[str]]:
    rows = []
    for route, found in loads.items():
        for name in (name for name in found if name != WHOLE):
            by_cpu, by_rate = map(median, cost_shares(found, name))
            most, title = (0.25, "all of these features") if name == "all" else (0.05, name)
            reached = "yes" if by_cpu <= most else "**no**"
            rows.append([f"{route}: share of {title}", f"at most {most}", f"{by_rate:.3f}", reached, f"{by_cpu:.3f}"])
    return rows


def driver_aims(figures: Any) -> list[list[str]]:
    rows = []
    for name, (driver, route) in DRIVERS.items():
        alone, own = zip(*figures[name], strict=True)
        rows.append(at_least(f"{route} beside {driver} alone", 0.7, median(own) / median(alone)))
    return rows


def setting(results: Results) -> list[str]:
    lines = ["## Setting", "", f"{results['machine']}. Python {results['python']}. {results['servers']}.", ""]
    lines += [f"- {title}: {', '.join(map(' '.join, found.items()))}" for title, found in results["peers"].items()]
    return [*lines, f"- {BARE.title} and Berth: `requirements.txt`", ""]


def bars(name: str, title: str, rows: list[Bar]) -> None:
    """A horizontal bar chart: the median, and a line from the least to the most."""
    scale = 420 / max(max(values) for _, values in rows)
    height = 46 + 30 * len(rows)
    shapes = [f'<text x="10" y="22" font-weight="bold">{escape(title)}</text>']
    for number, (label, values) in enumerate(rows):
        y, middle = 36 + 30 * number, median(values)
        colour = COLOURS[not label.startswith("Berth")]
        shapes += [
            f'<text x="252" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="260" y="{y}" width="{middle * scale:.1f}" height="20" fill="{colour}"/>',
            (
                f'<line x1="{260 + min(values) * scale:.1f}" x2="{260 + max(values) * scale:.1f}" y1="{y + 10}" '
                f'y2="{y + 10}" stroke="#111827"/>'
            ),
            f'<text x="{268 + max(values) * scale:.1f}" y="{y + 15}">{middle:,.0f}</text>',
        ]
    picture = "\n".join(shapes)
    DOCS.joinpath("performance", f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="760" height="{height}" fill="#ffffff"/>\n{picture}\n</svg>\n'
    )
