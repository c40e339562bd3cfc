"""Chromium without a window, driven over WebDriver (https://www.w3.org/TR/webdriver2/)."""

import os
from typing import Any, Self

import httpx

from tests.support.servers import Server, program, wait_until

FLAGS = [
    "--headless",
    "--window-size=1280,1600",  # what is clicked shall be in sight
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",  # it would call its maker's hosts
    "--disable-component-update",
    "--no-first-run",
    *(["--no-sandbox"] if os.getuid() == 0 else []),
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference to one


class Browser(Server):
    def __init__(self) -> None:
        super().__init__()
        self.session = ""
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def command_line(self) -> list[str]:
        return [program("chromedriver"), f"--port={self.port}"]

    def answers(self) -> bool:
        try:
            return bool(self.client.get("/status").json()["value"]["ready"])
        except httpx.TransportError:
            return False

    def start(self) -> Self:
        super().start()
        options = {"binary": program("chromium"), "args": [*FLAGS, f"--user-data-dir={self.folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
        assert answer.status_code == 200, answer.text
        self.session = f"/session/{answer.json()['value']['sessionId']}"
        return self

    def close(self) -> None:
        if self.session:
            self.client.delete(self.session)
        self.session = ""
        super().close()

    def command(self, path: str, **parameters: object) -> Any:
        answer = self.client.post(f"{self.session}/{path}", json=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url: str) -> None:
        self.command("url", url=url)

    def run(self, script: str, *arguments: object) -> Any:
        """What this JavaScript returns."""
        return self.command("execute/sync", script=script, args=list(arguments))

    def click(self, selector: str) -> None:
        self.command(f"element/{self.element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.command(f"element/{self.element(selector)}/value", text=text)

    def element(self, selector: str) -> str:
        """The first that matches, waiting until there is one."""
        self.texts(selector)
        reference: str = self.command("element", using="css selector", value=selector)[ELEMENT]
        return reference

    def texts(self, selector: str) -> list[str]:
        """Of the elements that match, waiting until there is one."""
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText)"
        wait_until(lambda: bool(self.run(script, selector)), f"{selector} on the page")
        return list(self.run(script, selector))

    def console(self) -> list[str]:
        """What the browser complains about: scripts that fail, what the Content-Security-Policy forbids."""
        return [entry["message"] for entry in self.command("se/log", type="browser")]
