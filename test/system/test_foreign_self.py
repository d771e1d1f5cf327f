# SPDX-License-Identifier: BSD-3-Clause
"""The foreign peer tested by itself: byte vectors, every combination against its own tiny device side, and what it
has to notice when the other side is wrong."""
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest

from foreign import NeedsReset, PeerError, PeerRestarted, ServerGone, WaitTimeout, abuse, peer
from foreign.amp import SHUTDOWN
from foreign.blk import IN, Blk, RequestFailed
from foreign.ivshmem import Ivshmem
from foreign.link import Link
from foreign.msg import DIALECTS, EVENT, REQUEST, RESPONSE, MessageError
from foreign.selftest import RingFault, SERIAL, Server

UUID = bytes.fromhex("6f1c2d3e4a5b4c6d8e7f0011223344ff")
INFO = {"device_id": 1, "vendor_id": 0x554D4551, "config_size": 24, "max_virtqueues": 3}
QUEUE = {"desc_addr": 0x100000, "driver_addr": 0x101000, "device_addr": 0x102000}
V1V2 = ("v1", "v2")
VECTORS = [
    (V1V2, "GET_DEVICE_INFO", REQUEST, {}, "00 02 05 00 02 01 08 00"),
    (("v2",), "GET_DEVICE_INFO", RESPONSE, {**INFO, "device_uuid": UUID, "num_feature_blocks": 2},
     "01 02 05 00 02 01 34 00 01 00 00 00 51 45 4d 55 6f 1c 2d 3e 4a 5b 4c 6d 8e 7f 00 11 22 33 44 ff "
     "02 00 00 00 18 00 00 00 03 00 00 00 00 00 00 00 00 00 00 00"),
    (("v1",), "GET_DEVICE_INFO", RESPONSE, {**INFO, "num_feature_bits": 64},
     "01 02 05 00 02 01 20 00 01 00 00 00 51 45 4d 55 40 00 00 00 18 00 00 00 03 00 00 00 00 00 00 00"),
    (("rfc2",), "GET_DEVICE_INFO", REQUEST, {}, "00 02 05 00 06 00"),
    (("rfc2",), "GET_DEVICE_INFO", RESPONSE, {**INFO, "num_feature_bits": 64},
     "01 02 05 00 1e 00 01 00 00 00 51 45 4d 55 40 00 00 00 18 00 00 00 03 00 00 00 00 00 00 00"),
    (V1V2, "GET_DEVICE_FEATURES", REQUEST, {"block_index": 0, "num_blocks": 2},
     "00 03 05 00 02 01 10 00 00 00 00 00 02 00 00 00"),
    (V1V2, "GET_DEVICE_FEATURES", RESPONSE, {"block_index": 0, "features": [0x00010020, 1]},
     "01 03 05 00 02 01 18 00 00 00 00 00 02 00 00 00 20 00 01 00 01 00 00 00"),
    (V1V2, "SET_DRIVER_FEATURES", REQUEST, {"block_index": 0, "features": [0x20, 1]},
     "00 04 05 00 02 01 18 00 00 00 00 00 02 00 00 00 20 00 00 00 01 00 00 00"),
    (V1V2, "SET_DRIVER_FEATURES", RESPONSE, {}, "01 04 05 00 02 01 08 00"),
    (V1V2, "GET_CONFIG", REQUEST, {"offset": 0, "length": 6}, "00 05 05 00 02 01 10 00 00 00 00 00 06 00 00 00"),
    (V1V2, "GET_CONFIG", RESPONSE, {"generation": 7, "offset": 0, "data": bytes.fromhex("525400123456")},
     "01 05 05 00 02 01 1a 00 07 00 00 00 00 00 00 00 06 00 00 00 52 54 00 12 34 56"),
    (V1V2, "SET_CONFIG", REQUEST, {"generation": 0, "offset": 8, "data": b"\1\0"},
     "00 06 05 00 02 01 16 00 00 00 00 00 08 00 00 00 02 00 00 00 01 00"),
    (V1V2, "SET_CONFIG", RESPONSE, {"generation": 8, "offset": 8, "data": b"\1\0"},
     "01 06 05 00 02 01 16 00 08 00 00 00 08 00 00 00 02 00 00 00 01 00"),
    (V1V2, "SET_CONFIG", RESPONSE, {"generation": 8, "offset": 8, "data": b""},
     "01 06 05 00 02 01 14 00 08 00 00 00 08 00 00 00 00 00 00 00"),
    (V1V2, "GET_DEVICE_STATUS", REQUEST, {}, "00 07 05 00 02 01 08 00"),
    (V1V2, "GET_DEVICE_STATUS", RESPONSE, {"status": 0x0F}, "01 07 05 00 02 01 0c 00 0f 00 00 00"),
    (V1V2, "SET_DEVICE_STATUS", REQUEST, {"status": 0x0B}, "00 08 05 00 02 01 0c 00 0b 00 00 00"),
    (V1V2, "GET_VQUEUE", REQUEST, {"index": 1}, "00 09 05 00 02 01 0c 00 01 00 00 00"),
    (("v2",), "GET_VQUEUE", RESPONSE, {"index": 1, "max_size": 256, "cur_size": 128, "flags": 1, **QUEUE},
     "01 09 05 00 02 01 30 00 01 00 00 00 00 01 00 00 80 00 00 00 01 00 00 00 00 00 10 00 00 00 00 00 "
     "00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00"),
    (("v2",), "GET_VQUEUE", RESPONSE, {"index": 9}, "01 09 05 00 02 01 30 00 09" + " 00" * 39),
    (("v2",), "SET_VQUEUE", REQUEST, {"index": 1, "flags": 1, "size": 128, **QUEUE},
     "00 0a 05 00 02 01 30 00 01 00 00 00 01 00 00 00 80 00 00 00 00 00 00 00 00 00 10 00 00 00 00 00 "
     "00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00"),
    (("v2",), "SET_VQUEUE", REQUEST, {"index": 1, "flags": 0x3D},
     "00 0a 05 00 02 01 30 00 01 00 00 00 3d" + " 00" * 35),
    (("v1",), "SET_VQUEUE", REQUEST, {"index": 1, "size": 128, **QUEUE},
     "00 0a 05 00 02 01 30 00 01 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00 00 00 10 00 00 00 00 00 "
     "00 10 10 00 00 00 00 00 00 20 10 00 00 00 00 00"),
    (("rfc2",), "SET_VQUEUE", REQUEST, {"index": 1, "size": 128, **QUEUE},
     "00 0a 05 00 2a 00 01 00 00 00 00 00 00 00 80 00 00 00 00 00 10 00 00 00 00 00 00 10 10 00 00 00 00 00 "
     "00 20 10 00 00 00 00 00"),
    (V1V2, "RESET_VQUEUE", REQUEST, {"index": 1}, "00 0b 05 00 02 01 0c 00 01 00 00 00"),
    (V1V2, "GET_SHM", REQUEST, {"shmid": 0}, "00 0c 05 00 02 01 0c 00 00 00 00 00"),
    (("v2",), "GET_SHM", RESPONSE, {"shmid": 0, "length": 0x200000000, "address": 0x8000000000},
     "01 0c 05 00 02 01 20 00 00 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 80 00 00 00"),
    (("v1",), "GET_SHM", RESPONSE, {"shmid": 0, "length": 0x100000, "address": 0x80000000},
     "01 0c 05 00 02 01 14 00 00 00 00 00 00 00 10 00 00 00 00 80"),
    (V1V2, "EVENT_CONFIG", EVENT, {"device_status": 0x0F, "generation": 9, "data": b""},
     "00 40 05 00 00 00 18 00 0f 00 00 00 09 00 00 00 00 00 00 00 00 00 00 00"),
    (V1V2, "EVENT_CONFIG", EVENT, {"device_status": 0x0F, "generation": 9, "offset": 6, "data": b"\1\0"},
     "00 40 05 00 00 00 1a 00 0f 00 00 00 09 00 00 00 06 00 00 00 02 00 00 00 01 00"),
    (V1V2, "EVENT_AVAIL", EVENT, {"vq_index": 1}, "00 41 05 00 00 00 10 00 01 00 00 00 00 00 00 00"),
    (V1V2, "EVENT_AVAIL", EVENT, {"vq_index": 1, "next_offset": 0x80000003},
     "00 41 05 00 00 00 10 00 01 00 00 00 03 00 00 80"),
    (V1V2, "EVENT_USED", EVENT, {"vq_index": 1}, "00 42 05 00 00 00 0c 00 01 00 00 00"),
    (V1V2, "GET_DEVICES", REQUEST, {"offset": 0, "count": 16}, "02 02 00 00 02 01 0c 00 00 00 10 00"),
    (("v2",), "GET_DEVICES", RESPONSE, {"count": 16, "bitmap": b"\x25\0"},
     "03 02 00 00 02 01 10 00 00 00 00 00 10 00 25 00"),
    (("v1",), "GET_DEVICES", RESPONSE, {"count": 16, "bitmap": b"\x25\0"},
     "03 02 00 00 02 01 10 00 00 00 10 00 00 00 25 00"),
    (("v2",), "GET_DEVICES", RESPONSE, {"count": 6, "bitmap": b"\x25"},
     "03 02 00 00 02 01 0f 00 00 00 00 00 06 00 25"),
    (("rfc2",), "GET_DEVICES", REQUEST, {"offset": 0, "count": 16}, "02 02 00 00 0a 00 00 00 10 00"),
    (V1V2, "PING", REQUEST, {"data": 0xDEADBEEF}, "02 03 00 00 02 01 0c 00 ef be ad de"),
    (V1V2, "EVENT_DEVICE", EVENT, {"device_number": 5, "state": 1}, "02 40 00 00 00 00 0c 00 05 00 01 00"),
]
FORMATS = ("layout", "spsc")
RINGS = [(), ("indirect",), ("event_idx",), ("indirect", "event_idx"), ("packed",), ("packed", "event_idx"),
         ("packed", "indirect", "event_idx")]


