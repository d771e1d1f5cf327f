# SPDX-License-Identifier: BSD-3-Clause
"""A tiny device side for testing the driver side of this package without the daemon: ivshmem server, both queue
formats, split and packed rings, a disk on a mapped file. It runs in a thread of the same process.

What the peer does wrong is counted in `faults` or ends in NEEDS_RESET; nothing a peer writes may end the thread.
"""
import array
import fcntl
import mmap
import os
import select
import socket
import struct
import threading

from .amp import HEAD_MAGIC, INIT, LAYOUT_MAGIC, READY, RUN, SHUTDOWN
from .mem import Memory, fence
from .msg import DIALECTS, EVENT, REQUEST, RESPONSE, MessageError
from .selftest_ring import EVENT_IDX, INDIRECT_DESC, DevicePacked, DeviceSplit, RingFault

NEEDS_RESET, DRIVER_OK, FEATURES_OK = 0x40, 4, 8
VERSION_1, RING_PACKED = 32, 34
OFFERED = sum(1 << bit for bit in (INDIRECT_DESC, EVENT_IDX, VERSION_1, RING_PACKED, 2, 6, 9, 11, 13, 14))
QUEUE_MAX = 128
SERIAL = b"selftest-disk"


class DeviceLayout:
    """Device side of the self-describing format."""

    def __init__(self, memory, ring, words=0, bits=0, mask=False, element_bytes=64, count=31):
        self.memory, self.ring, self.n_words, self.bits = memory, ring, words, bits
        self.element_bytes, self.count = element_bytes, count
        notify_bytes = 8 * words * (3 if mask else 2)
        at = 64
        self.device_notify, at = at, at + notify_bytes
        self.driver_notify, at = at, at + notify_bytes
        self.device_head, self.driver_head, at = at, at + 8, at + 16
        self.device_elements, at = at, at + count * element_bytes
        self.driver_elements, self.end = at, at + count * element_bytes
        self.block = struct.pack("<HHHHBBHHH6Q", 0, 64, 1, int(mask), words, bits, count, element_bytes, 0,
                                 self.device_notify, self.device_head, self.device_elements,
                                 self.driver_notify, self.driver_head, self.driver_elements)

    def publish(self):
        """A fresh area for a new driver side; the magic last."""
        self.memory.write(0, bytes(self.end))
        self.memory.write(0, self.block)
        self.memory.store16(self.device_head, HEAD_MAGIC)
        self.state, self.peer_ran = INIT, False
        self.producer = self.consumer = 0
        self.memory.store16(0, LAYOUT_MAGIC)

    def _enter(self, state):
        self.state = state
        self.memory.store16(self.device_head + 2, state)
        self.ring()

    def step(self):
        """Move the state machine. True when a running peer fell out of RUN and must be cleaned up after."""
        there = self.memory.load16(self.driver_head) == HEAD_MAGIC
        peer = self.memory.load16(self.driver_head + 2) & 0x1F if there else INIT
        if self.state == INIT and there and peer != RUN:
            self.producer = self.consumer = 0
            self.memory.store32(self.device_head + 4, 0)
            self._enter(READY)
        elif self.state == READY and there and peer in (READY, RUN):
            self.peer_ran = False
            self._enter(RUN)
        elif self.state == RUN:
            self.peer_ran |= peer == RUN
            if peer != RUN and (peer != READY or self.peer_ran):
                self._enter(SHUTDOWN)
                return True
        elif self.state == SHUTDOWN and peer != RUN:
            self._enter(INIT)
        return False

    def receive(self):
        producer = self.memory.load16(self.driver_head + 4)
        if self.state != RUN or producer >= self.count or producer == self.consumer:
            return None
        frame = self.memory.read(self.driver_elements + self.consumer * self.element_bytes, self.element_bytes)
        self.consumer = (self.consumer + 1) % self.count
        self.memory.store16(self.device_head + 6, self.consumer)
        return frame

    def send(self, frame):
        following = (self.producer + 1) % self.count
        if self.state != RUN or following == self.memory.load16(self.driver_head + 6):
            return False
        self.memory.write(self.device_elements + self.producer * self.element_bytes,
                          frame.ljust(self.element_bytes, b"\0"))
        self.producer = following
        self.memory.store16(self.device_head + 4, following)
        if self.n_words:
            self.signal(0)
        self.ring()
        return True

    def signal(self, bit):
        half, mask = 4 * (bit >> 5), 1 << (bit & 31)
        fence()
        tx = self.memory.load32(self.device_notify + half)
        if not (tx ^ self.memory.load32(self.driver_notify + 8 * self.n_words + half)) & mask:
            self.memory.store32(self.device_notify + half, tx ^ mask)

    def pending(self):
        """Take all words together; whoever is told looks at everything."""
        fresh = 0
        for word in range(self.n_words):
            for half in (0, 4):
                rx = self.device_notify + 8 * (self.n_words + word) + half
                tx = self.memory.load32(self.driver_notify + 8 * word + half)
                if self.memory.load32(rx) != tx:
                    fresh |= 1
                    self.memory.store32(rx, tx)
                    fence()
        return bool(fresh)


