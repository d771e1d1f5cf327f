# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the system tests: real daemons of the build under test, and files for them to serve."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VMSG_BUILD", "build/debug"))
START_SECONDS, STOP_SECONDS = 10, 10
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:")


def binary(name):
    """A program of the build; a missing one is a failure, not a reason to skip."""
    path = ROOT / BUILD / name
    if not path.is_file():
        pytest.fail(f"{path} is missing: build first, or name the build folder in VMSG_BUILD")
    return path


def listening(path):
    """Somebody accepts connections on this socket. Trying it would make the daemon see a peer come and go."""
    with open("/proc/net/unix") as table:
        return any(line.split()[3] == "00010000" and line.rstrip("\n").endswith(" " + path) for line in table)


class Daemon:
    """A running vmsgd: .path is its socket, .proc the process."""

    def __init__(self, folder, bus_options, devices):
        self.path = str(folder / "bus")
        self._log = folder / "log"
        options = f",{bus_options}" if bus_options else ""
        command = [str(binary("vmsgd")), "--bus", f"amp:{self.path}{options}"]
        for device in devices:
            command += ["--device", device]
        with open(self._log, "wb") as log:
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await_socket(command)

    def _await_socket(self, command):
        deadline = time.monotonic() + START_SECONDS
        while not listening(self.path):
            if self.proc.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{' '.join(command)}\nshould listen on {self.path}; exit {self.proc.returncode}, "
                            f"it said:\n{self.log()}")
            time.sleep(0.005)

    def log(self):
        return self._log.read_text(errors="replace")

    def alive(self):
        return self.proc.poll() is None

    def kill(self):
        if self.alive():
            self.proc.kill()
        self.proc.wait(STOP_SECONDS)

    def stop(self):
        """Ask it to end, and check that it ended well."""
        if self.alive():
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail(f"vmsgd should end within {STOP_SECONDS} s of SIGTERM; it said:\n{self.log()}")
        assert self.proc.returncode == 0, f"vmsgd ended with {self.proc.returncode}; it said:\n{self.log()}"
        found = [mark for mark in SANITIZER_MARKS if mark in self.log()]
        assert not found, f"vmsgd's log shows {found}:\n{self.log()}"


@pytest.fixture
def short_path():
    """A folder with a short name: socket names are limited to about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="vmsg-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def vmsgd(short_path):
    """vmsgd(bus_options, *devices) starts a daemon, for instance vmsgd("layout=spsc", "blk,path=disk.img"). It is
    stopped, and its end checked, when the test is over; a test that kills it says so with .kill()."""
    running = []

    def start(bus_options="", *devices):
        folder = short_path / str(len(running))
        folder.mkdir()
        daemon = Daemon(folder, bus_options, devices)
        running.append(daemon)
        return daemon

    yield start
    for daemon in running:
        if daemon.proc.returncode != -signal.SIGKILL:
            daemon.stop()


@pytest.fixture
def disk_image(short_path):
    """disk_image(content) makes a file: of these bytes, or of that many random ones."""
    made = []

    def make(content=1 << 20):
        path = short_path / f"disk{len(made)}.img"
        path.write_bytes(os.urandom(content) if isinstance(content, int) else content)
        made.append(path)
        return path

    return make