@pytest.fixture
def place():
    """A short path: socket names are limited to about a hundred bytes."""
    folder = tempfile.mkdtemp(prefix="vmsg-")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def served(place):
    """served(format, dialect, ...) starts the tiny device side; .path and .image are its socket and disk."""
    running = []

    def start(format="layout", dialect="v2", image_bytes=1 << 20, **options):
        image = os.path.join(place, f"disk{len(running)}")
        with open(image, "wb") as file:
            file.write(os.urandom(image_bytes))
        server = Server(os.path.join(place, f"socket{len(running)}"), image, format, dialect, **options)
        server.image = image
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


# -- messages ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dialects, name, direction, fields, text", VECTORS,
                         ids=lambda value: value if isinstance(value, str) and " " not in value else "")
def test_vector(dialects, name, direction, fields, text):
    frame = bytes.fromhex(text)
    for dialect in map(DIALECTS.get, dialects):
        bus = dialect.is_bus(name, direction)
        device = 0 if bus else 5
        token = 0 if direction == EVENT or not dialect.has_token else 0x0102
        assert dialect.encode(name, direction, device, token, **fields) == frame
        message = dialect.decode(frame + bytes(64 - len(frame)))
        assert (message.name, message.direction, message.bus) == (name, direction, bus)
        assert (message.device, message.token, message.size) == (device, token, len(frame))
        for field, value in fields.items():
            assert message[field] == value
        again = dialect.encode(name, direction, message.device, message.token, **message.fields)
        assert again == frame


