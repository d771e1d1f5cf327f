# SPDX-License-Identifier: BSD-3-Clause
"""A driver side that shares no code with ours uses the disk of the real daemon, and abuses it."""
import os
import random
import socket
import time

import pytest

from foreign import ServerGone, abuse, peer
from foreign.blk import CONFIG_WCE, IN, IOERR, OUT, RING_FEATURES, RO, SECTOR, Blk, RequestFailed
from foreign.link import Link

MIB = 1 << 20
COMBINATIONS = [(format, dialect) for format in ("layout", "spsc") for dialect in ("v2", "v1")]
RINGS = [("indirect",), ("event_idx",), ("indirect", "event_idx"), ("packed",), ("packed", "event_idx"),
         ("packed", "indirect", "event_idx"), ("notification_data",), ("packed", "notification_data")]
OLDER = [("layout", "rfc2"), ("spsc", "rfc2")]
every = pytest.mark.parametrize("format, dialect", COMBINATIONS + OLDER, ids=lambda value: value)
with_token = pytest.mark.parametrize("format, dialect", COMBINATIONS, ids=lambda value: value)


@pytest.fixture
def image(tmp_path):
    """image(size) is a file of that many random bytes."""
    def make(size=MIB):
        path = tmp_path / "disk.img"
        path.write_bytes(random.Random(size).randbytes(size))
        return path
    return make


@pytest.fixture
def serve(vmsgd):
    """serve(format, dialect, image) starts the daemon with one disk."""
    def start(format, dialect, path, *options):
        return vmsgd(f"layout={format},dialect={dialect}", ",".join([f"blk,path={path}", *options]))
    return start


# -- the disk ---------------------------------------------------------------------------------------------------------

@every
def test_whole_image(serve, image, format, dialect):
    path = image(4 * MIB)
    daemon = serve(format, dialect, path)
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        assert blk.read(0, blk.capacity) == path.read_bytes()
        assert link.dropped == []


@every
def test_all_requests(serve, image, format, dialect):
    """Random writes and flushes are in the file afterwards; zeroes, discard and the rest of the requests."""
    path = image()
    daemon = serve(format, dialect, path)
    with Link(daemon.path, format, dialect) as link:
        peer.selftest(Blk(link, segments=3).start(), path)
        assert link.dropped == []
    daemon.stop()
    assert daemon.proc.returncode == 0


@every
def test_written_data_outlive_everything(serve, image, format, dialect):
    """Acknowledged after flush means: on the file, whatever happens to the daemon then."""
    path = image()
    daemon = serve(format, dialect, path)
    data = os.urandom(300 * SECTOR)
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        blk.write(5 * SECTOR, data)
        blk.flush()
        daemon.kill()
    assert path.read_bytes()[5 * SECTOR:][:len(data)] == data


@every
def test_identity_and_configuration(serve, image, format, dialect):
    path = image()
    daemon = serve(format, dialect, path)
    identities = set()
    for _ in range(2):
        with Link(daemon.path, format, dialect) as link:
            blk = Blk(link).start()
            identity = blk.get_id()
            assert 0 < len(identity) <= 20
            identities.add(identity)
            config, size = blk.config, blk.driver.info()["config_size"]
            assert config["capacity"] * SECTOR == path.stat().st_size == blk.capacity
            assert size >= 24 and config["blk_size"] in (512, 1024, 2048, 4096)
            whole = blk.driver.config_read(0, size)
            assert b"".join(blk.driver.config_read(at, 1) for at in range(size)) == whole
            assert blk.driver.offered() == blk.driver.offered()
    assert len(identities) == 1


@every
def test_write_cache_switch(serve, image, format, dialect):
    """SET_CONFIG where the device has something to set."""
    daemon = serve(format, dialect, image())
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        if not blk.driver.has(CONFIG_WCE):
            assert not blk.driver.config_write(32, b"\0")
            return
        for value in (0, 1, 0):
            assert blk.driver.config_write(32, bytes([value]))
            assert blk.driver.config_read(32, 1)[0] == value


