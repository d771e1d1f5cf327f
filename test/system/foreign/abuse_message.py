# SPDX-License-Identifier: BSD-3-Clause
"""Abused messages. The connection has to stay usable after every one of them."""
import struct
import time

from . import PeerError
from .abuse import abuse
from .blk import Blk
from .driver import ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, RING_RESET, VERSION_1
from .msg import EVENT, REQUEST
from .ring import make_ring

REQUESTS = ("GET_DEVICE_INFO", "GET_DEVICE_FEATURES", "SET_DRIVER_FEATURES", "GET_CONFIG", "SET_CONFIG",
            "GET_DEVICE_STATUS", "SET_DEVICE_STATUS", "GET_VQUEUE", "SET_VQUEUE", "RESET_VQUEUE", "GET_SHM")
BUS_REQUESTS = ("GET_DEVICES", "PING")


def header(link, kind, number, size, device=0, token=0x77):
    return link.dialect.header.pack(*((kind, number, device, token, size) if link.dialect.has_token
                                      else (kind, number, device, size)))


def quiet(stage, link, frames, what):
    """None of the frames is answered; a PING behind them is, so all of them have been read by then."""
    for frame in frames:
        link.send(frame)
    stage.alive(link)
    answers = [entry for entry in link.dropped if entry[0] == "a response nobody waits for"]
    if answers:
        raise PeerError(f"{what}: no answer expected, got {answers[0][1]}")
    if link.dropped:
        raise PeerError(f"{what}: only well-formed messages expected, got {link.dropped[0]}")


@abuse()
def message_size(stage):
    """msg_size zero, shorter than the header, longer than the element, not what the fixed part needs."""
    with stage.link() as link:
        room = link.queue.element_bytes
        frames = [header(link, 0, 7, size) for size in (0, 1, link.dialect.header.size - 1, room + 1, 4096, 0xFFFF)]
        frames += [header(link, 2, 3, size) for size in (0, link.dialect.header.size, room + 1, 0xFFFF)]
        quiet(stage, link, frames, "msg_size out of range")


@abuse()
def message_truncated(stage):
    """Every request one byte short, and with nothing but a header."""
    with stage.link() as link:
        frames, least = [], link.dialect.header.size
        for name in REQUESTS + BUS_REQUESTS:
            frame = link.dialect.encode(name, REQUEST, 0, 0x77)
            for size in {least, len(frame) - 1} - {len(frame), least - 1}:
                frames.append(frame[:least - 2] + struct.pack("<H", size) + frame[least:])
        quiet(stage, link, frames, "truncated request")


@abuse()
def message_tail(stage):
    """Counts inside the payload larger than the message, up to sums that overflow 32 bits."""
    with stage.link() as link:
        encode, frames = link.dialect.encode, []
        for count in (2, 0x10000, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFF):
            frames.append(encode("SET_DRIVER_FEATURES", REQUEST, 0, 0x77, num_blocks=count, features=[0]))
            frames.append(encode("SET_CONFIG", REQUEST, 0, 0x77, offset=32, length=count, data=b"\1"))
        quiet(stage, link, frames, "payload longer than the message")


@abuse()
def message_unknown(stage):
    """Ids nobody defined, of both kinds, as requests, responses and events."""
    with stage.link() as link:
        known = {0: set(range(0x02, 0x0D)) | {0x40, 0x41, 0x42}, 2: {0x02, 0x03, 0x40}}
        size = link.dialect.header.size
        for kind in (0, 2):
            frames = [header(link, kind, number, size) for number in range(256) if number not in known[kind]]
            quiet(stage, link, frames, "unknown id")


@abuse()
def message_with_response_bit(stage):
    """A response is never answered, whoever sends it."""
    with stage.link() as link:
        frames = []
        for name in REQUESTS + BUS_REQUESTS:
            frame = link.dialect.encode(name, REQUEST, 0, 0x77)
            frames.append(bytes([frame[0] | 1]) + frame[1:])
        quiet(stage, link, frames, "response from a driver")


@abuse()
def message_of_the_device(stage):
    """Events only a device sends."""
    with stage.link() as link:
        encode = link.dialect.encode
        frames = [encode("EVENT_USED", EVENT, 0, 0, vq_index=0), encode("EVENT_CONFIG", EVENT, 0, 0),
                  encode("EVENT_DEVICE", EVENT, 0, 0, device_number=0, state=2)]
        quiet(stage, link, frames, "event from a driver")


