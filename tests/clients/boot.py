#!/usr/bin/env python3
"""The life of a camera that scripts/emulate has just booted: announced, paired, rung, recorded; crashed, full, without power, upgraded, stopped.

The commands in the guest and to its machine are those of scripts/emulate. Of the network only packets that left the
guest count (`net.pcap`), whose times are those of its machine.
"""

import asyncio
import pathlib
import random
import re
import struct
import subprocess
import sys
import time

import hub
import life
import record
import steps
from steps import require

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICE = (b"_hap", b"_tcp", b"local")
PTR = 12
HALF_A_YEAR_S = 182 * 24 * 3600


class Camera:
    """The guest of one architecture."""

    def __init__(self, name):
        self.name = name
        self.folder = ROOT / "target/emulate" / name

    def emulate(self, *words):
        """Runs scripts/emulate."""
        done = subprocess.run(
            [ROOT / "scripts/emulate", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def run(self, line):
        """What a command in the guest says."""
        return self.emulate("--in", self.name, line)

    async def run_soon(self, line):
        """`run` without stopping the event loop."""
        return await asyncio.get_running_loop().run_in_executor(None, self.run, line)

    async def machine(self, line):
        """A command to the machine."""
        await asyncio.get_running_loop().run_in_executor(None, self.emulate, "--monitor", self.name, line)

    def serial(self):
        """Lines of the serial log as (seconds since power-on, text)."""
        lines = (self.folder / "serial.log").read_text().rstrip("\n").split("\n")
        return [(float(line[:7]), line[8:]) for line in lines]

    async def says(self, pattern, since, within):
        """Waits for a line on the serial line that is later than `since`; (its time, the match)."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            for at, text in self.serial():
                if at > since and (found := re.search(pattern, text)):
                    return at, found
            await asyncio.sleep(0.2)
        raise steps.Failed(f"{pattern!r} is not on the serial line within {within:.0f} s")

    def last(self):
        """Time of the last line so far."""
        return self.serial()[-1][0]

    async def daemon(self):
        """The process of the daemon, which is the child of the one in the pid file."""
        return await self.run_soon(
            'for p in $(pidof hksvd); do [ $p = $(cat /run/hksvd.pid) ] || echo $p; done | head -n 1'
        )

    async def serves(self, within=90):
        """Waits until the daemon answers and takes in pictures."""
        end = time.monotonic() + within
        seen = None
        while time.monotonic() < end:
            try:
                frames = int(re.search(r'"frames":\s*(\d+)', await self.run_soon("hksvd status --json"))[1])
                if seen is not None and frames > seen > 0:
                    return
                seen = frames
            except RuntimeError:
                seen = None
            await asyncio.sleep(0.5)
        raise steps.Failed(f"the daemon does not answer, or has no pictures, within {within:.0f} s")

    def told(self):
        """mDNS answers that name an accessory, as (machine time in s, time to live in s); 0 is a goodbye."""
        data = (self.folder / "net.pcap").read_bytes()
        at = 24
        while at + 16 <= len(data):
            seconds, micros, length = struct.unpack_from("<III", data, at)
            packet = data[at + 16 : at + 16 + length]
            at += 16 + length
            for ttl in announced(packet):
                yield seconds + micros / 1e6, ttl


def announced(frame):
    """Times to live of the PTR records for HAP in the answers of an Ethernet frame with IPv4, if it is mDNS."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[34:38] != b"\x14\xe9\x14\xe9" or not frame[44] & 0x80:
        return
    dns = frame[42:]
    questions, answers = struct.unpack_from(">HH", dns, 4)
    at = 12
    try:
        for _ in range(questions):
            at = name(dns, at)[1] + 4
        for _ in range(answers):
            labels, at = name(dns, at)
            kind, _, ttl, length = struct.unpack_from(">HHIH", dns, at)
            at += 10 + length
            if kind == PTR and tuple(labels) == SERVICE:
                yield ttl
    except (IndexError, struct.error):
        return  # The dump has only the head of a longer one.


def name(dns, at):
    """Labels of a name, and where it ends."""
    labels, end, hops = [], None, 0
    while (length := dns[at]) != 0:
        if length >= 0xC0:
            end, at, hops = end or at + 2, (length & 0x3F) << 8 | dns[at + 1], hops + 1
            if hops > 20:
                raise IndexError("a name that never ends")
            continue
        labels.append(bytes(dns[at + 1 : at + 1 + length]))
        at += 1 + length
    return labels, end or at + 1


async def back(session, options):
    """The same pairing on a new connection."""
    end = time.monotonic() + 30
    while True:
        try:
            return await life.reconnect(session, options, options.host)
        except (hub.HomeKitException, OSError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.5)


async def rings(camera, session, key, within=3.0):
    """Presses a key of the machine; seconds until the controller is told."""
    press = session.iid("121", "73")
    require(await session.put({"iid": press, "ev": True}) == [], "subscribed to the button")
    session.forget_events()
    began = time.monotonic()
    await camera.machine(key)
    require(await session.event(press, within) == 0, f"{key}: the controller is told of a press")
    return time.monotonic() - began


async def clock_jumps(step, camera, session, options):
    """A recording while the camera is told what time it is, and then told otherwise."""
    stream, recording = await life.one_fragment(session, options)
    now = int(await camera.run_soon("date +%s"))
    for text, then in (("half a year on", now + HALF_A_YEAR_S), ("and back", now)):
        await camera.run_soon(f"date -s @{then}")
        count = len(recording.segments) + 2
        await record.follow(stream, recording, lambda s, count=count: len(recording.segments) >= count)
        step.ok(f"the clock jumps {text} in a recording: fragments go on")
    init, *fragments = recording.segments
    scale = record.video_timescale(init.data)
    times = [record.video_time(f.data, scale, 0) for f in fragments]
    gaps = [abs(b[0] - a[1]) * scale for a, b in zip(times, times[1:])]
    step.check(max(gaps) < 0.5, f"{len(times)} fragments of {times[-1][1] - times[0][0]:.1f} s without a gap", gaps)
    stream.abandon()


async def crash(step, camera, session, options):
    """The daemon is killed; its parent starts it again."""
    pid, since = await camera.daemon(), camera.last()
    await camera.run_soon(f"kill -9 {pid}")
    _, found = await camera.says(r"hksvd.*: (.*killed by SIGKILL.*)", since - 0.01, 10)
    began = time.monotonic()
    await camera.serves()
    again = await back(session, options)
    step.check(await camera.daemon() != pid, f"killed, started again, and in the log: {found[1]}")
    step.ok(f"the same pairing connects, {time.monotonic() - began:.1f} s later")
    await session.close()
    return again


async def full(step, camera, session):
    """No space is left for the state."""
    await camera.run_soon("dd if=/dev/zero of=/overlay/fill bs=1k 2>/dev/null; sync; ! echo x >/overlay/fill2")
    since = camera.last()
    _, identifier, public = hub.Session.guest(session)
    try:
        added = await session.pairing.add_pairing(identifier, public, "User")
    except hub.HomeKitException:
        added = False
    listed = [p["pairingId"] for p in await session.pairing.list_pairings()]
    step.check(not added and identifier not in listed, "the flash is full: a new pairing is refused, not forgotten later")
    _, found = await camera.says(r"hksvd.*: (.*no space left.*)", since - 0.01, 10)
    step.ok(f"and said in the log: {found[1]}")
    await session.value("85", "22")
    await camera.run_soon("rm /overlay/fill*; sync")
    require(await session.pairing.add_pairing(identifier, public, "User"), "added")
    require(await session.pairing.remove_pairing(identifier), "removed")
    step.ok("it goes on, and takes pairings again when there is space")


async def power_cut(step, camera, session, options):
    """The power goes while pairings are written."""
    written = 0

    async def write():
        nonlocal written
        while True:
            _, identifier, public = hub.Session.guest(session)
            await session.pairing.add_pairing(identifier, public, "User")
            await session.pairing.remove_pairing(identifier)
            written += 2

    mine = session.pairing.pairing_data["iOSPairingId"]
    writer = asyncio.create_task(write())
    await asyncio.sleep(random.uniform(0.5, 2.5))
    since = camera.last()
    await camera.machine("system_reset")
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    at, _ = await camera.says("serves HomeKit", since, 60)
    again = await back(session, options)
    listed = [p["pairingId"] for p in await again.pairing.list_pairings()]
    step.check(mine in listed and len(listed) <= 2, f"power cut at write {written} of the pairings: back after {at - since:.1f} s, paired", listed)
    for other in listed:
        if other != mine:
            require(await again.pairing.remove_pairing(other), "removed")
    await session.close()
    await camera.serves()
    return again


async def upgrade(step, camera, session, options):
    """A new firmware, which restores only what the backup list names."""
    await camera.run_soon("echo x >/etc/not-in-the-list; touch /overlay/upgrade; sync")
    since = camera.last()
    await camera.run_soon("reboot")
    _, found = await camera.says("guest: upgraded; kept: (.*)", since, 60)
    await camera.serves()
    again = await back(session, options)
    require(await camera.run_soon("ls /etc/not-in-the-list 2>/dev/null || echo gone") == "gone", "the rest is gone")
    step.ok(f"upgraded, still paired; kept: {found[1]}")
    await session.close()
    return again


async def power_key(step, camera, session, options):
    """The board's own key, which hangs on a line of its GPIO chip, and another line of that chip as a switch."""
    await camera.run_soon(
        "sed -i 's|KEY_1\" }|KEY_POWER\" }, \"privacy\": { \"switch\": \"gpiochip:/dev/gpiochip0:5\" }|' /etc/hksvd.json"
    )
    await camera.run_soon("/etc/init.d/S98hksvd restart")
    await camera.serves()
    again = await back(session, options)
    took = await rings(camera, again, "system_powerdown")
    step.ok(f"the power key of the board, a GPIO of its chip: told of it after {took * 1000:.0f} ms")
    lines = await camera.run_soon(f"ls -l /proc/{await camera.daemon()}/fd")
    step.check("gpio" in lines, "a line of the GPIO chip is open", lines)
    step.equal(await again.value("21A", "227"), 0, "and reads as off")
    await session.close()
    return again


async def stopped(step, camera, session, options):
    """The init script ends it, in the middle of a recording."""
    stream, _ = await life.one_fragment(session, options)
    hap = session.connection.transport
    before = len([ttl for _, ttl in camera.told() if ttl == 0])
    pid = await camera.daemon()
    began = time.monotonic()
    stop = asyncio.create_task(camera.run_soon(
        f"/etc/init.d/S98hksvd stop >/dev/null & "
        f"for n in $(seq 60); do [ -e /proc/{pid} ] || break; usleep 100000; done; echo $n; wait"
    ))  # fmt: skip
    require(await life.ended(stream.reader, 4), "the data stream ends")
    ended = time.monotonic() - began
    while not hap.is_closing() and time.monotonic() < began + 4:
        await asyncio.sleep(0.02)
    require(hap.is_closing(), "the HAP connection ends")
    tenths = int(await stop)
    step.check(tenths <= 20, f"S98hksvd stop in a recording: connections end after {ended:.1f} s, the process after "
               f"{tenths / 10:.1f} s", tenths)  # fmt: skip
    goodbyes = len([ttl for _, ttl in camera.told() if ttl == 0])
    step.check(goodbyes > before, "and it said goodbye by mDNS", (before, goodbyes))
    said = await camera.run_soon("/etc/init.d/S98hksvd status; [ $? = 3 ]")
    step.equal(said, "hksvd is not running", "its status says so")


async def whole(step, options):
    """From power-on to the end."""
    camera = Camera(options.arch)
    served, _ = await camera.says("serves HomeKit", 0, 5)
    _, up = await camera.says("guest: (Linux.*)", 0, 1)
    first = min(at for at, ttl in camera.told() if ttl > 0) - options.began
    step.ok(f"{up[1]}: serves HomeKit {served:.1f} s after power-on, announced after {first:.1f} s")
    require(first > 0, "announced after power-on", first)
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    step.ok("paired and verified")
    await record.arm(step, session, options)
    took = await rings(camera, session, "sendkey 1")
    step.ok(f"the button is pressed: told of it after {took * 1000:.0f} ms")
    await camera.serves()
    await asyncio.sleep(5)
    await clock_jumps(step, camera, session, options)
    peak = int(await camera.run_soon(f"sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/{await camera.daemon()}/status"))
    step.check(peak <= options.peak, f"VmHWM {peak} kB", peak)
    session = await crash(step, camera, session, options)
    await full(step, camera, session)
    session = await power_cut(step, camera, session, options)
    session = await upgrade(step, camera, session, options)
    if options.arch == "armhf":
        session = await power_key(step, camera, session, options)
    await stopped(step, camera, session, options)


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--arch", required=True, choices=("mipsel", "armhf"))
    parser.add_argument("--began", type=float, required=True, help="when the machine began (Unix time)")
    parser.add_argument("--peak", type=int, required=True, help="kB of memory that the daemon may have had")
    options = parser.parse_args()
    options.audio = "on"
    return steps.run("boot", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
