"""JupyterLab and Voila on this machine, looked at in Debian's chromium, with nothing beyond it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import nbformat

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 600_000
"""Nothing is decided by how fast a machine is: only what never comes ends a wait."""
ARGUMENTS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
             "--disable-background-networking --disable-component-update --disable-sync "
             "--enable-precise-memory-info").split()
WITH_3D = [*(argument for argument in ARGUMENTS if argument != "--disable-gpu"), "--use-gl=angle",
           "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""WebGL, computed without a graphics card."""
# JupyterLab's own, of extensions that are installed beside it, of drawing without a card and of
# a test's reading of what is drawn.
KNOWN_MESSAGES = ("[Federation Runtime]", "[ Federation Runtime ]", "shared singleton module",
                  "No satisfying version", "Failed to create module", "shared module is not",
                  "GPU stall due to ReadPixels", "Multiple readback operations")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(folder: Path, kind: str, theme: str = "JupyterLab Light", notebook: str = "",
           python: str = sys.executable):
    """The address of a JupyterLab (`lab`), a Voila or a Notebook 6 (`classic`) in `folder`."""
    port = free_port()
    settings = folder / ".settings"
    extension = settings / "@jupyterlab" / "apputils-extension"
    extension.mkdir(parents=True, exist_ok=True)
    (extension / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    (extension / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(settings), "OMP_NUM_THREADS": "1",
                   "JUPYTER_CONFIG_DIR": str(folder / ".config"),
                   "JUPYTER_DATA_DIR": str(folder / ".data")}
    if kind == "lab":
        command = ["lab", "--no-browser", "--allow-root", f"--port={port}",
                   "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=",
                   f"--ServerApp.root_dir={folder}"]
    elif kind == "classic":
        command = ["notebook", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
                   "--NotebookApp.token=", f"--notebook-dir={folder}"]
    else:
        command = ["voila", notebook, "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    with (folder / f"{kind}.log").open("w") as log:
        process = subprocess.Popen([python, "-m", *(["jupyter"] if kind == "lab" else []),
                                    *command], cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        # Voila's own address would start a kernel.
        _wait_for(f"{address}/{'voila/static/' if kind == 'voila' else 'api'}", process,
                  lambda: (folder / f"{kind}.log").read_text()[-2000:])
        yield address
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(address: str, process: subprocess.Popen, why: Callable[[], str]) -> None:
    """Until a server answers; an error, with the reason, where it has ended."""
    while True:
        if process.poll() is not None:
            raise RuntimeError(why())
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.25)


@contextmanager
def served_dashboard(source: Path):
    """The address of `deeplung-nb dashboard`, with its token."""
    command = [sys.executable, "-m", "deeplung_nb", "dashboard", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as process:
        try:
            address = next(line.strip() for line in process.stdout if "http://" in line)
            _wait_for(f"{address.split('/?')[0]}/voila/static/", process, lambda: "it ended")
            yield address
        finally:
            process.terminate()
            process.wait()


def write_notebook(path: Path, *sources: str) -> None:
    """A notebook of these cells, for the kernel of this environment."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3",
                                   "language": "python"}
    nbformat.write(book, path)


class Watched:
    """A page, all that it said, and all that it wanted from elsewhere."""

    def __init__(self, browser, **options) -> None:
        self.messages: list[str] = []
        self.elsewhere: list[str] = []
        self.page = browser.new_page(viewport={"width": 1280, "height": 1100}, **options)
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.messages.append(f"exception: {error}"))
        self.page.route(lambda url: not url.startswith(("http://127.0.0.1", "data:", "blob:",
                                                        "ws://127.0.0.1")), self._refuse)

    def _hear(self, message) -> None:
        if message.type in ("error", "warning") and not any(
                known in message.text for known in KNOWN_MESSAGES):
            self.messages.append(f"{message.type}: {message.text}")

    def _refuse(self, route) -> None:
        self.elsewhere.append(route.request.url)
        route.abort()

    def run_cells(self, address: str, name: str, n: int = 1) -> None:
        """Open a notebook in JupyterLab and run its first `n` cells."""
        # In a workspace of its own: what another page had open would be opened again.
        self.page.goto(f"{address}/lab/workspaces/{uuid.uuid4().hex}/tree/{name}")
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        self.page.wait_for_selector("text=(ipykernel) | Idle")
        for k in range(n):
            self.run_cell(k)

    def run_cell(self, k: int) -> None:
        """Run one cell of the notebook that is open."""
        self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").nth(k).click()
        self.page.keyboard.press("Shift+Enter")

    def bear_deaths(self) -> None:
        """Say yes where JupyterLab says, in a window of its own and not always, that a kernel died.
        """
        self.page.add_locator_handler(self.page.locator("dialog button", has_text="Ok").first,
                                      lambda button: button.click())

    def wait_for_viewer(self) -> None:
        """Until its first slice is drawn."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.dl-canvas')].some(c => c.dataset.index)")

    def viewer(self, expression: str):
        """The value of an expression over `v`, the viewer of the page."""
        return self.page.evaluate(
            "(code) => { let e = document.querySelector('.dl-viewer'); while (!e.viewer) "
            "e = e.parentElement; return new Function('v', 'return ' + code)(e.viewer); }",
            expression)
