# SPDX-License-Identifier: BSD-3-Clause
"""Shared memory as aligned words, little-endian, without read-modify-write.

Indexing a cast memoryview moves a whole word with one load or store; struct.pack_into with an explicit byte
order goes byte by byte and would let the other side see half a word. Bulk data goes through read and write,
always outside of what the other side may look at.
"""
import sys
import threading

if sys.byteorder != "little":
    raise RuntimeError("this peer reads shared memory in native order and needs a little-endian machine")

_fence_lock = threading.Lock()


def fence():
    """Order everything before against everything after, loads and stores alike: an uncontended lock is made of
    interlocked operations on every machine Python runs on."""
    with _fence_lock:
        pass


class Memory:
    def __init__(self, buffer):
        self._bytes = memoryview(buffer).cast("B")
        whole = len(self._bytes) & ~7
        self._u16 = self._bytes[:whole].cast("H")
        self._u32 = self._bytes[:whole].cast("I")
        self.size = len(self._bytes)

    def load16(self, offset):
        assert offset % 2 == 0
        value = self._u16[offset >> 1]
        fence()
        return value

    def store16(self, offset, value):
        assert offset % 2 == 0
        fence()
        self._u16[offset >> 1] = value

    def load32(self, offset):
        assert offset % 4 == 0
        value = self._u32[offset >> 2]
        fence()
        return value

    def store32(self, offset, value):
        assert offset % 4 == 0
        fence()
        self._u32[offset >> 2] = value

    def load64(self, offset):
        """Two halves: good for words of which each half stands alone (bits), not for counters."""
        return self.load32(offset) | self.load32(offset + 4) << 32

    def read(self, offset, length):
        if offset < 0 or length < 0 or length > self.size - offset:
            raise ValueError(f"read of {length} bytes at {offset:#x}: memory has {self.size:#x}")
        return bytes(self._bytes[offset:offset + length])

    def write(self, offset, data):
        if offset < 0 or len(data) > self.size - offset:
            raise ValueError(f"write of {len(data)} bytes at {offset:#x}: memory has {self.size:#x}")
        self._bytes[offset:offset + len(data)] = data

    def release(self):
        for view in (self._u32, self._u16, self._bytes):
            view.release()