@abuse()
def message_reserved_bits(stage):
    """Reserved bits of the type byte are ignored: the request is served, the answer has none of them."""
    with stage.link() as link:
        for name, device in (("PING", 0), ("GET_DEVICE_STATUS", Blk.find(link))):
            frame = link.dialect.encode(name, REQUEST, device, 0x55)
            link.queue.send(bytes([frame[0] | 0xFC]) + frame[1:])
            got = []
            collect_frames(link, lambda: take_frames(link, got), f"an answer to {name}")
            if got[0][:2] != bytes([frame[0] | 1, frame[1]]):
                raise PeerError(f"{name}: an answer without reserved bits expected, got {got[0][:8].hex()}")
        stage.alive(link)


@abuse()
def message_tokens(stage):
    """The same token again and again, zero and all ones: one answer each, with the token it came with."""
    with stage.link() as link:
        if not link.dialect.has_token:
            return
        device, tokens = Blk.find(link), [0, 0xFFFF, 0xFFFF, 7, 7, 7]
        for token in tokens:
            link.queue.send(link.dialect.encode("GET_DEVICE_STATUS", REQUEST, device, token))
        frames = []
        collect_frames(link, lambda: take_frames(link, frames) >= len(tokens), f"{len(tokens)} answers")
        got = sorted(link.dialect.decode(frame).token for frame in frames)
        if got != sorted(tokens):
            raise PeerError(f"answers with tokens {sorted(tokens)} expected, got {got}")
        stage.alive(link)


def take_frames(link, frames):
    """Everything that is there, past the link's own reading."""
    while (frame := link.queue.receive()) is not None:
        frames.append(frame)
    return len(frames)


def collect_frames(link, condition, what):
    deadline = time.monotonic() + link.timeout
    while not condition():
        if time.monotonic() > deadline:
            raise PeerError(f"{what} expected, not seen in {link.timeout} s")
        link.door.wait(0.02)
        link.queue.pending_events()


@abuse()
def message_flood(stage):
    """Requests until nothing fits, without reading one answer; then each is answered once, in any order."""
    with stage.link() as link:
        sent, stop = 0, time.monotonic() + 0.5
        while time.monotonic() < stop and sent < 2000:
            if link.queue.send(link.dialect.encode("PING", REQUEST, 0, sent % 5 + 1, data=sent)):
                sent += 1
        frames = []
        collect_frames(link, lambda: take_frames(link, frames) >= sent, f"{sent} answers")
        if sorted(link.dialect.decode(frame)["data"] for frame in frames) != list(range(sent)):
            raise PeerError(f"each of {sent} PINGs answered once expected")
        stage.alive(link)


@abuse()
def message_noise(stage):
    """Random elements; some will be messages by chance."""
    with stage.link() as link:
        for turn in range(400):
            frame = bytearray(stage.random.randbytes(link.queue.element_bytes))
            if turn % 2:
                size = stage.random.randrange(0, link.queue.element_bytes + 2)
                kind, number, device = map(stage.random.randrange, (4, 0x50, 3))
                frame[:link.dialect.header.size] = header(link, kind, number, size, device)
            link.send(bytes(frame))
        while link.door.wait(0.2):      # without tokens an answer to noise looks like one to us
            link.poll()
        link.ping(1)
        stage.recover(Blk(link))


@abuse()
def device_number(stage):
    """Numbers of no device. A v2 device side stays silent; older dialects may answer with zeros."""
    with stage.link() as link:
        encode, frames = link.dialect.encode, []
        for device in (31, 32, 999, 0x7FFF, 0xFFFF):
            frames += [encode(name, REQUEST, device, 0x77) for name in REQUESTS]
            frames.append(encode("EVENT_AVAIL", EVENT, device, 0))
        if link.dialect.name == "v2":
            quiet(stage, link, frames, "request to no device")
        else:
            for frame in frames:
                link.send(frame)
            stage.alive(link)


@abuse()
def get_devices_windows(stage):
    """Windows of all sizes and places, to the end of the number space."""
    with stage.link() as link:
        if link.dialect.name != "v2":
            stage.alive(link)
            return
        first = Blk.find(link)
        for offset, count in ((0, 0), (0, 1), (0, 7), (0, 8), (0, 255), (0, 1000), (0, 65535), (5, 3), (65535, 1),
                              (65535, 65535), (40000, 8)):
            answer = link.request("GET_DEVICES", offset=offset, count=count)
            number, following = answer["count"], answer["next_offset"]
            if answer["offset"] != offset or number > count or (following and following <= offset):
                raise PeerError(f"GET_DEVICES {offset}+{count}: a window inside it expected, got {answer.fields}")
            if number % 8 and number and answer["bitmap"][-1] >> number % 8:
                raise PeerError(f"GET_DEVICES {offset}+{count}: spare bits zero expected, got {answer.fields}")
            if offset <= first < offset + number and not answer["bitmap"][(first - offset) // 8] >> (
                    first - offset) % 8 & 1:
                raise PeerError(f"GET_DEVICES {offset}+{count}: device {first} expected, got {answer.fields}")
        stage.alive(link)