def test_universal_probe():
    frame = bytes.fromhex("00 02 05 00 06 00 08 00")
    for dialect in DIALECTS.values():
        message = dialect.decode(frame)
        assert (message.name, message.device) == ("GET_DEVICE_INFO", 5)


@pytest.mark.parametrize("text, reason", [
    ("00 02 05 00 02 01 07", "shorter than a header"),
    ("00 02 05 00 02 01 07 00", "msg_size"),
    ("00 02 05 00 02 01 09 00", "msg_size"),
    ("00 3f 05 00 02 01 08 00", "unknown"),
    ("02 09 05 00 02 01 08 00", "unknown"),
    ("01 02 05 00 02 01 08 00", "payload bytes"),
    ("00 04 05 00 02 01 14 00 00 00 00 00 ff ff ff ff 00 00 00 00", "features"),
    ("01 05 05 00 02 01 14 00 00 00 00 00 00 00 00 00 01 00 00 00", "data"),
])
def test_no_message(text, reason):
    with pytest.raises(MessageError, match=reason):
        DIALECTS["v2"].decode(bytes.fromhex(text))


# -- the whole driver -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: "-".join(ring) or "split")
@pytest.mark.parametrize("dialect", ["v2", "v1", "rfc2"])
@pytest.mark.parametrize("format", FORMATS)
def test_everything(served, format, dialect, ring):
    server = served(format, dialect)
    with Link(server.path, format, dialect) as link:
        link.ping(0xDEADBEEF)
        blk = Blk(link, ring=ring, segments=3).start()
        peer.selftest(blk, server.image)
        assert blk.get_id() == SERIAL
        assert blk.driver.config_write(32, b"\0") and blk.driver.config_read(32, 1) == b"\0"
        assert not blk.driver.config_write(0, bytes(8))
        blk.driver.reset()
        assert link.dropped == [] and server.faults == []
        assert bool(blk.ring.suppressed) == ("event_idx" in ring)


