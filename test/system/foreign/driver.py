# SPDX-License-Identifier: BSD-3-Clause
"""The use of one device: start sequence, configuration, queues, reset."""
import time

from . import PeerError, WaitTimeout
from .msg import VQUEUE_ENABLE
from .ring import make_ring

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80

# Feature bits of the core
INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_PACKED = 28, 29, 32, 33, 34
IN_ORDER, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, RING_RESET = 35, 38, 39, 40


def bits(mask):
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


class Driver:
    def __init__(self, link, device=0):
        self.link, self.device = link, device
        self.generation = 0
        self.features = 0
        self.rings = {}
        self._info = None

    def request(self, name, **fields):
        return self.link.request(name, self.device, **fields)

    # -- facts ----------------------------------------------------------------------------------------------------

    def info(self):
        answer = self.request("GET_DEVICE_INFO")
        if answer["device_id"] == 0:
            raise PeerError(f"device {self.device}: a device expected, its id is 0 (none)")
        self._info = answer.fields
        return self._info

    @property
    def feature_blocks(self):
        if self.link.dialect.name == "v2":
            return self._info["num_feature_blocks"]
        return self._info["num_feature_bits"] // 32

    def status(self):
        return self.request("GET_DEVICE_STATUS")["status"]

    def set_status(self, status):
        return self.request("SET_DEVICE_STATUS", status=status)["status"]

    def offered(self):
        """All offered bits as one number, asked for in as many parts as the element size makes it."""
        link, total, mask = self.link, self.feature_blocks, 0
        largest = (link.queue.element_bytes - link.dialect.fixed_size("GET_DEVICE_FEATURES", "response")) // 4
        for first in range(0, total, largest):
            number = min(largest, total - first)
            answer = self.request("GET_DEVICE_FEATURES", block_index=first, num_blocks=number)
            if (answer["block_index"], answer["num_blocks"]) != (first, number):
                raise PeerError(f"GET_DEVICE_FEATURES: blocks {first}+{number} expected, got "
                                f"{answer['block_index']}+{answer['num_blocks']}")
            for index, word in enumerate(answer["features"]):
                mask |= word << 32 * (first + index)
        return mask

    # -- bring-up -------------------------------------------------------------------------------------------------

    def reset(self, timeout=5.0):
        """Write 0, then poll: a device may need longer than its answer."""
        deadline = time.monotonic() + timeout
        status = self.set_status(0)
        while status:
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"device {self.device}: status 0 after reset expected, it shows {status:#x}")
            time.sleep(0.01)
            status = self.status()
        self.generation = self.features = 0
        self.rings = {}
        self.link.status.pop(self.device, None)
        self.link.events = [event for event in self.link.events if event.device != self.device]

    def negotiate(self, wanted):
        """Everything up to a confirmed FEATURES_OK. VERSION_1 and ACCESS_PLATFORM are taken when offered."""
        self.info()
        self.reset()
        self.expect_status(self.set_status(ACKNOWLEDGE), ACKNOWLEDGE)
        self.expect_status(self.set_status(ACKNOWLEDGE | DRIVER), ACKNOWLEDGE | DRIVER)
        offered = self.offered()
        for bit, name in ((VERSION_1, "VERSION_1"),):
            if not offered >> bit & 1:
                raise PeerError(f"device {self.device}: feature {name} expected, offered are {bits(offered)}")
        if offered >> NOTIF_CONFIG_DATA & 1:
            raise PeerError(f"device {self.device}: offers NOTIF_CONFIG_DATA, which this transport forbids")
        self.features = offered & (sum(1 << bit for bit in set(wanted)) | 1 << VERSION_1 | 1 << ACCESS_PLATFORM)
        self.write_features(self.features)
        status = ACKNOWLEDGE | DRIVER | FEATURES_OK
        self.expect_status(self.set_status(status), status)

    def write_features(self, mask):
        blocks = [mask >> 32 * index & 0xFFFFFFFF for index in range(self.feature_blocks)]
        link = self.link
        largest = (link.queue.element_bytes - link.dialect.fixed_size("SET_DRIVER_FEATURES", "request")) // 4
        for first in range(0, len(blocks), largest):
            self.request("SET_DRIVER_FEATURES", block_index=first, features=blocks[first:first + largest])

    def expect_status(self, got, expected):
        if got != expected:
            raise PeerError(f"device {self.device}: status {expected:#x} expected, it shows {got:#x}")

    def has(self, bit):
        return bool(self.features >> bit & 1)

    def setup_queue(self, index, size, indirect_entries=16):
        before = self.request("GET_VQUEUE", index=index)
        if before["index"] != index or before["max_size"] == 0:
            raise PeerError(f"queue {index}: it should exist, max_size is {before['max_size']}")
        size = min(size, before["max_size"])
        ring = make_ring(self.link.area, size, packed=self.has(RING_PACKED), event_idx=self.has(EVENT_IDX),
                         indirect_entries=indirect_entries if self.has(INDIRECT_DESC) else 0)
        self.program_queue(index, ring)
        self.rings[index] = ring
        return ring

    def program_queue(self, index, ring):
        addresses = dict(zip(("desc_addr", "driver_addr", "device_addr"), ring.addresses))
        v2 = self.link.dialect.name == "v2"
        self.request("SET_VQUEUE", index=index, size=ring.size, flags=VQUEUE_ENABLE if v2 else 0, **addresses)
        after = self.request("GET_VQUEUE", index=index)
        expected = {"index": index, "cur_size": ring.size, **addresses}
        if self.link.dialect.name != "rfc2":
            expected["flags"] = 1 if v2 else 0
        wrong = {name: (after[name], value) for name, value in expected.items() if after[name] != value}
        if wrong:
            raise PeerError(f"queue {index} read back: " + ", ".join(
                f"{name} {value:#x} expected, got {got:#x}" for name, (got, value) in wrong.items()))

    def start(self, wanted=(), queues=1, size=64):
        """The whole sequence of the specification, to a confirmed DRIVER_OK."""
        self.negotiate(wanted)
        for index in range(queues):
            self.setup_queue(index, size)
        status = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        self.expect_status(self.set_status(status), status)

    # -- configuration --------------------------------------------------------------------------------------------

    def config_chunk(self):
        link = self.link
        return link.queue.element_bytes - link.dialect.fixed_size("GET_CONFIG", "response")

    def config_read(self, offset, length, tries=5):
        """The bytes, all of one generation."""
        for _ in range(tries):
            data, generations = b"", set()
            while len(data) < length:
                part = min(self.config_chunk(), length - len(data))
                answer = self.request("GET_CONFIG", offset=offset + len(data), length=part)
                if (answer["offset"], answer["length"]) != (offset + len(data), part):
                    raise PeerError(f"GET_CONFIG: {part} bytes at {offset + len(data)} expected, got "
                                    f"{answer['length']} at {answer['offset']}")
                data += answer["data"]
                generations.add(answer["generation"])
                self.generation = answer["generation"]
            if len(generations) <= 1:
                return data
        raise PeerError(f"device {self.device}: configuration changed during each of {tries} reads")

    def config_write(self, offset, data):
        """Generation 0 in v2, the last seen one before. False when the device refused."""
        generation = 0 if self.link.dialect.name == "v2" else self.generation
        answer = self.request("SET_CONFIG", generation=generation, offset=offset, data=data)
        self.generation = answer["generation"]
        if answer["length"] not in (0, len(data)):
            raise PeerError(f"SET_CONFIG: length {len(data)} or 0 expected, got {answer['length']}")
        return answer["length"] == len(data)

    # -- data -----------------------------------------------------------------------------------------------------

    def kick(self, index):
        ring = self.rings[index]
        if not ring.publish():
            return
        if self.has(NOTIFICATION_DATA):
            self.link.post("EVENT_AVAIL", self.device, vq_index=index, next_offset=ring.notification_data())
        elif not self.link.queue.kick(self.device, index):
            self.link.post("EVENT_AVAIL", self.device, vq_index=index)