@every
def test_several_requests_in_flight(serve, image, format, dialect):
    """Two and eight at once, kicked together and one by one, and waited for in reverse order."""
    path = image()
    content = path.read_bytes()
    daemon = serve(format, dialect, path)
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        for number in (2, 8):
            for kick_each in (False, True):
                requests = []
                for index in range(number):
                    requests.append((blk.submit(IN, 40 * index, room=4096), 40 * index * SECTOR))
                    if kick_each:
                        blk.kick()
                blk.kick()
                for request, offset in reversed(requests):
                    assert blk.wait(request) == 0
                    assert request.data == content[offset:offset + 4096]
        pair = [blk.submit(OUT, 0, data=b"a" * 4096), blk.submit(OUT, 8, data=b"b" * 4096)]
        blk.kick()
        assert [blk.wait(request) for request in pair] == [0, 0]
        blk.flush()
    assert path.read_bytes()[:8192] == b"a" * 4096 + b"b" * 4096


@with_token
def test_requests_in_flight_on_the_message_queue(serve, image, format, dialect):
    """Several unanswered messages at once; each answer finds its request."""
    daemon = serve(format, dialect, image())
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        whole = blk.driver.config_read(0, 24)
        keys = [(link.submit("GET_CONFIG", blk.device, offset=at, length=1), at) for at in range(24)]
        for key, at in reversed(keys):
            assert link.result(key)["data"] == whole[at:at + 1]


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: "-".join(ring))
@every
def test_ring_features(serve, image, format, dialect, ring):
    path = image()
    daemon = serve(format, dialect, path)
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link, ring=ring, segments=2).start()
        if "notification_data" in ring and not blk.driver.has(RING_FEATURES["notification_data"]):
            pytest.skip("this daemon does not offer NOTIFICATION_DATA on this bus, which the transport allows")
        for name in ring:
            assert blk.driver.has(RING_FEATURES[name]), f"{name} offered expected"
        peer.selftest(blk, path, rounds=8)


@every
def test_read_only(serve, image, format, dialect):
    path = image()
    before = path.read_bytes()
    daemon = serve(format, dialect, path, "ro")
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        assert blk.driver.has(RO)
        with pytest.raises(RequestFailed) as failure:
            blk.one(OUT, 0, data=bytes(SECTOR))
        assert failure.value.status == IOERR
        assert blk.read(0, blk.capacity) == before
    assert path.read_bytes() == before


# -- the bus ----------------------------------------------------------------------------------------------------------

@every
def test_bus_messages(serve, image, format, dialect):
    daemon = serve(format, dialect, image())
    with Link(daemon.path, format, dialect) as link:
        for data in (0, 0xFFFFFFFF, 0xDEADBEEF):
            link.ping(data)
        assert len(link.devices()) == 1
        assert link.devices(8) == link.devices(400) == link.devices()


@every
def test_coming_and_going(serve, image, format, dialect):
    """A lone driver side that comes back finds the same place and a device in reset."""
    path = image()
    daemon = serve(format, dialect, path)
    for turn in range(10):
        link = Link(daemon.path, format, dialect)
        blk = Blk(link)
        assert blk.driver.status() == 0
        assert blk.start().read(0, 4096) == path.read_bytes()[:4096]
        link.drop() if turn % 2 else link.close()


@pytest.mark.parametrize("dialect", ["v2", "v1"])
def test_start_up_without_doorbells(serve, image, dialect):
    """Head states are noticed by looking, not only by ringing."""
    path = image()
    daemon = serve("layout", dialect, path)
    with Link(daemon.path, "layout", dialect, ring_on_state=False) as link:
        assert Blk(link).start().read(0, 4096) == path.read_bytes()[:4096]


@pytest.mark.parametrize("dialect", ["v2", "v1"])
def test_kicks_out_of_band(serve, image, dialect):
    """Through notification words where there are any, in messages otherwise; used buffers come back the same way."""
    path = image()
    daemon = serve("layout", dialect, path)
    with Link(daemon.path, "layout", dialect, out_of_band=True) as link:
        blk = Blk(link).start()
        sent, received = link.messages_sent, link.messages_received
        peer.selftest(blk, path, rounds=8)
        if link.queue.words:
            assert (link.messages_sent, link.messages_received) == (sent, received)


