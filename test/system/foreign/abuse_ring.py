# SPDX-License-Identifier: BSD-3-Clause
"""Abused virtqueues and block requests. What is refused shows as NEEDS_RESET (with its event) or as a used buffer,
never as silence; after NEEDS_RESET a reset on the same connection restores service."""
import struct
import time

from . import PeerError
from .abuse import abuse
from .blk import IN, IOERR, OUT, SECTOR, UNSUPP, RequestFailed
from .driver import NEEDS_RESET
from .ring import INDIRECT, NEXT, WRITE

AREA = 1 << 52


class Spot:
    """A started device, a buffer with a valid read request in it, and raw access to the ring."""

    def __init__(self, stage, link, ring=()):
        self.stage, self.link, self.blk = stage, link, stage.blk(link, ring)
        self.memory, self.ring = link.memory, self.blk.ring
        self.buffer = link.area.alloc(8192, 64)
        self.header, self.data, self.status = self.buffer, self.buffer + 512, self.buffer + 16
        self.memory.write(self.header, struct.pack("<IIQ", IN, 0, 0))

    def address(self, offset):
        return AREA | offset

    def table(self, *descriptors, raw=None):
        """Descriptors (address, length, flags, next) from slot 0 on."""
        for slot, values in enumerate(descriptors):
            self.ring.write_desc(slot, *values)

    def good(self):
        """A read of one sector as three descriptors."""
        return [(self.address(self.header), 16, NEXT, 1), (self.address(self.data), SECTOR, NEXT | WRITE, 2),
                (self.address(self.status), 1, WRITE, 0)]

    def publish(self, *heads):
        for head in heads:
            self.ring.offer(head)
        self.ring.publish()
        self.kick()

    def kick(self):
        self.link.post("EVENT_AVAIL", self.blk.device, vq_index=0)

    def used(self):
        """Something in the used ring, looked at without trust."""
        if hasattr(self.ring, "used"):
            return self.memory.load16(self.ring.used + 2) != 0
        return self.ring.memory.load16(self.ring.flags_at(0)) >> 15 & 1 == 1

    def outcome(self, must_refuse=False):
        deadline = time.monotonic() + self.stage.timeout
        while time.monotonic() < deadline:
            self.link.poll()
            status = self.blk.driver.status()
            if status & NEEDS_RESET:
                self.link.until(lambda: self.link.status.get(self.blk.device, 0) & NEEDS_RESET,
                                "EVENT_CONFIG with NEEDS_RESET")
                return
            if self.used():
                if must_refuse:
                    raise PeerError("NEEDS_RESET expected, the buffer was used")
                return
            time.sleep(0.002)
        raise PeerError(f"NEEDS_RESET or a used buffer expected, silence for {self.stage.timeout} s")


def spoiled(stage, spoil, ring=(), must_refuse=False):
    with stage.link() as link:
        spot = Spot(stage, link, ring)
        spoil(spot)
        spot.outcome(must_refuse)
        stage.recover(spot.blk)


# -- split ring -------------------------------------------------------------------------------------------------------

@abuse()
def split_head(stage):
    """Heads that are no descriptors."""
    for head in (64, 65, 0x7FFF, 0xFFFF):
        spoiled(stage, lambda spot: spot.publish(head), must_refuse=True)


@abuse()
def split_available_index(stage):
    """The available index more than a queue ahead, and backwards."""
    for index in (65, 0x8000, 0xFFFF):
        def spoil(spot):
            spot.table(*spot.good())
            spot.memory.store16(spot.ring.avail + 2, index)
            spot.kick()
        spoiled(stage, spoil, must_refuse=True)


@abuse()
def split_next(stage):
    for following in (64, 0xFFFF):
        def spoil(spot):
            good = spot.good()
            spot.table((*good[0][:3], following), *good[1:])
            spot.publish(0)
        spoiled(stage, spoil, must_refuse=True)


@abuse()
def split_loops(stage):
    """Chains that bite their tail after one, two and all descriptors."""
    for length in (1, 2, 64):
        def spoil(spot):
            spot.table(*[(spot.address(spot.header), 16, NEXT, (slot + 1) % length) for slot in range(length)])
            spot.publish(0)
        spoiled(stage, spoil, must_refuse=True)


