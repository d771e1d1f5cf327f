# SPDX-License-Identifier: BSD-3-Clause
"""The two queue formats of the AMP bus, from the driver's side.

Both offer the same few calls: start, send (False when full), receive (None when empty), pending_events, kick, close;
and `end`, the first byte that belongs to the driver. Indices are kept here; memory is only told.
"""
import time

from . import PeerError, PeerRestarted, WaitTimeout
from .mem import fence

LAYOUT_MAGIC = 0x4C4F
HEAD_MAGIC = 0x514F
INIT, READY, RUN, SHUTDOWN, PEER_DEAD = range(5)
STATE_NAMES = ("INIT", "READY", "RUN", "SHUTDOWN", "PEER_DEAD")
OPTION_MASK_WORDS = 1
POLL_SECONDS = 0.005


def state_name(state):
    return STATE_NAMES[state] if state < len(STATE_NAMES) else f"state {state}"


class Block:
    """The 64-byte description at the start of the area, read once and checked."""

    def __init__(self, memory, base):
        raw = memory.read(base, 64)

        def u16(at):
            return int.from_bytes(raw[at:at + 2], "little")

        self.length, self.version, self.options = u16(2), u16(4), u16(6)
        self.words, self.bits_per_device = raw[8], raw[9]
        self.count, self.element_bytes, self.zero = u16(10), u16(12), u16(14)
        refs = [int.from_bytes(raw[at:at + 8], "little") for at in range(16, 64, 8)]
        for ref in refs:
            if ref >> 52 not in (0, 1):
                raise PeerError(f"layout block: reference {ref:#x} is in area {ref >> 52}, 0 or 1 expected")
        (self.device_notify, self.device_head, self.device_elements,
         self.driver_notify, self.driver_head, self.driver_elements) = [ref & (1 << 52) - 1 for ref in refs]
        self._check(memory.size - base)

    def _check(self, size):
        facts = ((self.length == 64, f"length {self.length}, 64 expected"),
                 (self.version == 1, f"version {self.version}, 1 expected"),
                 (self.options & ~OPTION_MASK_WORDS == 0, f"unknown options {self.options:#x}"),
                 (self.words <= 64, f"{self.words} notification words, at most 64 expected"),
                 (not self.words or self.bits_per_device in (1, 2, 4, 8, 16),
                  f"{self.bits_per_device} notify bits per device, 1, 2, 4, 8 or 16 expected"),
                 (self.count >= 2, f"{self.count} elements, at least 2 expected"),
                 (self.element_bytes >= 52, f"elements of {self.element_bytes} bytes, at least 52 expected"),
                 (self.zero == 0, f"word at 14 is {self.zero:#x}, 0 expected"))
        for good, text in facts:
            if not good:
                raise PeerError("layout block: " + text)
        regions = [(0, 64, 1, "block")]
        for name in ("device", "driver"):
            if self.words:
                kinds = 3 if self.options & OPTION_MASK_WORDS else 2
                regions.append((getattr(self, name + "_notify"), 8 * self.words * kinds, 8, name + " notify words"))
            regions.append((getattr(self, name + "_head"), 8, 2, name + " head"))
            regions.append((getattr(self, name + "_elements"), self.count * self.element_bytes, 1, name + " elements"))
        regions.sort()
        for start, length, align, name in regions:
            if start % align or length > size or start > size - length:
                raise PeerError(f"layout block: {name} at {start:#x}+{length:#x} is unaligned or outside the memory")
        for (start, length, _, name), (later, _, _, other) in zip(regions, regions[1:]):
            if later < start + length:
                raise PeerError(f"layout block: {name} and {other} overlap at {later:#x}")
        self.end = regions[-1][0] + regions[-1][1]


