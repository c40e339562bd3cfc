"""A Docker engine to build and run images with: the machine's own, or one that the tests start for themselves."""

import os
import subprocess
from pathlib import Path
from typing import Self

from tests.support.servers import Server, ServerError, program
from tests.support.service import ROOT

BASE = "python:3.13-slim"
CACHE = ROOT / ".cache"  # what was built, so that the next run is quick


class Engine:
    """The client of one engine. A command that fails is a ServerError with all that it said."""

    def __init__(self, *client: str) -> None:
        self.client = client

    def run(self, *arguments: object, within: float = 60.0) -> str:
        command = [*self.client, *map(str, arguments)]
        env = os.environ | {"DOCKER_BUILDKIT": "1"}  # which before Docker 23 isn't the default
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=within)
        if done.returncode:
            raise ServerError(f"{' '.join(command)} exited with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def build(self, context: Path, *options: object) -> str:
        """The id of the image that the Dockerfile in this folder makes."""
        identifier = context / ".cache" / "image-id"
        identifier.parent.mkdir(exist_ok=True)
        arguments = ["--network=host", "--progress=plain", f"--iidfile={identifier}", *options, context]
        self.run("build", *arguments, within=600)
        return identifier.read_text()

    def version(self) -> str:
        return self.run("version", "--format", "{{.Server.Version}}")


class OwnEngine(Server):
    """Needs root. Where no registry is reached, a stand-in made from Debian's packages is its base image."""

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def engine(self) -> Engine:
        return Engine("/usr/bin/docker", "--host", self.socket)  # Debian's, which builds as its engine does

    def command_line(self) -> list[str]:
        return [
            *("unshare", "--mount"),  # what it mounts and forgets goes when it goes
            program("dockerd"),
            f"--host={self.socket}",
            f"--data-root={CACHE / 'docker'}",
            f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'docker.pid'}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]

    def answers(self) -> bool:
        try:
            self.engine.version()
        except ServerError:
            return False
        return True

    def start(self) -> Self:
        super().start()
        self.provide_base()
        return self

    def provide_base(self) -> None:
        if self.engine.run("image", "ls", "--quiet", BASE):
            return
        try:
            self.engine.run("pull", BASE, within=600)
        except ServerError:
            archive = CACHE / "base.tar"
            make = [str(Path(__file__).parent / "make-base.sh"), str(archive)]
            done = subprocess.run(make, capture_output=True, text=True, check=False, timeout=600)
            if done.returncode:
                raise ServerError(f"the stand-in for {BASE} could not be made:\n{done.stderr}") from None
            path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.engine.run("import", "--change", path, archive, BASE)
            archive.unlink()

    def close(self) -> None:
        self.stop()  # it ends its containers and its containerd; killed, it would leave them behind
        super().close()


def machines_own() -> Engine | None:
    """The engine that `docker` on this machine talks to, if one answers."""
    try:
        host = Engine("docker").run("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
        engine = Engine("docker", "--host", host)
        engine.version()
    except (ServerError, OSError):
        return None
    return engine
