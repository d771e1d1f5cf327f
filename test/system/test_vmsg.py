# SPDX-License-Identifier: BSD-3-Clause
"""The tool as a program: every subcommand against a real daemon, exit codes, JSON, traces, terminals, wrong uses."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from conftest import ROOT, binary, check_sanitizers, wait_for
from foreign.link import Link

COMMANDS = ["list", "info", "ping", "disk", "entropy", "console", "ctl"]
FAULT, USAGE, CONNECT, LOST, TIMEOUT, NODEV = 1, 2, 3, 4, 5, 6
MIB = 1 << 20
SECONDS = 60


@pytest.fixture
def run(short_path):
    """run(*arguments, code=0) runs it to its end, in an empty folder, and checks the exit code."""
    def start(*arguments, code=0, text=True, **options):
        options.setdefault("stdin", subprocess.DEVNULL) if "input" not in options else None
        if "stdout" not in options:
            options["stdout"] = subprocess.PIPE
        result = subprocess.run([str(binary("vmsg")), *map(str, arguments)], stderr=subprocess.PIPE, text=text,
                                timeout=SECONDS, cwd=short_path, **options)
        errors = result.stderr if text else result.stderr.decode(errors="replace")
        check_sanitizers(errors)
        assert result.returncode == code, f"vmsg {arguments} ended with {result.returncode}; it said:\n{errors}"
        return result
    return start


@pytest.fixture
def spawn(short_path):
    """spawn(*arguments) starts it; it is killed in the end if it still runs."""
    running = []

    def start(*arguments, **options):
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        running.append(subprocess.Popen([str(binary("vmsg")), *map(str, arguments)], cwd=short_path, **pipes))
        return running[-1]

    yield start
    for proc in running:
        proc.kill()
        proc.wait()
        for pipe in (proc.stdin, proc.stdout, proc.stderr):
            if pipe:
                pipe.close()


def address(daemon, *keys):
    return ",".join([f"amp:{daemon.path}", *keys])


def one_line(result, *fragments):
    """What standard error says is one line for people, and names these."""
    assert re.fullmatch(r"vmsg: [^\n]+\n", result.stderr), result.stderr
    for fragment in fragments:
        assert str(fragment) in result.stderr, result.stderr


# -- command line -----------------------------------------------------------------------------------------------------

WRONG = [
    (["frobnicate"], "'frobnicate'", "vmsg --help"),
    (["list"], "argument is missing", "usage: vmsg list ADDR"),
    (["list", "amp:a", "amp:b"], "too many arguments"),
    (["list", "tcp:host"], "tcp:host", "amp:PATH"),
    (["list", "host"], "'host'", "amp:PATH"),
    (["list", "amp:"], "path is missing"),
    (["list", "amp:a,colour=red"], "colour", "layout"),
    (["list", "amp:a,layout=ring"], "layout", "spsc"),
    (["list", "amp:" + "x" * 200], "path"),
    (["list", "amp:a", "--frobnicate"], "--frobnicate", "vmsg list --help"),
    (["list", "amp:a", "--timeout"], "--timeout", "needs a value"),
    (["list", "amp:a", "--timeout", "soon"], "--timeout soon", "milliseconds"),
    (["list", "amp:a", "--timeout", "0"], "--timeout 0"),
    (["list", "amp:a", "--dialect", "v9"], "--dialect v9", "rfc2"),
    (["info", "amp:a"], "argument is missing"),
    (["info", "amp:a", "first"], "'first'", "0 to 65535"),
    (["info", "amp:a", "65536"], "'65536'", "0 to 65535"),
    (["info", "amp:a", "-1"], "-1"),
    (["ping", "amp:a", "--count", "0"], "--count 0"),
    (["ping", "amp:a", "--interval", "x"], "--interval x"),
    (["disk", "amp:a", "0"], "argument is missing"),
    (["disk", "amp:a", "0", "eat"], "'eat'", "info, read, write"),
    (["disk", "amp:a", "0", "read"], "name a file"),
    (["disk", "amp:a", "0", "flush", "file"], "too many"),
    (["disk", "amp:a", "0", "read", "f", "--offset", "100"], "'100'", "512"),
    (["disk", "amp:a", "0", "read", "f", "--length", "x"], "'x'", "512"),
    (["disk", "amp:a", "0", "read", "f", "--chunk", "2M"], "'2M'", "1M"),
    (["disk", "amp:a", "0", "read", "f", "--depth", "65"], "'65'", "64"),
    (["entropy", "amp:a", "0"], "argument is missing"),
    (["entropy", "amp:a", "0", "many"], "'many'"),
    (["console", "amp:a", "0", "--linger", "x"], "--linger x"),
    (["ctl", "sock"], "argument is missing"),
    (["ctl", "sock", "frobnicate"], "list, stat, add"),
    (["ctl", "sock", "add"], "add DEVICE"),
    (["ctl", "sock", "remove", "x"], "'x'"),
]


@pytest.mark.parametrize("arguments, fragments", [(case[0], case[1:]) for case in WRONG],
                         ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "")
def test_wrong_command_line_is_one_line_that_names_the_fault(run, short_path, arguments, fragments):
    result = run(*arguments, code=USAGE)
    assert result.stdout == ""
    one_line(result, *fragments)
    assert os.listdir(short_path) == []


def test_without_arguments_it_shows_the_help_and_fails(run):
    result = run(code=USAGE)
    assert result.stdout == "" and result.stderr == run("--help").stdout


def test_help_tells_a_newcomer_what_to_type(run):
    text = run("--help").stdout
    for fragment in ("usage:", "vmsgd --bus amp:", "vmsg list amp:", "exit codes", "ADDR", "DEV", *COMMANDS):
        assert fragment in text
    assert max(map(len, text.splitlines())) <= 100
    assert re.fullmatch(r"vmsg \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_and_the_manual_name_the_same_options(run, command):
    text = run(command, "--help").stdout
    manual = (ROOT / "doc/vmsg.1.scd").read_text()
    assert text.startswith(f"usage: vmsg {command} ") and max(map(len, text.splitlines())) <= 100
    for option in re.findall(r"--[a-z]+", text):
        assert option in manual, f"{option} is not in the manual page"


# -- nobody there -----------------------------------------------------------------------------------------------------

def test_missing_socket_says_how_to_start_a_daemon(run):
    one_line(run("list", "amp:missing", code=CONNECT), "missing", "vmsgd --bus amp:missing")


def test_file_that_is_no_socket_is_named(run, disk_image):
    path = disk_image(512)
    one_line(run("list", f"amp:{path}", code=CONNECT), path, "not a socket")


def test_socket_of_a_dead_daemon(run, vmsgd):
    daemon = vmsgd("", "rng")
    daemon.kill()
    one_line(run("list", address(daemon), code=CONNECT), daemon.path, "vmsgd --bus")


def test_daemon_whose_places_are_taken(run, vmsgd):
    daemon = vmsgd("", "rng")
    with Link(daemon.path):
        one_line(run("list", address(daemon), code=CONNECT), "no free slot", "peers=")
    wait_for(lambda: subprocess.run([str(binary("vmsg")), "list", address(daemon)], stdin=subprocess.DEVNULL,
                                    capture_output=True).returncode == 0, "a free place")


def test_daemon_that_does_not_answer(run, vmsgd):
    daemon = vmsgd("", "rng")
    daemon.proc.send_signal(signal.SIGSTOP)
    try:
        one_line(run("list", address(daemon), "--timeout", "100", code=TIMEOUT), daemon.path)
    finally:
        daemon.proc.send_signal(signal.SIGCONT)


def test_daemon_that_stops_answering(vmsgd, spawn):
    daemon = vmsgd("", "rng")
    proc = spawn("ping", address(daemon), "--count", "2", "--interval", "500", "--timeout", "100")
    assert b"answer 1" in proc.stdout.readline()
    daemon.proc.send_signal(signal.SIGSTOP)
    try:
        output, errors = proc.communicate(timeout=SECONDS)
    finally:
        daemon.proc.send_signal(signal.SIGCONT)
    assert proc.returncode == TIMEOUT and output == b"" and b"no answer in time" in errors


# -- list, info, ping -------------------------------------------------------------------------------------------------

def three(vmsgd, disk_image, bus="", **options):
    return vmsgd(bus, f"blk,path={disk_image()}", "rng", "console", **options)


def test_list_is_a_line_for_each_device(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    lines = run("list", address(daemon)).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["0", "blk"], ["1", "rng"], ["2", "console"]]


def test_list_as_json(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    facts = json.loads(run("list", address(daemon), "--json").stdout)
    assert facts["address"] == address(daemon) and facts["dialect"] == "v2"
    assert [(d["num"], d["type"], d["device_id"], d["max_virtqueues"]) for d in facts["devices"]] == [
        (0, "blk", 2, 1), (1, "rng", 4, 1), (2, "console", 3, 2)]
    assert all(re.match(r"0x[0-9a-f]{8}", d["vendor"]) and d["config_size"] >= 0 for d in facts["devices"])


def test_empty_bus_is_listed_as_such(run, vmsgd):
    daemon = vmsgd("")
    assert "no devices" in run("list", address(daemon)).stdout
    assert json.loads(run("list", address(daemon), "--json").stdout)["devices"] == []


def test_numbers_far_apart_are_found(run, vmsgd):
    daemon = vmsgd("", "rng,num=7", "rng,num=4000", "rng,num=65535")
    facts = json.loads(run("list", address(daemon), "--json").stdout)
    assert [device["num"] for device in facts["devices"]] == [7, 4000, 65535]


@pytest.mark.parametrize("dialect", ["v2", "v1", "rfc2"])
@pytest.mark.parametrize("format", ["layout", "spsc"])
def test_format_and_dialect_are_found_out_or_told(run, vmsgd, disk_image, format, dialect):
    path = disk_image()
    daemon = vmsgd(f"layout={format},dialect={dialect}", f"blk,path={path}", "rng")
    for keys, options in (((), ()), ((f"layout={format}",), ()), ((), ("--dialect", dialect)),
                          ((f"dialect={dialect}",), ())):
        facts = json.loads(run("list", address(daemon, *keys), "--json", *options).stdout)
        assert facts["dialect"] == dialect and [d["type"] for d in facts["devices"]] == ["blk", "rng"]
    assert run("disk", address(daemon), 0, "read", "-", text=False).stdout == path.read_bytes()


def test_wrong_format_or_dialect_fails_and_says_so(run, vmsgd):
    daemon = vmsgd("", "rng")
    result = subprocess.run([str(binary("vmsg")), "list", address(daemon, "layout=spsc"), "--timeout", "200"],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    assert result.returncode in (FAULT, CONNECT, TIMEOUT)
    one_line(result, daemon.path)
    one_line(run("list", address(daemon), "--dialect", "rfc2", "--timeout", "100", code=TIMEOUT), "no answer in time")


INFO_KEYS = {"num", "device_id", "type", "vendor", "uuid", "max_virtqueues", "config_size", "features", "config_bytes",
             "config_generation", "queues"}


def test_info_as_json(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    facts = [json.loads(run("info", address(daemon), num, "--json").stdout) for num in range(3)]
    assert [set(f) - {"config"} for f in facts] == [INFO_KEYS] * 3
    assert [f["type"] for f in facts] == ["blk", "rng", "console"]
    for f in facts:
        assert {"VERSION_1", "RING_PACKED"} <= set(f["features"])
        assert len(f["config_bytes"]) == 2 * f["config_size"]
        assert [q["index"] for q in f["queues"]] == list(range(f["max_virtqueues"]))
        assert all(q["max_size"] > 0 for q in f["queues"])
    assert facts[0]["config"]["capacity_bytes"] == MIB and facts[0]["config"]["read_only"] is False
    assert set(facts[2]["config"]) == {"cols", "rows"}


def test_info_for_people(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    text = run("info", address(daemon), "0").stdout
    for fragment in ("blk (virtio id 2)", "features", "VERSION_1", "capacity_bytes           1048576", "queues"):
        assert fragment in text
    assert run("info", address(daemon), "0x1").stdout.startswith("device       1\n")


def test_ping_counts_and_times_answers(run, vmsgd):
    daemon = vmsgd("", "rng")
    lines = run("ping", address(daemon)).stdout.splitlines()
    assert len(lines) == 3 and all(re.fullmatch(r"answer \d from amp:\S+: \d+ us", line) for line in lines)
    start = time.monotonic()
    facts = json.loads(run("ping", address(daemon), "--count", "5", "--interval", "50", "--json").stdout)
    assert time.monotonic() - start >= 0.2
    assert facts["sent"] == facts["answered"] == 5 and facts["min_us"] <= facts["mean_us"] <= facts["max_us"]


def test_device_that_is_not_there(run, vmsgd):
    daemon = vmsgd("", "rng")
    for command in (["info", "{}", 9], ["disk", "{}", 9, "info"], ["entropy", "{}", 9, 1], ["console", "{}", 9]):
        command = [address(daemon) if word == "{}" else word for word in command]
        one_line(run(*command, "--timeout", "200", code=NODEV), "device 9", daemon.path, "vmsg list")


def test_device_of_another_type(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    for command, num, actual in (("disk", 1, "rng"), ("entropy", 2, "console"), ("console", 0, "blk")):
        rest = {"disk": ["info"], "entropy": ["1"], "console": []}[command]
        one_line(run(command, address(daemon), num, *rest, code=NODEV), f"device {num}", f"is a {actual}")


TRACE = re.compile(r"\d\d:\d\d:\d\d\.\d{6} (->|<-) ([A-Z_]+)( response)?( [a-z_]+=\S+)*")


def test_trace_is_a_line_for_each_message(run, vmsgd, disk_image):
    daemon = three(vmsgd, disk_image)
    plain, traced = run("info", address(daemon), 0, "--json"), run("info", address(daemon), 0, "--json", "--trace")
    assert traced.stdout == plain.stdout and plain.stderr == ""
    lines = [TRACE.fullmatch(line) for line in traced.stderr.splitlines()]
    assert lines and all(lines), traced.stderr
    requests = [line[2] for line in lines if line[1] == "->"]
    answers = [line[2] for line in lines if line[1] == "<-" and line[3]]
    assert requests == answers
    assert {"GET_DEVICE_INFO", "GET_DEVICE_FEATURES", "SET_DRIVER_FEATURES", "GET_CONFIG", "GET_VQUEUE",
            "SET_DEVICE_STATUS"} <= set(requests)
    assert [line[0] for line in lines] == sorted(line[0] for line in lines), "times go on"


# -- disk -------------------------------------------------------------------------------------------------------------

def disk(vmsgd, disk_image, content=MIB, keys="", **options):
    path = disk_image(content)
    return vmsgd("", f"blk,path={path}{keys}", **options), path


def test_disk_info(run, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image, keys=",serial=abc,queues=2")
    assert json.loads(run("disk", address(daemon), 0, "info", "--json").stdout) == {
        "capacity_bytes": MIB, "block_bytes": 512, "read_only": False, "num_queues": 2, "flush": True,
        "writeback": True, "discard": True, "write_zeroes": True, "packed": True, "id": "abc"}
    text = run("disk", address(daemon), 0, "info").stdout
    assert "1048576 bytes (1 MiB)" in text and "read and write" in text and "abc" in text


@pytest.mark.parametrize("options", [(), ("--chunk", "512", "--depth", "3"), ("--chunk", "1M", "--depth", "64"),
                                     ("--chunk", "4608", "--depth", "1"), ("--chunk", "64K", "--depth", "64")],
                         ids=" ".join)
def test_disk_out_and_in_again(run, vmsgd, disk_image, short_path, options):
    daemon, path = disk(vmsgd, disk_image, 3 * MIB + 512)
    before = path.read_bytes()
    result = run("disk", address(daemon), 0, "read", "copy", *options)
    assert (short_path / "copy").read_bytes() == before and result.stdout == ""
    assert re.fullmatch(r"read 3 MiB at offset 0 in [\d.]+ s \([^)]+/s\)\n", result.stderr)
    after = disk_image(3 * MIB + 512)
    result = run("disk", address(daemon), 0, "write", after, "--quiet", *options)
    assert path.read_bytes() == after.read_bytes() and result.stderr == result.stdout == ""


def test_copies_say_as_json_what_they_did(run, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image)
    for words, stream in ((["read", "copy"], "stdout"), (["write", path], "stdout"), (["read", "-"], "stderr")):
        result = run("disk", address(daemon), 0, *words, "--json", "--offset", "512K", text=False)
        facts = json.loads(getattr(result, stream))
        assert facts["bytes"] == 512 << 10 and facts["offset"] == 512 << 10 and facts["seconds"] > 0


def test_part_of_a_disk_is_at_the_same_place_in_the_file(run, vmsgd, disk_image, short_path):
    daemon, path = disk(vmsgd, disk_image)
    content = path.read_bytes()
    (short_path / "copy").write_bytes(b"x" * MIB)
    run("disk", address(daemon), 0, "read", "copy", "--offset", "64K", "--length", "1K")
    expected = bytearray(b"x" * MIB)
    expected[65536:66560] = content[65536:66560]
    assert (short_path / "copy").read_bytes() == expected
    other = disk_image()
    run("disk", address(daemon), 0, "write", other, "--offset", "0x200", "--length", "3K")
    assert path.read_bytes() == content[:512] + other.read_bytes()[512:3584] + content[3584:]
    run("disk", address(daemon), 0, "write", other, "--offset", "512K")
    assert path.read_bytes()[512 << 10:] == other.read_bytes()[512 << 10:]


def test_disk_through_pipes(run, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image)
    content = path.read_bytes()
    assert run("disk", address(daemon), 0, "read", "-", text=False).stdout == content
    part = run("disk", address(daemon), 0, "read", "-", "--offset", "1K", "--length", "300K", text=False).stdout
    assert part == content[1024:1024 + 300 * 1024]
    new = os.urandom(200 * 1024)
    run("disk", address(daemon), 0, "write", "-", "--offset", "512", input=new, text=False)
    assert path.read_bytes() == content[:512] + new + content[512 + len(new):]
    run("disk", address(daemon), 0, "write", "-", "--length", "1K", input=bytes(MIB), text=False)
    assert path.read_bytes() == bytes(1024) + new[512:] + content[512 + len(new):]
    run("disk", address(daemon), 0, "write", "-", input=content, text=False)
    assert path.read_bytes() == content


@pytest.mark.parametrize("options, size, fragment", [
    ((), 1000, "sector"), (("--length", "4K"), 2048, "ended early"), ((), MIB + 1, "more than the disk")])
def test_pipe_of_the_wrong_length(run, vmsgd, disk_image, options, size, fragment):
    daemon, path = disk(vmsgd, disk_image)
    result = run("disk", address(daemon), 0, "write", "-", *options, input=bytes(size), text=False, code=FAULT)
    assert b"standard input" in result.stderr and fragment.encode() in result.stderr


def test_zero_discard_and_flush(run, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image)
    content = path.read_bytes()
    one_line(run("disk", address(daemon), 0, "zero", code=USAGE), "--length")
    one_line(run("disk", address(daemon), 0, "discard", code=USAGE), "--length")
    assert path.read_bytes() == content
    run("disk", address(daemon), 0, "zero", "--offset", "4K", "--length", "8K")
    run("disk", address(daemon), 0, "zero", "--offset", "64K", "--length", "64K", "--unmap")
    expected = content[:4096] + bytes(8192) + content[12288:65536] + bytes(65536) + content[131072:]
    assert path.read_bytes() == expected
    run("disk", address(daemon), 0, "discard", "--offset", "512K", "--length", "4K")
    after = path.read_bytes()
    assert after[:512 << 10] == expected[:512 << 10] and after[(512 << 10) + 4096:] == expected[(512 << 10) + 4096:]
    run("disk", address(daemon), 0, "flush")
    assert run("disk", address(daemon), 0, "zero", "--offset", "1M", "--length", "512", code=FAULT).stderr


def test_read_only_disk_is_read_and_not_written(run, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image, keys=",ro")
    content = path.read_bytes()
    assert "read-only" in run("disk", address(daemon), 0, "info").stdout
    assert run("disk", address(daemon), 0, "read", "-", text=False).stdout == content
    one_line(run("disk", address(daemon), 0, "write", disk_image(), code=FAULT), "device 0", "read-only")
    assert run("disk", address(daemon), 0, "zero", "--length", "4K", code=FAULT).stderr
    assert path.read_bytes() == content


@pytest.mark.parametrize("words, code, fragments", [
    (["read", "missing/file"], FAULT, ["missing/file", "No such file"]),
    (["write", "missing"], FAULT, ["missing", "No such file"]),
    (["write", "."], FAULT, [".", "directory"]),
    (["read", "/dev/full"], FAULT, ["/dev/full", "No space left"]),
    (["write", "odd"], FAULT, ["odd has 1000 bytes", "512", "--length"]),
    (["write", "large"], USAGE, ["2097152 bytes", "1048576"]),
    (["read", "copy", "--offset", "2M"], USAGE, ["--offset 2097152", "1048576"]),
    (["read", "copy", "--offset", "512", "--length", "1M"], USAGE, ["1048576 bytes from offset 512"]),
    (["write", "short", "--length", "4K"], FAULT, ["short", "ended early"])], ids=lambda v: " ".join(map(str, v))
    if isinstance(v, list) else "")
def test_file_that_does_not_do(run, vmsgd, disk_image, short_path, words, code, fragments):
    daemon, path = disk(vmsgd, disk_image)
    for name, size in (("odd", 1000), ("large", 2 * MIB), ("short", 2048)):
        (short_path / name).write_bytes(bytes(size))
    result = run("disk", address(daemon), 0, *words, code=code)
    assert result.stderr.startswith("vmsg: ") and result.stdout == ""
    for fragment in fragments:
        assert fragment in result.stderr
    assert len(path.read_bytes()) == MIB


def test_error_of_the_device_says_where(run, vmsgd, disk_image, short_path):
    """The image is cut while it is served: what is gone cannot be read."""
    daemon, path = disk(vmsgd, disk_image)
    content = path.read_bytes()
    os.truncate(path, 512 << 10)
    result = run("disk", address(daemon), 0, "read", "copy", "--chunk", "4K", code=FAULT)
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and "at byte 524288" in lines[0] and lines[1].endswith("go on with --offset 524288")
    assert (short_path / "copy").read_bytes()[:512 << 10] == content[:512 << 10]


REACHED = 65536         # a copy that has come so far is in the middle


def reached(source, target):
    """The copy of one file to another has come to REACHED."""
    def peek(path):
        with open(path, "rb") as file:
            file.seek(REACHED)
            return file.read(512)

    return lambda: target.exists() and peek(source) == peek(target)


def large_image(disk_image):
    """Takes long to copy in small steps, and little room: random bytes first, then a hole."""
    path = disk_image(MIB)
    os.truncate(path, 64 * MIB)
    return path


def offset_in(errors):
    found = re.search(r"vmsg: (\d+) bytes are done; go on with --offset (\d+)\n", errors.decode())
    assert found, errors
    return int(found[2])


SLOW = ("--chunk", "512", "--depth", "1", "--quiet")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_copy_says_where_to_go_on(run, spawn, vmsgd, disk_image, short_path, number):
    path = large_image(disk_image)
    daemon = vmsgd("", f"blk,path={path}")
    copy = short_path / "copy"
    proc = spawn("disk", address(daemon), 0, "read", copy, *SLOW)
    wait_for(reached(path, copy), "a part of the copy")
    proc.send_signal(number)
    _, errors = proc.communicate(timeout=SECONDS)
    assert proc.returncode == -number and errors.startswith(b"vmsg: interrupted\n")
    offset = offset_in(errors)
    assert REACHED <= offset < 64 * MIB and copy.read_bytes()[:offset] == path.read_bytes()[:offset]
    run("disk", address(daemon), 0, "read", copy, "--offset", offset)
    assert copy.read_bytes() == path.read_bytes()


def test_interrupted_write_has_written_what_it_says(run, spawn, vmsgd, disk_image):
    new, path = large_image(disk_image), disk_image(0)
    os.truncate(path, 64 * MIB)
    daemon = vmsgd("", f"blk,path={path}")
    proc = spawn("disk", address(daemon), 0, "write", new, *SLOW)
    wait_for(reached(new, path), "some writes")
    proc.send_signal(signal.SIGINT)
    _, errors = proc.communicate(timeout=SECONDS)
    offset = offset_in(errors)
    written = path.read_bytes()
    assert offset >= REACHED and written == new.read_bytes()[:offset] + bytes(64 * MIB - offset)
    run("disk", address(daemon), 0, "write", new, "--offset", offset)
    assert path.read_bytes() == new.read_bytes()


def test_interrupted_while_it_waits_for_a_pipe(spawn, vmsgd, disk_image):
    daemon, path = disk(vmsgd, disk_image)
    proc = spawn("disk", address(daemon), 0, "write", "-", stdin=subprocess.PIPE)
    status = Path(f"/proc/{proc.pid}/status")
    wait_for(lambda: int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16) & 2, "a handler of SIGINT")
    proc.send_signal(signal.SIGINT)
    proc.wait(SECONDS)
    assert proc.returncode == -signal.SIGINT and proc.stderr.read() == b"vmsg: interrupted\n"


@pytest.mark.parametrize("verb", ["read", "write"])
def test_daemon_killed_in_mid_copy(run, spawn, vmsgd, disk_image, verb):
    full, empty = large_image(disk_image), disk_image(0)
    os.truncate(empty, 64 * MIB)
    path, other = (full, empty) if verb == "read" else (empty, full)
    daemon = vmsgd("", f"blk,path={path}")
    proc = spawn("disk", address(daemon), 0, verb, other, *SLOW)
    wait_for(reached(full, empty), "a part of the copy")
    daemon.kill()
    _, errors = proc.communicate(timeout=SECONDS)
    assert proc.returncode == LOST and b"the peer is gone" in errors
    offset = offset_in(errors)
    vmsgd("", f"blk,path={path}", folder=daemon.folder)
    assert offset >= REACHED
    run("disk", address(daemon), 0, verb, other, "--offset", offset)
    assert path.read_bytes() == other.read_bytes() and any(path.read_bytes()[:512])


def test_closed_pipe_ends_a_read(vmsgd, disk_image, spawn):
    daemon, path = disk(vmsgd, disk_image, 8 * MIB)
    proc = spawn("disk", address(daemon), 0, "read", "-")
    assert proc.stdout.read(4096) == path.read_bytes()[:4096]
    proc.stdout.close()
    proc.wait(SECONDS)
    errors = proc.stderr.read()
    assert (proc.returncode, errors) == (-signal.SIGPIPE, b"") or (
        proc.returncode == FAULT and b"standard output: Broken pipe" in errors)


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["info", 0], ["ping"], ["disk", 0, "info"],
                                   ["entropy", 1, 10]], ids=lambda words: " ".join(map(str, words)))
def test_full_standard_output_is_an_error(run, vmsgd, disk_image, words):
    daemon = three(vmsgd, disk_image)
    with open("/dev/full", "w") as full:
        result = run(words[0], address(daemon), *words[1:], stdout=full, code=FAULT)
    assert "standard output" in result.stderr


# -- entropy ----------------------------------------------------------------------------------------------------------

def test_entropy_is_as_much_as_was_asked_for(run, vmsgd):
    daemon = vmsgd("", "rng")
    for size, count in (("1", 1), ("0", 0), ("100", 100), ("33K", 33 << 10), ("0x10", 16)):
        assert len(run("entropy", address(daemon), 0, size, text=False).stdout) == count
    first, second = (run("entropy", address(daemon), 0, "4K", text=False).stdout for _ in range(2))
    assert first != second and len(set(first)) > 200
    assert re.fullmatch(r"[0-9a-f]{64}\n[0-9a-f]{16}\n", run("entropy", address(daemon), 0, "40", "--hex").stdout)


# -- terminals --------------------------------------------------------------------------------------------------------

class Terminal:
    """A pseudo terminal of so many columns, and what appeared on it."""

    def __init__(self, columns=80):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("<4H", 24, columns, 0, 0))
        self.text = b""

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536)
        return self.text

    def shows(self, text, seconds=10.0):
        return wait_for(lambda: text in self.read(), f"{text!r} on the terminal", seconds)

    def close(self):
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    open_ones = []

    def make(columns=80):
        open_ones.append(Terminal(columns))
        return open_ones[-1]

    yield make
    for one in open_ones:
        one.close()


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_progress_stays_on_one_line(vmsgd, disk_image, spawn, terminal, columns):
    daemon, path = disk(vmsgd, disk_image, 16 * MIB)
    screen = terminal(columns)
    proc = spawn("disk", address(daemon), 0, "read", "copy", "--chunk", "4K", stderr=screen.slave)
    while proc.poll() is None:
        screen.read()
        time.sleep(0.01)
    *bars, summary, rest = screen.read().decode().split("\n")
    assert proc.returncode == 0 and summary.startswith("read 16 MiB") and rest == ""
    steps = [step.removesuffix("\x1b[K") for step in "".join(bars).replace("\r\r", "\r").split("\r") if step]
    assert steps and all(step.startswith("reading") and len(step) < columns for step in steps), steps
    assert steps[-1].startswith("reading [####" if columns >= 80 else "reading ") and "100%" in steps[-1]


def test_no_progress_when_quiet(vmsgd, disk_image, spawn, terminal):
    daemon, path = disk(vmsgd, disk_image)
    screen = terminal()
    assert spawn("disk", address(daemon), 0, "read", "copy", "--quiet", stderr=screen.slave).wait(SECONDS) == 0
    assert screen.read() == b""


def test_entropy_on_a_terminal_is_hexadecimal(vmsgd, spawn, terminal):
    daemon = vmsgd("", "rng")
    screen = terminal()
    assert spawn("entropy", address(daemon), 0, 16, stdout=screen.slave).wait(SECONDS) == 0
    assert re.fullmatch(rb"[0-9a-f]{32}\r\n", screen.read())


# -- console ----------------------------------------------------------------------------------------------------------

def with_console(vmsgd, short_path):
    return vmsgd("", f"console,link={short_path}/con"), short_path / "con"


def other_end(link):
    fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
    settings = termios.tcgetattr(fd)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    return fd


def read_some(fd, text, seconds=10.0):
    got = b""
    deadline = time.monotonic() + seconds
    while text not in got and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            got += os.read(fd, 65536)
    assert text in got, got


def test_console_through_pipes(spawn, vmsgd, short_path):
    daemon, link = with_console(vmsgd, short_path)
    fd = other_end(link)
    proc = spawn("console", address(daemon), 0, stdin=subprocess.PIPE)
    proc.stdin.write(b"hello\n")
    proc.stdin.flush()
    read_some(fd, b"hello\n")
    os.write(fd, b"and back\n")
    assert proc.stdout.readline() == b"and back\n"
    proc.stdin.close()
    assert proc.wait(SECONDS) == 0 and proc.stderr.read() == b""
    os.close(fd)


def test_console_sends_a_whole_file(run, vmsgd, short_path):
    daemon, link = with_console(vmsgd, short_path)
    fd = other_end(link)
    text = b"".join(b"line %d\n" % i for i in range(4000))
    (short_path / "input").write_bytes(text)
    proc = subprocess.Popen([str(binary("vmsg")), "console", address(daemon), "0"], stdin=open(short_path / "input"),
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    got = b""
    while len(got) < len(text) and select.select([fd], [], [], 10)[0]:
        got += os.read(fd, 65536)
    assert got == text and proc.wait(SECONDS) == 0
    os.close(fd)


def test_console_lingers_for_an_answer(run, vmsgd, short_path):
    daemon, _ = with_console(vmsgd, short_path)
    start = time.monotonic()
    run("console", address(daemon), 0, "--linger", "600")
    assert 0.6 <= time.monotonic() - start


def on_terminal(spawn, daemon, screen):
    before = termios.tcgetattr(screen.slave)
    proc = spawn("console", address(daemon), 0, stdin=screen.slave, stdout=screen.slave, stderr=screen.slave)
    screen.shows(b"Ctrl-] ends it")
    assert termios.tcgetattr(screen.slave) != before
    return proc, before


def test_console_on_a_terminal_passes_every_key_but_one(spawn, vmsgd, short_path, terminal):
    daemon, link = with_console(vmsgd, short_path)
    screen = terminal()
    fd = other_end(link)
    settings = termios.tcgetattr(fd)
    settings[3] &= ~termios.ISIG
    termios.tcsetattr(fd, termios.TCSANOW, settings)
    proc, before = on_terminal(spawn, daemon, screen)
    os.write(screen.master, b"a\x03\x1a\r\x00")
    read_some(fd, b"a\x03\x1a")
    os.write(fd, b"bell\x07")
    screen.shows(b"bell\x07")
    os.write(screen.master, b"\x1d")
    assert proc.wait(SECONDS) == 0 and termios.tcgetattr(screen.slave) == before
    os.close(fd)


def test_console_restores_the_terminal_when_the_daemon_dies(spawn, vmsgd, short_path, terminal):
    daemon, link = with_console(vmsgd, short_path)
    screen = terminal()
    proc, before = on_terminal(spawn, daemon, screen)
    daemon.kill()
    assert proc.wait(SECONDS) == LOST and termios.tcgetattr(screen.slave) == before
    screen.shows(b"the peer is gone")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=["TERM", "HUP", "INT"])
def test_console_restores_the_terminal_when_it_is_ended(spawn, vmsgd, short_path, terminal, number):
    daemon, link = with_console(vmsgd, short_path)
    screen = terminal()
    proc, before = on_terminal(spawn, daemon, screen)
    proc.send_signal(number)
    assert proc.wait(SECONDS) == 0 and termios.tcgetattr(screen.slave) == before


def test_console_says_when_its_output_is_closed(spawn, vmsgd, short_path):
    daemon, link = with_console(vmsgd, short_path)
    fd = other_end(link)
    proc = spawn("console", address(daemon), 0, stdin=subprocess.PIPE)
    proc.stdin.write(b"x")
    proc.stdin.flush()
    read_some(fd, b"x")
    proc.stdout.close()
    os.write(fd, b"nobody reads this\n")
    assert proc.wait(SECONDS) == FAULT and b"standard output" in proc.stderr.read()
    os.close(fd)


# -- ctl --------------------------------------------------------------------------------------------------------------

def test_ctl_adds_lists_resizes_and_removes(run, vmsgd, disk_image):
    daemon = vmsgd("", "rng", control=True)
    path = disk_image()
    result = run("ctl", daemon.control_path, "add", f"blk,path={path}")
    assert re.match(rf"amp:\S+ 1 +blk .*path={re.escape(str(path))} .*size=1048576", result.stdout)
    assert [line.split()[1:3] for line in run("ctl", daemon.control_path, "list").stdout.splitlines()] == [
        ["0", "rng"], ["1", "blk"]]
    assert json.loads(run("disk", address(daemon), 1, "info", "--json").stdout)["capacity_bytes"] == MIB
    assert "size=3145728" in run("ctl", daemon.control_path, "resize", 1, "3M").stdout
    assert path.stat().st_size == 3 * MIB
    os.truncate(path, 4 * MIB)
    assert "size=4194304" in run("ctl", daemon.control_path, "resize", 1).stdout
    assert json.loads(run("disk", address(daemon), 1, "info", "--json").stdout)["capacity_bytes"] == 4 * MIB
    assert run("ctl", daemon.control_path, "remove", 1).stdout == ""
    assert [d["num"] for d in json.loads(run("list", address(daemon), "--json").stdout)["devices"]] == [0]
    run("info", address(daemon), 1, "--timeout", "200", code=NODEV)


def test_ctl_as_json(run, vmsgd):
    daemon = vmsgd("", "rng", control=True)
    added = json.loads(run("ctl", daemon.control_path, "add", "rng", "--json").stdout)
    assert added["ok"] is True and added["num"] == 1 and added["device"]["type"] == "rng"
    listed = json.loads(run("ctl", daemon.control_path, "list", "--json").stdout)
    assert listed["ok"] is True and [d["num"] for d in listed["devices"]] == [0, 1]
    assert json.loads(run("ctl", daemon.control_path, "remove", 1, "--json").stdout) == {"ok": True}
    stat = json.loads(run("ctl", daemon.control_path, "stat").stdout)
    assert stat["ok"] is True and {"daemon", "buses", "devices"} <= set(stat)
    refused = json.loads(run("ctl", daemon.control_path, "remove", 9, "--json", code=FAULT).stdout)
    assert refused["ok"] is False and "9" in refused["error"]


@pytest.mark.parametrize("words, fragments", [
    (["add", "toaster"], ["toaster", "blk"]), (["add", "blk,path=missing"], ["missing"]),
    (["remove", "77"], ["77"]), (["resize", "0", "1M"], ["rng"]), (["resize", "77"], ["77"]),
    (["list", "--bus", "nowhere"], ["nowhere"])], ids=lambda v: " ".join(v))
def test_ctl_passes_on_why_something_is_refused(run, vmsgd, words, fragments):
    daemon = vmsgd("", "rng", control=True)
    one_line(run("ctl", daemon.control_path, *words, code=FAULT), f"ctl {words[0]}", *fragments)


def test_ctl_names_a_bus_or_a_peer(run, vmsgd, short_path):
    daemon = vmsgd("", "rng", control=True, options=("--bus", f"amp:{short_path}/second,peers=2"))
    second = f"amp:{short_path}/second"
    one_line(run("ctl", daemon.control_path, "add", "rng", code=FAULT), "bus")
    run("ctl", daemon.control_path, "add", "rng,peer=2", "--bus", second)
    run("ctl", daemon.control_path, "add", "rng,peer=1,num=0", "--bus", second)
    assert len(run("ctl", daemon.control_path, "list").stdout.splitlines()) == 3
    listed = json.loads(run("ctl", daemon.control_path, "list", "--json", "--bus", second).stdout)["devices"]
    assert sorted(device["peers"] for device in listed) == [[1], [2]]
    run("ctl", daemon.control_path, "remove", "0", "--bus", second, "--peer", "1")
    assert len(run("ctl", daemon.control_path, "list").stdout.splitlines()) == 2


def test_ctl_ends_the_daemon(run, vmsgd):
    daemon = vmsgd("", "rng", control=True)
    assert run("ctl", daemon.control_path, "quit").stdout == ""
    assert daemon.wait() == 0
    one_line(run("ctl", daemon.control_path, "list", code=CONNECT), daemon.control_path, "vmsgd with --control")


def test_ctl_of_a_daemon_that_does_not_answer(run, vmsgd):
    daemon = vmsgd("", "rng", control=True)
    daemon.proc.send_signal(signal.SIGSTOP)
    try:
        one_line(run("ctl", daemon.control_path, "list", "--timeout", "100", code=TIMEOUT), daemon.control_path)
    finally:
        daemon.proc.send_signal(signal.SIGCONT)