@abuse()
def split_addresses(stage):
    """Buffers outside of memory: other areas, past the end, across the end, wrapping; and absurd lengths."""
    with stage.link() as link:
        size = link.memory.size
    for address, length in ((0, 512), (0x1000, 512), (2 << 52, 512), (0xFFF << 52 | 0x1000, 512), (AREA | size, 512),
                            (AREA | size - 256, 512), (AREA | (1 << 52) - 256, 512), (0xFFFFFFFFFFFFFF00, 512),
                            (AREA | 0x10000, 0xFFFFFFFF), (AREA | 0x10000, 0x80000000)):
        def spoil(spot):
            good = spot.good()
            spot.table(good[0], (address, length, NEXT | WRITE, 2), good[2])
            spot.publish(0)
        spoiled(stage, spoil)


@abuse()
def split_empty_parts(stage):
    """Descriptors of no length in each place."""
    for place in range(3):
        def spoil(spot):
            parts = spot.good()
            address, _, flags, following = parts[place]
            parts[place] = (address, 0, flags, following)
            spot.table(*parts)
            spot.publish(0)
        spoiled(stage, spoil)


@abuse()
def split_order(stage):
    """A readable part behind a writable one."""
    def spoil(spot):
        header, data, status = spot.good()
        spot.table((data[0], data[1], NEXT | WRITE, 1), (header[0], 16, NEXT, 2), status)
        spot.publish(0)
    spoiled(stage, spoil)


@abuse()
def split_same_head(stage):
    """One head many times in one batch."""
    def spoil(spot):
        spot.table(*spot.good())
        spot.publish(*[0] * 60)
    spoiled(stage, spoil)


@abuse()
def split_all_ones(stage):
    def spoil(spot):
        spot.memory.write(spot.ring.desc, b"\xff" * (16 * spot.ring.size))
        spot.memory.write(spot.ring.avail + 4, b"\xff" * (2 * spot.ring.size))
        spot.memory.store16(spot.ring.avail + 2, 1)
        spot.kick()
    spoiled(stage, spoil, must_refuse=True)


@abuse()
def split_used_ring(stage):
    """The used ring overwritten: the device knows its index and goes on, or asks for a reset."""
    def spoil(spot):
        spot.memory.write(spot.ring.used + 4, b"\xff" * (8 * spot.ring.size))
        spot.table(*spot.good())
        spot.publish(0)
    spoiled(stage, spoil)


@abuse()
def split_onto_itself(stage):
    """Reads whose data land on the ring, on the message queue and on the queue block."""
    for target in ("desc", "avail", "used", "block"):
        with stage.link() as link:
            spot = Spot(stage, link)
            at = 0 if target == "block" else getattr(spot.ring, target)
            parts = spot.good()
            spot.table(parts[0], (AREA | at, 4096, NEXT | WRITE, 2), parts[2])
            spot.publish(0)
            time.sleep(0.1)


@abuse()
def split_changing(stage):
    """Descriptors rewritten while the device may be at them."""
    with stage.link() as link:
        spot = Spot(stage, link)
        good = spot.good()
        for turn in range(200):
            spot.table(*good)
            spot.publish(0)
            for _ in range(5):
                spot.ring.write_desc(1, 0xFFF << 52, 0xFFFFFFFF, NEXT | WRITE, 1)
                spot.ring.write_desc(1, *good[1])
            link.poll()
        stage.recover(spot.blk)


# -- indirect tables --------------------------------------------------------------------------------------------------

def indirect(stage, fill, length, flags=INDIRECT, ring=("indirect",), address=None):
    def spoil(spot):
        table = spot.link.area.alloc(16 * 32)
        spot.memory.write(table, b"".join(struct.pack("<QIHH", *values) for values in fill(spot, table)))
        spot.table((spot.address(table) if address is None else address, length, flags, 1), *spot.good()[1:])
        spot.publish(0)
    spoiled(stage, spoil, ring=ring)


