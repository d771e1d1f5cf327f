# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the system tests: real daemons of the build under test, and files for them to serve."""
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("VMSG_BUILD", "build/debug"))
START_SECONDS, STOP_SECONDS = 10, 15
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


def wait_for(condition, what, seconds=10.0):
    """The first true value of condition(), looked at again and again; the test fails without one."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} expected, not so after {seconds} s")
        time.sleep(0.002)
    return value


def check_sanitizers(text):
    found = [mark for mark in SANITIZER_MARKS if mark in text]
    assert not found, f"the output shows {found}:\n{text}"


def limiter(limits):
    """What a child does before exec to get {resource: value} as its limits."""
    def apply():
        for kind, value in limits.items():
            resource.setrlimit(kind, (value, value))
    return apply if limits else None


class ControlClient:
    """A connection to a control socket."""

    def __init__(self, path, timeout=10.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self._received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, raw):
        self.socket.sendall(raw)

    def answer(self):
        """The next line as an object; EOFError at the end."""
        while b"\n" not in self._received:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the daemon closed the control connection")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command, **arguments):
        self.send(json.dumps({"cmd": command, **arguments}).encode() + b"\n")
        return self.answer()


class Daemon:
    """A running vmsgd: .path is its socket, .proc the process, .control_path the control socket."""

    def __init__(self, folder, bus_options, devices, control=False, options=(), environment=None, limits=None,
                 stdin=subprocess.DEVNULL, stdout=None, ready=True):
        self.path = str(folder / "bus")
        self.control_path = str(folder / "control")
        self._log = folder / "log"
        self.command = [str(binary("vmsgd"))]
        if bus_options is not None:
            self.command += ["--bus", f"amp:{self.path}" + (f",{bus_options}" if bus_options else "")]
        for device in devices:
            self.command += ["--device", device]
        if control:
            self.command += ["--control", self.control_path]
        self.command += [str(option) for option in options]
        with open(self._log, "wb") as log:
            self.proc = subprocess.Popen(self.command, stdin=stdin, stdout=log if stdout is None else stdout,
                                         stderr=log, env={**os.environ, **(environment or {})},
                                         preexec_fn=limiter(limits))
        if ready:
            self.wait_ready()

    def wait_ready(self):
        """Until it says that it is ready, or, being told to be quiet, listens."""
        deadline = time.monotonic() + START_SECONDS
        while not (re.search(r"^vmsgd: ready: ", self.log(), re.M)
                   or ("-q" in self.command and listening(self.path))):
            if self.proc.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{' '.join(self.command)}\nshould get ready; exit {self.proc.returncode}, "
                            f"it said:\n{self.log()}")
            time.sleep(0.002)

    def log(self):
        return self._log.read_text(errors="replace")

    def alive(self):
        return self.proc.poll() is None

    def client(self, **options):
        return ControlClient(self.control_path, **options)

    def control(self, command, **arguments):
        """The answer to one command on a connection of its own."""
        with self.client() as client:
            return client.ask(command, **arguments)

    def fds(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def kill(self):
        if self.alive():
            self.proc.kill()
        self.proc.wait(STOP_SECONDS)

    def wait(self):
        """Its exit code, once it has ended by itself."""
        try:
            return self.proc.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"vmsgd should end within {STOP_SECONDS} s; it said:\n{self.log()}")

    def stop(self, number=signal.SIGTERM):
        """Ask it to end, and check that it ended well."""
        if self.alive():
            self.proc.send_signal(number)
        code = self.wait()
        check_sanitizers(self.log())
        assert code == 0, f"vmsgd ended with {code}; it said:\n{self.log()}"


@pytest.fixture
def short_path():
    """A folder with a short name: socket names are limited to about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="vmsg-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def vmsgd(short_path):
    """vmsgd(bus_options, *devices, **options of Daemon) starts a daemon, for instance
    vmsgd("layout=spsc", "blk,path=disk.img", control=True), in a folder of its own unless `folder` is given. It is
    stopped, and its end checked, when the test is over; a test that kills it says so with .kill()."""
    running = []

    def start(bus_options="", *devices, folder=None, **options):
        if folder is None:
            folder = short_path / str(len(running))
            folder.mkdir()
        daemon = Daemon(folder, bus_options, devices, **options)
        daemon.folder = folder
        running.append(daemon)
        return daemon

    yield start
    failed = []
    for daemon in running:
        if daemon.proc.returncode is None:
            try:
                daemon.stop()
            except BaseException as error:      # the others have to be stopped, too
                failed.append(error)
                daemon.kill()
    if failed:
        raise failed[0]


@pytest.fixture
def run_vmsgd(short_path):
    """run_vmsgd(*arguments) runs it to its end, in an empty folder: returncode, stdout, stderr."""
    def run(*arguments, **options):
        result = subprocess.run([str(binary("vmsgd")), *map(str, arguments)], capture_output=True, text=True,
                                errors="replace", timeout=20, cwd=short_path, stdin=subprocess.DEVNULL, **options)
        check_sanitizers(result.stderr)
        return result
    return run


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
