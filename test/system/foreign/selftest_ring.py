# SPDX-License-Identifier: BSD-3-Clause
"""Virtqueues from the device's side, split and packed, for the tiny device side of selftest."""
import struct

from . import PeerError
from .mem import fence

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
INDIRECT_DESC, EVENT_IDX = 28, 29


class RingFault(PeerError):
    pass


class DeviceRing:
    """Device side of a virtqueue: pop gives (identity, readable bytes, writable ranges), push takes bytes."""

    def __init__(self, memory, size, addresses, features):
        self.memory, self.size, self.features = memory, size, features
        self.indirect = bool(features >> INDIRECT_DESC & 1)
        self.event_idx = bool(features >> EVENT_IDX & 1)

    def at(self, address, length):
        offset = address & (1 << 52) - 1
        if address >> 52 != 1 or length > self.memory.size or offset > self.memory.size - length:
            raise RingFault(f"address {address:#x}+{length:#x}")
        return offset

    def collect(self, parts):
        """Readable bytes and writable ranges of (address, length, flags) parts."""
        readable, writable = b"", []
        for address, length, flags in parts:
            offset = self.at(address, length)
            if flags & WRITE:
                writable.append((offset, length))
            elif writable or not length:
                raise RingFault("readable part after a writable one, or an empty part")
            else:
                readable += self.memory.read(offset, length)
        return readable, writable

    def table(self, address, length, flags):
        if not self.indirect or flags & NEXT or not length or length % 16 or length // 16 > self.size:
            raise RingFault(f"indirect table of {length} bytes, flags {flags:#x}")
        return self.memory.read(self.at(address, length), length)


class DeviceSplit(DeviceRing):
    def __init__(self, memory, size, addresses, features):
        super().__init__(memory, size, addresses, features)
        if size & size - 1:
            raise RingFault(f"size {size}")
        lengths = (16 * size, 6 + 2 * size, 6 + 8 * size)
        self.desc, self.avail, self.used = [self.at(*pair) for pair in zip(addresses, lengths)]
        if self.desc % 16 or self.avail % 2 or self.used % 4:
            raise RingFault("unaligned ring")
        self.seen = self.done = self.told = 0

    def walk(self, raw, index):
        count, parts = len(raw) // 16, []
        while True:
            if index >= count or len(parts) >= count:
                raise RingFault(f"descriptor {index} of {count}, {len(parts)} in the chain")
            address, length, flags, following = struct.unpack_from("<QIHH", raw, 16 * index)
            if flags & INDIRECT:
                if parts:
                    raise RingFault("indirect after direct")
                return None, address, length, flags
            parts.append((address, length, flags))
            if not flags & NEXT:
                return parts, 0, 0, 0
            index = following

    def pop(self):
        index = self.memory.load16(self.avail + 2)
        if index - self.seen & 0xFFFF > self.size:
            raise RingFault(f"available index {index}, seen {self.seen}")
        if index == self.seen:
            if self.event_idx:
                self.memory.store16(self.used + 4 + 8 * self.size, self.seen)
                fence()
                if self.memory.load16(self.avail + 2) != self.seen:
                    return self.pop()
            return None
        head = self.memory.load16(self.avail + 4 + 2 * (self.seen % self.size))
        parts, address, length, flags = self.walk(self.memory.read(self.desc, 16 * self.size), head)
        if parts is None:
            parts = self.walk(self.table(address, length, flags), 0)[0]
            if parts is None:
                raise RingFault("nested indirect table")
        self.seen = self.seen + 1 & 0xFFFF
        return head, *self.collect(parts)

    def push(self, identity, written):
        at = self.used + 4 + 8 * (self.done % self.size)
        self.memory.store32(at, identity)
        self.memory.store32(at + 4, written)
        self.done = self.done + 1 & 0xFFFF
        self.memory.store16(self.used + 2, self.done)

    def wants_event(self):
        fence()
        old, self.told = self.told, self.done
        if not self.event_idx:
            return old != self.done and not self.memory.load16(self.avail) & 1
        event = self.memory.load16(self.avail + 4 + 2 * self.size)
        return (self.done - event - 1 & 0xFFFF) < (self.done - old & 0xFFFF)


class DevicePacked(DeviceRing):
    def __init__(self, memory, size, addresses, features):
        super().__init__(memory, size, addresses, features)
        self.desc, self.driver_events, self.device_events = [
            self.at(*pair) for pair in zip(addresses, (16 * size, 4, 4))]
        if self.desc % 16 or self.driver_events % 4 or self.device_events % 4:
            raise RingFault("unaligned ring")
        self.next, self.wrap = 0, 1
        self.used_next, self.used_wrap = 0, 1
        self.pushed = 0
        self.lengths = {}

    def available(self):
        flags = self.memory.load16(self.desc + 16 * self.next + 14)
        return bool(flags & AVAIL) == bool(self.wrap) and bool(flags & USED) != bool(self.wrap)

    def pop(self):
        if not self.available():
            if self.event_idx:
                self.memory.store32(self.device_events, 2 << 16 | self.wrap << 15 | self.next)
                fence()
                if self.available():
                    return self.pop()
            return None
        parts, slots = [], 0
        while True:
            if slots >= self.size:
                raise RingFault("chain longer than the queue")
            address, length, identity, flags = struct.unpack(
                "<QIHH", self.memory.read(self.desc + 16 * ((self.next + slots) % self.size), 16))
            slots += 1
            if flags & INDIRECT:
                if parts:
                    raise RingFault("indirect after direct")
                raw = self.table(address, length, flags)
                parts = [(a, n, f) for a, n, _, f in struct.iter_unpack("<QIHH", raw)]
                break
            parts.append((address, length, flags))
            if not flags & NEXT:
                break
        if identity >= self.size or identity in self.lengths:
            raise RingFault(f"buffer id {identity}")
        self.lengths[identity] = slots
        self.next += slots
        if self.next >= self.size:
            self.next, self.wrap = self.next - self.size, self.wrap ^ 1
        return identity, *self.collect(parts)

    def push(self, identity, written):
        at = self.desc + 16 * self.used_next
        self.memory.write(at + 8, struct.pack("<IH", written, identity))
        flags = (AVAIL | USED if self.used_wrap else 0) | (WRITE if written else 0)
        self.memory.store16(at + 14, flags)
        self.pushed += self.lengths[identity]
        self.used_next += self.lengths.pop(identity)
        if self.used_next >= self.size:
            self.used_next, self.used_wrap = self.used_next - self.size, self.used_wrap ^ 1

    def wants_event(self):
        fence()
        count, self.pushed = self.pushed, 0
        event = self.memory.load32(self.driver_events)
        if event >> 16 & 3 != 2 or not self.event_idx:
            return count > 0 and event >> 16 & 3 != 1
        behind = self.used_next - 1 - (event & 0x7FFF) + (0 if event >> 15 & 1 == self.used_wrap else self.size)
        return 0 <= behind < count