@abuse()
def indirect_not_negotiated(stage):
    indirect(stage, lambda spot, _: spot.good(), 48, ring=())


@abuse()
def indirect_length(stage):
    """No bytes, no whole descriptors, far more than there are."""
    for length in (0, 1, 15, 47, 16 * 65, 0xFFFFFFF0, 0xFFFFFFFF):
        indirect(stage, lambda spot, _: spot.good(), length)


@abuse()
def indirect_nested(stage):
    """A table in a table, a table that points at itself, a table with NEXT."""
    indirect(stage, lambda spot, table: [(spot.address(table), 48, INDIRECT, 0)] * 3, 48)
    indirect(stage, lambda spot, table: [spot.good()[0], (spot.address(table), 48, INDIRECT, 0)], 32)
    indirect(stage, lambda spot, _: spot.good(), 48, flags=INDIRECT | NEXT)


@abuse()
def indirect_loops(stage):
    """Loops inside a table and next out of it."""
    for following in (0, 3, 64, 0xFFFF):
        indirect(stage, lambda spot, _: [(spot.address(spot.header), 16, NEXT, following)] * 3, 48)


@abuse()
def indirect_address(stage):
    for address in (0, 2 << 52, AREA | 1 << 40, 0xFFFFFFFFFFFFFFF0):
        indirect(stage, lambda spot, _: spot.good(), 48, address=address)


# -- packed ring ------------------------------------------------------------------------------------------------------

def packed(stage, descriptors, must_refuse=False, ring=("packed",)):
    """Raw packed descriptors (address, length, id, flags without the available bit), the first one made visible
    last."""
    def spoil(spot):
        if not hasattr(spot.ring, "driver_events"):
            raise PeerError("a packed ring expected, the device does not offer it")
        raws = [(address, length, identity, flags | 1 << 7) for address, length, identity, flags in descriptors(spot)]
        for slot, values in reversed(list(enumerate(raws))):
            spot.memory.write(spot.ring.desc + 16 * slot, struct.pack("<QIH", *values[:3]))
            spot.memory.store16(spot.ring.flags_at(slot), values[3])
        spot.kick()
    spoiled(stage, spoil, ring=ring, must_refuse=must_refuse)


def packed_good(spot, identity=0):
    return [(address, length, identity, flags) for address, length, flags, _ in spot.good()]


@abuse()
def packed_id(stage):
    for identity in (64, 0x8000, 0xFFFF):
        packed(stage, lambda spot: packed_good(spot, identity), must_refuse=True)


@abuse()
def packed_endless_chain(stage):
    """Every descriptor says there is one more."""
    packed(stage, lambda spot: [(spot.address(spot.header), 16, 0, NEXT)] * 64, must_refuse=True)


@abuse()
def packed_unfinished_chain(stage):
    """A chain whose next descriptor never becomes available: refused or waited for, but survived."""
    with stage.link() as link:
        spot = Spot(stage, link, ("packed",))
        spot.memory.write(spot.ring.desc, struct.pack("<QIHH", spot.address(spot.header), 16, 0, NEXT | 1 << 7))
        for _ in range(10):
            spot.kick()
            link.ping(9)
        stage.recover(spot.blk)


@abuse()
def packed_addresses(stage):
    for address in (0, 2 << 52, AREA | 1 << 40, 0xFFFFFFFFFFFFFF00):
        packed(stage, lambda spot: [packed_good(spot)[0], (address, 512, 0, NEXT | WRITE), packed_good(spot)[2]])


@abuse()
def packed_indirect(stage):
    """Tables not negotiated, of no length, with NEXT, nested, and outside of memory."""
    both = ("packed", "indirect")
    packed(stage, lambda spot: [(spot.address(spot.data), 48, 0, INDIRECT)])
    for length, flags in ((0, INDIRECT), (15, INDIRECT), (0xFFFFFFF0, INDIRECT), (48, INDIRECT | NEXT),
                          (0, INDIRECT | NEXT)):
        packed(stage, lambda spot: [(spot.address(spot.data), length, 0, flags)] * 2, ring=both)
    packed(stage, lambda spot: [(0xFFFFFFFFFFFFFFF0, 48, 0, INDIRECT)], ring=both)

    def nested(spot):
        spot.memory.write(spot.data, struct.pack("<QIHH", spot.address(spot.data), 16, 0, INDIRECT) * 3)
        return [(spot.address(spot.data), 48, 0, INDIRECT)]
    packed(stage, nested, ring=both)


