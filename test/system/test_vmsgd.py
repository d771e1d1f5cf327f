# SPDX-License-Identifier: BSD-3-Clause
"""The daemon as a program: command line, configuration, control socket, signals, what it leaves behind."""
import fcntl
import json
import os
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import termios
import time

import pytest

from conftest import ROOT, binary, listening, wait_for
from foreign import PeerError
from foreign.blk import IN, IOERR, OUT, SECTOR, Blk, RequestFailed
from foreign.driver import Driver
from foreign.link import Link

SANITIZED = b"__asan_init" in binary("vmsgd").read_bytes() if binary("vmsgd").is_file() else False


def numbers(daemon):
    return [device["num"] for device in daemon.control("list")["devices"]]


# -- command line -----------------------------------------------------------------------------------------------------

BUS = ("--bus", "amp:bus")
WRONG = [
    # options
    ([], "nothing to serve"),
    (["--frobnicate"], "--frobnicate", "--help"),
    (["--bus"], "--bus", "needs a value"),
    ([*BUS, "extra"], "'extra'"),
    ([*BUS, "--poll", "often"], "--poll", "often", "always", "never"),
    ([*BUS, "--poll", "-3"], "--poll", "-3"),
    ([*BUS, "--control", "a", "--control", "b"], "--control", "twice"),
    ([*BUS, "--control", ""], "--control", "path"),
    (["--config", "missing.conf"], "missing.conf", "No such file"),
    # buses
    (["--bus", "tcp:host"], "tcp:host", "amp:"),
    (["--bus", "amp:"], "--bus"),
    (["--bus", "amp:bus,layout=ring"], "layout", "spsc"),
    (["--bus", "amp:bus,size=100"], "size"),
    (["--bus", "amp:bus,size=3M"], "size"),
    (["--bus", "amp:bus,peers=0"], "peers"),
    (["--bus", "amp:bus,peers=1000"], "peers"),
    (["--bus", "amp:bus,dialect=v9"], "dialect", "v1"),
    (["--bus", "amp:bus,colour=red"], "colour"),
    (["--bus", "amp:" + "x" * 200], "--bus"),
    ([*BUS, *BUS], "already", "amp:bus"),
    # devices
    ([*BUS, "--device", "toaster"], "toaster", "blk", "rng", "console"),
    ([*BUS, "--device", ""], "type"),
    ([*BUS, "--device", "path=x"], "type"),
    ([*BUS, "--device", "blk"], "path="),
    ([*BUS, "--device", "blk,path="], "path="),
    ([*BUS, "--device", "blk,path=x,colour=red"], "colour", "path", "queues", "num"),
    ([*BUS, "--device", "rng,path=x"], "path", "rng"),
    ([*BUS, "--device", "blk,path=x,path=y"], "path", "twice"),
    ([*BUS, "--device", "blk,path=x,ro=maybe"], "ro", "maybe"),
    ([*BUS, "--device", "blk,path=x,queues=0"], "queues"),
    ([*BUS, "--device", "blk,path=x,queues=65"], "queues"),
    ([*BUS, "--device", "blk,path=x,queue_size=100"], "queue_size=100", "power of two"),
    ([*BUS, "--device", "blk,path=x,engine=steam"], "steam", "uring", "threads"),
    ([*BUS, "--device", "blk,path=x,serial=" + "s" * 21], "serial", "20"),
    ([*BUS, "--device", "blk,path=ram:"], "ram:"),
    ([*BUS, "--device", "blk,path=ram:1000"], "ram:1000", "512"),
    ([*BUS, "--device", "blk,path=null:x"], "null:x"),
    ([*BUS, "--device", "blk,path=ram:1M,direct"], "direct"),
    ([*BUS, "--device", "console,pty,stdio"], "pty", "stdio"),
    ([*BUS, "--device", "console,stdio,link=x"], "link"),
    ([*BUS, "--device", "console,raw"], "raw", "stdio"),
    ([*BUS, "--device", "console,stdio", "--device", "console,stdio"], "only one", "stdio"),
    ([*BUS, "--device", "rng,num=3", "--device", "rng,num=3"], "num=3", "taken"),
    ([*BUS, "--device", "rng,num=65536"], "num", "65535"),
    ([*BUS, "--device", "rng,num=-1"], "num"),
    ([*BUS, "--device", "rng,peer=2"], "peer=2", "peers=1"),
    ([*BUS, "--device", "rng,peer=0"], "peer"),
    ([*BUS, "--device", "rng,bus=other"], "other", "amp:bus"),
    (["--device", "rng"], "no bus", "--bus"),
    (["--device", "rng", *BUS, "--bus", "amp:bus2"], "on which bus"),
    (["--bus", "amp:bus,peers=2", "--device", "blk,path=x"], "x", "2 peers", "add ro or peer=K"),
    (["--bus", "amp:bus,peers=2", "--device", "blk,path=ram:1M"], "add ro or peer=K"),
    (["--bus", "amp:bus,peers=2", "--device", "console,link=x"], "link", "peer=K"),
    (["--bus", "amp:bus,peers=2", "--device", "console,stdio"], "stdio", "peer=K"),
]


@pytest.mark.parametrize("arguments, fragments", [(case[0], case[1:]) for case in WRONG],
                         ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "")
def test_wrong_command_line_is_one_line_that_names_the_fault(run_vmsgd, short_path, arguments, fragments):
    result = run_vmsgd(*arguments)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert re.fullmatch(r"vmsgd: [^\n]+\n", result.stderr), result.stderr
    for fragment in fragments:
        assert fragment in result.stderr
    assert os.listdir(short_path) == []


def prepare_directory(path):
    (path / "image").mkdir()


def prepare_fifo(path):
    os.mkfifo(path / "image")


def prepare_empty(path):
    (path / "image").touch()


def prepare_odd(path):
    (path / "image").write_bytes(bytes(1000))


def prepare_nothing(path):
    pass


@pytest.mark.parametrize("prepare, fragments", [
    (prepare_nothing, ["no such file", "truncate"]), (prepare_directory, ["directory"]),
    (prepare_fifo, ["neither a file nor a block device"]), (prepare_empty, ["empty"]), (prepare_odd, ["1000", "512"])],
    ids=["missing", "directory", "fifo", "empty", "odd-size"])
def test_unusable_image_is_one_line_that_names_it(run_vmsgd, short_path, prepare, fragments):
    prepare(short_path)
    result = run_vmsgd(*BUS, "--device", "blk,path=image")
    assert result.returncode == 1
    assert re.fullmatch(r"vmsgd: [^\n]+\n", result.stderr), result.stderr
    for fragment in ["image", *fragments]:
        assert fragment in result.stderr
    assert not (short_path / "bus").exists()


def test_forbidden_image_is_one_line_that_names_it(short_path, disk_image):
    path = disk_image()
    path.chmod(0o400)
    command = [str(binary("vmsgd")), "--bus", f"amp:{short_path}/bus", "--device", f"blk,path={path}"]
    if os.geteuid() == 0:                       # root may write everything, but for this right
        command = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override", *command]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert str(path) in result.stderr and "permission denied" in result.stderr and "'ro'" in result.stderr