@pytest.mark.parametrize("in_words", [False, True], ids=["in-band", "out-of-band"])
@pytest.mark.parametrize("words, bits, mask", [(1, 8, False), (1, 16, True), (2, 8, True), (48, 16, False),
                                               (64, 16, True), (1, 1, False)])
def test_notification_words(served, words, bits, mask, in_words):
    server = served(words=words, bits=bits, mask=mask, out_of_band=in_words and words == 1)
    with Link(server.path, out_of_band=in_words) as link:
        blk = Blk(link).start()
        sent = link.messages_sent
        peer.selftest(blk, server.image)
        assert (link.messages_sent == sent) == in_words


def test_larger_elements(served):
    server = served(element_bytes=264)
    with Link(server.path) as link:
        blk = Blk(link)
        before = link.messages_sent
        peer.selftest(blk.start(), server.image)
        assert link.queue.element_bytes == 264 and blk.driver.config_chunk() == 244
        assert link.messages_sent > before


def test_start_without_doorbells(served):
    server = served()
    with Link(server.path, ring_on_state=False) as link:
        peer.selftest(Blk(link).start(), server.image)


def test_again_and_again(served):
    server = served()
    for _ in range(5):
        with Link(server.path) as link:
            assert len(Blk(link).start().read(0, 4096)) == 4096


def test_command_line(served):
    server = served("spsc", "v1")
    script = os.path.join(os.path.dirname(__file__), "foreign", "peer.py")

    def run(*arguments, **options):
        return subprocess.run([sys.executable, script, server.path, "--format", "spsc", "--dialect", "v1", *arguments],
                              capture_output=True, timeout=30, **options)

    with open(server.image, "rb") as file:
        data = file.read()
    assert run("read", "512", "1024").stdout == data[512:1536]
    assert run("write", "1024", input=b"x" * 512).returncode == 0
    with open(server.image, "rb") as file:
        assert file.read()[1024:1536] == b"x" * 512
    assert len(run("hash").stdout) == 65
    assert b"capacity" in run("info").stdout
    assert run("selftest", server.image).returncode == 0
    assert run("abuse", "split-loops").stdout == b"survived  split-loops\n"
    failed = run("--device", "7", "--timeout", "0.3", "read", "0", "512")
    assert failed.returncode == 1 and b"GET_DEVICE_INFO" in failed.stderr


@pytest.mark.parametrize("format, dialect, name", [(format, dialect, name) for format, dialect in
                                                   (("layout", "v2"), ("spsc", "v1")) for name in abuse.names(format)])
def test_abuse(served, format, dialect, name):
    """The abuses do what they say: even a device side of a few lines survives each."""
    server = served(format, dialect)
    abuse.run(name, abuse.Stage(server.path, format, dialect, 2.0))


# -- what it has to notice --------------------------------------------------------------------------------------------

def test_notices_wrong_dialect(served):
    server = served(dialect="v1")
    with Link(server.path, dialect="v2", timeout=0.3) as link:
        with pytest.raises(WaitTimeout, match="GET_DEVICE_INFO"):
            link.request("GET_DEVICE_INFO")
        assert "payload bytes expected" in link.dropped[0][0]


def test_notices_missing_server(place):
    with pytest.raises(FileNotFoundError):
        Ivshmem(os.path.join(place, "nobody"))


def test_notices_death_of_the_server(served):
    server = served()
    with Link(server.path) as link:
        server.stop()
        with pytest.raises(ServerGone):
            link.ping(1)


def test_notices_restart_of_the_peer(served):
    server = served()
    with Link(server.path) as link:
        link.memory.store16(link.queue.device_head + 2, SHUTDOWN)
        with pytest.raises(PeerRestarted, match="SHUTDOWN"):
            link.until(lambda: False, "nothing")


