# SPDX-License-Identifier: BSD-3-Clause
"""Virtqueues from the driver's side, in the confined area: split and packed, indirect tables, event index.

A buffer is a list of (offset, length, writable) parts, readable ones first. What the device writes is checked:
only an outstanding buffer comes back, once, with no more bytes than it had room for.
"""
import struct

from . import PeerError
from .mem import fence

NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15
EVENTS_ENABLE, EVENTS_DISABLE, EVENTS_AT = 0, 1, 2


class Outstanding:
    def __init__(self, cookie, parts, slots):
        self.cookie, self.slots = cookie, slots
        self.room = sum(length for _, length, writable in parts if writable)


class Ring:
    """What both formats share: memory, indirect tables, the check of what comes back."""

    def __init__(self, area, size, event_idx, indirect_entries):
        self.area, self.memory, self.size = area, area.memory, size
        self.event_idx = event_idx
        self.indirect_entries = indirect_entries
        self.tables = [area.alloc(16 * indirect_entries) for _ in range(size)] if indirect_entries else []
        self.outstanding = {}
        self.suppressed = 0             # publications the device asked not to hear about

    def entry(self, part, index, last):
        """One descriptor of an indirect table; the packed format uses neither next nor NEXT there."""
        raise NotImplementedError

    def write_table(self, slot, parts):
        if len(parts) > self.indirect_entries:
            raise ValueError(f"{len(parts)} parts, indirect tables have {self.indirect_entries}")
        table = self.tables[slot]
        self.memory.write(table, b"".join(self.entry(part, index, index == len(parts) - 1)
                                          for index, part in enumerate(parts)))
        return table, 16 * len(parts)

    def finish(self, identity, length):
        done = self.outstanding.pop(identity, None)
        if done is None:
            raise PeerError(f"used ring: an outstanding buffer expected, got id {identity}")
        if length > done.room:
            raise PeerError(f"used ring: at most {done.room} bytes written expected, got {length}")
        return done


class SplitRing(Ring):
    def __init__(self, area, size, event_idx=False, indirect_entries=0):
        super().__init__(area, size, event_idx, indirect_entries)
        self.desc = area.alloc(16 * size, 16)
        self.avail = area.alloc(6 + 2 * size, 4)
        self.used = area.alloc(6 + 8 * size, 4)
        self.addresses = [area.address(at) for at in (self.desc, self.avail, self.used)]
        self.free = list(range(size))
        self.avail_index = self.published = self.used_index = 0

    def entry(self, part, index, last):
        offset, length, writable = part
        flags = (WRITE if writable else 0) | (0 if last else NEXT)
        return struct.pack("<QIHH", self.area.address(offset), length, flags, 0 if last else index + 1)

    def write_desc(self, slot, address, length, flags, following=0):
        self.memory.write(self.desc + 16 * slot, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, head):
        """Put a head into the available ring, not yet published."""
        self.memory.store16(self.avail + 4 + 2 * (self.avail_index % self.size), head)
        self.avail_index = self.avail_index + 1 & 0xFFFF

    def add(self, parts, cookie, direct=False):
        """False when there is no room."""
        indirect = self.tables and not direct
        if len(self.free) < (1 if indirect else len(parts)):
            return False
        slots = [self.free.pop(0) for _ in range(1 if indirect else len(parts))]
        head = slots[0]
        if indirect:
            table, length = self.write_table(head, parts)
            self.write_desc(head, self.area.address(table), length, INDIRECT)
        else:
            for (offset, length, writable), slot, following in zip(parts, slots, slots[1:] + [None]):
                flags = (WRITE if writable else 0) | (0 if following is None else NEXT)
                self.write_desc(slot, self.area.address(offset), length, flags, following or 0)
        self.outstanding[head] = Outstanding(cookie, parts, slots)
        self.offer(head)
        return True

    def publish(self):
        """Show the device what was added. True when it wants to be told."""
        old, self.published = self.published, self.avail_index
        if old == self.published:
            return False
        self.memory.store16(self.avail + 2, self.published)
        fence()                         # the index before the device's wish: it looks in the opposite order
        if self.event_idx:
            event = self.memory.load16(self.used + 4 + 8 * self.size)
            wanted = (self.published - event - 1 & 0xFFFF) < (self.published - old & 0xFFFF)
        else:
            wanted = not self.memory.load16(self.used) & 1
        self.suppressed += not wanted
        return wanted

    def notification_data(self):
        return self.published

    def take(self):
        """Cookie and written bytes of the next used buffer, or None; then the next one is announced again."""
        index = self.memory.load16(self.used + 2)
        waiting = index - self.used_index & 0xFFFF
        if waiting > len(self.outstanding):
            raise PeerError(f"used ring: at most {len(self.outstanding)} buffers expected, index shows {waiting}")
        if not waiting:
            return None
        at = self.used + 4 + 8 * (self.used_index % self.size)
        done = self.finish(self.memory.load32(at), written := self.memory.load32(at + 4))
        self.free.extend(done.slots)
        self.used_index = self.used_index + 1 & 0xFFFF
        if self.event_idx:
            self.memory.store16(self.avail + 4 + 2 * self.size, self.used_index)
            fence()
        return done.cookie, written


