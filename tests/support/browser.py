"""A real headless browser, controlled with the DevTools protocol over two pipes: it needs no port and no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--remote-debugging-pipe",
)
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Tab": 9, "End": 35, "Home": 36}


class Browser:
    """One tab. `requests` and `complaints` hold what the page has requested from the network and logged since `open`."""

    def __init__(self, profile: Path, patience: float = 60.0) -> None:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
        self.patience, self.buffer, self.number, self.session = patience, b"", 0, ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        to_browser, self.writer = _pipe()
        self.reader, from_browser = _pipe()
        swap = f"import os, sys; os.dup2({to_browser}, 3); os.dup2({from_browser}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", swap, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=(to_browser, from_browser))
        os.close(to_browser)
        os.close(from_browser)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.process.kill()
        self.process.wait(self.patience)
        os.close(self.reader)
        os.close(self.writer)

    def call(self, method: str, **parameters: object) -> dict:
        """The result of a DevTools command; events that arrive before it are recorded."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of this size and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url="about:blank")
        self.requests, self.complaints, self.loaded = [], [], False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not (self.loaded and self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank"):
            self._note(self._receive())

    def run(self, script: str) -> object:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str, across: float = 0.5) -> None:
        """Click the first element that matches, in the middle or at the fraction `across` of its width."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            f"const b = e.getBoundingClientRect(); return [b.left + {across} * b.width, b.top + b.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press and release a key on the element that has the focus."""
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=KEYS[key])

    def screenshot(self, path: Path, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))
        return path.read_bytes()

    def _receive(self) -> dict:
        end = time.monotonic() + self.patience
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser did not answer within {self.patience:g} s"
            data = os.read(self.reader, 1 << 20)
            assert data, "the browser ended"
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        details = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if not details["request"]["url"].startswith("data:"):
                self.requests.append(details["request"]["url"])
            case "Network.loadingFailed":
                self.complaints.append(f"failed: {details}")
            case "Runtime.exceptionThrown":
                self.complaints.append(f"exception: {details['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if details["type"] in ("error", "warning", "assert"):
                self.complaints.append(f"console: {details['args']}")
            case "Log.entryAdded" if details["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"log: {details['entry']}")
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {details}")
            case "Page.loadEventFired":
                self.loaded = True


def _pipe() -> tuple[int, int]:
    """The two ends of a pipe, with numbers above 3 and 4: under these the browser expects its own ends."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high