class DeviceSpsc:
    count, element_bytes = 62, 64

    def __init__(self, memory, ring, **_):
        self.memory, self.ring, self.end = memory, ring, 8192

    def publish(self):
        self.memory.write(0, bytes(self.end))
        self.producer = self.consumer = 0

    def step(self):
        return False

    def receive(self):
        head = self.memory.load32(0)
        if head >= self.count or head == self.consumer:
            return None
        frame = self.memory.read(128 + 64 * self.consumer, 64)
        self.consumer = (self.consumer + 1) % self.count
        self.memory.store32(64, self.consumer)
        return frame

    def send(self, frame):
        following = (self.producer + 1) % self.count
        if following == self.memory.load32(4096 + 64):
            return False
        self.memory.write(4096 + 128 + 64 * self.producer, frame.ljust(64, b"\0"))
        self.producer = following
        self.memory.store32(4096, following)
        self.ring()
        return True

    def pending(self):
        return False


class Disk:
    """The virtio device: state, messages, requests."""

    def __init__(self, server, image):
        self.server = server
        with open(image, "r+b") as file:
            self.data = mmap.mmap(file.fileno(), 0)
        self.generation, self.writeback = 0, 1
        self.reset()

    def reset(self):
        self.status = self.features = 0
        self.ring = None
        self.queue = (0, 0, (0, 0, 0))          # enabled, size, addresses
        self.writeback = 1

    def config(self):
        return struct.pack("<QIIHBBIBBHIBxHIIIIIB3x", len(self.data) // 512, 0, 16, 0, 0, 0, 512, 0, 0, 8, 0,
                           self.writeback, 1, 1 << 16, 1, 1, 1 << 16, 1, 1)

    def info(self, dialect):
        common = {"device_id": 2, "vendor_id": 0x50594D56, "config_size": len(self.config()), "max_virtqueues": 1}
        return {**common, **({"num_feature_blocks": 2} if dialect == "v2" else {"num_feature_bits": 64})}

    def handle(self, message):
        """Fields of the answer, or None for no answer."""
        handler = getattr(self, "on_" + message.name.lower(), None)
        return handler(message) if handler else None

    def on_get_device_info(self, _):
        return self.info(self.server.dialect.name)

    def on_get_device_features(self, message):
        first, count = message["block_index"], message["num_blocks"]
        if count > 12:
            return None
        return {"block_index": first,
                "features": [OFFERED >> 32 * i & 0xFFFFFFFF if i < 4 else 0 for i in range(first, first + count)]}

    def on_set_driver_features(self, message):
        for index, word in enumerate(message["features"], message["block_index"]):
            if index < 4:
                self.features = self.features & ~(0xFFFFFFFF << 32 * index) | word << 32 * index
            elif word:
                self.features |= 1 << 200           # an unoffered bit: FEATURES_OK will fail
        return {}

    def on_get_config(self, message):
        offset, length, raw = message["offset"], message["length"], self.config()
        if length > self.server.queue.element_bytes - self.server.dialect.fixed_size("GET_CONFIG", RESPONSE):
            return None
        inside = length <= len(raw) and offset <= len(raw) - length
        data = raw[offset:offset + length] if inside else b""
        return {"generation": self.generation, "offset": offset, "data": data}

    def on_set_config(self, message):
        data = message["data"] if message["offset"] == 32 and message["length"] == 1 else b""
        if data:
            self.writeback, self.generation = data[0] & 1, self.generation + 1
        return {"generation": self.generation, "offset": message["offset"], "data": data}

    def on_get_device_status(self, _):
        return {"status": self.status}

    def on_set_device_status(self, message):
        status = message["status"]
        if not status:
            self.reset()
            return {"status": 0}
        if status & FEATURES_OK and (self.features & ~OFFERED or not self.features >> VERSION_1 & 1):
            status &= ~FEATURES_OK
        if not status & FEATURES_OK:
            status &= ~DRIVER_OK
        self.status |= status & 0x8F
        if self.status & DRIVER_OK and self.queue[0] and self.ring is None:
            self.run_queue()
        return {"status": self.status}

    def run_queue(self):
        kind = DevicePacked if self.features >> RING_PACKED & 1 else DeviceSplit
        try:
            self.ring = kind(self.server.memory, self.queue[1], self.queue[2], self.features)
        except RingFault as fault:
            self.fail(fault)

    def fail(self, fault):
        self.server.faults.append(str(fault))
        self.status |= NEEDS_RESET
        self.server.post("EVENT_CONFIG", device_status=self.status, generation=self.generation)

    def on_get_vqueue(self, message):
        if message["index"]:
            return {"index": message["index"]}
        enabled, size, addresses = self.queue
        shown = {} if self.server.dialect.name == "rfc2" else {
            "flags": enabled if self.server.dialect.name == "v2" else 0}
        return {"index": 0, "max_size": QUEUE_MAX, "cur_size": size, **shown,
                **dict(zip(("desc_addr", "driver_addr", "device_addr"), addresses))}

    def on_set_vqueue(self, message):
        v2 = self.server.dialect.name == "v2"
        flags = message["flags"] if v2 else 1
        size = message["size"]
        broken_size = not 0 < size <= QUEUE_MAX or size & size - 1 and not self.features >> RING_PACKED & 1
        broken_flags = flags >> 6 or flags & 3 == 3 or v2 and message["reserved"]
        if message["index"] or self.queue[0] or broken_size or broken_flags:
            return {}
        self.queue = (flags & 1, size, (message["desc_addr"], message["driver_addr"],
                                                   message["device_addr"]))
        return {}

    def on_reset_vqueue(self, _):
        return {}

    def on_get_shm(self, message):
        return {"shmid": message["shmid"]}

    def on_event_avail(self, message):
        if message["vq_index"] == 0:
            self.work()

    def work(self):
        """Serve what is in the queue; one event for all of it if the driver wants one."""
        if self.ring is None or self.status & NEEDS_RESET or not self.status & DRIVER_OK:
            return
        try:
            while (chain := self.ring.pop()) is not None:
                identity, readable, writable = chain
                self.ring.push(identity, self.serve(readable, writable))
        except RingFault as fault:
            self.fail(fault)
            return
        if self.ring.wants_event():
            self.server.used()

    def serve(self, readable, writable):
        """One request; the number of bytes written."""
        if len(readable) < 16 or not writable or not writable[-1][1]:
            raise RingFault("no request header or no status byte")
        command, _, sector = struct.unpack_from("<IIQ", readable)
        *ranges, (last, length) = writable
        room = [*ranges, (last, length - 1)]
        status, data = self.execute(command, 512 * sector, readable[16:], sum(size for _, size in room))
        written = 0
        for offset, size in room:
            self.server.memory.write(offset, data[written:written + size])
            written += len(data[written:written + size])
        self.server.memory.write(last + length - 1, bytes([status]))
        return written + 1

    def execute(self, command, offset, data, room):
        size = len(self.data)
        if command == 4:
            return 0, b""
        if command == 8:
            return 0, SERIAL.ljust(20, b"\0")[:room]
        if command in (11, 13):
            if len(data) != 16:
                return 1, b""
            sector, count, flags = struct.unpack("<QII", data)
            if flags & ~(command == 13):
                return 2, b""
            offset, length, data = 512 * sector, 512 * count, bytes(512 * min(count, size))
        elif command in (0, 1):
            length = room if command == 0 else len(data)
        else:
            return 2, b""
        if length % 512 or length > size or offset > size - length:
            return 1, b""
        if command == 0:
            return 0, bytes(self.data[offset:offset + length])
        self.data[offset:offset + length] = data
        return 0, b""