@every
def test_kicks_in_band(serve, image, format, dialect):
    """A driver side that uses no notification word but the bit for messages is told in messages."""
    daemon = serve(format, dialect, image())
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        for _ in range(10):
            link.events.clear()
            blk.read(0, 4096)
            # The used entry can be seen a moment before the message that announces it.
            link.until(lambda: link.events, "EVENT_USED")
            assert [(event.name, event.device, event["vq_index"]) for event in link.events] == [
                ("EVENT_USED", blk.device, 0)]


@pytest.mark.parametrize("dialect", ["v2", "v1"])
def test_larger_elements(vmsgd, image, dialect):
    path = image()
    daemon = vmsgd(f"msgsize=264,dialect={dialect}", f"blk,path={path}")
    with Link(daemon.path, "layout", dialect) as link:
        assert link.queue.element_bytes == 264
        blk = Blk(link).start()
        size = blk.driver.info()["config_size"]
        sent = link.messages_sent
        assert blk.driver.config_read(0, size) == b"".join(blk.driver.config_read(at, 1) for at in range(size))
        assert link.messages_sent - sent == 1 + size
        peer.selftest(blk, path, rounds=4)


@with_token
def test_small_memory(vmsgd, image, format, dialect):
    path = image()
    daemon = vmsgd(f"layout={format},dialect={dialect},size=64K", f"blk,path={path}")
    with Link(daemon.path, format, dialect) as link:
        assert link.memory.size == 65536
        peer.selftest(Blk(link, depth=4, slot_bytes=8192, size=16).start(), path, rounds=4)


@with_token
def test_two_driver_sides(vmsgd, image, format, dialect):
    """Each with its own area and its own view of the device; one that is killed or wild does not disturb the other."""
    path = image()
    content = path.read_bytes()
    daemon = vmsgd(f"layout={format},dialect={dialect},peers=2", f"blk,path={path},ro")
    with Link(daemon.path, format, dialect) as first:
        steady = Blk(first).start()
        for turn in range(4):
            second = Link(daemon.path, format, dialect)
            assert second.door.id != first.door.id
            other = Blk(second)
            assert other.driver.status() == 0
            assert other.start().read(0, 65536) == steady.read(0, 65536) == content[:65536]
            for at in range(4):
                other.submit(IN, 8 * at, room=4096)
            other.kick()
            if turn % 2:
                second.memory.write(0, os.urandom(second.queue.end))
                second.door.ring()
            second.drop()
            assert steady.read(0, steady.capacity) == content


@every
def test_death_of_the_daemon_is_noticed(serve, image, format, dialect):
    daemon = serve(format, dialect, image())
    with Link(daemon.path, format, dialect) as link:
        blk = Blk(link).start()
        daemon.kill()
        start = time.monotonic()
        with pytest.raises(ServerGone):
            blk.read(0, 4096)
        assert time.monotonic() - start < 1


def open_descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.proc.pid}/fd"))


@with_token
def test_peer_that_never_reads_its_socket(vmsgd, image, format, dialect):
    """Hundreds of notices about others pile up for it; the rest of the world goes on."""
    path = image()
    daemon = vmsgd(f"layout={format},dialect={dialect},peers=2", f"blk,path={path},ro")
    first = Link(daemon.path, format, dialect)
    try:
        for _ in range(600):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect(daemon.path)
                assert client.recv(8) in (bytes(8), b"")
        with Link(daemon.path, format, dialect) as second:
            assert Blk(second).start().read(0, 4096) == path.read_bytes()[:4096]
    finally:
        first.drop()


# -- misbehaviour -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("format, dialect, name", [(format, dialect, name) for format, dialect in COMBINATIONS
                                                   for name in abuse.names(format)])
def test_abuse(serve, image, format, dialect, name):
    path = image(256 * 1024)
    before = path.read_bytes()
    daemon = serve(format, dialect, path)
    stage = abuse.Stage(daemon.path, format, dialect, expected=before)
    stage.prove()
    descriptors = open_descriptors(daemon)
    abuse.run(name, stage)
    deadline = time.monotonic() + 2
    while open_descriptors(daemon) > descriptors and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_descriptors(daemon) <= descriptors
    assert daemon.alive(), daemon.log()
    daemon.stop()
    assert path.read_bytes() == before