@pytest.mark.parametrize("offset, raw, text", [
    (2, b"\x20\0", "length"), (4, b"\2\0", "version"), (6, b"\2\0", "options"), (8, b"\x41", "notification words"),
    (10, b"\1\0", "elements"), (12, b"\x33\0", "bytes"), (14, b"\1\0", "word at 14"),
    (24, struct.pack("<Q", 65), "unaligned"), (24, struct.pack("<Q", 32), "overlap"),
    (32, struct.pack("<Q", 1 << 40), "outside"), (32, struct.pack("<Q", 2 << 52 | 80), "area 2")])
def test_notices_bad_layout(served, monkeypatch, offset, raw, text):
    server = served()
    block = server.queue.block
    server.queue.block = block[:offset] + raw + block[offset + len(raw):]
    with pytest.raises(PeerError, match=text):
        Link(server.path, timeout=1.0)


def test_takes_references_to_area_one(served):
    server = served()
    refs = struct.unpack("<6Q", server.queue.block[16:])
    server.queue.block = server.queue.block[:16] + struct.pack("<6Q", *(ref | 1 << 52 for ref in refs))
    with Link(server.path) as link:
        link.ping(1)


def test_notices_missing_doorbell(served, monkeypatch):
    server = served()
    with Link(server.path, timeout=0.3) as link:
        blk = Blk(link).start()
        monkeypatch.setattr(server, "used", lambda: None)
        while link.door.wait(0.05):     # a doorbell of what has been read already
            pass
        with pytest.raises(WaitTimeout, match="no doorbell"):
            blk.read(0, 512)


def test_notices_silence(served, monkeypatch):
    server = served()
    with Link(server.path, timeout=0.3) as link:
        monkeypatch.setattr(server.disk, "handle", lambda message: None)
        with pytest.raises(WaitTimeout, match="GET_DEVICE_STATUS of device 0 expected"):
            link.request("GET_DEVICE_STATUS")


def test_notices_second_answer(served, monkeypatch):
    server = served()
    answer = server._answer
    with Link(server.path) as link:
        monkeypatch.setattr(server, "_answer", lambda message: (answer(message), answer(message)))
        for data in range(3):
            link.ping(data)
        link.until(lambda: len(link.dropped) >= 2, "duplicates")
        assert link.dropped[0][0] == "a response nobody waits for"


def test_notices_needs_reset(served, monkeypatch):
    server = served()
    with Link(server.path) as link:
        blk = Blk(link).start()

        def serve(readable, writable):
            raise RingFault("on purpose")
        monkeypatch.setattr(server.disk, "serve", serve)
        with pytest.raises(NeedsReset):
            blk.read(0, 512)


@pytest.mark.parametrize("ring", [(), ("packed",)], ids=["split", "packed"])
@pytest.mark.parametrize("identity, written, text", [(1, 0, "outstanding"), (0, 1 << 20, "at most")])
def test_notices_lies_in_the_used_ring(served, monkeypatch, ring, identity, written, text):
    server = served()
    with Link(server.path, timeout=1.0) as link:
        blk = Blk(link, ring=ring).start()
        push = type(server.disk.ring).push

        def lie(self, true_identity, true_written):
            if hasattr(self, "lengths"):
                self.lengths[true_identity + identity] = self.lengths[true_identity]
            push(self, true_identity + identity, written or true_written)
        monkeypatch.setattr(type(server.disk.ring), "push", lie)
        with pytest.raises(PeerError, match=text):
            blk.read(0, 512)


def test_notices_failed_requests(served):
    server = served()
    with Link(server.path) as link:
        blk = Blk(link).start()
        with pytest.raises(RequestFailed, match="IOERR"):
            blk.one(IN, blk.capacity // 512, room=512)


def test_notices_queue_that_does_not_read_back(served, monkeypatch):
    server = served()
    with Link(server.path) as link:
        monkeypatch.setattr(server.disk, "on_set_vqueue", lambda message: {})
        with pytest.raises(PeerError, match="queue 0 read back: cur_size"):
            Blk(link).start()


def test_notices_wrong_data(served):
    server = served()
    stage = abuse.Stage(server.path, "layout", "v2", 1.0)
    server.disk.data[7] ^= 1
    with pytest.raises(PeerError, match="not what they were"):
        stage.prove()
