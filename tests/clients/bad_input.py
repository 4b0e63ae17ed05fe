#!/usr/bin/env python3
"""Garbage at every door of the running daemon; a good controller keeps working and the memory stays bounded.

Doors: HTTP before and after pair-verify, pairing TLVs, encrypted records, the control socket and, with --fifo, the
video FIFO (the daemon must then read it). HDS has its own: record.py --bad-input.
"""

import asyncio
import os
import random
import socket
import sys
import time

import hub
import steps
from steps import require

SLOW_SOCKETS = 20


def rss_kb(pid):
    """Resident set of a process, from the kernel."""
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def exchange(options, data, within=8.0):
    """Sends bytes on a new connection; (status or None, whether the accessory closed)."""
    reader, writer = await asyncio.open_connection(options.host, options.port)
    answer, closed = b"", False
    try:
        for at in range(0, len(data), 16384):
            writer.write(data[at : at + 16384])
            await writer.drain()
        async with asyncio.timeout(within):
            while b"\r\n\r\n" not in answer:
                more = await reader.read(4096)
                if not more:
                    closed = True
                    break
                answer += more
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    writer.close()
    word = answer.split(b" ", 2)[1:2]
    return (int(word[0]) if word and word[0].isdigit() else None), closed


def post(path, body, length=None):
    """A POST with a body and a length that need not agree."""
    count = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {count}\r\n\r\n".encode() + body


async def plain_http(step, options, good):
    """What is not HTTP, or too much of it."""
    chance = random.Random(7)
    chunked = b"POST /pair-setup HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for name, data, wanted in (
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
        ("noise", chance.randbytes(3000) + b"\r\n\r\n", {400}),
        ("a request line of 100 KB", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", {400, 413, 414, 431}),
        ("headers of 1 MB", b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * 1_000_000, {400, 413, 431}),
        ("30,000 headers", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 30_000 + b"\r\n", {400, 413, 431}),
        ("a body of 4 GB announced", post("/pair-setup", b"", 1 << 32), {400, 413}),
        ("a length that is none", b"POST /pair-setup HTTP/1.1\r\nContent-Length: -5\r\n\r\n", {400}),
        ("two lengths", b"POST /pair-setup HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n\x06\x01\x01",
         {400}),
        ("chunks of nonsense", chunked + b"zz\r\n", {400}),
        ("an endless chunk size", chunked + b"f" * 40 + b"\r\n", {400, 413}),
        ("a truncated TLV", post("/pair-setup", b"\x06\x01"), {400}),
        ("an empty TLV", post("/pair-setup", b""), {200, 400}),
        ("pair-setup from its end", post("/pair-setup", b"\x06\x01\x05\x05\x02ab"), {200, 400}),
        ("pair-verify from its end", post("/pair-verify", b"\x06\x01\x03\x05\x02ab"), {200, 400}),
        ("a key of zeros", post("/pair-verify", b"\x06\x01\x01\x03\x20" + bytes(32)), {200, 400}),
        ("60 KB of TLV noise", post("/pair-verify", chance.randbytes(60_000)), {200, 400, 413}),
        ("/pairings unverified", post("/pairings", b"\x06\x01\x01\x00\x01\x05"), {470}),
    ):  # fmt: skip
        status, closed = await exchange(options, data, within=1.0 if options.stand_in else 8.0)
        holds = status in wanted or (status is None and closed) or options.stand_in
        step.check(holds, f"HTTP: {name}: {status or ('closed' if closed else 'waits')}", (status, closed))
        await good()


async def verified_http(step, options, session):
    """Bad JSON from a controller that is paired: refused, and the session lives."""

    async def status(method, path, body):
        raw = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        async with asyncio.timeout(10):
            return (await session.connection.protocol.send_bytes(raw)).code

    for name, method, path, body, wanted in (
        ("no JSON", "PUT", "/characteristics", b"}{", 400),
        ("an empty body", "PUT", "/characteristics", b"", 400),
        ("a list", "PUT", "/characteristics", b"[1]", 400),
        ("2,000 brackets", "PUT", "/characteristics", b"[" * 2000, 400),
        ("no entries", "PUT", "/characteristics", b'{"characteristics":7}', 400),
        ("the same iid twice", "PUT", "/characteristics",
         b'{"characteristics":[{"aid":1,"iid":2,"value":true},{"aid":1,"iid":2,"value":true}]}', 422),
        ("a number beyond 64 bits", "PUT", "/characteristics",
         b'{"characteristics":[{"aid":1,"iid":2,"value":1e999}]}', (207, 400)),
        ("bytes that are no UTF-8", "PUT", "/characteristics",
         b'{"characteristics":[{"aid":1,"iid":"\xff\xfe"}]}', 400),
        ("ids of letters", "GET", "/characteristics?id=a.b", b"", 400),
        ("no ids", "GET", "/characteristics", b"", 400),
        ("1,000 ids", "GET", "/characteristics?id=" + ",".join(["1.9"] * 1000), b"", (200, 207, 400, 503)),
        ("a prepare without pid", "PUT", "/prepare", b'{"ttl":5}', 400),
        ("a snapshot of nothing", "POST", "/resource", b'{"resource-type":"sound"}', 400),
        ("a truncated TLV", "POST", "/pairings", b"\x06\x01", 400),
        ("another method", "DELETE", "/accessories", b"", (405, 400)),
        ("pair-verify once more", "POST", "/pair-verify", b"\x06\x01\x01\x03\x20" + bytes(range(32)), 400),
    ):  # fmt: skip
        if options.stand_in and path == "/pair-verify":
            continue  # HAP-NodeJS leaves the encrypted session here
        seen = await status(method, path, body)
        holds = seen in (wanted if isinstance(wanted, tuple) else (wanted,)) or options.stand_in
        step.check(holds, f"verified: {name}: {seen}", seen)
        await session.value("3E", "23")


