#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Use the block device of a daemon on an AMP bus, or abuse it.

  peer.py PATH info                   identity, features, configuration
  peer.py PATH read OFFSET LENGTH     bytes to standard output
  peer.py PATH write OFFSET           standard input to the disk, then flush
  peer.py PATH hash                   SHA-256 of the whole disk
  peer.py PATH selftest IMAGE         all requests, compared with the image file behind the device (changes it)
  peer.py PATH abuse [NAME ...]       misbehave, then prove that the daemon still serves; all of them without a name
"""
import argparse
import hashlib
import os
import random
import sys

if __package__ in (None, ""):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "foreign"

from foreign import PeerError  # noqa: E402
from foreign.abuse import Stage, names, run  # noqa: E402
from foreign.blk import CONFIG_NAMES, DISCARD, FLUSH, RING_FEATURES, RO, WRITE_ZEROES, Blk  # noqa: E402
from foreign.driver import bits  # noqa: E402
from foreign.link import Link  # noqa: E402


def show_info(blk, _):
    info = blk.driver._info
    for name, value in info.items():
        print(f"{name:24} {value.hex() if isinstance(value, bytes) else f'{value:#x}' if 'id' in name else value}")
    print(f"{'offered features':24} {' '.join(map(str, bits(blk.driver.offered())))}")
    print(f"{'accepted features':24} {' '.join(map(str, bits(blk.driver.features)))}")
    for name in CONFIG_NAMES:
        print(f"{name:24} {blk.config[name]}")


def read_range(blk, arguments):
    sys.stdout.buffer.write(blk.read(arguments.offset, arguments.length))


def write_range(blk, arguments):
    blk.write(arguments.offset, sys.stdin.buffer.read())
    blk.flush()


def show_hash(blk, _):
    print(hashlib.sha256(blk.read(0, blk.capacity)).hexdigest())


def expect(good, text):
    if not good:
        raise PeerError(text)


def contents(path, offset, length):
    with open(path, "rb") as image:
        image.seek(offset)
        return image.read(length)


def selftest(blk, image, seed=1, rounds=24):
    """Every request of the device class against the file behind it."""
    size = blk.capacity
    expect(size == os.path.getsize(image) // 512 * 512, f"capacity {size}, the image has {os.path.getsize(image)}")
    expect(blk.read(0, size) == contents(image, 0, size), "the whole disk read differs from the image")
    expect(len(blk.get_id()) <= 20, "get-id is too long")
    if blk.driver.has(RO):
        return
    chance = random.Random(seed)
    expect(blk.driver.has(FLUSH), "feature FLUSH expected")
    for _ in range(rounds):
        length = 512 * chance.randint(1, min(200, size // 512))
        offset = 512 * chance.randint(0, (size - length) // 512)
        data = chance.randbytes(length)
        blk.write(offset, data)
        blk.flush()
        expect(contents(image, offset, length) == data, f"{length} bytes written at {offset} are not in the image")
        expect(blk.read(offset, length) == data, f"{length} bytes written at {offset} are not read back")
    if blk.driver.has(WRITE_ZEROES):
        around = 512 * chance.randint(1, size // 512 - 9)
        before, after = blk.read(around - 512, 512), blk.read(around + 4096, 512)
        blk.write_zeroes(around, 4096)
        expect(blk.read(around - 512, 5120) == before + bytes(4096) + after, "write-zeroes hit the wrong bytes")
        blk.write_zeroes(around, 4096, unmap=True)
        expect(blk.read(around - 512, 5120) == before + bytes(4096) + after, "write-zeroes hit the wrong bytes")
    if blk.driver.has(DISCARD):
        before, after = blk.read(0, 512), blk.read(512 + 4096, 512)
        blk.discard(512, 4096)
        expect(blk.read(0, 512) == before and blk.read(4608, 512) == after, "discard hit its neighbours")
    blk.flush()
    expect(blk.read(0, size) == contents(image, 0, size), "the whole disk read at the end differs from the image")


def run_abuses(arguments):
    stage = Stage(arguments.path, arguments.format, arguments.dialect, arguments.timeout)
    failures = 0
    for name in arguments.names or names(arguments.format):
        try:
            run(name, stage)
            print(f"survived  {name}")
        except (PeerError, OSError) as error:
            failures += 1
            print(f"FAILED    {name}: {error}")
    return 1 if failures else 0


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="socket of the daemon")
    parser.add_argument("--format", choices=("layout", "spsc"), default="layout")
    parser.add_argument("--dialect", choices=("v2", "v1", "rfc2"), default="v2")
    parser.add_argument("--ring", default="", metavar="LIST", help="of " + ", ".join(RING_FEATURES))
    parser.add_argument("--out-of-band", action="store_true", help="kick through notification words if there are any")
    parser.add_argument("--device", type=int, help="number of the device; default: the first disk")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="bound of each wait")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info")
    commands.add_parser("hash")
    command = commands.add_parser("read")
    command.add_argument("offset", type=int)
    command.add_argument("length", type=int)
    commands.add_parser("write").add_argument("offset", type=int)
    commands.add_parser("selftest").add_argument("image")
    commands.add_parser("abuse").add_argument("names", nargs="*", metavar="NAME")
    return parser.parse_args(argv)


COMMANDS = {"info": show_info, "read": read_range, "write": write_range, "hash": show_hash,
            "selftest": lambda blk, arguments: selftest(blk, arguments.image)}


def main(argv=None):
    arguments = parse(argv)
    try:
        if arguments.command == "abuse":
            return run_abuses(arguments)
        options = {"out_of_band": arguments.out_of_band} if arguments.format == "layout" else {}
        with Link(arguments.path, arguments.format, arguments.dialect, arguments.timeout, **options) as link:
            ring = [name for name in arguments.ring.split(",") if name]
            blk = Blk(link, arguments.device, ring=ring).start()
            COMMANDS[arguments.command](blk, arguments)
            blk.driver.reset()
    except (PeerError, OSError) as error:
        print(f"peer.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
