"""The manifests as their platforms read them, and what Berth reads from the containers they start."""

import functools
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app import USAGE
from infra.process.server import CANCEL_TIMEOUT, IDLE_LINGER
from infra.sql.pool import CLOSE_TIMEOUT
from settings import VARIABLES, Settings, load
from tests.support.servers import LOOPBACK_NAMES, make_certificates, program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = "ghcr.io/berth/berth"
USER = 10001
SERVE = ["python", "app.py"]  # the image's command
SECRETS = [name for name, line in VARIABLES.items() if line.kind.type == "secret"]
CERTIFICATES = {name for name in VARIABLES if re.fullmatch("(MYSQL|REDIS)_SSL_(CA|CERT|KEY)", name)}
SAMPLE_SECRET = os.urandom(32).hex()  # production refuses what stands in this repository

BASE_MIB, HASH_MIB = 80, 32  # resident after start and a first login (measured: 66); scrypt's N * r * 128, per core
IMPORT_SECONDS = 5  # before STARTUP_TIMEOUT counts, on a slow node

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """A container of Berth in its pod."""

    kind: str
    name: str
    pod: Manifest
    container: Manifest
    variables: dict[str, str]
    secret_keys: set[tuple[str, str]]  # the Secret's name, and the key of it that is read


def read_all(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def compose(**environment: str) -> Manifest:
    """The file with its ${NAME:-default} filled in. Without arguments: what a bare `docker compose up` reads."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    filled = re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1], found[2]), text)
    assert not re.search(r"(?<!\$)\$(?!\$)", filled.replace("$$", "")), "a variable without a default"
    content: Manifest = yaml.safe_load(filled)
    return content


@functools.cache
def render(folder: str) -> list[Manifest]:
    """What kustomize makes of a folder of deploy/."""
    done = subprocess.run(
        [program("kubectl"), "kustomize", str(DEPLOY / folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def find(manifests: list[Manifest], kind: str, name: str = "berth") -> Manifest:
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod's spec inside any of the kinds used here."""
    spec = manifest.get("spec", {})
    while "containers" not in spec:
        inner = spec.get("jobTemplate") or spec.get("template")
        if inner is None:
            return None
        spec = inner["spec"]
    pod: Manifest = spec
    return pod


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for manifest in manifests:
        pod = pod_of(manifest)
        if pod:
            yield manifest, pod


def workloads(manifests: list[Manifest]) -> list[Workload]:
    """Every container of Berth, with its variables; those from a Secret have a sample."""
    found = []
    for manifest, pod in pods(manifests):
        for container in pod["containers"]:
            if container["image"].partition(":")[0].rpartition("/")[2] == "berth":
                variables, keys = variables_of(container, pod, manifests)
                found.append(Workload(manifest["kind"], manifest["metadata"]["name"], pod, container, variables, keys))
    return found


def server_of(manifests: list[Manifest]) -> Workload:
    """The container that serves."""
    [server] = [work for work in workloads(manifests) if work.name == "berth"]
    return server


def variables_of(
    container: Manifest, pod: Manifest, manifests: list[Manifest]
) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Its variables, and the keys that they need of each Secret."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= find(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    given = container.get("env", [])
    variables |= {each["name"]: each.get("value", SAMPLE_SECRET) for each in given}
    secrets = {volume["name"]: volume["secret"] for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: secrets[mount["name"]] for mount in container.get("volumeMounts", [])}
    keys = set()
    for name, value in variables.items():
        if name.endswith("_FILE") or name in CERTIFICATES:
            folder, _, file = value.rpartition("/")
            assert folder in mounts, f"{name} is {value}, which is not mounted"
            named = {item["path"]: item["key"] for item in mounts[folder].get("items", [])}
            keys.add((mounts[folder]["secretName"], named[file] if named else file))
    return variables, keys


def settings_from(variables: Mapping[str, object], folder: Path) -> Settings:
    """What Berth reads; its files are made in the folder. Fails on a variable that Berth doesn't know."""
    files = {name: folder / name for name in variables if name.removesuffix("_FILE") in SECRETS and "_FILE" in name}
    unknown = variables.keys() - VARIABLES.keys() - files.keys()
    assert not unknown, f"Berth reads no {', '.join(unknown)}"
    for path in files.values():
        path.write_text(SAMPLE_SECRET, encoding="utf-8")
    if CERTIFICATES & variables.keys():
        make_certificates(folder, LOOPBACK_NAMES)
        files |= {
            name: folder / ("server.key" if "KEY" in name else "server.pem") for name in CERTIFICATES & set(variables)
        }
    return load({name: str(value) for name, value in {**variables, **files}.items()})


def seconds_to_stop(settings: Settings) -> float:
    """From SIGTERM to the exit, when everything takes as long as it may."""
    pools = 2 if settings.mysql_read_host else 1
    closing = CANCEL_TIMEOUT + pools * CLOSE_TIMEOUT
    return settings.shutdown_delay + max(settings.shutdown_timeout, IDLE_LINGER) + closing


def mib_at_most(settings: Settings, cores: float, requests: int | None = None) -> float:
    """Memory with a hash on every core and so many requests whose bodies are as large as they may be."""
    bodies = min(requests or settings.max_concurrency, settings.max_concurrency) * settings.max_body_bytes / 2**20
    return BASE_MIB + HASH_MIB * math.ceil(cores) + bodies


def mib(quantity: str) -> float:
    found = re.fullmatch(r"(\d+)(M|G|Mi|Gi)", quantity)
    assert found, quantity
    return int(found[1]) * {"M": 1e6 / 2**20, "G": 1e9 / 2**20, "Mi": 1, "Gi": 1024}[found[2]]


def cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1)


def is_known(command: list[str]) -> bool:
    """Whether `python app.py --help` tells of it."""
    words = command[2:]
    known = re.findall(r"python app\.py (\w+)", USAGE)
    return command[:2] == SERVE and (not words or words[0] in known) and all(word in USAGE for word in words)