@abuse()
def feature_blocks(stage):
    """Blocks beyond all blocks read as zero; absurd counts are refused in silence or answered short."""
    with stage.link() as link:
        device = Blk.find(link)
        for index in (2, 5, 1000, 0xFFFFFFFE, 0xFFFFFFFF):
            answer = link.request("GET_DEVICE_FEATURES", device, block_index=index, num_blocks=1)
            if any(answer["features"]):
                raise PeerError(f"feature block {index}: zero expected, got {answer.fields}")
        for count in (0, 13, 0x40000000, 0xFFFFFFFF):
            link.send(link.dialect.encode("GET_DEVICE_FEATURES", REQUEST, device, 0x77, num_blocks=count))
        stage.alive(link)


@abuse()
def features_not_offered(stage):
    """FEATURES_OK has to fail with a bit nobody offered, and without VERSION_1."""
    with stage.link() as link:
        blk = Blk(link)
        driver = blk.driver
        driver.info()
        before = ACKNOWLEDGE | DRIVER
        for mask in (0, 1 << VERSION_1 | 1 << 24, 1 << VERSION_1 | 1 << 63):
            if mask & ~(1 << VERSION_1) & driver.offered():
                continue
            driver.reset()
            driver.set_status(ACKNOWLEDGE)
            driver.set_status(before)
            driver.write_features(mask)
            status = driver.set_status(before | FEATURES_OK)
            if status & FEATURES_OK:
                raise PeerError(f"features {mask:#x}: FEATURES_OK refused expected, status is {status:#x}")
        stage.recover(blk)


@abuse()
def config_ranges(stage):
    """Reads and writes outside of the configuration, with sums that overflow."""
    with stage.link() as link:
        blk = Blk(link)
        size = blk.driver.info()["config_size"]
        before = blk.driver.config_read(0, size)
        ranges = ((size, 1), (size - 1, 2), (0xFFFFFFFF, 1), (0xFFFFFFF0, 0x20), (0x80000000, 0))
        for offset, length in ranges:
            answer = link.request("GET_CONFIG", blk.device, offset=offset, length=length)
            if answer["length"] != 0:
                raise PeerError(f"GET_CONFIG {offset:#x}+{length}: length 0 expected, got {answer.fields}")
        for length in (0x100, 0xFFFF, 0xFFFFFFFF):
            link.send(link.dialect.encode("GET_CONFIG", REQUEST, blk.device, 0x77, offset=0, length=length))
        for offset, length in ranges:
            if blk.driver.config_write(offset, b"\1" * length) and length:
                raise PeerError(f"SET_CONFIG {offset:#x}+{length}: refused expected")
        blk.driver.config_write(0, struct.pack("<Q", 1 << 60))
        if blk.driver.config_read(0, size) != before:
            raise PeerError("SET_CONFIG of nothing writable: an unchanged configuration expected")
        empty = link.request("GET_CONFIG", blk.device, offset=0, length=0)
        if empty["length"] != 0:
            raise PeerError(f"GET_CONFIG of no bytes: an answer of length 0 expected, got {empty.fields}")
        stage.alive(link)


@abuse()
def status_values(stage):
    """Status bits out of order, reserved ones, all ones; then a clean start."""
    with stage.link() as link:
        blk = Blk(link)
        driver = blk.driver
        driver.info()
        for status in (DRIVER_OK, ACKNOWLEDGE | DRIVER | DRIVER_OK, 0x30, 0x100, 0xFFFFFFFF, 0x80, 0x40, 1, 0xF):
            driver.set_status(status)
            if driver.status() & DRIVER_OK and not driver.status() & FEATURES_OK:
                raise PeerError(f"status {status:#x}: no DRIVER_OK without FEATURES_OK expected")
        driver.reset()
        for status in (0, 0, 0):
            driver.set_status(status)
        stage.recover(blk)


@abuse()
def kick_early(stage):
    """Kicks before features, before the queue, before DRIVER_OK: nothing may be consumed."""
    with stage.link() as link:
        blk = Blk(link)
        for _ in range(3):
            link.post("EVENT_AVAIL", blk.device, vq_index=0)
        driver = blk.driver
        driver.negotiate(blk.wanted)
        link.post("EVENT_AVAIL", blk.device, vq_index=0)
        ring = driver.setup_queue(0, 16)
        buffer = link.area.alloc(64)
        ring.add([(buffer, 16, False), (buffer + 16, 17, True)], None)
        ring.publish()
        link.post("EVENT_AVAIL", blk.device, vq_index=0)
        link.ping(3)
        time.sleep(0.05)
        if ring.take() is not None:
            raise PeerError("no buffer used before DRIVER_OK expected")
        link.area.free_all()
        stage.recover(blk)


