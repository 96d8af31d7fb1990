"""A real browser without a window, driven over a pipe by its own DevTools protocol: no driver, no other package."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found() -> str | None:
    """Path of a Chromium; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """One browser with one page. `complaints` collects what the page's console and the browser's log said, `requests`
    the addresses that were asked for."""

    def __init__(self, profile: Path, timeout: float = 60.0):
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._timeout, self._number, self._rest, self._session = timeout, 0, b"", ""
        path = found()
        assert path is not None
        read_end, self._write = os.pipe()
        self._read, write_end = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        # The browser listens on descriptor 3 and answers on 4.
        command = ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "bash"]
        self._process = subprocess.Popen(
            [*command, path, *flags, "--no-first-run", f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_end)
        os.close(write_end)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.close(self._write)  # the browser ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def send(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        answer = self._until(lambda answer: answer.get("id") == number)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return answer["result"]

    def open(self, page: Path) -> None:
        self.send("Page.navigate", url=page.resolve().as_uri())
        self._until(lambda answer: answer.get("method") == "Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression on the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text)

    def look(self, scheme: str, media: str = "screen") -> None:
        """Prefer a colour scheme: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(self, path: Path, width: int = 1100, height: int = 1400) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        shot = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _until(self, wanted: Any) -> dict[str, Any]:
        """Read messages up to the wanted one."""
        end = time.monotonic() + self._timeout
        while time.monotonic() < end:
            while b"\0" in self._rest:
                raw, _, self._rest = self._rest.partition(b"\0")
                answer = json.loads(raw)
                self._note(answer)
                if wanted(answer):
                    return answer
            if select.select([self._read], [], [], 1.0)[0]:
                self._rest += os.read(self._read, 1 << 20)
            assert self._process.poll() is None, "the browser has ended"
        raise TimeoutError("the browser does not answer")

    def _note(self, answer: dict[str, Any]) -> None:
        given = answer.get("params", {})
        if answer.get("method") == "Runtime.consoleAPICalled":
            self.complaints.append(f"console: {given['args']}")
        elif answer.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {given['exceptionDetails']}")
        elif answer.get("method") == "Log.entryAdded":
            self.complaints.append(f"log: {given['entry']}")
        elif answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