def test_image_that_another_daemon_writes_is_refused(vmsgd, run_vmsgd, disk_image):
    path = disk_image()
    vmsgd("", f"blk,path={path}")
    result = run_vmsgd("--bus", "amp:second", "--device", f"blk,path={path}")
    assert result.returncode == 1 and str(path) in result.stderr and "in use" in result.stderr


@pytest.mark.parametrize("arguments", [["--bus", "amp:missing/bus"], [*BUS, "--control", "missing/control"]],
                         ids=["bus", "control"])
def test_missing_folder_of_a_socket_is_named(run_vmsgd, short_path, arguments):
    result = run_vmsgd(*arguments, "--device", "rng")
    assert result.returncode == 1 and "missing" in result.stderr and "No such file" in result.stderr
    assert os.listdir(short_path) == []


def test_file_in_the_place_of_a_socket_is_left_alone(run_vmsgd, short_path):
    (short_path / "bus").write_text("mine")
    result = run_vmsgd(*BUS, "--device", "rng")
    assert result.returncode == 1 and "not a socket" in result.stderr
    assert (short_path / "bus").read_text() == "mine"


def test_file_names_cannot_break_the_one_line(run_vmsgd):
    result = run_vmsgd(*BUS, "--device", "blk,path=a\nb\x1b[31m")
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "\x1b" not in result.stderr


def test_help_tells_a_newcomer_what_to_type(run_vmsgd):
    result = run_vmsgd("--help")
    assert result.returncode == 0 and result.stderr == ""
    for text in ("usage:", "truncate -s", "--bus amp:", "--device blk,path=", "vmsg list", "--config", "--control",
                 "--poll", "--check", "--trace", "Exit status"):
        assert text in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_and_manual_name_every_key(run_vmsgd):
    devices = json.loads(run_vmsgd("--print-capabilities").stdout)["devices"]
    text = run_vmsgd("--help").stdout
    manual = (ROOT / "doc/vmsgd.8.scd").read_text().replace("\\", "")
    for page in (text, manual):
        for name, facts in devices.items():
            for key in [name, *facts["keys"]]:
                assert re.search(rf"\b{key}\b", page), f"{name}: {key}"


def test_version_and_capabilities(run_vmsgd):
    assert re.fullmatch(r"vmsgd \d+\.\d+\.\d+\n", run_vmsgd("--version").stdout)
    facts = json.loads(run_vmsgd("--print-capabilities").stdout)
    assert set(facts["devices"]) == {"blk", "rng", "console"} and "amp" in facts["buses"]


def test_full_standard_output_is_an_error(run_vmsgd):
    with open("/dev/full", "w") as full:
        result = subprocess.run([str(binary("vmsgd")), "--help"], stdout=full, stderr=subprocess.PIPE, timeout=10)
    assert result.returncode == 1 and b"standard output" in result.stderr


# -- check ------------------------------------------------------------------------------------------------------------

def test_check_says_what_would_be_served_and_touches_nothing(run_vmsgd, short_path, disk_image):
    path = disk_image()
    result = run_vmsgd(*BUS, "--check", "--device", f"blk,path={path},ro", "--device", "rng", "--device",
                       "console,link=con", "--control", "control", "--pidfile", "pid")
    assert result.returncode == 0, result.stderr
    assert "ok: amp:bus" in result.stdout and "3 devices" in result.stdout
    assert str(path) in result.stdout and "1 MiB" in result.stdout and "read-only" in result.stdout
    assert os.listdir(short_path) == [path.name]


@pytest.mark.parametrize("arguments, code, fragment", [
    ([*BUS, "--device", "blk,path=missing"], 1, "missing"), ([*BUS, "--device", "toaster"], 2, "toaster"),
    (["--bus", "amp:missing/bus"], 1, "missing"), ([*BUS, "--control", "missing/c"], 1, "missing")])
def test_check_finds_what_would_fail(run_vmsgd, arguments, code, fragment):
    result = run_vmsgd("--check", *arguments)
    assert result.returncode == code and fragment in result.stderr


# -- configuration file -----------------------------------------------------------------------------------------------

def config_lines(*lines):
    return "".join(line + "\n" for line in lines)


def test_configuration_file_serves_all_it_describes(vmsgd, short_path, disk_image):
    path = disk_image()
    folder = short_path / "conf"
    folder.mkdir()
    conf = folder / "vmsgd.conf"
    conf.write_text(config_lines(
        "# a comment", "; another", "[daemon]", f"control = {folder}/control", "poll = never", "",
        "[bus main]", f"  address = amp:{folder}/bus,layout=spsc",
        "[bus other]", f"address=amp:{folder}/other,peers=2",
        "[device root]", "type = blk", "bus = main", f"path = {path}   ; with a comment", "ro = yes", "num = 7",
        "[device noise]", "type = rng", "bus = other"))
    daemon = vmsgd(None, f"rng,bus=main", folder=folder, options=("--config", conf))
    devices = daemon.control("list")["devices"]
    assert {(d["bus"], d["num"], d["type"]) for d in devices} == {("main", 0, "rng"), ("main", 7, "blk"),
                                                                  ("other", 0, "rng")}
    assert [d.get("name") for d in devices if d["num"] == 7] == ["root"]
    assert daemon.control("stat")["daemon"]["poll"] == "never"
    with Link(daemon.path, "spsc") as link:
        assert sorted(link.devices()) == [0, 7]
        assert Blk(link, 7).start().read(0, 4096) == path.read_bytes()[:4096]


def test_command_line_outranks_the_file(vmsgd, short_path):
    folder = short_path / "conf"
    folder.mkdir()
    conf = folder / "vmsgd.conf"
    conf.write_text(config_lines("[daemon]", "control = nowhere/control", "spin = always", "[bus b]",
                                 f"address = amp:{folder}/bus", "[device r]", "type = rng"))
    daemon = vmsgd(None, folder=folder, control=True, options=("--config", conf, "--poll", "20"))
    assert daemon.control("stat")["daemon"]["poll"] == 20


