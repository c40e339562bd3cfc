"""Berth on each Python from 3.11 to 3.14 that can be had: on PATH, or named by `--pythons path,path`."""

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import cold_start, load
from benchmarks.data import World
from benchmarks.subjects import BERTH, ROOT, VENVS, Service, Subject

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ROUTES = ("health", "me", "me-mysql")
REQUIREMENTS = ROOT / "requirements.txt"
INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "-r"]


def measure(world: World, rounds: int, seconds: int, given: list[str]) -> dict[str, Any]:
    subjects, missing = prepare(given)
    starts, loads = measure_starts(world, rounds * 3, subjects), measure_loads(world, rounds, seconds, subjects)
    found = {
        one.name: {"title": one.title, "unneeded": unneeded(one), **starts[one.name], "loads": loads[one.name]}
        for one in subjects
    }
    return {"found": found, "missing": missing}


def prepare(given: list[str]) -> tuple[list[Subject], dict[str, str]]:
    """Berth on each interpreter, and why there is none of the others."""
    subjects, missing = [], {}
    for version in VERSIONS:
        python = find(version, given)
        problem = make_venv(version, python) if python else f"no python{version} on PATH, and none given by --pythons"
        if problem:
            missing[version] = problem
        else:
            subjects.append(berth_on(version))
        print(f"Python {version}: {problem or python}", flush=True)
    return subjects, missing


def find(version: str, given: list[str]) -> str | None:
    """Asks each, for a file of that name may be a shim of pyenv's with nothing behind it."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for python in filter(None, map(shutil.which, [*given, f"python{version}"])):
        said = subprocess.run([python, "-c", code], check=False, capture_output=True, text=True).stdout
        if said.strip() == version:
            return python
    return None


def make_venv(version: str, python: str) -> str:
    """Once for each requirements.txt. What went wrong, if something did: a hash or a build for it may be missing."""
    folder = venv(version)
    made = folder / "made"
    if made.exists() and made.stat().st_mtime > REQUIREMENTS.stat().st_mtime:
        return ""
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    done = subprocess.run([folder / "bin/python", *INSTALL, REQUIREMENTS], check=False, capture_output=True, text=True)
    if done.returncode:
        error = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "")
        culprits = ", ".join(sorted(set(re.findall(r"[\w.-]+==[\w.]+", done.stderr))))
        return f"requirements.txt can't be installed for {culprits}: {error[:200]}"
    made.touch()
    return ""


def venv(version: str) -> Path:
    return VENVS / f"python{version}"


def berth_on(version: str) -> Subject:
    code = "import platform; print(platform.python_version())"
    done = subprocess.run([venv(version) / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    return BERTH._replace(name=version, title=f"Python {done.stdout.strip()}", venv=f"python{version}")


def unneeded(subject: Subject) -> list[str]:
    """What requirements.txt, locked on one version, installs on this one though nothing there asks for it."""
    command = [subject.python, "-m", "pip", "--disable-pip-version-check", "list", "--not-required", "--format=json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    asked = {line.partition("=")[0] for line in REQUIREMENTS.with_suffix(".in").read_text().splitlines()}
    found = {package["name"].replace("_", "-") for package in json.loads(done.stdout)}
    return sorted(found - asked - {"pip", "setuptools"})


def measure_starts(world: World, rounds: int, subjects: list[Subject]) -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {subject.name: {} for subject in subjects}
    for number in range(rounds + 1):  # the first writes byte code, and doesn't count
        for subject in subjects:
            for name, value in cold_start.start(world, subject).items() if number else ():
                figures[subject.name].setdefault(name, []).append(value)
    return figures


def measure_loads(
    world: World, rounds: int, seconds: int, subjects: list[Subject]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """At 32 connections."""
    loads: dict[str, dict[str, list[dict[str, float]]]] = {subject.name: {} for subject in subjects}
    with ExitStack() as running:
        services = {}
        for subject in subjects:
            for redis in (True, False):
                service = running.enter_context(Service(subject, world.env(redis=redis)))
                service.first_answer("/health/live")
                load.warm_up(world, service)
                services[subject.name, redis] = service
        for _ in range(rounds):
            for route in ROUTES:
                for subject in subjects:
                    service = services[subject.name, route != "me-mysql"]
                    found = load.run(world, service, route.removesuffix("-mysql"), 32, seconds)
                    kept = {"rate": found.rate, "cpu": found.cpu, "pss": found.pss}
                    loads[subject.name].setdefault(route, []).append(kept)
    return loads
