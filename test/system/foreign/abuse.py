# SPDX-License-Identifier: BSD-3-Clause
"""Misbehaviours of a driver side, each followed by the proof that the device side still serves a fresh connection.

An abuse is a function of a Stage. It may claim things about the connection it spoils (an answer, NEEDS_RESET,
recovery by reset); what it claims nothing about is only survived. This file: the registry and what is done to the
connection and to queue memory. Messages are abused in abuse_message, virtqueues and requests in abuse_ring.
"""
import array
import os
import random
import socket
import struct
import time

from . import PeerError, WaitTimeout
from .amp import HEAD_MAGIC, INIT, PEER_DEAD, READY, RUN, SHUTDOWN
from .blk import IN, OUT, Blk
from .ivshmem import DEVICE_PEER
from .link import Link
from .msg import DIALECTS, REQUEST

ABUSES = {}
BOTH = ("layout", "spsc")


def abuse(formats=BOTH, name=None):
    def register(function):
        ABUSES[name or function.__name__.replace("_", "-")] = (function, formats)
        return function
    return register


class Stage:
    """Where an abuse plays: how to connect, and what the disk holds at its start."""
    SAMPLE = 64 * 1024

    def __init__(self, path, format, dialect, timeout=5.0, expected=None):
        self.path, self.format, self.dialect, self.timeout = path, format, dialect, timeout
        self.expected = expected
        self.random = random.Random(0x766D7367)
        if expected is None:
            self.expected = self.prove()

    def link(self, **options):
        return Link(self.path, self.format, self.dialect, self.timeout, **options)

    def blk(self, link, ring=()):
        return Blk(link, ring=ring).start()

    def check(self, blk):
        sample = blk.read(0, min(self.SAMPLE, blk.capacity))
        if self.expected is not None and sample != self.expected[:len(sample)]:
            raise PeerError(f"the first {len(sample)} bytes of the disk are not what they were")
        return sample

    def prove(self):
        """A fresh connection works from the first message to data."""
        with self.link() as link:
            link.ping(0x600D600D)
            blk = self.blk(link)
            sample = self.check(blk)
            blk.driver.reset()
            return sample

    def alive(self, link):
        """The connection still answers."""
        for data in (0, 0xFFFFFFFF, self.random.getrandbits(32)):
            link.ping(data)
        Blk.find(link)

    def recover(self, blk):
        """Reset on the same connection restores service."""
        fresh = Blk(blk.link, blk.device).start()
        self.check(fresh)


def run(name, stage):
    function, formats = ABUSES[name]
    if stage.format not in formats:
        raise ValueError(f"abuse {name} needs the format {' or '.join(formats)}")
    function(stage)
    stage.prove()


def names(format):
    return [name for name, (_, formats) in ABUSES.items() if format in formats]


# -- the connection ---------------------------------------------------------------------------------------------------

def raw_connection(stage):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(stage.timeout)
    client.connect(os.fspath(stage.path))
    return client


@abuse()
def connect_and_leave(stage):
    """Connections that end at once, or after a few bytes of the greeting."""
    for take in (0, 0, 1, 8, 9, 16, 24) * 3:
        with raw_connection(stage) as client:
            if take:
                client.recv(take)


@abuse()
def write_to_the_server(stage):
    """Clients of this protocol never say anything on the socket."""
    with raw_connection(stage) as client:
        try:
            for _ in range(20):
                client.sendall(stage.random.randbytes(4096))
        except OSError:
            pass                        # it may throw us out, or not read what it has no use for