@pytest.mark.parametrize("lines, line, fragments", [
    (["x = 1"], 1, ["x", "section"]),
    (["[bus b]", "address = amp:b", "[toaster t]"], 3, ["toaster", "[bus NAME]"]),
    (["[bus]", "address = amp:b"], 1, ["name"]),
    (["[bus b c]", "address = amp:b"], 1, ["name"]),
    (["[bus " + "b" * 100 + "]", "address = amp:b"], 1, ["name"]),
    (["[bus b", "address = amp:b"], 1, ["]"]),
    (["[bus b] x", "address = amp:b"], 1, ["behind"]),
    (["", "[bus b]", "address = tcp:b"], 3, ["tcp:b"]),
    (["[bus b]", "adress = amp:b"], 2, ["adress", "address"]),
    (["[bus b]", "[device d]", "type = rng"], 1, ["b", "address"]),
    (["[bus b]", "address = amp:b", "[bus b]", "address = amp:c"], 4, ["already"]),
    (["[bus b]", "address = amp:b", "address = amp:c"], 3, ["address", "twice"]),
    (["[bus b]", "address = amp:b", "[device d]"], 3, ["d", "type"]),
    (["[bus b]", "address = amp:b", "[device d]", "type = toaster"], 4, ["toaster", "rng"]),
    (["[bus b]", "address = amp:b", "[device d]", "colour = red", "type = rng"], 4, ["colour"]),
    (["[bus b]", "address = amp:b", "[device d]", "type = blk", "queues = many"], 5, ["queues", "many"]),
    (["[bus b]", "address = amp:b", "[device d]", "type = rng", "[device d]", "type = rng"], 5, ["twice"]),
    (["[bus b]", "address = amp:b", "[device d]", "type = blk", "ro"], 5, ["key = value"]),
    (["[bus b]", "address = amp:b", "# " + "x" * 300], 3, ["bytes"]),
    (["[daemon]", "colour = red"], 2, ["colour", "control"]),
    (["[daemon]", "poll = often"], 2, ["often"]),
    (["[daemon]", "[daemon]"], 2, ["twice"]),
])
def test_fault_in_the_configuration_file_is_named_with_its_line(run_vmsgd, short_path, lines, line, fragments):
    (short_path / "x.conf").write_text(config_lines(*lines))
    result = run_vmsgd("--config", "x.conf")
    assert result.returncode == 2, result
    assert re.fullmatch(rf"vmsgd: x.conf:{line}: [^\n]+\n", result.stderr), result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


@pytest.mark.parametrize("lines, line, fragments, code", [
    (["[bus b]", "address = amp:b", "", "[device d]", "type = blk", "path = missing"], 4, ["missing"], 1),
    (["[bus b]", "address = amp:b", "[device d]", "type = blk"], 3, ["path="], 2),
    (["[bus b]", "address = amp:b", "[device d]", "type = rng", "bus = c"], 3, ["'c'"], 2),
    (["[bus b]", "address = amp:b", "[bus c]", "address = amp:c", "[device d]", "type = rng"], 5, ["which bus"], 2),
    (["[bus b]", "address = amp:missing/b"], 1, ["missing"], 1)])
def test_fault_found_later_still_names_the_section(run_vmsgd, short_path, lines, line, fragments, code):
    (short_path / "x.conf").write_text(config_lines(*lines))
    result = run_vmsgd("--config", "x.conf")
    assert result.returncode == code, result
    assert result.stderr.startswith(f"vmsgd: x.conf:{line}: ") and result.stderr.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.stderr


def test_example_configuration_is_valid(run_vmsgd, short_path):
    """The file as it is, but for the folders it names."""
    content = (ROOT / "example/vmsgd.conf").read_text()
    content = re.sub(r"(?m)(?<=[= :])/[^\s,]*/(?=[^\s,/]+)", "", content)
    (short_path / "x.conf").write_text(content)
    for image in re.findall(r"(?m)^path = ([^:\s]+)$", content):
        (short_path / image).write_bytes(bytes(1 << 20))
    result = run_vmsgd("--config", "x.conf", "--check")
    assert result.returncode == 0 and result.stdout.count("ok:") == content.count("[bus "), result


# -- readiness and the end --------------------------------------------------------------------------------------------

def test_ready_line_counts_devices_and_names_the_terminal(vmsgd):
    daemon = vmsgd("", "blk,path=ram:1M", "rng", "console")
    assert f"vmsgd: ready: amp:{daemon.path} (3 devices)\n" in daemon.log()
    terminal = re.search(r"device 2: console (/dev/pts/\d+)\n", daemon.log())[1]
    assert stat.S_ISCHR(os.stat(terminal).st_mode)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_ends_it_cleanly_and_leaves_nothing(vmsgd, short_path, number):
    pidfile, link = short_path / "pid", short_path / "console"
    daemon = vmsgd("", "rng", f"console,link={link}", control=True, options=("--pidfile", pidfile))
    assert int(pidfile.read_text()) == daemon.proc.pid
    assert os.readlink(link).startswith("/dev/pts/")
    daemon.stop(number)
    assert not os.path.exists(daemon.path) and not os.path.exists(daemon.control_path)
    assert not pidfile.exists() and not link.is_symlink()


def test_end_with_a_client_connected_tells_the_client(vmsgd):
    daemon = vmsgd("", "blk,path=ram:1M")
    with Link(daemon.path) as link:
        blk = Blk(link).start()
        daemon.stop()
        with pytest.raises(PeerError):
            blk.read(0, 4096)


FLUSH_THAT_HANGS = """
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) { (void)fd; while (access(getenv("GATE"), F_OK)) usleep(1000); return 0; }
"""


@pytest.fixture
def slow_flush(short_path):
    """Environment in which the daemon's flush at the end takes until the file `gate` exists."""
    source, library = short_path / "slow.c", short_path / "slow.so"
    source.write_text(FLUSH_THAT_HANGS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    gate = short_path / "gate"
    environment = {"LD_PRELOAD": str(library), "GATE": str(gate), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    return environment, gate


def test_end_waits_for_the_flush_of_the_file(vmsgd, disk_image, slow_flush):
    environment, gate = slow_flush
    daemon = vmsgd("", f"blk,path={disk_image()}", control=True, options=("-v",), environment=environment)
    daemon.proc.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in daemon.log(), "the daemon to say that it stops")
    assert daemon.control("list")["ok"]         # it still turns
    assert daemon.control("add", device="rng") == {"ok": False, "error": "the daemon is stopping"}
    assert daemon.alive()
    gate.touch()
    assert daemon.wait() == 0


def test_second_signal_ends_it_at_once(vmsgd, disk_image, slow_flush):
    environment, _ = slow_flush
    daemon = vmsgd("", f"blk,path={disk_image()}", control=True, options=("-v",), environment=environment)
    daemon.proc.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in daemon.log(), "the daemon to say that it stops")
    daemon.proc.send_signal(signal.SIGTERM)
    assert daemon.wait() == 1
    assert not os.path.exists(daemon.path) and not os.path.exists(daemon.control_path)


def test_systemd_is_told(short_path, vmsgd):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(short_path / "notify"))
        notify.settimeout(10)
        daemon = vmsgd("", "rng", environment={"NOTIFY_SOCKET": str(short_path / "notify")})
        assert b"READY=1" in notify.recv(4096)
        daemon.stop()
        assert b"STOPPING=1" in notify.recv(4096)


def test_quiet_is_quiet_and_verbose_tells_who_comes(vmsgd):
    quiet = vmsgd("", "rng", options=("-q",))
    with Link(quiet.path):
        pass
    quiet.stop()
    assert quiet.log() == ""
    verbose = vmsgd("", "rng", options=("-v",))
    with Link(verbose.path):
        pass
    verbose.stop()
    assert "peer 1 connected" in verbose.log() and "peer 1 left" in verbose.log()


