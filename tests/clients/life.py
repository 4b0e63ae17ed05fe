#!/usr/bin/env python3
"""The network of a camera: there is none at the start, it goes while a hub records, it comes back with another address.

Runs in a network namespace of its own, on the other end of a link to the namespace of the daemon (scripts/test makes
both). The link must be down and without an address at the daemon's end, and the accessory unpaired; in the end the
daemon is stopped with SIGTERM, in the middle of a recording.
"""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import time

import discover
import hub
import record
import steps
from steps import require
from zeroconf import IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf


class Link:
    """The daemon's end of the link."""

    def __init__(self, options):
        self.space, self.name = options.space, options.link

    def ip(self, *words):
        """`ip WORDS` in the namespace of the daemon."""
        subprocess.run(["ip", "-n", self.space, *words], check=True, stdin=subprocess.DEVNULL)

    def up(self):
        """The access point is back."""
        self.ip("link", "set", self.name, "up")

    def down(self):
        """The access point is gone."""
        self.ip("link", "set", self.name, "down")

    def lease(self, address):
        """What a DHCP client does with a new lease; None: with the end of the last."""
        self.ip("-4", "addr", "flush", "dev", self.name)
        if address:
            self.ip("addr", "add", f"{address}/24", "dev", self.name)


def look(options):
    """Pictures so far, and kB of the daemon's own memory: without the pages of the clip, which is part of the program."""
    lines = pathlib.Path(f"/proc/{options.pid}/status").read_text().splitlines()
    own = next(line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return hub.status(options)["frames"], int(own)


async def seen_at(watch, name, address, within):
    """Waits until a browser that asks anew finds the camera at this address, and nowhere else."""
    end = time.monotonic() + within
    addresses = []
    while time.monotonic() < end:
        info = AsyncServiceInfo(discover.HAP, name)
        if await info.async_request(watch.zeroconf.zeroconf, 1000):
            addresses = info.parsed_addresses(IPVersion.V4Only)
            if addresses == [address]:
                return info
        await asyncio.sleep(0.2)
    raise steps.Failed(f"the camera is found at {address} within {within:.0f} s: seen {addresses}")


async def one_fragment(session, options):
    """Motion, open, init and a fragment on a data stream of its own, which stays open."""
    await record.motion_on(session, options)
    stream = await record.data_stream(session, options)
    status, body = await stream.open(1)
    require((status, body.get("status")) == (0, 0), "open is accepted", (status, body))
    recording = record.Recording(1)
    await record.follow(stream, recording, lambda s: len(recording.segments) == 2)
    return stream, recording


async def reconnect(session, options, address):
    """The same pairing at another address."""
    again = hub.Session.again(session)
    data = again.pairing.pairing_data
    data.update(AccessoryIP=address, AccessoryIPs=[address], AccessoryPort=options.port)
    again = hub.Session(hub.IpPairing(hub.controller(), data))
    await again.verify()
    await again.load()
    require(await again.put({"iid": again.iid("85", "22"), "ev": True}) == [], "subscribed to motion")
    return again


async def ended(reader, within):
    """Whether the connection ends in time."""
    try:
        async with asyncio.timeout(within):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def whole(step, options):
    """One camera from power-on to power-off."""
    link = Link(options)
    frames, _ = look(options)
    await asyncio.sleep(1)
    step.check(look(options)[0] > frames, "no network at all: the daemon runs and takes in pictures")

    zeroconf = AsyncZeroconf(interfaces=[options.own], ip_version=IPVersion.V4Only)
    watch = discover.Watch(zeroconf)
    browser = AsyncServiceBrowser(zeroconf.zeroconf, discover.HAP, handlers=[watch])
    link.up()
    await asyncio.sleep(1)
    link.lease(options.host)
    began = time.monotonic()
    name = await watch.wait(ServiceStateChange.Added, 15)
    step.ok(f"the network comes: announced {time.monotonic() - began:.1f} s after the address")
    await seen_at(watch, name, options.host, 10)
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    step.ok("and paired")
    await record.arm(step, session, options)
    await asyncio.sleep(4)

    stream, recording = await one_fragment(session, options)
    link.down()
    # After half of the time the prebuffer, which the caller has made small, has gone through all of its memory.
    await asyncio.sleep(options.gone / 2)
    (frames, rss), then = look(options), time.monotonic()
    await asyncio.sleep(options.gone / 2)
    now_frames, now_rss = look(options)
    rate = (now_frames - frames) / (time.monotonic() - then)
    step.check(rate > 10, f"no network for {options.gone:.0f} s in a recording: {rate:.0f} pictures a second come in")
    step.check(now_rss <= rss + 128, f"and memory stays: {rss} kB, then {now_rss} kB", (rss, now_rss))
    stream.abandon()
    link.up()
    again = await reconnect(session, options, options.host)
    step.ok("the network is back: the same pairing connects")
    stream, recording = await one_fragment(again, options)
    step.ok(f"and records: a first fragment of {len(recording.segments[1].data)} bytes")
    stream.abandon()
    await again.close()
    await session.close()

    link.lease(options.next)
    began = time.monotonic()
    await seen_at(watch, name, options.next, 20)
    step.ok(f"another address: found there, and not at the old one, after {time.monotonic() - began:.1f} s")
    options.host = options.next
    session = await reconnect(session, options, options.next)
    stream, recording = await one_fragment(session, options)
    step.ok("the same pairing connects to it and records")

    watch.told.clear()
    hap = session.connection.transport
    os.kill(options.pid, signal.SIGTERM)
    began = time.monotonic()
    require(await ended(stream.reader, 2), "the data stream ends within 2 s of SIGTERM")
    data_stream_s = time.monotonic() - began
    while not hap.is_closing() and time.monotonic() < began + 2:
        await asyncio.sleep(0.02)
    require(hap.is_closing(), "the HAP connection ends within 2 s of SIGTERM")
    step.ok(f"SIGTERM in a recording: both connections end ({data_stream_s:.1f} s, {time.monotonic() - began:.1f} s)")
    while discover.running(options.pid) and time.monotonic() < began + 5:
        await asyncio.sleep(0.05)
    lasted = time.monotonic() - began
    step.check(lasted < 2, f"the process ends after {lasted:.1f} s", lasted)
    step.equal(await watch.wait(ServiceStateChange.Removed, 3), name, "and the goodbye was heard")
    await browser.async_cancel()
    await zeroconf.async_close()


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--own", required=True, help="IPv4 address of this end of the link")
    parser.add_argument("--next", required=True, help="IPv4 address that the daemon gets later")
    parser.add_argument("--space", required=True, help="network namespace of the daemon")
    parser.add_argument("--link", required=True, help="the daemon's end of the link")
    parser.add_argument("--pid", type=int, required=True, help="process of the daemon")
    parser.add_argument("--gone", type=float, default=20, help="seconds without a network (default: %(default)s)")
    options = parser.parse_args()
    options.audio = "on"
    return steps.run("life", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