@abuse()
def send_descriptors(stage):
    """Nobody asked for descriptors: they must not pile up."""
    with raw_connection(stage) as client, open(os.devnull, "rb") as null:
        rights = array.array("i", [null.fileno()] * 16)
        try:
            for _ in range(200):
                client.sendmsg([bytes(8)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError:
            pass


@abuse()
def shrink_the_memory(stage):
    """Take the shared memory away under the device side, with a device at work in it."""
    with stage.link() as link:
        blk = stage.blk(link)
        before = link.memory.size
        try:
            os.ftruncate(link.door.memory_fd, 0)
        except OSError:
            stage.check(blk)            # it is sealed
        else:
            os.ftruncate(link.door.memory_fd, before)
            link.door.ring()
            time.sleep(0.1)


def doorbells(link):
    return [fd for fds in link.door.doorbells.values() for fd in fds]


@abuse()
def clog_doorbells(stage):
    """Doorbells are shared objects: make them blocking and fill ours to the brim. Whoever writes to it then sleeps
    until somebody reads, unless it takes care."""
    with stage.link() as link:
        blk = stage.blk(link)
        own = link.door.doorbells[link.door.id][0]
        link.door.wait(0.2)
        os.write(own, struct.pack("=Q", 0xFFFFFFFFFFFFFFFE))
        for fd in doorbells(link):
            os.set_blocking(fd, True)
        for at in range(4):
            blk.submit(IN, 8 * at, room=4096)
            blk.kick()
        time.sleep(0.2)


@abuse()
def steal_doorbells(stage):
    """Read the device side's own doorbell between its waking up and its reading, with the descriptor made blocking."""
    with stage.link() as link:
        blk = stage.blk(link)
        theirs, stolen, counter = link.door.doorbells[DEVICE_PEER][0], 0, bytearray(8)
        os.set_blocking(theirs, True)
        stop = time.monotonic() + 0.5
        while time.monotonic() < stop:
            os.write(theirs, struct.pack("=Q", 1))
            try:
                stolen += os.preadv(theirs, [counter], -1, os.RWF_NOWAIT) == 8
            except BlockingIOError:
                pass
        blk.submit(IN, 0, room=512)
        blk.kick()
        link.door.wait(0.2)


@abuse()
def reset_with_requests_in_flight(stage):
    """Once the status reads 0 the device touches nothing any more."""
    with stage.link() as link:
        blk = stage.blk(link)
        for _ in range(20):
            slots = list(blk.free)
            for at in range(8):
                blk.submit(IN, 0, room=65536)
            blk.kick()
            blk.driver.reset()
            for slot in slots:
                link.memory.write(slot.data, b"\xA5" * 65536)
            time.sleep(0.005)
            for slot in slots:
                if link.memory.read(slot.data, 65536) != b"\xA5" * 65536:
                    raise PeerError("no writes after a completed reset expected")
            blk = stage.blk(link)
        stage.check(blk)


@abuse()
def leave_with_requests_in_flight(stage):
    """Killed in the middle of reads and writes. The writes put back what is there."""
    for _ in range(4):
        link = stage.link()
        try:
            blk = stage.blk(link)
            for at in range(4):
                blk.submit(IN, 8 * at, room=4096)
                blk.submit(OUT, 8 * at, data=stage.expected[4096 * at:4096 * (at + 1)])
                blk.kick()
        finally:
            link.drop()


@abuse()
def leave_in_mid_message(stage):
    """Killed between writing an element and publishing it, and right after half a request."""
    for publish in (False, True):
        link = stage.link()
        try:
            frame = link.dialect.encode("GET_DEVICE_STATUS", REQUEST, 0, 1)
            queue = link.queue
            at = queue.driver_elements if stage.format == "layout" else queue.tx + 128
            link.memory.write(at + queue.producer * queue.element_bytes, frame[:5])
            if publish:
                queue.send(frame[:5], ring=False)
        finally:
            link.drop()


@abuse()
def doorbell_storm(stage):
    with stage.link() as link:
        for _ in range(20000):
            link.door.ring()
        stage.alive(link)


@abuse()
def many_connections(stage):
    """More than anyone needs, held open; the device side may refuse some."""
    clients = []
    try:
        for _ in range(40):
            clients.append(raw_connection(stage))
    except OSError:
        pass
    finally:
        for client in clients:
            client.close()
    time.sleep(0.05)                    # the first area is free when all have been seen to go


# -- memory of the self-describing format -----------------------------------------------------------------------------

def scribbled(stage, scribble, again=None):
    """Spoil the memory of a running connection that has a device in use, give the device side time to trip."""
    with stage.link() as link:
        stage.blk(link)
        scribble(link.memory, link.queue)
        for _ in range(5):
            link.door.ring()
            time.sleep(0.03)
        if again:
            again(link)


@abuse(("layout",))
def own_magic(stage):
    for magic in (0, 0xFFFF, 0x4C4F):
        scribbled(stage, lambda memory, queue: memory.store16(queue.driver_head, magic))


@abuse(("layout",))
def own_state(stage):
    for state in (PEER_DEAD, 5, 0x1F, 0xFFFF, 0x8000 | RUN):
        scribbled(stage, lambda memory, queue: memory.store16(queue.driver_head + 2, state))


@abuse(("layout",))
def own_producer(stage):
    """Producer index out of range, backwards, and round the ring."""
    for index in (0xFFFF, None, -1, -2):
        def scribble(memory, queue):
            value = queue.count if index is None else index % queue.count if index < 0 else index
            memory.store16(queue.driver_head + 4, value)
        scribbled(stage, scribble)


@abuse(("layout",))
def own_consumer(stage):
    """Consumer index out of range, then messages that want answers."""
    for index in (0xFFFF, None, 1):
        def scribble(memory, queue):
            memory.store16(queue.driver_head + 6, queue.count if index is None else index)
            for token in range(1, 6):
                queue.send(ping_frame(stage, token))
        scribbled(stage, scribble)


def ping_frame(stage, token):
    return DIALECTS[stage.dialect].encode("PING", REQUEST, 0, token, data=token)


@abuse(("layout",))
def block(stage):
    """The description is private after start-up: whatever happens to it, the connection goes on."""
    spoils = (b"\xff" * 64, bytes(64), struct.pack("<5H", 0x4C4F, 64, 1, 0, 0) + b"\xff" * 54)
    for raw in spoils:
        scribbled(stage, lambda memory, queue: memory.write(queue.base, raw), again=lambda link: stage.alive(link))


@abuse(("layout",))
def device_indices(stage):
    """The device side's own indices: it keeps them privately, so its next store puts them right."""
    for low, high in ((0xFFFF, 0xFFFF), (3, 5), (0, 0)):
        with stage.link() as link:
            stage.alive(link)
            queue = link.queue
            queue.memory.store16(queue.device_head + 4, low)
            queue.memory.store16(queue.device_head + 6, high)
            frame = ping_frame(stage, 77)
            queue.memory.write(queue.driver_elements + queue.producer * queue.element_bytes,
                               frame.ljust(queue.element_bytes, b"\0"))
            queue.producer = (queue.producer + 1) % queue.count
            queue.memory.store16(queue.driver_head + 4, queue.producer)
            if queue.words:
                queue.words.signal(0, 0)
            expected = (queue.consumer + 1) % queue.count
            deadline = time.monotonic() + stage.timeout
            while queue.memory.load16(queue.device_head + 4) != expected:
                if time.monotonic() > deadline:
                    raise WaitTimeout("the device side's producer index put right after scribbling expected")
                link.door.ring()
                link.door.wait(0.02)
            if link.dialect.decode(queue.receive())["data"] != 77:
                raise PeerError("the answer to the PING after scribbling expected")


@abuse(("layout",))
def device_magic_and_state(stage):
    for offset, value in ((0, 0), (0, 0xFFFF), (2, INIT), (2, SHUTDOWN), (2, PEER_DEAD), (2, 0xFFFF)):
        scribbled(stage, lambda memory, queue: memory.store16(queue.device_head + offset, value))


@abuse(("layout",))
def elements(stage):
    """All elements of both sides, with nothing published."""
    def scribble(memory, queue):
        for at in (queue.driver_elements, queue.device_elements):
            memory.write(at, stage.random.randbytes(queue.count * queue.element_bytes))
    scribbled(stage, scribble, again=lambda link: stage.alive(link))


@abuse(("layout",))
def notification_words(stage):
    """All words of both sides, if there are any; spurious events only."""
    def scribble(memory, queue):
        if queue.words is None:
            return
        step = 8 * queue.words.count * (2 if queue.words.peer_mask is None else 3)
        for start in (queue.words.own_tx, queue.words.peer_tx):
            for _ in range(20):
                memory.write(start, stage.random.randbytes(step))
                queue.door.ring()
    scribbled(stage, scribble)


@abuse(("layout",))
def restart_in_silence(stage):
    """Back to INIT without a goodbye: the device side notices, resets its devices and comes up again with us."""
    with stage.link() as link:
        blk = stage.blk(link)
        for _ in range(3):
            link.queue.restart(stage.timeout)
            status = blk.driver.status()
            if status:
                raise PeerError(f"device status 0 after a restart of the driver side expected, it shows {status:#x}")
            blk = stage.blk(link)
            stage.check(blk)


@abuse(("layout",))
def shutdown_and_return(stage):
    with stage.link() as link:
        stage.blk(link)
        link.queue._enter(SHUTDOWN)
        link.queue._until(lambda: link.queue.peer_state() != RUN, "the device leaving RUN after our SHUTDOWN",
                          stage.timeout)
        link.queue.restart(stage.timeout)
        status = Blk(link).driver.status()
        if status:
            raise PeerError(f"device status 0 after SHUTDOWN expected, it shows {status:#x}")
        stage.check(stage.blk(link))


@abuse(("layout",))
def ready_too_early(stage):
    """INIT and READY at once, before the device side can have seen INIT, again and again."""
    with stage.link() as link:
        stage.blk(link)
        head = link.queue.driver_head
        for _ in range(300):
            for state in (INIT, READY, RUN, SHUTDOWN):
                link.memory.store16(head + 2, state)
            link.door.ring()


@abuse(("layout",))
def vanish_during_start_up(stage):
    """Gone in each state of the start-up."""
    for state in (INIT, READY, RUN, SHUTDOWN):
        link = stage.link()
        try:
            link.queue._enter(INIT)
            link.memory.store16(link.queue.driver_head, HEAD_MAGIC)
            link.memory.store16(link.queue.driver_head + 2, state)
            link.door.ring()
        finally:
            link.drop()


# -- memory of the two-ring format ------------------------------------------------------------------------------------

@abuse(("spsc",))
def spsc_indices(stage):
    """Each of the four indices, ours and theirs, out of range and far off."""
    for offset in (0, 64, 4096, 4096 + 64):
        for value in (0xFFFFFFFF, 62, 61, 30):
            with stage.link() as link:
                stage.blk(link)
                link.memory.store32(offset, value)
                for _ in range(3):
                    link.door.ring()
                    time.sleep(0.01)


@abuse(("spsc",))
def spsc_slots(stage):
    """All slots of both rings, then the whole ring declared full."""
    with stage.link() as link:
        stage.alive(link)
        for ring in (0, 4096):
            link.memory.write(ring + 128, stage.random.randbytes(62 * 64))
        stage.alive(link)
        link.memory.store32(0, (link.queue.producer + 61) % 62)
        link.door.ring()
        time.sleep(0.1)


@abuse()
def whole_area(stage):
    """Everything up to the driver's own part: zeros, ones, noise."""
    for filler in (lambda size: bytes(size), lambda size: b"\xff" * size, stage.random.randbytes):
        with stage.link() as link:
            stage.blk(link)
            link.memory.write(0, filler(link.queue.end))
            for _ in range(3):
                link.door.ring()
                time.sleep(0.03)


@abuse()
def whole_memory(stage):
    """All of the shared memory, in use."""
    with stage.link() as link:
        blk = stage.blk(link)
        for at in range(4):
            blk.submit(IN, 8 * at, room=4096)
        blk.kick()
        link.memory.write(0, b"\xff" * link.memory.size)
        link.door.ring()
        time.sleep(0.1)


# What follows registers itself.
from . import abuse_message, abuse_ring  # noqa: E402,F401