@abuse()
def kick_storm(stage):
    """Kicks for queues that do not exist, and thousands for one that is empty."""
    with stage.link() as link:
        blk = stage.blk(link)
        for queue in (1, 2, 255, 256, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF):
            link.post("EVENT_AVAIL", blk.device, vq_index=queue)
            link.post("EVENT_AVAIL", blk.device, vq_index=queue, next_offset=0xFFFFFFFF)
        for _ in range(3000):
            link.post("EVENT_AVAIL", blk.device, vq_index=0)
        stage.check(blk)


# -- queue messages ---------------------------------------------------------------------------------------------------

@abuse()
def queue_index(stage):
    """Queues that do not exist: read as zero, setting and resetting them changes nothing and is answered."""
    with stage.link() as link:
        blk = stage.blk(link)
        absent = (blk.driver._info["max_virtqueues"], 65535, 65536, 0xFFFFFFFF)
        for index in absent:
            shown = blk.driver.request("GET_VQUEUE", index=index).fields
            if shown.pop("index") != index or any(shown.values()):
                raise PeerError(f"GET_VQUEUE {index:#x}: the index and zeros expected, got {shown}")
            blk.driver.request("SET_VQUEUE", index=index, flags=1 if link.dialect.name == "v2" else 0, size=16)
            blk.driver.request("RESET_VQUEUE", index=index)
        if not blk.driver.has(RING_RESET):
            blk.driver.request("RESET_VQUEUE", index=0)
        stage.check(blk)


def with_parameters(stage, change, unchanged):
    """Set up a queue with a changed request; in v2 the read-back has to show nothing of it if `unchanged`."""
    with stage.link() as link:
        blk = Blk(link)
        blk.driver.negotiate(blk.wanted)
        ring = make_ring(link.area, 16)
        values = dict(zip(("desc_addr", "driver_addr", "device_addr"), ring.addresses), index=0, size=ring.size,
                      flags=1 if link.dialect.name == "v2" else 0)
        before = blk.driver.request("GET_VQUEUE", index=0).fields
        blk.driver.request("SET_VQUEUE", **{**values, **change})
        after = blk.driver.request("GET_VQUEUE", index=0).fields
        if unchanged and link.dialect.name == "v2" and after != before:
            raise PeerError(f"SET_VQUEUE with {change}: nothing changed expected, got {after}")
        blk.driver.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        link.post("EVENT_AVAIL", blk.device, vq_index=0)
        link.ping(5)
        link.area.free_all()
        stage.recover(blk)


@abuse()
def queue_size(stage):
    for size in (0, 3, 12, 0x8001, 0x10000, 0x80000000, 0xFFFFFFFF):
        with_parameters(stage, {"size": size}, unchanged=True)


@abuse()
def queue_flags(stage):
    """Operation 3, unknown flags, a reserved word that is not zero."""
    if stage.dialect != "v2":
        return
    for change in ({"flags": 3}, {"flags": 1 << 6 | 1}, {"flags": 1 << 31 | 1}, {"reserved": 1}):
        with_parameters(stage, change, unchanged=True)


@abuse()
def queue_addresses(stage):
    """Rings unaligned, outside of memory, in other areas, wrapping, on top of the message queue."""
    area = 1 << 52
    for field in ("desc_addr", "driver_addr", "device_addr"):
        for address in (0, 0x100000, 2 << 52 | 0x10000, 0xFFF << 52, area | (1 << 52) - 16, area | 1 << 40, area,
                        area | 0x20001, 0xFFFFFFFFFFFFFFF0):
            with_parameters(stage, {field: address}, unchanged=False)


@abuse()
def queue_changed_while_enabled(stage):
    """An enabled queue takes no new parameters in v2; requests go on over the old ring."""
    with stage.link() as link:
        blk = stage.blk(link)
        if link.dialect.name != "v2":
            stage.check(blk)
            return
        before = blk.driver.request("GET_VQUEUE", index=0).fields
        for flags in (0, 1, 2, 3, 0x3C | 3, 1 << 2, 0x39):
            blk.driver.request("SET_VQUEUE", index=0, flags=flags, size=8, desc_addr=1 << 52 | 0x40)
            after = blk.driver.request("GET_VQUEUE", index=0).fields
            if after != before:
                raise PeerError(f"SET_VQUEUE flags {flags:#x} on an enabled queue: no change expected, got {after}")
        stage.check(blk)


@abuse()
def shared_memory_ids(stage):
    """A disk has no shared memory regions."""
    with stage.link() as link:
        device = Blk.find(link)
        for shmid in (0, 1, 255, 0xFFFFFFFF):
            answer = link.request("GET_SHM", device, shmid=shmid)
            if answer["shmid"] != shmid or answer["length"]:
                raise PeerError(f"GET_SHM {shmid:#x}: length 0 expected, got {answer.fields}")
        stage.alive(link)
