"""A headless Chromium as a context manager: a page opened, its script asked, keys and mouse used, its picture taken.

Speaks the DevTools protocol over two pipes, so it needs no package and no port. For the pictures in the documentation
and the tests of pages.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab of `width` x `height` pixels. Messages of its console and of its policy are in `complaints`."""

    def __init__(self, width: int = 1280, height: int = 800):
        self._size = width, height
        self.complaints: list[str] = []

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        pipes = [*os.pipe(), *os.pipe()]
        theirs_in, self._to, self._from, theirs_out = (fcntl.fcntl(x, fcntl.F_DUPFD_CLOEXEC, 20) for x in pipes)
        for descriptor in pipes:  # they may be 3 or 4
            os.close(descriptor)
        options = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--hide-scrollbars", "--mute-audio",
            f"--user-data-dir={self._folder.name}", f"--window-size={self._size[0]},{self._size[1]}",
        ]  # fmt: skip
        # The browser reads commands from its file 3 and answers in its file 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "browser", find_browser(), *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._number, self._session = b"", 0, None
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(x["targetId"] for x in targets if x["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        width, height = self._size
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(Exception):
            self._session = None
            self._call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._folder.cleanup()

    def _call(self, method: str, **parameters) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message(60)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._take_note(answer)

    def _next_message(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _take_note(self, message: dict[str, Any]) -> None:
        method, facts = message.get("method"), message.get("params", {})
        if method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.complaints.append(facts["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            details = facts["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and facts["type"] == "error":
            self.complaints.append(" ".join(str(x.get("description", x.get("value"))) for x in facts["args"]))

    def open(self, address: str) -> None:
        self._call("Page.navigate", url=address)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited. RuntimeError if it throws."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 20) -> Any:
        """The value of the expression once it is true. TimeoutError if it does not become so."""
        end = time.monotonic() + seconds
        while True:
            value = self.ask(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"{expression} is {value!r}; complaints: {self.complaints}")
            time.sleep(0.05)

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key by its name: "a", "Enter", "ArrowLeft"."""
        facts: dict[str, Any] = {"key": key, "code": key, "modifiers": modifiers}
        facts["windowsVirtualKeyCode"] = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else None)
        self._call("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": text} if text else {}))
        self._call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def move(self, x: float, y: float) -> None:
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def prefer(self, scheme: str) -> None:
        """scheme: "dark" or "light"."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