def test_trace_shows_every_message_on_one_line(vmsgd):
    daemon = vmsgd("", "rng", options=("--trace",))
    with Link(daemon.path) as link:
        link.ping(0xABCD)
        link.request("GET_DEVICE_INFO", 0)
        sent, received = link.messages_sent, link.messages_received
    daemon.stop()
    lines = [line for line in daemon.log().splitlines() if not line.startswith("vmsgd:")]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{6} (->|<-) amp:\S+ [A-Z_]+ ?", line) for line in lines), lines
    assert sum(" <- " in line for line in lines) == sent
    assert sum(" -> " in line for line in lines) >= received
    assert any(" <- " in line and "PING" in line for line in lines)
    assert any(" -> " in line and "GET_DEVICE_INFO" in line for line in lines)


# -- sockets ----------------------------------------------------------------------------------------------------------

def test_sockets_are_the_owners_only(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    for path in (daemon.path, daemon.control_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    open_one = vmsgd("mode=666", "rng")
    assert stat.S_IMODE(os.stat(open_one.path).st_mode) == 0o666


def test_restart_after_kill_replaces_stale_sockets(vmsgd, disk_image):
    path = disk_image()
    first = vmsgd("", f"blk,path={path}", control=True)
    with Link(first.path) as link:
        Blk(link).start().write(0, b"k" * 512)
        first.kill()
    assert os.path.exists(first.path) and os.path.exists(first.control_path)
    second = vmsgd("", f"blk,path={path}", control=True, folder=first.folder)
    with Link(second.path) as link:
        assert Blk(link).start().read(0, 512) == b"k" * 512
    assert second.control("list")["ok"]


@pytest.mark.parametrize("which", ["bus", "control"])
def test_sockets_of_a_living_daemon_are_refused(vmsgd, run_vmsgd, which):
    daemon = vmsgd("", "rng", control=True)
    bus = daemon.path if which == "bus" else "other"
    result = run_vmsgd("--bus", f"amp:{bus}", "--device", "rng", "--control", daemon.control_path)
    assert result.returncode == 1 and "another process" in result.stderr and result.stderr.count("\n") == 1
    assert daemon.control("list")["ok"] and listening(daemon.path)


# -- control socket ---------------------------------------------------------------------------------------------------

def test_list_shows_what_is_served(vmsgd, disk_image):
    path = disk_image(1 << 20)
    daemon = vmsgd("", f"blk,path={path},ro,num=4,queues=2", "rng", "console", control=True)
    disk, noise, console = sorted(daemon.control("list")["devices"], key=lambda device: device["type"] != "blk")
    assert (disk["num"], disk["type"], disk["path"], disk["size"], disk["read_only"], disk["queues"]) == \
        (4, "blk", str(path), 1 << 20, True, 2)
    assert disk["bus"] == f"amp:{daemon.path}" and disk["peers"] == [1] and disk["state"] == "serving"
    assert (noise["num"], noise["type"]) == (0, "rng")
    assert (console["num"], console["type"]) == (1, "console") and console["path"].startswith("/dev/pts/")


def test_devices_come_and_go_and_the_driver_side_hears_of_it(vmsgd, disk_image):
    daemon = vmsgd("", "rng", control=True)
    path = disk_image()
    with Link(daemon.path) as link:
        assert link.devices() == [0]
        added = daemon.control("add", device=f"blk,path={path}")
        assert added["ok"] and added["num"] == 1 and added["device"]["path"] == str(path)
        link.until(lambda: link.events, "EVENT_DEVICE")
        event = link.events.pop()
        assert (event.name, event["device_number"], event["state"]) == ("EVENT_DEVICE", 1, 1)
        assert link.devices() == [0, 1] and numbers(daemon) == [0, 1]
        assert Blk(link, 1).start().read(0, 4096) == path.read_bytes()[:4096]
        assert daemon.control("remove", num=1) == {"ok": True}
        link.until(lambda: link.events, "EVENT_DEVICE")
        event = link.events.pop()
        assert (event.name, event["device_number"], event["state"]) == ("EVENT_DEVICE", 1, 2)
        assert link.devices() == [0] and numbers(daemon) == [0]
        assert daemon.control("add", device="rng")["num"] == 2      # a number rests after its device left
        assert daemon.control("add", device="rng,num=1")["num"] == 1
    assert numbers(daemon) == [0, 2, 1]


def test_removed_image_is_free_for_others(vmsgd, disk_image):
    path = disk_image()
    first, second = vmsgd("", f"blk,path={path}", control=True), vmsgd("", "rng", control=True)
    assert "in use" in second.control("add", device=f"blk,path={path}")["error"]
    assert first.control("remove", num=0)["ok"]
    assert second.control("add", device=f"blk,path={path}")["ok"]


def test_removal_waits_for_the_flush_and_the_loop_goes_on(vmsgd, disk_image, slow_flush):
    environment, gate = slow_flush
    daemon = vmsgd("", f"blk,path={disk_image()}", "blk,path=ram:1M", control=True, environment=environment)
    with daemon.client() as remover, Link(daemon.path) as link:
        blk = Blk(link, 1).start()
        remover.send(b'{"cmd":"remove","num":0}\n{"cmd":"list"}\n')
        states = wait_for(lambda: [d["state"] for d in daemon.control("list")["devices"]
                                   if d["num"] == 0] == ["removing"],
                          "device 0 to be in removal")
        assert states
        blk.write(0, b"x" * 4096)               # the other device is served meanwhile
        assert "no device 0" in daemon.control("remove", num=0)["error"]
        assert "taken" in daemon.control("add", device="rng,num=0")["error"]
        gate.touch()
        assert remover.answer() == {"ok": True}
        assert [d["num"] for d in remover.answer()["devices"]] == [1]


@pytest.mark.parametrize("engine", ["uring", "threads", "sync"])
def test_removal_during_io_loses_no_acknowledged_byte(vmsgd, disk_image, engine):
    path = disk_image(4 << 20)
    daemon = vmsgd("", f"blk,path={path},engine={engine}", "rng", control=True)
    with Link(daemon.path) as link:
        blk = Blk(link, 0, slot_bytes=65536).start()
        blk.write(0, b"a" * 65536)
        blk.flush()
        requests = [blk.submit(OUT, 128 * index, data=b"b" * 65536) for index in range(1, 8)]
        blk.kick()
        assert daemon.control("remove", num=0)["ok"]
        link.until(lambda: link.events, "EVENT_DEVICE")
        blk.reap()
        for index, request in enumerate(requests, 1):
            if request.done and request.status == 0:
                assert path.read_bytes()[65536 * index:65536 * (index + 1)] == b"b" * 65536
        assert link.devices() == [1]
        assert daemon.control("add", device=f"blk,path={path}")["num"] == 2
        again = Blk(link, 2).start()
        assert again.read(0, 65536) == b"a" * 65536


def test_growing_a_disk_is_seen_by_the_driver(vmsgd, disk_image):
    path = disk_image(1 << 20)
    daemon = vmsgd("", f"blk,path={path}", "rng", control=True)
    with Link(daemon.path) as link:
        blk = Blk(link, 0).start()
        answer = daemon.control("resize", num=0, size="3M")
        assert answer["ok"] and answer["device"]["size"] == 3 << 20 == path.stat().st_size
        link.until(lambda: link.events, "EVENT_CONFIG")
        assert link.events.pop().name == "EVENT_CONFIG"
        blk.read_config()
        assert blk.capacity == 3 << 20
        blk.write((3 << 20) - 512, b"z" * 512)
        os.truncate(path, 4 << 20)              # by somebody else
        assert daemon.control("resize", num=0)["device"]["size"] == 4 << 20
        blk.read_config()
        assert blk.capacity == 4 << 20
    assert path.read_bytes()[(3 << 20) - 512:3 << 20] == b"z" * 512


@pytest.mark.parametrize("device, arguments, fragment", [
    ("blk,path={image}", {"size": 1 << 19}, "only grow"), ("blk,path={image}", {"size": 1048577}, "multiple"),
    ("blk,path={image}", {"size": "many"}, "many"), ("blk,path={image}", {"size": -1}, "size"),
    ("blk,path={image}", {"size": 1.5}, "size"), ("blk,path={image},ro", {"size": 1 << 21}, "read-only"),
    ("blk,path=ram:1M", {"size": 1 << 21}, "fixed"), ("rng", {}, "no size"), ("rng", {"num": 5}, "no device 5")])
def test_resize_that_makes_no_sense_is_refused(vmsgd, disk_image, device, arguments, fragment):
    path = disk_image(1 << 20)
    daemon = vmsgd("", device.format(image=path), control=True)
    answer = daemon.control("resize", **{"num": 0, **arguments})
    assert answer["ok"] is False and fragment in answer["error"]
    assert path.stat().st_size == 1 << 20


def test_resize_of_a_full_file_system_is_an_error(vmsgd, disk_image):
    path = disk_image(1 << 20)
    daemon = vmsgd("", f"blk,path={path}", control=True)
    resource.prlimit(daemon.proc.pid, resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
    answer = daemon.control("resize", num=0, size="4M")
    assert not answer["ok"] and "File too large" in answer["error"]
    assert daemon.control("resize", num=0, size="2M")["ok"]


def test_stat_counts(vmsgd, disk_image):
    daemon = vmsgd("peers=2", f"blk,path={disk_image()},ro", "rng", control=True)
    with Link(daemon.path) as link:
        blk = Blk(link, 0).start()
        blk.read(0, 8192)
        facts = daemon.control("stat")
        bus, = facts["buses"]
        assert bus["connects"] == 1 and [peer["connected"] for peer in bus["peers"]] == [True, False]
        assert bus["peers"][0]["pid"] == os.getpid() and bus["peers"][0]["received"] > 5
        disk = facts["devices"][0]["instances"][0]
        assert disk["read_bytes"] == 8192 and disk["reads"] >= 1 and "DRIVER_OK" in disk["status"]
        assert disk["queues"][0]["enabled"] and disk["queues"][0]["max_size"] == 128
        assert facts["devices"][0]["instances"][1]["reads"] == 0
        assert facts["daemon"]["pid"] == daemon.proc.pid
    assert daemon.control("stat", bus=daemon.path)["buses"][0]["path"] == daemon.path


def test_quit_answers_and_ends(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    assert daemon.control("quit") == {"ok": True}
    assert daemon.wait() == 0


BAD_LINES = [
    b"hello", b"{", b"[]", b"null", b"42", b'"list"', b"{}", b'{"cmd":1}', b'{"cmd":"dance"}', b'{"cmd":"list"} x',
    b'{"cmd":"list","cmd":"list"}', b'{"cmd":"list","x":1}', b"\xff\xfe\x00\x01", b'{"cmd":"\\u0000"}', b"\0\0\0",
    b'{"cmd":"remove"}', b'{"cmd":"remove","num":"0"}', b'{"cmd":"remove","num":-1}', b'{"cmd":"remove","num":99}',
    b'{"cmd":"remove","num":1e3}', b'{"cmd":"remove","num":0,"bus":"nowhere"}', b'{"cmd":"remove","num":0,"bus":7}',
    b'{"cmd":"remove","num":123456789012345678901234567890}',
    b'{"cmd":"add"}', b'{"cmd":"add","device":7}', b'{"cmd":"add","device":"toaster"}', b'{"cmd":"add","device":""}',
    b'{"cmd":"add","device":"blk,path=/nonexistent"}', b'{"cmd":"add","device":"rng,num=0"}',
    b'{"cmd":"add","device":"rng","bus":"nowhere"}', b'{"cmd":"add","device":"rng,peer=2"}',
    b'{"cmd":"resize","num":0,"size":{}}', b'{"cmd":"quit","now":true}', b"[" * 5000, b'{"a":' * 3000,
]


def test_garbage_is_answered_and_survived(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    with daemon.client() as client:
        for line in BAD_LINES:
            client.send(line + b"\n")
            answer = client.answer()
            assert answer["ok"] is False and answer["error"] and "\n" not in answer["error"], line
            assert client.ask("list")["devices"][0]["num"] == 0
    assert numbers(daemon) == [0]


def test_commands_in_one_piece_or_byte_by_byte(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    with daemon.client() as client:
        client.send(b'{"cmd":"list"}\n\r\n  \n{"cmd":"nonsense"}\r\n{"cmd":"list"}\n')
        assert [client.answer()["ok"] for _ in range(3)] == [True, False, True]
        for byte in b'{"cmd":"list"}\n':
            client.send(bytes([byte]))
        assert client.answer()["ok"]
        client.send(b'{"cmd":"list"}')          # the end of the connection ends the line
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer()["ok"]
        with pytest.raises(EOFError):
            client.answer()


def test_line_that_is_too_long_costs_one_error(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    with daemon.client() as client:
        longest = b'{"cmd":"list"' + b" " * (65536 - 14) + b"}"
        assert len(longest) == 65536
        client.send(longest + b"\n")
        assert client.answer()["ok"]
        for size in (65537, 65538, 200000, 1 << 20):
            client.send(b"x" * size + b"\n")
            answer = client.answer()
            assert not answer["ok"] and "65536" in answer["error"]
        assert client.ask("list")["ok"]


def test_client_that_never_reads_harms_nobody(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    with daemon.client() as deaf:
        deaf.socket.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 64 << 20:
                sent += deaf.socket.send(b'{"cmd":"stat"}\n' * 4000)
        for _ in range(20):
            assert daemon.control("list")["ok"]
    assert daemon.control("list")["ok"]
    assert "VmRSS" in open(f"/proc/{daemon.proc.pid}/status").read()


def test_many_clients_and_one_too_many(vmsgd):
    daemon = vmsgd("", "rng", control=True)
    clients = [daemon.client() for _ in range(32)]
    assert all(client.ask("list")["ok"] for client in clients)
    with daemon.client() as late:
        assert "too many" in late.answer()["error"]
    clients.pop().close()
    wait_for(lambda: daemon.control("list")["ok"], "a free place")
    for client in clients:
        client.close()


def test_client_that_leaves_during_its_removal_is_forgotten(vmsgd, disk_image, slow_flush):
    environment, gate = slow_flush
    daemon = vmsgd("", f"blk,path={disk_image()}", "rng", control=True, environment=environment)
    with daemon.client() as client:
        client.send(b'{"cmd":"remove","num":0}\n')
        wait_for(lambda: daemon.control("list")["devices"][0]["state"] == "removing", "the removal to begin")
    gate.touch()
    wait_for(lambda: numbers(daemon) == [1], "device 0 to be gone")


def test_console_on_standard_input_cannot_be_added_twice(vmsgd):
    daemon = vmsgd("", "console,stdio", control=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert "only one" in daemon.control("add", device="console,stdio")["error"]
    daemon.proc.stdin.close()
    daemon.proc.stdout.close()


# -- several peers and buses ------------------------------------------------------------------------------------------

def test_each_peer_has_devices_of_its_own(vmsgd, disk_image):
    path, own = disk_image(), disk_image()
    daemon = vmsgd("peers=2", f"blk,path={path},ro", f"blk,path={own},peer=2", control=True)
    assert [device["peers"] for device in daemon.control("list")["devices"]] == [[1, 2], [2]]
    with Link(daemon.path) as one, Link(daemon.path) as two:
        assert one.devices() == [0] and two.devices() == [0, 1]
        disks = [Blk(one, 0).start(), Blk(two, 0).start()]
        assert [disk.read(0, 4096) for disk in disks] == [path.read_bytes()[:4096]] * 2
        disks[0].driver.reset()
        assert disks[1].read(0, 4096) == path.read_bytes()[:4096]
        Blk(two, 1).start().write(0, b"2" * 512)
        with pytest.raises(Exception):
            Link(daemon.path, timeout=0.5)
    assert own.read_bytes()[:512] == b"2" * 512


def test_same_number_for_different_peers_needs_the_peer_to_be_named(vmsgd):
    daemon = vmsgd("peers=2", "rng,num=1,peer=1", "rng,num=1,peer=2", control=True)
    assert "peer" in daemon.control("remove", num=1)["error"]
    assert daemon.control("remove", num=1, peer=2)["ok"]
    assert [device["peers"] for device in daemon.control("list")["devices"]] == [[1]]


def test_several_buses_in_one_daemon(vmsgd, short_path, disk_image):
    path = disk_image()
    second = short_path / "second"
    daemon = vmsgd("", "rng", f"blk,path={path},ro", control=True,
                   options=("--bus", f"amp:{second},layout=spsc", "--device", f"blk,path={path},ro"))
    with Link(daemon.path) as one, Link(str(second), "spsc") as two:
        assert one.devices() == [0, 1] and two.devices() == [0]
        assert Blk(one).start().read(0, 4096) == Blk(two).start().read(0, 4096) == path.read_bytes()[:4096]
    assert "which bus" in daemon.control("add", device="rng")["error"]
    assert daemon.control("add", device="rng", bus=str(second))["num"] == 1
    assert daemon.control("remove", num=1, bus=f"amp:{second}")["ok"]
    assert len(daemon.control("list", bus=str(second))["devices"]) == 1
    assert daemon.log().count("ready:") == 2


def test_device_before_its_only_bus(run_vmsgd):
    assert "would serve 1 device\n" in run_vmsgd("--device", "rng", *BUS, "--check").stdout


def test_numbers_count_from_zero_around_given_ones(vmsgd):
    daemon = vmsgd("", "rng", "rng,num=1", "rng", "rng,num=300", "rng", control=True)
    assert numbers(daemon) == [0, 1, 2, 300, 3]


# -- input and output -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("engine", ["auto", "uring", "threads", "sync"])
def test_disk_errors_reach_the_driver_and_pass(vmsgd, disk_image, engine):
    """Writes beyond the size limit of the process fail; everything else works on."""
    path = disk_image(1 << 20)
    before = path.read_bytes()
    daemon = vmsgd("", f"blk,path={path},engine={engine}", control=True)
    resource.prlimit(daemon.proc.pid, resource.RLIMIT_FSIZE, (512 << 10, 512 << 10))
    with Link(daemon.path) as link:
        blk = Blk(link).start()
        for _ in range(3):
            with pytest.raises(RequestFailed) as failure:
                blk.one(OUT, (768 << 10) // SECTOR, data=b"n" * 4096)
            assert failure.value.status == IOERR
            blk.write(4096, b"y" * 4096)
            blk.flush()
            assert blk.read(0, 1 << 20) == before[:4096] + b"y" * 4096 + before[8192:]
    assert daemon.control("stat")["devices"][0]["instances"][0]["failed"] == 3


def test_file_cut_by_somebody_else_gives_errors_not_an_end(vmsgd, disk_image):
    path = disk_image(1 << 20)
    daemon = vmsgd("", f"blk,path={path}", control=True)
    with Link(daemon.path) as link:
        blk = Blk(link).start()
        os.truncate(path, 4096)
        with pytest.raises(RequestFailed):
            blk.one(IN, 128, room=4096)
        assert daemon.control("resize", num=0)["device"]["size"] == 4096
        blk.read_config()
        assert blk.capacity == 4096 and len(blk.read(0, 4096)) == 4096


@pytest.mark.parametrize("poll", ["never", "always", "0", "50", "2000"])
def test_every_way_of_polling_serves(vmsgd, disk_image, poll):
    path = disk_image(1 << 20)
    daemon = vmsgd("", f"blk,path={path}", options=("--poll", poll))
    with Link(daemon.path) as link:
        blk = Blk(link, ring=("event_idx", "indirect")).start()
        for round in range(20):
            data = os.urandom(8192)
            blk.write(8192 * round, data)
            assert blk.read(8192 * round, 8192) == data
    assert path.read_bytes()[:8192] != bytes(8192)


def test_memory_disks_serve(vmsgd):
    daemon = vmsgd("", "blk,path=ram:1M", "blk,path=null:1T")
    with Link(daemon.path) as link:
        ram = Blk(link, 0).start()
        ram.write(4096, b"r" * 4096)
        assert ram.read(0, 12288) == bytes(4096) + b"r" * 4096 + bytes(4096)
        null = Blk(link, 1).start()
        assert null.capacity == 1 << 40
        null.write((1 << 40) - 4096, b"n" * 4096)


def test_commas_in_names_and_sizes_with_units(vmsgd, short_path):
    path = short_path / "a,b=c.img"
    path.write_bytes(os.urandom(4096))
    daemon = vmsgd("size=1M", f"blk,path={str(path).replace(',', ',,')}", "blk,path=null:3K", "blk,path=null:0x400k",
                   "blk,path=null:2g", control=True)
    devices = daemon.control("list")["devices"]
    assert devices[0]["path"] == str(path)
    assert [device["size"] for device in devices] == [4096, 3 << 10, 1 << 20, 2 << 30]
    assert daemon.control("stat")["buses"][0]["size"] == 1 << 20


def test_disk_with_many_queues(vmsgd, disk_image):
    path = disk_image()
    daemon = vmsgd("", f"blk,path={path},queues=4,queue_size=16,serial=abc")
    with Link(daemon.path) as link:
        blk = Blk(link, size=256).start()
        assert blk.config["num_queues"] == 4 and blk.ring.size == 16 and blk.get_id().rstrip(b"\0") == b"abc"
        assert blk.read(0, 65536) == path.read_bytes()[:65536]


class Pipe:
    """One queue of a simple device."""

    def __init__(self, driver, index):
        self.driver, self.index, self.ring, self.link = driver, index, driver.rings[index], driver.link

    def offer(self, length, data=None):
        at = self.link.area.alloc(length)
        if data is not None:
            self.link.memory.write(at, data)
        assert self.ring.add([(at, length, data is None)], at)
        self.driver.kick(self.index)

    def take(self, what):
        done = []
        self.link.until(lambda: done or done.append(self.ring.take()) or done[0] is not None or done.clear(), what)
        at, written = done[0]
        return self.link.memory.read(at, written)


def test_entropy_flows(vmsgd):
    daemon = vmsgd("", "rng")
    with Link(daemon.path) as link:
        driver = Driver(link, 0)
        driver.start(queues=1, size=8)
        pipe = Pipe(driver, 0)
        samples = []
        for _ in range(4):
            pipe.offer(64)
            samples.append(pipe.take("random bytes"))
        assert all(len(sample) == 64 for sample in samples) and len(set(samples)) == 4


@pytest.fixture
def console(vmsgd):
    """console(daemon): driver, receive and transmit queue of its device 0."""
    links = []

    def start(daemon):
        links.append(Link(daemon.path))
        driver = Driver(links[-1], 0)
        driver.start(wanted=(0,), queues=2, size=8)
        return driver, Pipe(driver, 0), Pipe(driver, 1)

    yield start
    for link in links:
        link.close()


def test_console_on_a_pseudo_terminal_talks_both_ways(vmsgd, console, short_path):
    link = short_path / "terminal"
    daemon = vmsgd("", f"console,link={link}", control=True)
    driver, receive, transmit = console(daemon)
    for _ in range(3):                          # people come and go
        terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
        receive.offer(64)
        os.write(terminal, b"to the driver")
        assert receive.take("input of the terminal") == b"to the driver"
        transmit.offer(8, b"to tty\r\n")
        transmit.take("the output to be taken")
        assert os.read(terminal, 64) == b"to tty\r\n"
        os.close(terminal)
    transmit.offer(8, b"nobody\r\n")            # must not hang
    transmit.take("the output to be taken")


def test_window_size_of_the_terminal_reaches_the_driver(vmsgd, console, short_path):
    link = short_path / "terminal"
    daemon = vmsgd("", f"console,link={link}")
    driver, _, _ = console(daemon)
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    set_window(terminal, 43, 132)
    driver.link.until(lambda: driver.link.events, "EVENT_CONFIG")
    assert driver.config_read(0, 4) == struct.pack("<2H", 132, 43)
    os.close(terminal)


def test_console_on_pipes_talks_both_ways(vmsgd, console):
    daemon = vmsgd("", "console,stdio", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    driver, receive, transmit = console(daemon)
    receive.offer(64)
    daemon.proc.stdin.write(b"hello\n")
    daemon.proc.stdin.flush()
    assert receive.take("input of the pipe") == b"hello\n"
    transmit.offer(6, b"world\n")
    transmit.take("the output to be taken")
    assert daemon.proc.stdout.readline() == b"world\n"
    daemon.proc.stdin.close()                   # the end of input is not the end of the daemon
    transmit.offer(6, b"again\n")
    assert daemon.proc.stdout.readline() == b"again\n"
    daemon.stop()
    daemon.proc.stdout.close()


def test_console_on_files(vmsgd, console, short_path):
    (short_path / "in").write_bytes(b"from a file")
    with open(short_path / "in", "rb") as source, open(short_path / "out", "wb") as target:
        daemon = vmsgd("", "console,stdio", stdin=source, stdout=target)
    driver, receive, transmit = console(daemon)
    receive.offer(64)
    assert receive.take("the file") == b"from a file"
    transmit.offer(6, b"answer")
    transmit.take("the output to be taken")
    assert (short_path / "out").read_bytes() == b"answer"


@pytest.fixture
def terminal():
    """A terminal to run the daemon on: descriptors of its two ends, and its settings of before."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    yield master, slave, before
    os.close(master)
    os.close(slave)


def set_window(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("<4H", rows, columns, 0, 0))


def test_console_on_a_raw_terminal_passes_every_key_and_its_size(vmsgd, console, terminal):
    master, slave, before = terminal
    set_window(master, 24, 80)
    daemon = vmsgd("", "console,stdio,raw", stdin=slave, stdout=slave)
    driver, receive, transmit = console(daemon)
    assert driver.config_read(0, 4) == struct.pack("<2H", 80, 24)
    receive.offer(64)
    os.write(master, b"\x03")                   # Ctrl-C is for the other side
    assert receive.take("a key") == b"\x03"
    transmit.offer(4, b"ok\n\0")
    transmit.take("the output to be taken")
    assert os.read(master, 64) == b"ok\n\0"
    set_window(master, 50, 100)
    daemon.proc.send_signal(signal.SIGWINCH)
    driver.link.until(lambda: any(event.name == "EVENT_CONFIG" for event in driver.link.events), "EVENT_CONFIG")
    assert driver.config_read(0, 4) == struct.pack("<2H", 100, 50)
    daemon.stop()
    assert termios.tcgetattr(slave) == before


def test_terminal_is_restored_even_by_the_second_signal(vmsgd, disk_image, terminal, slow_flush):
    environment, _ = slow_flush
    master, slave, before = terminal
    daemon = vmsgd("", f"blk,path={disk_image()}", "console,stdio,raw", stdin=slave, stdout=slave,
                   environment=environment, options=("-v",))
    assert termios.tcgetattr(slave) != before
    daemon.proc.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in daemon.log(), "the daemon to say that it stops")
    daemon.proc.send_signal(signal.SIGINT)
    assert daemon.wait() == 1
    assert termios.tcgetattr(slave) == before


# -- death of the other side ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("engine", ["uring", "threads"])
@pytest.mark.parametrize("format", ["layout", "spsc"])
def test_killed_drivers_leave_a_daemon_that_serves_the_next(vmsgd, disk_image, format, engine):
    """Each is killed while it copies, at a point that depends on how far the daemon got."""
    path = disk_image(4 << 20)
    content = path.read_bytes()
    daemon = vmsgd(f"layout={format}", f"blk,path={path},engine={engine}", control=True)

    def requests():
        counters = daemon.control("stat")["devices"][0]["instances"][0]
        return counters["reads"] + counters["writes"]

    for turn in range(20):
        start = requests()
        command = ["read", "/dev/null"] if turn % 2 else ["write", str(path)]
        driver = subprocess.Popen([str(binary("vmsg")), "disk", f"amp:{daemon.path}", "0", *command, "--chunk", "4K",
                                   "--depth", str(1 + turn), "--quiet"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: requests() > start + 7 * turn or driver.poll() is not None, "requests")
        finally:
            driver.kill()
            driver.wait()
    with Link(daemon.path, format) as link:
        assert Blk(link).start().read(0, 4 << 20) == content
    assert path.read_bytes() == content
    assert daemon.control("stat")["devices"][0]["instances"][0]["in_flight"] == 0


def test_garbage_and_silence_on_the_bus_socket_harm_nobody(vmsgd, disk_image):
    path = disk_image()
    daemon = vmsgd("peers=2", f"blk,path={path},ro", control=True)
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(daemon.path)
    for size in (1, 8, 100, 100000):
        with socket.socket(socket.AF_UNIX) as noisy:
            noisy.settimeout(10)
            noisy.connect(daemon.path)
            try:
                noisy.sendall(os.urandom(size))
                while noisy.recv(65536):
                    pass                        # the greeting, then the end
            except ConnectionError:
                pass
    with Link(daemon.path) as link:
        assert Blk(link).start().read(0, 4096) == path.read_bytes()[:4096]
    silent.close()
    assert daemon.control("stat")["buses"][0]["garbage"] == 4


# -- resources --------------------------------------------------------------------------------------------------------

def test_two_hundred_connections_leave_no_descriptor_behind(vmsgd, disk_image):
    daemon = vmsgd("", f"blk,path={disk_image()},ro", control=True)
    for turn in range(201):
        if turn == 1:
            before = daemon.fds()
        link = Link(daemon.path)
        if turn % 10 == 0:
            Blk(link).start().read(0, 4096)
        link.drop() if turn % 2 else link.close()
        with daemon.client() as client:
            client.send(b'{"cmd":"list"}\n' if turn % 3 else b"{")
    wait_for(lambda: daemon.fds() <= before, f"{before} descriptors")


def test_two_hundred_devices_come_and_go_without_a_trace(vmsgd, disk_image):
    daemon = vmsgd("", "rng", control=True)
    path = disk_image()
    with daemon.client() as client:
        for turn in range(201):
            if turn == 1:
                before = daemon.fds()
            device = (f"blk,path={path}", "console", "rng")[turn % 3]
            num = client.ask("add", device=device)["num"]
            assert client.ask("remove", num=num) == {"ok": True}
        assert [device["num"] for device in client.ask("list")["devices"]] == [0]
    wait_for(lambda: daemon.fds() <= before, f"{before} descriptors")


def test_out_of_descriptors_is_survived(vmsgd, disk_image):
    path = disk_image()
    daemon = vmsgd("peers=8", f"blk,path={path},ro,peer=1", control=True, limits={resource.RLIMIT_NOFILE: 40})
    sockets = []
    for target in (daemon.control_path, daemon.path):
        for _ in range(40):
            connection = socket.socket(socket.AF_UNIX)
            connection.setblocking(False)
            try:
                connection.connect(target)
            except OSError:
                connection.close()
                break
            sockets.append(connection)
    assert daemon.alive()
    for connection in sockets:
        connection.close()

    def works():
        try:
            with Link(daemon.path, timeout=2) as link:
                return Blk(link).start().read(0, 4096) == path.read_bytes()[:4096]
        except Exception:
            return False

    wait_for(works, "service after the flood")
    assert wait_for(lambda: daemon.control("list")["ok"], "the control socket to answer")


def test_add_without_descriptors_is_an_error(vmsgd, disk_image):
    daemon = vmsgd("", "rng", control=True, limits={resource.RLIMIT_NOFILE: 24})
    with daemon.client() as client:
        answers = [client.ask("add", device="console") for _ in range(20)]
        failed = [answer for answer in answers if not answer["ok"]]
        assert failed and "Too many open files" in failed[0]["error"]
        for answer in answers:
            if answer["ok"]:
                assert client.ask("remove", num=answer["num"])["ok"]
        assert client.ask("add", device="console")["ok"]


def idle_cost(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/status") as file:
        switches = int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", file.read())[1])
    return int(fields[11]) + int(fields[12]), switches


def test_without_clients_it_does_not_wake(vmsgd, disk_image):
    daemon = vmsgd("", f"blk,path={disk_image()}", "rng", "console")
    with Link(daemon.path) as link:
        Blk(link, 0).start().read(0, 4096)
    time.sleep(0.3)                             # the last work of the goodbye
    before = idle_cost(daemon.proc.pid)
    time.sleep(0.5)                             # the time that is measured
    after = idle_cost(daemon.proc.pid)
    assert after[1] - before[1] <= 1 and after[0] - before[0] <= 1


def test_each_further_device_is_cheap(vmsgd, disk_image):
    def resident(*devices):
        daemon = vmsgd("", *devices)
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{daemon.proc.pid}/status").read())[1])

    image = f"blk,path={disk_image()},ro"
    few, many = resident(image, "rng", "console"), resident(*([image, "rng", "console"] * 9))
    assert many - few <= 24 * 64 * (4 if SANITIZED else 1)


def test_start_up_cost_is_reported(disk_image, short_path, record_property, capsys):
    """Time to the ready line, memory, libraries; only the libraries and a generous limit are asserted."""
    path = disk_image()
    times = []
    for turn in range(9):
        folder = short_path / f"start{turn}"
        folder.mkdir()
        read, write = os.pipe()
        start = time.perf_counter()
        proc = subprocess.Popen([str(binary("vmsgd")), "--bus", f"amp:{folder}/bus", "--device", f"blk,path={path},ro",
                                 "--device", "rng"], stdin=subprocess.DEVNULL, stderr=write, stdout=write)
        os.close(write)
        text = b""
        while b"ready:" not in text:
            data = os.read(read, 4096)
            assert data, text
            text += data
        times.append(time.perf_counter() - start)
        rss = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{proc.pid}/status").read())[1])
        with open(f"/proc/{proc.pid}/maps") as maps:
            libraries = {line.split()[-1] for line in maps if ".so" in line and "/ld-" not in line}
        proc.terminate()
        assert proc.wait(10) == 0
        os.close(read)
    median = sorted(times)[len(times) // 2] * 1000
    record_property("ready_ms", median)
    record_property("rss_kib", rss)
    with capsys.disabled():
        print(f" [ready in {median:.1f} ms (with fork and exec), {rss} KiB resident, "
              f"{len(libraries)} libraries]", end="")
    if not SANITIZED:
        assert len(libraries) <= 4 and rss < 8 * 1024