async def records(step, session, good):
    """Broken encryption closes the connection at once and without a word."""
    for name, data in (
        ("a bad tag", b"\x05\x00" + bytes(5 + 16)),
        ("a record of 65,535 bytes", b"\xff\xff" + bytes(70_000)),
        ("a record of 1,025 bytes", b"\x01\x04" + bytes(1025 + 16)),
        ("an empty record", b"\x00\x00" + bytes(16)),
        ("plain HTTP", b"GET /accessories HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(40_000)),
    ):
        victim = await hub.Session.again(session).verify()
        connection = victim.connection
        protocol = connection.protocol
        connection.closing = True
        protocol.transport.write(data)
        began = time.monotonic()
        while connection.protocol is protocol and time.monotonic() < began + 5:
            await asyncio.sleep(0.05)
        step.check(connection.protocol is not protocol, f"record: {name}: closed")
        await victim.close()
        await good()


async def slow_loris(step, options, session, good):
    """Twenty sockets that send a byte now and then do not keep a controller out."""
    sockets = []
    for _ in range(SLOW_SOCKETS):
        try:
            sockets.append(await asyncio.open_connection(options.host, options.port))
        except ConnectionError:
            break
    slowest = 0.0
    for letter in b"GET /acces":
        for _, writer in sockets:
            writer.write(bytes([letter]))
        began = time.monotonic()
        await good()
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.1)
    # A socket that keeps others waiting would do it until its own time is over, many seconds later.
    step.check(
        slowest < 3.0, f"{len(sockets)} slow sockets: the controller waits {slowest * 1000:.0f} ms at most", slowest
    )
    fresh = hub.Session.again(session)
    await fresh.verify()
    await fresh.load()
    step.ok("and a new one gets in")
    await fresh.close()
    for _, writer in sockets:
        writer.close()
    for _ in range(3):
        for _ in range(100):
            _, writer = await asyncio.open_connection(options.host, options.port)
            writer.close()
        await good()
    step.ok("300 connections that come and go")


async def control_socket(step, options, good):
    """The control socket is a door, too."""

    def knock(data):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(3)
            sock.connect(options.socket)
            try:
                sock.sendall(data)
                return sock.recv(65536)
            except (TimeoutError, ConnectionError):
                return b""

    chance = random.Random(3)
    for name, data in (
        ("noise", chance.randbytes(2000)),
        ("an unknown path", b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("headers of 1 MB", b"GET /status HTTP/1.1\r\nX: " + b"a" * 1_000_000),
        ("a body of 4 GB announced", b"PUT /log HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n"),
        ("a level that is none", b'PUT /log HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{"a":{}'),
    ):
        answer = await asyncio.get_running_loop().run_in_executor(None, knock, data)
        told = answer[9:12].decode(errors="replace") or "closed"
        step.check(not told.startswith("2"), f"control: {name}: {told}", answer[:60])
        await good()
        require(isinstance(hub.status(options), dict), "status still answers")


async def fifo(step, options, good):
    """A writer that sends anything but H.264."""
    chance = random.Random(11)

    pieces = (
        chance.randbytes(300_000),
        b"\x00\x00\x01" * 50_000,
        bytes(300_000),
        b"\x00\x00\x00\x01\x67" + chance.randbytes(200),
        b"\x00\x00\x00\x01\x65" + b"\xff" * 900_000,
    )

    def feed():
        with open(options.fifo, "wb", buffering=0) as pipe:
            for data in pieces:
                pipe.write(data)

    async with asyncio.timeout(30):
        await asyncio.get_running_loop().run_in_executor(None, feed)
    await good()
    require(isinstance(hub.status(options), dict), "status still answers")
    step.ok("FIFO: noise, start codes, zeros, a broken SPS and a huge slice are read away")


async def whole(step, options):
    """All doors."""
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    name = await session.value("3E", "23")

    async def good():
        require(await session.value("3E", "23") == name, "a good controller is served")

    before = rss_kb(options.pid)
    step.ok(f"a good controller is paired; the daemon holds {before} kB")
    await plain_http(step, options, good)
    await verified_http(step, options, session)
    await records(step, session, good)
    await slow_loris(step, options, session, good)
    await control_socket(step, options, good)
    if options.fifo:
        await fifo(step, options, good)
    await asyncio.sleep(1)
    after = rss_kb(options.pid)
    step.check(
        after - before < options.growth_kb, f"the daemon holds {after} kB: {after - before:+} kB", (before, after)
    )
    require(os.path.exists(f"/proc/{options.pid}"), "it is the same process")
    listed = await session.pairing.list_pairings()
    step.equal(len(listed), 1, "nobody else was paired")
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    await session.close()
    step.ok("unpaired")


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pid", type=int, required=True, help="process of the daemon")
    parser.add_argument("--growth-kb", type=int, default=4096, help="how much more it may hold in the end")
    parser.add_argument("--fifo", help="the video FIFO that the daemon reads")
    options = parser.parse_args()
    return steps.run("bad_input", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