class Words:
    """Notification words: toggle to signal; pending is own rx against the peer's tx; acknowledge, then act.

    A bit that is still pending must not be toggled again: two toggles are none. The receiver acknowledges before it
    looks, so whatever was published before we found the bit pending will be seen.
    """

    def __init__(self, memory, block, base):
        self._memory = memory
        self.count, self.bits_per_device = block.words, block.bits_per_device
        mine, theirs, step = base + block.driver_notify, base + block.device_notify, 8 * block.words
        self.own_tx, self.own_rx = mine, mine + step
        self.peer_tx, self.peer_rx = theirs, theirs + step
        self.peer_mask = theirs + 2 * step if block.options & OPTION_MASK_WORDS else None
        self.direct = 65 - block.words

    def signal(self, word, bit):
        """Each half word has one writer, so plain 32-bit stores are enough. True when the peer wants a doorbell."""
        half, mask = 8 * word + 4 * (bit >> 5), 1 << (bit & 31)
        fence()                         # what was published before the look at the peer's acknowledgement
        tx = self._memory.load32(self.own_tx + half)
        pending = (tx ^ self._memory.load32(self.peer_rx + half)) & mask
        if not pending:
            self._memory.store32(self.own_tx + half, tx ^ mask)
        if word:
            return self.signal(0, word + 64 - self.count)
        masked = self.peer_mask is not None and self._memory.load64(self.peer_mask) >> bit & 1
        return not pending and not masked

    def _take_word(self, word):
        taken = 0
        for half in (0, 4):
            rx = self.own_rx + 8 * word + half
            fresh = self._memory.load32(rx) ^ self._memory.load32(self.peer_tx + 8 * word + half)
            if fresh:
                self._memory.store32(rx, self._memory.load32(rx) ^ fresh)
                fence()                 # the acknowledgement before the look at what was announced
                taken |= fresh << 8 * half
        return [bit for bit in range(64) if taken >> bit & 1]

    def take(self):
        """Acknowledge everything pending; the events as (word, bit) pairs."""
        events = []
        for bit in self._take_word(0):
            if bit < self.direct:
                events.append((0, bit))
            else:
                word = bit - (64 - self.count)
                events += [(word, deep) for deep in self._take_word(word)]
        return events

    def place(self, device, queue):
        """Word and bit of a queue of a device: groups of `bits_per_device`, the last bit of a group for whatever has
        none of its own. One word: the groups follow the first one. More words: the groups fill words 1 and up.
        None when this device has no group."""
        width = self.bits_per_device
        inside = min(queue, width - 1)
        if self.count == 1:
            bit = width * (device + 1)
            return (0, bit + inside) if bit <= 64 - width else None
        per_word = 64 // width
        word = 1 + device // per_word
        return (word, device % per_word * width + inside) if word < self.count else None


