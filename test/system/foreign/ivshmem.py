# SPDX-License-Identifier: BSD-3-Clause
"""Client of the ivshmem server protocol (the QEMU document "ivshmem-spec").

The server sends 8-byte signed little-endian numbers, some with one file descriptor attached: protocol version 0,
our own peer id, -1 with the shared memory, then one message per peer and vector with an eventfd, our own included.
A peer id without a descriptor means that this peer left.
"""
import array
import mmap
import os
import select
import socket
import struct
import time

from . import PeerError, ServerGone, WaitTimeout
from .mem import Memory

DEVICE_PEER = 0


class Ivshmem:
    def __init__(self, path, timeout=5.0):
        self.timeout = timeout
        self.doorbells = {}             # peer id -> one eventfd per vector
        self.id = None
        self.memory = None
        self.rings = 0                  # doorbells given
        self.wakes = 0                  # doorbells heard
        self._mmap = None
        self._fds = []
        self._partial = b""
        self._partial_fds = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(os.fspath(path))
            self._greet(time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    def _greet(self, deadline):
        version, fd = self._next(deadline, "the protocol version")
        if version != 0 or fd is not None:
            raise PeerError(f"ivshmem protocol version 0 without a descriptor expected, got {version}, fd {fd}")
        self.id, fd = self._next(deadline, "our own peer id")
        if not 0 < self.id <= 0xFFFF or fd is not None:
            raise PeerError(f"a peer id in 1..65535 without a descriptor expected, got {self.id}, fd {fd}")
        number, fd = self._next(deadline, "the shared memory")
        if number != -1 or fd is None:
            raise PeerError(f"-1 with the shared memory's descriptor expected, got {number}, fd {fd}")
        self.memory_fd = fd
        size = os.fstat(fd).st_size
        self._mmap = mmap.mmap(fd, size)
        self.memory = Memory(self._mmap)
        while not (self.doorbells.get(DEVICE_PEER) and self.doorbells.get(self.id)):
            self._notice(*self._next(deadline, "eventfds of peer 0 and of ourselves"))

    def _next(self, deadline, what):
        """One 8-byte number and its descriptor, if any."""
        while len(self._partial) < 8:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                raise WaitTimeout(f"ivshmem server: {what} expected, nothing came in time")
            self._receive()
        return self._take()

    def _receive(self):
        room = 8 - len(self._partial)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(room, socket.CMSG_SPACE(4 * 4))
        except ConnectionError as error:
            raise ServerGone(f"the server closed the socket: {error}") from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[:len(payload) - len(payload) % numbers.itemsize])
                self._partial_fds.extend(numbers)
                self._fds.extend(numbers)
        if not data:
            raise ServerGone("the server closed the socket")
        self._partial += data

    def _take(self):
        number, = struct.unpack("<q", self._partial)
        fds, self._partial, self._partial_fds = self._partial_fds, b"", []
        if len(fds) > 1:
            raise PeerError(f"at most one descriptor per number expected, got {len(fds)} with {number}")
        return number, fds[0] if fds else None

    def _notice(self, number, fd):
        if fd is not None:
            os.set_blocking(fd, False)
            self.doorbells.setdefault(number, []).append(fd)
            return
        self.doorbells.pop(number, None)
        if number == DEVICE_PEER:
            raise ServerGone("the server reported that peer 0, the device side, left")

    def ring(self, vector=0):
        if DEVICE_PEER not in self.doorbells:
            raise ServerGone("peer 0, the device side, left: nobody to ring for")
        try:
            os.write(self.doorbells[DEVICE_PEER][vector], struct.pack("=Q", 1))
        except BlockingIOError:
            pass                        # the counter is at its end: the peer is woken anyway
        self.rings += 1

    def wait(self, seconds):
        """Sleep until our vector 0 is rung. False when nothing came. ServerGone when the server left."""
        own = self.doorbells[self.id][0]
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([own, self._socket], [], [], left)[0]
            if self._socket in ready:
                self._receive()
                if len(self._partial) == 8:
                    self._notice(*self._take())
            if own in ready:
                try:
                    os.read(own, 8)
                    self.wakes += 1
                    return True
                except BlockingIOError:
                    pass
            if not ready:
                return False

    def close(self):
        self._socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self.memory is not None:
            self.memory.release()
            self.memory = None
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None
