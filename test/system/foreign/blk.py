# SPDX-License-Identifier: BSD-3-Clause
"""The block device: requests in flight over one queue, buffers in the confined area."""
import struct

from . import PeerError
from .driver import Driver, EVENT_IDX, INDIRECT_DESC, NOTIFICATION_DATA, RING_PACKED

DEVICE_ID = 2
SECTOR = 512
IN, OUT, FLUSH_COMMAND, GET_ID, DISCARD_COMMAND, ZEROES_COMMAND = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
STATUS_NAMES = {OK: "OK", IOERR: "IOERR", UNSUPP: "UNSUPP"}
UNANSWERED = 0xA5                       # in the status byte until the device writes it

# Feature bits
SIZE_MAX, SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE = 1, 2, 5, 6, 9, 10, 11
DISCARD, WRITE_ZEROES = 13, 14
WANTED = (SIZE_MAX, SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES)
RING_FEATURES = {"indirect": INDIRECT_DESC, "event_idx": EVENT_IDX, "packed": RING_PACKED,
                 "notification_data": NOTIFICATION_DATA}

CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3x")
CONFIG_NAMES = ("capacity size_max seg_max cylinders heads sectors blk_size physical_block_exp alignment_offset "
                "min_io_size opt_io_size writeback num_queues max_discard_sectors max_discard_seg "
                "discard_sector_alignment max_write_zeroes_sectors max_write_zeroes_seg write_zeroes_may_unmap").split()


class RequestFailed(PeerError):
    def __init__(self, what, status):
        super().__init__(f"{what}: status {STATUS_NAMES.get(status, status)}")
        self.status = status


class Request:
    def __init__(self, what, slot, room):
        self.what, self.slot, self.room = what, slot, room
        self.done = False
        self.status = self.written = self.data = None


class Slot:
    """Header, data and status of one request in flight."""

    def __init__(self, area, data_bytes):
        self.header = area.alloc(16)
        self.status = area.alloc(1)
        self.data = area.alloc(data_bytes, 64)


class Blk:
    def __init__(self, link, device=None, ring=(), depth=8, slot_bytes=65536, size=64, segments=1):
        """`ring`: names of RING_FEATURES to ask for. `segments`: parts a request's data is cut into."""
        self.link, self.segments = link, segments
        self.device = self.find(link) if device is None else device
        self.driver = Driver(link, self.device)
        self.wanted = WANTED + tuple(RING_FEATURES[name] for name in ring)
        self.depth, self.size, self.slot_bytes = depth, size, slot_bytes
        self.in_flight = 0

    @staticmethod
    def find(link):
        numbers = link.devices()
        for number in numbers:
            if link.request("GET_DEVICE_INFO", number)["device_id"] == DEVICE_ID:
                return number
        raise PeerError(f"a block device expected, the bus shows devices {numbers}")

    def start(self):
        self.link.area.free_all()
        self.in_flight = 0
        self.driver.start(self.wanted, 1, self.size)
        self.ring = self.driver.rings[0]
        self.read_config()
        limit = self.config["size_max"] if self.driver.has(SIZE_MAX) else self.slot_bytes
        self.slot_bytes = min(self.slot_bytes, limit * self.segments) // SECTOR * SECTOR
        self.free = [Slot(self.link.area, self.slot_bytes) for _ in range(self.depth)]
        return self

    def read_config(self):
        size = self.driver._info["config_size"]
        raw = self.driver.config_read(0, min(size, CONFIG.size)).ljust(CONFIG.size, b"\0")
        self.config = dict(zip(CONFIG_NAMES, CONFIG.unpack(raw)))
        self.capacity = self.config["capacity"] * SECTOR
        return self.config

    # -- one request ----------------------------------------------------------------------------------------------

    def submit(self, command, sector=0, data=b"", room=0, what=None):
        """Queue a request with `data` to the device or `room` bytes from it. None when all slots are in use."""
        if not self.free:
            return None
        slot = self.free.pop()
        memory = self.link.memory
        memory.write(slot.header, struct.pack("<IIQ", command, 0, sector))
        memory.write(slot.status, bytes([UNANSWERED]))
        memory.write(slot.data, data or bytes(room))
        request = Request(what or f"request {command} at sector {sector}", slot, room)
        parts = [(slot.header, 16, False), *self.cut(slot.data, len(data), False), *self.cut(slot.data, room, True),
                 (slot.status, 1, True)]
        if not self.ring.add(parts, request):
            self.free.append(slot)
            return None
        self.in_flight += 1
        return request

    def cut(self, offset, length, writable):
        if not length:
            return []
        step = max(1, -(-length // self.segments))
        return [(offset + at, min(step, length - at), writable) for at in range(0, length, step)]

    def kick(self):
        self.driver.kick(0)

    def reap(self):
        """Take in everything the device is done with. True when there was anything."""
        something = False
        while (done := self.ring.take()) is not None:
            request, request.written = done
            request.status = self.link.memory.read(request.slot.status, 1)[0]
            request.data = self.link.memory.read(request.slot.data, request.room)
            request.done = something = True
            self.free.append(request.slot)
            self.in_flight -= 1
        return something

    def wait(self, request):
        def finished():
            self.reap()
            return request.done

        self.link.until(finished, request.what, device=self.device)
        return request.status

    def one(self, command, sector=0, data=b"", room=0, what=None):
        """A whole request; the data that came, RequestFailed unless OK."""
        request = self.submit(command, sector, data, room, what)
        if request is None:
            raise PeerError(f"{what}: no free slot, {self.in_flight} requests in flight")
        self.kick()
        status = self.wait(request)
        if status != OK:
            raise RequestFailed(request.what, status)
        if request.written != room + 1:
            raise PeerError(f"{request.what}: {room + 1} bytes written expected, used ring says {request.written}")
        return request.data

    # -- the disk -------------------------------------------------------------------------------------------------

    def transfer(self, pieces):
        """Run (command, offset, data, room) pieces with as many in flight as there are slots; yields the data that
        came, in order."""
        waiting = []
        for command, offset, data, room in pieces:
            while (request := self.submit(command, offset // SECTOR, data, room,
                                          f"{'read' if room else 'write'} at byte {offset}")) is None:
                yield self.finish(waiting.pop(0))
            waiting.append(request)
            self.kick()
        for request in waiting:
            yield self.finish(request)

    def finish(self, request):
        status = self.wait(request)
        if status != OK:
            raise RequestFailed(request.what, status)
        return request.data

    def read(self, offset, length):
        step = self.slot_bytes
        return b"".join(self.transfer((IN, offset + at, b"", min(step, length - at)) for at in range(0, length, step)))

    def write(self, offset, data):
        step = self.slot_bytes
        for _ in self.transfer((OUT, offset + at, data[at:at + step], 0) for at in range(0, len(data), step)):
            pass

    def flush(self):
        self.one(FLUSH_COMMAND, what="flush")

    def get_id(self):
        return self.one(GET_ID, room=20, what="get-id").rstrip(b"\0")

    def discard(self, offset, length):
        self.one(DISCARD_COMMAND, data=self.range(offset, length), what=f"discard of {length} bytes at {offset}")

    def write_zeroes(self, offset, length, unmap=False):
        self.one(ZEROES_COMMAND, data=self.range(offset, length, unmap), what=f"zeroes of {length} bytes at {offset}")

    @staticmethod
    def range(offset, length, unmap=False):
        return struct.pack("<QII", offset // SECTOR, length // SECTOR, unmap)