class PackedRing(Ring):
    def __init__(self, area, size, event_idx=False, indirect_entries=0):
        super().__init__(area, size, event_idx, indirect_entries)
        self.desc = area.alloc(16 * size, 16)
        self.driver_events = area.alloc(4, 4)
        self.device_events = area.alloc(4, 4)
        self.addresses = [area.address(at) for at in (self.desc, self.driver_events, self.device_events)]
        self.ids = list(range(size))
        self.room = size
        self.next, self.wrap = 0, 1
        self.used_next, self.used_wrap = 0, 1
        self.fresh = []                 # first slots of what was added since publish: (slot, flags)
        self.added = 0                  # descriptors since publish

    def entry(self, part, index, last):
        offset, length, writable = part
        return struct.pack("<QIHH", self.area.address(offset), length, 0, WRITE if writable else 0)

    def write_desc(self, address, length, identity, flags):
        """Fill the next slot except its flags; the slot and the flags to publish it with."""
        slot = self.next
        self.memory.write(self.desc + 16 * slot, struct.pack("<QIH", address, length, identity))
        flags |= AVAIL if self.wrap else USED
        self.next += 1
        if self.next == self.size:
            self.next, self.wrap = 0, self.wrap ^ 1
        self.added += 1
        return slot, flags

    def flags_at(self, slot):
        return self.desc + 16 * slot + 14

    def add(self, parts, cookie, direct=False):
        indirect = self.tables and not direct
        needed = 1 if indirect else len(parts)
        if self.room < needed or not self.ids:
            return False
        identity = self.ids.pop(0)
        self.room -= needed
        if indirect:
            table, length = self.write_table(identity, parts)
            slots = [self.write_desc(self.area.address(table), length, identity, INDIRECT)]
        else:
            slots = [self.write_desc(self.area.address(offset), length, identity,
                                     (WRITE if writable else 0) | (NEXT if index < len(parts) - 1 else 0))
                     for index, (offset, length, writable) in enumerate(parts)]
        for slot, flags in slots[1:]:
            self.memory.store16(self.flags_at(slot), flags)
        self.fresh.append(slots[0])
        self.outstanding[identity] = Outstanding(cookie, parts, needed)
        return True

    def publish(self):
        if not self.fresh:
            return False
        for slot, flags in reversed(self.fresh):        # the very first one last: then all of them are visible
            self.memory.store16(self.flags_at(slot), flags)
        self.fresh, count, self.added = [], self.added, 0
        fence()
        event = self.memory.load32(self.device_events)
        flags = event >> 16 & 3
        if flags == EVENTS_AT and self.event_idx:
            at, event_wrap = event & 0x7FFF, event >> 15 & 1
            # Positions since the last publication, counted backwards from where the ring stands now.
            behind = self.next - 1 - at + (0 if event_wrap == self.wrap else self.size)
            wanted = 0 <= behind < count
        else:
            wanted = flags != EVENTS_DISABLE
        self.suppressed += not wanted
        return wanted

    def notification_data(self):
        return self.next | self.wrap << 31

    def take(self):
        at = self.desc + 16 * self.used_next
        flags = self.memory.load16(at + 14)
        if bool(flags & AVAIL) != bool(self.used_wrap) or bool(flags & USED) != bool(self.used_wrap):
            return None
        identity = self.memory.load16(at + 12)
        # The length means something only when the device says that it wrote.
        written = self.memory.load32(at + 8) if flags & WRITE else 0
        done = self.finish(identity, written)
        self.ids.append(identity)
        self.room += done.slots
        self.used_next += done.slots
        if self.used_next >= self.size:
            self.used_next, self.used_wrap = self.used_next - self.size, self.used_wrap ^ 1
        if self.event_idx:
            self.memory.store32(self.driver_events, EVENTS_AT << 16 | self.used_wrap << 15 | self.used_next)
            fence()
        return done.cookie, written


def make_ring(area, size, packed=False, event_idx=False, indirect_entries=0):
    return (PackedRing if packed else SplitRing)(area, size, event_idx, indirect_entries)
