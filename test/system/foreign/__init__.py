# SPDX-License-Identifier: BSD-3-Clause
"""An independent driver side of virtio-msg in plain Python.

It shares no line with the C code: it was written from the public description of the bus only, so that a
misreading on one side cannot hide behind the same misreading on the other. Standard library only.

Reading order: mem, ivshmem, amp, msg, link, driver, ring, blk, abuse, peer. device.py is the smallest device
side that can serve it and exists to test this package by itself.
"""


class PeerError(Exception):
    """Something the other side did, or failed to do, that the protocol does not allow."""


class WaitTimeout(PeerError):
    """A bounded wait ended; the text names what was expected."""


class ServerGone(PeerError):
    """The process that serves the socket went away."""


class PeerRestarted(PeerError):
    """The queue head of the other side left RUN: everything agreed so far is void."""


class NeedsReset(PeerError):
    """The device reported NEEDS_RESET."""