class Server:
    """Peer 0: the socket, the memory, one driver side at a time."""

    def __init__(self, path, image, format="layout", dialect="v2", memory_bytes=4 << 20, out_of_band=False,
                 **options):
        self.path, self.dialect, self.out_of_band = os.fspath(path), DIALECTS[dialect], out_of_band
        self.faults = []
        self.crash = None
        self._fd = os.memfd_create("selftest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._fd, memory_bytes)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._mmap = mmap.mmap(self._fd, memory_bytes)
        self.memory = Memory(self._mmap)
        self._own = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._peer_door = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.queue = {"layout": DeviceLayout, "spsc": DeviceSpsc}[format](self.memory, self._ring, **options)
        self.disk = Disk(self, image)
        self.outbox = []
        self._client = None
        self._next_id = 1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self._thread is None:
            return
        os.write(self._stop_write, b"x")
        self._thread.join(5)
        self._thread = None
        self._leave()
        self._listener.close()
        os.unlink(self.path)
        self.memory.release()
        self._mmap.close()
        self.disk.data.close()
        for fd in (self._fd, self._own, self._peer_door, self._stop_read, self._stop_write):
            os.close(fd)
        if self.crash:
            raise self.crash

    def _ring(self):
        # The peer may have made its doorbell blocking, and full.
        if self._client is not None and select.select([], [self._peer_door], [], 0)[1]:
            os.write(self._peer_door, struct.pack("=Q", 1))

    def post(self, name, **fields):
        self.outbox.append(self.dialect.encode(name, EVENT, 0, 0, **fields))

    def used(self):
        if self.out_of_band:
            self.queue.signal(self.queue.bits)      # one word: device 0's group follows the first one
            self._ring()
        else:
            self.post("EVENT_USED", vq_index=0)

    def _accept(self):
        client, _ = self._listener.accept()
        if self._client is not None:
            client.close()
            return
        self._client = client
        self.queue.publish()
        peer, self._next_id = self._next_id, self._next_id + 1
        try:
            for number, fd in ((0, None), (peer, None), (-1, self._fd), (0, self._own), (peer, self._peer_door)):
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
                client.sendmsg([struct.pack("<q", number)], rights)
        except OSError:
            self._leave()

    def _leave(self):
        if self._client is not None:
            self._client.close()
            self._client = None
        self.outbox.clear()
        self.disk.reset()

    def _run(self):
        try:
            while self._turn():
                pass
        except BaseException as error:      # reported by stop
            self.crash = error

    def _turn(self):
        watched = [self._listener, self._own, self._stop_read] + ([self._client] if self._client else [])
        ready = select.select(watched, [], [], 0.02)[0]
        if self._stop_read in ready:
            return False
        if self._own in ready:
            try:
                os.preadv(self._own, [bytearray(8)], -1, os.RWF_NOWAIT)
            except BlockingIOError:
                pass                    # somebody else was faster
        if self._client in ready:
            try:
                self._client.recv(4096)
            except ConnectionError:
                pass
            self._leave()               # it closed, or talked where nobody may
        if self._listener in ready:
            self._accept()
        if self._client:
            self._serve()
        return True

    def _serve(self):
        if self.queue.step():
            self.outbox.clear()
            self.disk.reset()
        if self.queue.pending():
            self.disk.work()
        while not self.outbox or self._flush():
            frame = self.queue.receive()
            if frame is None:
                break
            try:
                self._answer(self.dialect.decode(frame))
            except MessageError as error:
                self.faults.append(str(error))

    def _flush(self):
        while self.outbox and self.queue.send(self.outbox[0]):
            self.outbox.pop(0)
        return not self.outbox

    def _answer(self, message):
        if message.direction == RESPONSE:
            return
        if message.bus:
            fields = self._bus(message)
        else:
            fields = self.disk.handle(message) if message.device == 0 else None
        if fields is not None and message.direction == REQUEST:
            self.outbox.append(self.dialect.encode(message.name, RESPONSE, message.device, message.token, **fields))

    def _bus(self, message):
        if message.name == "PING":
            return {"data": message["data"]}
        if message.name != "GET_DEVICES":
            return None
        offset, count = message["offset"], min(message["count"], 8) & 0xF8
        bitmap = bytes([1 if offset == 0 else 0])[:count // 8]
        return {"offset": offset, "next_offset": 0, "count": count, "bitmap": bitmap}
