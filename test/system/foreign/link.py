# SPDX-License-Identifier: BSD-3-Clause
"""One connection to the device side: shared memory, queue, dialect; requests matched to answers by token."""
import collections
import itertools
import time

from . import NeedsReset, ServerGone, WaitTimeout
from .amp import Layout, Spsc
from .ivshmem import Ivshmem
from .msg import DIALECTS, EVENT, MessageError, REQUEST, RESPONSE

NEEDS_RESET = 0x40
SLICE_SECONDS = 0.05


class Area:
    """Bump allocator in the driver's part of the shared memory, and the addresses of what it hands out."""
    SHARED_AREA = 1

    def __init__(self, memory, start, end):
        self.memory, self.start, self.end = memory, (start + 63) & ~63, end
        self.next = self.start

    def alloc(self, size, align=16):
        at = (self.next + align - 1) & -align
        if size > self.end - at:
            raise MemoryError(f"{size} bytes of shared memory wanted, {self.end - at} left")
        self.next = at + size
        self.memory.write(at, bytes(size))
        return at

    def free_all(self):
        self.next = self.start

    @classmethod
    def address(cls, offset):
        return cls.SHARED_AREA << 52 | offset


class Link:
    def __init__(self, path, format="layout", dialect="v2", timeout=5.0, base=0, window=0, **queue_options):
        self.timeout = timeout
        self.dialect = DIALECTS[dialect]
        self.door = Ivshmem(path, timeout)
        self.queue = {"layout": Layout, "spsc": Spsc}[format](self.door, base, **queue_options)
        self.memory = self.door.memory
        self.events = []                # what arrived and nobody looked at yet
        self.dropped = []               # frames that were no acceptable message, with the reason
        self.answers = {}
        self.status = {}                # device number -> last status an EVENT_CONFIG showed
        self._owed = collections.deque()
        self._waiting = {}
        self._tokens = itertools.count(1)
        self.messages_sent = self.messages_received = 0
        try:
            self.queue.start(timeout)
        except BaseException:
            self.door.close()
            raise
        end = base + window if window else self.memory.size
        self.area = Area(self.memory, self.queue.end, min(end, self.memory.size))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.door.memory is not None:
            try:
                self.queue.close()
            except ServerGone:
                pass
        self.drop()

    def drop(self):
        """Disconnect without a goodbye, as a killed process does."""
        self.door.close()

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, frame, ring=True):
        """Put a frame on the queue, reading on while it is full."""
        deadline = time.monotonic() + self.timeout
        while not self.queue.send(frame, ring):
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"room in the driver's queue expected, full for {self.timeout} s")
            if not self.poll():
                self.queue.check_peer()
                self.door.wait(0.001)   # nobody announces room
        self.messages_sent += 1

    def submit(self, name, device=0, **fields):
        """Send a request without waiting; the key is good for one call of result."""
        token = next(self._tokens) % 0xFFFF + 1
        bus = self.dialect.is_bus(name, REQUEST)
        key = (bus, device, token) if self.dialect.has_token else (bus, device, name)
        if key in self._waiting:
            raise ValueError(f"{name}: this dialect matches one request of a kind at a time")
        frame = self.dialect.encode(name, REQUEST, device, token, **fields)
        self._waiting[key] = name
        self.send(frame)
        return key

    def result(self, key, timeout=None):
        name = self._waiting[key]
        try:
            self.until(lambda: key in self.answers, f"answer to {name} of device {key[1]}", timeout)
        finally:
            del self._waiting[key]
        return self.answers.pop(key)

    def request(self, name, device=0, timeout=None, **fields):
        return self.result(self.submit(name, device, **fields), timeout)

    def post(self, name, device, **fields):
        self.send(self.dialect.encode(name, EVENT, device, 0, **fields))

    # -- receiving ------------------------------------------------------------------------------------------------

    def poll(self):
        """Take everything that is there. True when there was anything."""
        something = bool(self.queue.pending_events())
        while (frame := self.queue.receive()) is not None:
            something = True
            self.messages_received += 1
            try:
                self._handle(self.dialect.decode(frame))
            except MessageError as error:
                self.dropped.append((str(error), frame))
        while self._owed and self.queue.send(self._owed[0]):
            self._owed.popleft()
        return something

    def _handle(self, message):
        if message.direction == RESPONSE:
            tag = message.token if self.dialect.has_token else message.name
            key = (message.bus, message.device, tag)
            if self._waiting.get(key) != message.name or key in self.answers:
                self.dropped.append(("a response nobody waits for", message))
                return
            self.answers[key] = message
        elif message.name == "PING":
            self._owed.append(self.dialect.encode("PING", RESPONSE, 0, message.token, data=message["data"]))
        elif message.direction == EVENT and message.name != "EVENT_AVAIL":
            if message.name == "EVENT_CONFIG":
                self.status[message.device] = message["device_status"]
            self.events.append(message)
        else:
            self.dropped.append(("a message only a driver sends", message))

    def until(self, condition, what, timeout=None, device=None):
        """Sleep on the doorbell until the condition holds, and look only when it rings: what was there in time but
        never announced is an error too."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        expired = False
        while True:
            self.poll()
            if device is not None and self.status.get(device, 0) & NEEDS_RESET:
                raise NeedsReset(f"{what} expected, device {device} reports NEEDS_RESET")
            if condition():
                if expired:
                    raise WaitTimeout(f"{what}: it is there after {timeout} s, but no doorbell announced it")
                return
            if expired:
                raise WaitTimeout(f"{what} expected, nothing in {timeout} s")
            while not self.door.wait(SLICE_SECONDS):
                self.queue.check_peer()
                if time.monotonic() >= deadline:
                    expired = True
                    break

    # -- bus ------------------------------------------------------------------------------------------------------

    def devices(self, window=32):
        """Numbers of all devices, by as many GET_DEVICES as it takes."""
        found, offset = [], 0
        while True:
            answer = self.request("GET_DEVICES", offset=offset, count=min(window, 65536 - offset))
            if answer["offset"] != offset:
                raise MessageError(f"GET_DEVICES: offset {offset} expected, got {answer['offset']}")
            for slot in range(answer["count"]):
                if answer["bitmap"][slot // 8] >> slot % 8 & 1 and offset + slot not in found:
                    found.append(offset + slot)
            following = answer["next_offset"]
            if following == 0:
                return found
            if following <= offset:
                raise MessageError(f"GET_DEVICES: next_offset 0 or above {offset} expected, got {following}")
            offset = following

    def ping(self, data):
        answer = self.request("PING", data=data)["data"]
        if answer != data:
            raise MessageError(f"PING: {data:#x} expected back, got {answer:#x}")
