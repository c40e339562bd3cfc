import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Protocol

import pytest

from tests.conftest import RAN_AGAINST, start
from tests.image.engine import Engine, OwnEngine, machines_own
from tests.support.servers import ServerError
from tests.support.service import ROOT, Environment, Service

NUMBERS = itertools.count(1)
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")


class Container(Service):
    """The image as strictly confined as a platform can: no root, no capabilities, no file that it may write."""

    def __init__(self, engine: Engine, image: str, env: Environment, *command: str, volume: str, wait: bool) -> None:
        self.engine = engine
        self.name = f"berth-test-{os.getpid()}-{next(NUMBERS)}"
        options = [f"--env={name}" for name in ("HOST", "PORT", *env)] + ([f"--volume={volume}"] if volume else [])
        self.command = (*engine.client, "run", "--rm", f"--name={self.name}", *CONFINED, *options, image, *command)
        super().__init__(env, wait=wait)

    def execute(self, *command: str) -> str:
        """What a command says that is run inside. Raises ServerError when it fails."""
        return self.engine.run("exec", self.name, *command)

    def close(self) -> None:
        with suppress(ServerError):  # it has gone already
            self.engine.run("rm", "--force", "--volumes", self.name)
        super().close()


class StartContainer(Protocol):
    """`start_container(env, "python", "app.py", "migrate")`: settings, and a command in place of the image's own."""

    def __call__(self, env: Environment, /, *command: str, volume: str = "", wait: bool = True) -> Container: ...


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with ExitStack() as stack:
        engine = machines_own()
        if engine is None:
            own = start(OwnEngine())
            stack.callback(own.close)
            engine = own.engine
        RAN_AGAINST["image"] = f"Docker {engine.version()}"
        yield engine


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The id of the image, built from this checkout."""
    return engine.build(ROOT, "--build-arg", "REVISION=0123abc", "--tag", "berth-test")


@pytest.fixture
def start_container(engine: Engine, image: str) -> Iterator[StartContainer]:
    with ExitStack() as running:

        def start_one(env: Environment, /, *command: str, volume: str = "", wait: bool = True) -> Container:
            return running.enter_context(Container(engine, image, env, *command, volume=volume, wait=wait))

        yield start_one