class Layout:
    """The self-describing format with its start-up state machine."""

    def __init__(self, door, base=0, ring_on_state=True, out_of_band=False):
        self.door, self.base = door, base
        self.ring_on_state, self.out_of_band = ring_on_state, out_of_band
        self.memory = door.memory
        self.block = self.words = None
        self.producer = self.consumer = 0
        self.state = INIT
        self.peer_seen_running = False

    def _until(self, condition, what, timeout):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"AMP layout: {what} expected, not seen in {timeout} s")
            self.door.wait(POLL_SECONDS)

    def _enter(self, state):
        self.state = state
        self.memory.store16(self.driver_head + 2, state)
        if self.ring_on_state:
            self.door.ring()

    def peer_state(self):
        return self.memory.load16(self.device_head + 2) & 0x1F

    def peer_magic(self):
        return self.memory.load16(self.device_head)

    def start(self, timeout=5.0):
        memory, base = self.memory, self.base
        self._until(lambda: memory.load16(base) == LAYOUT_MAGIC, f"layout magic {LAYOUT_MAGIC:#x}", timeout)
        self.block = block = Block(memory, base)
        self.end = base + block.end
        self.count, self.element_bytes = block.count, block.element_bytes
        self.device_head, self.driver_head = base + block.device_head, base + block.driver_head
        self.device_elements, self.driver_elements = base + block.device_elements, base + block.driver_elements
        memory.write(self.driver_elements, bytes(self.count * self.element_bytes))
        if block.words:
            kinds = 3 if block.options & OPTION_MASK_WORDS else 2
            memory.write(base + block.driver_notify, bytes(8 * block.words * kinds))
            self.words = Words(memory, block, base)
        self._enter(INIT)
        memory.store16(self.driver_head, HEAD_MAGIC)
        self.handshake(timeout)

    def handshake(self, timeout=5.0):
        """INIT to RUN. While the other side still shows RUN it has not noticed our INIT: no READY before it did."""
        self._until(lambda: self.peer_magic() == HEAD_MAGIC, f"device head magic {HEAD_MAGIC:#x}", timeout)
        self._until(lambda: self.peer_state() != RUN, "the device leaving RUN after our INIT", timeout)
        self.producer = self.consumer = 0
        self.memory.store16(self.driver_head + 4, 0)
        self.memory.store16(self.driver_head + 6, 0)
        self._enter(READY)
        self._until(lambda: self.peer_state() in (READY, RUN), "the device in READY or RUN", timeout)
        self._enter(RUN)
        self._until(lambda: self.peer_state() == RUN, "the device in RUN", timeout)
        self.peer_seen_running = True

    def restart(self, timeout=5.0):
        """Go back to INIT without a word, as a driver side that was rebooted does, and come up again."""
        self._enter(INIT)
        self.handshake(timeout)

    def check_peer(self):
        state = self.peer_state()
        if state != RUN or self.peer_magic() != HEAD_MAGIC:
            raise PeerRestarted(f"AMP layout: device head in RUN expected, it shows {state_name(state)}, "
                                f"magic {self.peer_magic():#x}")

    def _peer_index(self, at, what):
        index = self.memory.load16(at)
        if index >= self.count:
            raise PeerError(f"AMP layout: {what} below {self.count} expected, got {index}")
        return index

    def send(self, frame, ring=True):
        if len(frame) > self.element_bytes:
            raise ValueError(f"frame of {len(frame)} bytes, elements have {self.element_bytes}")
        following = (self.producer + 1) % self.count
        if following == self._peer_index(self.device_head + 6, "device consumer index"):
            return False
        self.memory.write(self.driver_elements + self.producer * self.element_bytes,
                          frame.ljust(self.element_bytes, b"\0"))
        self.producer = following
        self.memory.store16(self.driver_head + 4, following)
        if ring and (self.words is None or self.words.signal(0, 0)):
            self.door.ring()
        return True

    def receive(self):
        if self.consumer == self._peer_index(self.device_head + 4, "device producer index"):
            return None
        frame = self.memory.read(self.device_elements + self.consumer * self.element_bytes, self.element_bytes)
        self.consumer = (self.consumer + 1) % self.count
        self.memory.store16(self.driver_head + 6, self.consumer)
        return frame

    def pending_events(self):
        return self.words.take() if self.words else []

    def kick(self, device, queue):
        """The out-of-band kick. False when there is none, and the event has to travel as a message."""
        place = self.words.place(device, queue) if self.words and self.out_of_band else None
        if place is None:
            return False
        if self.words.signal(*place):
            self.door.ring()
        return True

    def close(self):
        if self.block is not None and self.state != SHUTDOWN:
            self._enter(SHUTDOWN)


class Spsc:
    """Two single-producer rings of 4 KiB. No state, no epoch: both sides go on from what memory holds."""

    RING_BYTES = 4096
    element_bytes = 64

    def __init__(self, door, base=0):
        self.door, self.base, self.memory = door, base, door.memory
        self.tx, self.rx = base, base + self.RING_BYTES
        self.count = (self.RING_BYTES - 192) // self.element_bytes + 1
        self.end = base + 2 * self.RING_BYTES

    def start(self, timeout=5.0):
        if self.end > self.memory.size:
            raise PeerError(f"spsc: {self.end} bytes of memory expected, there are {self.memory.size}")
        self.producer = self.memory.load32(self.tx) % self.count
        # What lies unread was meant for whoever had this area before us.
        self.consumer = self.memory.load32(self.rx) % self.count
        self.memory.store32(self.rx + 64, self.consumer)

    def check_peer(self):
        pass

    def _peer_index(self, at, what):
        index = self.memory.load32(at)
        if index >= self.count:
            raise PeerError(f"spsc: {what} below {self.count} expected, got {index}")
        return index

    def send(self, frame, ring=True):
        if len(frame) > self.element_bytes:
            raise ValueError(f"frame of {len(frame)} bytes, elements have {self.element_bytes}")
        following = (self.producer + 1) % self.count
        if following == self._peer_index(self.tx + 64, "device tail"):
            return False
        self.memory.write(self.tx + 128 + self.producer * self.element_bytes, frame.ljust(self.element_bytes, b"\0"))
        self.producer = following
        self.memory.store32(self.tx, following)
        if ring:
            self.door.ring()
        return True

    def receive(self):
        if self.consumer == self._peer_index(self.rx, "device head"):
            return None
        frame = self.memory.read(self.rx + 128 + self.consumer * self.element_bytes, self.element_bytes)
        self.consumer = (self.consumer + 1) % self.count
        self.memory.store32(self.rx + 64, self.consumer)
        return frame

    def pending_events(self):
        return []

    def kick(self, device, queue):
        return False

    def close(self):
        pass
