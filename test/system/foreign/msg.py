# SPDX-License-Identifier: BSD-3-Clause
"""Messages of virtio-msg: dialects v2, v1 and rfc2 as tables, one encoder, one decoder.

A body is written as "name:type ..." with the struct module's little-endian types. A tail is what follows the
fixed part: its length is counted by one of the fixed fields. Directions are request, response and event.
"""
import struct
from dataclasses import dataclass, field

from . import PeerError

REQUEST, RESPONSE, EVENT = "request", "response", "event"

# Types byte: bit 0 response, bit 1 bus message; the rest is sent as zero and ignored on receipt.
TYPE_RESPONSE, TYPE_BUS = 1, 2

# SET_VQUEUE flags of v2
VQUEUE_ENABLE, VQUEUE_KEEP_ALL = 1, 0x3C
DEVICE_ADDED, DEVICE_REMOVED = 1, 2


class MessageError(PeerError):
    """A frame that is no message of the dialect."""


class Body:
    def __init__(self, text="", tail=None, count=None, unit=None, optional=False):
        pairs = [item.split(":") for item in text.split()]
        self.names = [name for name, _ in pairs]
        self.format = struct.Struct("<" + "".join(kind for _, kind in pairs))
        self.zeros = {name: bytes(int(kind[:-1])) if kind.endswith("s") else 0 for name, kind in pairs}
        self.tail, self.count, self.unit, self.optional = tail, count, unit, optional

    def encode(self, values):
        """Missing fields are zero; a missing count is that of the tail."""
        values = dict(values)
        tail = values.pop(self.tail, b"") if self.tail else b""
        raw = self.pack_tail(tail)
        if self.tail and self.count not in values:
            values[self.count] = len(tail) if self.unit != "bits" else 8 * len(raw)
        unknown = set(values) - set(self.names)
        if unknown:
            raise ValueError(f"no field {', '.join(sorted(unknown))} in this message")
        return self.format.pack(*({**self.zeros, **values}[name] for name in self.names)) + raw

    def pack_tail(self, tail):
        return struct.pack(f"<{len(tail)}I", *tail) if self.unit == "words" else bytes(tail)

    def tail_bytes(self, count):
        return {"words": 4 * count, "bytes": count, "bits": (count + 7) // 8}[self.unit]

    def decode(self, raw, name):
        fixed = self.format.size
        if len(raw) < fixed:
            raise MessageError(f"{name}: {fixed} payload bytes expected, got {len(raw)}")
        values = dict(zip(self.names, self.format.unpack_from(raw)))
        if self.tail:
            length = self.tail_bytes(values[self.count])
            rest = raw[fixed:]
            if self.optional and len(rest) != length:
                rest = b""
            elif len(rest) < length:
                raise MessageError(f"{name}: {self.tail} of {length} bytes expected, got {len(rest)}")
            rest = rest[:length]
            values[self.tail] = list(struct.unpack(f"<{len(rest) // 4}I", rest)) if self.unit == "words" else rest
        return values


@dataclass
class Message:
    name: str
    direction: str
    bus: bool
    device: int
    token: int
    size: int
    fields: dict = field(default_factory=dict)

    def __getitem__(self, name):
        return self.fields[name]


EMPTY = Body()
STATUS = Body("status:I")
INDEX = Body("index:I")
FEATURES_ASK = Body("block_index:I num_blocks:I")
FEATURES = Body("block_index:I num_blocks:I", "features", "num_blocks", "words")
CONFIG = Body("generation:I offset:I length:I", "data", "length", "bytes")
# Success of an older device may come without the echo of the data.
CONFIG_BARE = Body("generation:I offset:I length:I", "data", "length", "bytes", optional=True)
INFO_V1 = Body("device_id:I vendor_id:I num_feature_bits:I config_size:I max_virtqueues:I "
               "admin_vq_start:H admin_vq_count:H")
SHM_V1 = Body("shmid:I length:I address:I")
DEVICES_V1 = Body("offset:H count:H next_offset:H", "bitmap", "count", "bits")

# name: (id, request, response) and name: (id, event). The word called flags is reserved and zero before v2.
V2 = {
    "GET_DEVICE_INFO": (0x02, EMPTY, Body("device_id:I vendor_id:I device_uuid:16s num_feature_blocks:I config_size:I "
                                          "max_virtqueues:I admin_vq_start:I admin_vq_count:I")),
    "GET_DEVICE_FEATURES": (0x03, FEATURES_ASK, FEATURES),
    "SET_DRIVER_FEATURES": (0x04, FEATURES, EMPTY),
    "GET_CONFIG": (0x05, Body("offset:I length:I"), CONFIG),
    "SET_CONFIG": (0x06, CONFIG, CONFIG),
    "GET_DEVICE_STATUS": (0x07, EMPTY, STATUS),
    "SET_DEVICE_STATUS": (0x08, STATUS, STATUS),
    "GET_VQUEUE": (0x09, INDEX, Body("index:I max_size:I cur_size:I flags:I desc_addr:Q driver_addr:Q device_addr:Q")),
    "SET_VQUEUE": (0x0A, Body("index:I flags:I size:I reserved:I desc_addr:Q driver_addr:Q device_addr:Q"), EMPTY),
    "RESET_VQUEUE": (0x0B, INDEX, EMPTY),
    "GET_SHM": (0x0C, Body("shmid:I"), Body("shmid:I reserved:I length:Q address:Q")),
    "EVENT_CONFIG": (0x40, Body("device_status:I generation:I offset:I length:I", "data", "length", "bytes",
                                optional=True)),
    "EVENT_AVAIL": (0x41, Body("vq_index:I next_offset:I")),
    "EVENT_USED": (0x42, Body("vq_index:I")),
}
V1 = {**V2,
      "GET_DEVICE_INFO": (0x02, EMPTY, INFO_V1),
      "SET_CONFIG": (0x06, CONFIG, CONFIG_BARE),
      "GET_SHM": (0x0C, Body("shmid:I"), SHM_V1)}
RFC2 = {**V1,
        "GET_VQUEUE": (0x09, INDEX, Body("index:I max_size:I cur_size:I desc_addr:Q driver_addr:Q device_addr:Q")),
        "SET_VQUEUE": (0x0A, Body("index:I flags:I size:I desc_addr:Q driver_addr:Q device_addr:Q"), EMPTY)}
BUS_V2 = {
    "GET_DEVICES": (0x02, Body("offset:H count:H"),
                    Body("offset:H next_offset:H count:H", "bitmap", "count", "bits")),
    "PING": (0x03, Body("data:I"), Body("data:I")),
    "EVENT_DEVICE": (0x40, Body("device_number:H state:H")),
}
BUS_V1 = {**BUS_V2, "GET_DEVICES": (0x02, Body("offset:H count:H"), DEVICES_V1)}


class Dialect:
    def __init__(self, name, transport, bus, has_token):
        self.name, self.has_token = name, has_token
        self.header = struct.Struct("<BBHHH" if has_token else "<BBHH")
        self._bodies = {}               # (bus, id, direction) -> (name, body)
        self._ids = {}                  # (name, direction) -> (bus, id, body)
        for is_bus, table in ((False, transport), (True, bus)):
            for message, (number, *bodies) in table.items():
                for direction, body in zip((EVENT,) if len(bodies) == 1 else (REQUEST, RESPONSE), bodies):
                    self._bodies[is_bus, number, direction] = (message, body)
                    self._ids[message, direction] = (is_bus, number, body)

    def encode(self, name, direction, device=0, token=0, **fields):
        bus, number, body = self._ids[name, direction]
        payload = body.encode(fields)
        kind = (TYPE_RESPONSE if direction == RESPONSE else 0) | (TYPE_BUS if bus else 0)
        size = self.header.size + len(payload)
        token = (token,) if self.has_token else ()
        return self.header.pack(kind, number, device, *token, size) + payload

    def decode(self, frame):
        """The message in a frame that may be longer than the message."""
        if len(frame) < self.header.size:
            raise MessageError(f"a frame of {len(frame)} bytes is shorter than a header")
        kind, number, device, *rest = self.header.unpack_from(frame)
        token, size = rest if self.has_token else (0, rest[0])
        if not self.header.size <= size <= len(frame):
            raise MessageError(f"msg_size in {self.header.size}..{len(frame)} expected, got {size}")
        bus = bool(kind & TYPE_BUS)
        directions = (RESPONSE,) if kind & TYPE_RESPONSE else (REQUEST, EVENT)
        for direction in directions:
            if (bus, number, direction) in self._bodies:
                name, body = self._bodies[bus, number, direction]
                fields = body.decode(frame[self.header.size:size], name)
                return Message(name, direction, bus, device, token, size, fields)
        raise MessageError(f"unknown {'bus' if bus else 'transport'} {directions[0]} id {number:#x}")

    def is_bus(self, name, direction):
        return self._ids[name, direction][0]

    def fixed_size(self, name, direction):
        """Smallest msg_size of a message."""
        return self.header.size + self._ids[name, direction][2].format.size


DIALECTS = {
    "v2": Dialect("v2", V2, BUS_V2, True),
    "v1": Dialect("v1", V1, BUS_V1, True),
    "rfc2": Dialect("rfc2", RFC2, BUS_V1, False),
}