@abuse()
def packed_events(stage):
    """The driver's event area with reserved flags and positions outside of the ring; I/O goes on or is suppressed."""
    with stage.link() as link:
        spot = Spot(stage, link, ("packed", "event_idx"))
        for value in (0x3FFFF, 0x2FFFF, 0x27FFF, 0x1FFFF, 0xFFFFFFFF):
            spot.memory.store32(spot.ring.driver_events, value)
            request = spot.blk.submit(IN, 0, room=SECTOR)
            spot.blk.kick()
            deadline = time.monotonic() + stage.timeout
            while not request.done:
                if time.monotonic() > deadline:
                    raise PeerError("a used buffer expected, whatever the driver's event area says")
                link.poll()
                spot.blk.reap()
                time.sleep(0.001)
        stage.recover(spot.blk)


# -- requests ---------------------------------------------------------------------------------------------------------

@abuse()
def request_out_of_range(stage):
    """Sectors past the end, sums past 2^64, lengths that are no sectors: an error status, then business as usual."""
    with stage.link() as link:
        blk = stage.blk(link)
        last = blk.capacity // SECTOR
        for command, sector, data, room in ((IN, last, b"", 512), (IN, last - 1, b"", 1024), (IN, 1 << 63, b"", 512),
                                            (IN, (1 << 64) - 1, b"", 512), (IN, 0, b"", 100), (IN, 1 << 55, b"", 512),
                                            (OUT, last, bytes(512), 0), (OUT, last - 1, bytes(1024), 0),
                                            (OUT, (1 << 64) - 1, bytes(512), 0), (OUT, last - 1, bytes(100), 0)):
            refused(blk, (IOERR, UNSUPP), command, sector, data, room)
        stage.check(blk)


def refused(blk, statuses, *request):
    try:
        blk.one(*request)
    except RequestFailed as failure:
        if failure.status in statuses:
            return
        raise
    raise PeerError(f"request {request[0]} at sector {request[1]}: an error status expected, got OK")


@abuse()
def request_unknown(stage):
    with stage.link() as link:
        blk = stage.blk(link)
        for command in (2, 3, 5, 99, 0x7777, 0xFFFFFFFF):
            refused(blk, (UNSUPP, IOERR), command, 0, b"", 512)
        stage.check(blk)


@abuse()
def request_ranges(stage):
    """Discard and write-zeroes past the end, overflowing, with unknown flags and broken range lists."""
    with stage.link() as link:
        blk = stage.blk(link)
        last = blk.capacity // SECTOR
        for command in (11, 13):
            for sector, count, flags in ((last, 1, 0), (0, 0xFFFFFFFF, 0), ((1 << 64) - 1, 2, 0), (1 << 55, 1, 0),
                                         (last - 1, 1, 0xFFFFFFFE)):
                refused(blk, (IOERR, UNSUPP), command, 0, struct.pack("<QII", sector, count, flags), 0)
            for data in (b"", bytes(15), bytes(17)):
                try:
                    blk.one(command, 0, data, 0)
                except RequestFailed:
                    pass                # no range at all may also be nothing to do
        stage.check(blk)


@abuse()
def request_shapes(stage):
    """Headers too short, no status byte, only a status byte."""
    def short_header(spot):
        parts = spot.good()
        spot.table((parts[0][0], 8, NEXT, 1), *parts[1:])
        spot.publish(0)

    def no_status(spot):
        spot.table((spot.address(spot.header), 16, 0, 0))
        spot.publish(0)

    def only_status(spot):
        spot.table((spot.address(spot.status), 1, WRITE, 0))
        spot.publish(0)

    for spoil in (short_header, no_status, only_status):
        spoiled(stage, spoil)
