#!/usr/bin/env python3
"""The life of a camera that scripts/emulate has just booted.

It is announced, paired, rung and recorded; crashed, full, without power, upgraded; its keys and pins move; it stops.
The commands in the guest and to its machine are those of scripts/emulate. Of the network only packets that left the
guest count (`net.pcap`), whose times are those of its machine.
"""

import asyncio
import json
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
BOOT_S = 120
# The guest's log is on the serial line a second late, or more.
LINE_S = 30
# How often the power goes.
CUTS = 3
# An event is told at once; an emulated camera on a busy machine takes its time.
EVENT_S = 15
# So does the way of a command into it, at whose end the daemon is stopped.
STOP_S = 10


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

    async def pin(self, line, level):
        """What is at a line of its GPIO chip."""
        await asyncio.get_running_loop().run_in_executor(None, self.emulate, "--pin", self.name, str(line), str(level))

    async def configure(self, members):
        """Changes its configuration (what is None is left out) and starts the daemon again."""
        config = json.loads(await self.run_soon("cat /etc/hksvd.json")) | members
        config = {key: value for key, value in config.items() if value is not None}
        await self.run_soon(f"cat >/etc/hksvd.json <<'JSON'\n{json.dumps(config)}\nJSON\n/etc/init.d/S98hksvd restart")

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

    async def until(self, line, within):
        """Waits until a command in the guest succeeds."""
        end = time.monotonic() + within
        while True:
            try:
                return await self.run_soon(line)
            except RuntimeError as error:
                if time.monotonic() > end:
                    raise steps.Failed(f"not within {within:.0f} s: {error}") from error
            await asyncio.sleep(0.2)

    def last(self):
        """Time of the last line so far."""
        return self.serial()[-1][0]

    async def daemon(self):
        """The process of the daemon, which is the child of the one in the pid file."""
        return await self.run_soon(
            'for p in $(pidof hksvd); do [ $p = $(cat /run/hksvd.pid) ] || echo $p; done | head -n 1'
        )

    async def serves(self, within=BOOT_S):
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
            if len(packet) < length:
                return  # It is just being written.
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


async def rings(camera, session, key, within=EVENT_S):
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
    year, now = await camera.run_soon("date +%Y"), int(time.time())
    require(year == "1970", "without a clock it is 1970", year)
    for text, then in (("from 1970 to today", now), ("half a year on", now + HALF_A_YEAR_S), ("back", now)):
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
    _, found = await camera.says(r"hksvd.*: (.*killed by SIGKILL.*)", since - 0.01, LINE_S)
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
    _, found = await camera.says(r"hksvd.*: (.*no space left.*)", since - 0.01, LINE_S)
    step.ok(f"and said in the log: {found[1]}")
    await session.value("85", "22")
    await camera.run_soon("rm /overlay/fill*; sync")
    require(await session.pairing.add_pairing(identifier, public, "User"), "added")
    require(await session.pairing.remove_pairing(identifier), "removed")
    step.ok("it goes on, and takes pairings again when there is space")


async def power_cut(step, camera, session, options):
    """The power goes while pairings are written; whatever the moment, what was or what was to be is there."""
    mine = session.pairing.pairing_data["iOSPairingId"]
    writes = 0

    async def write(session):
        nonlocal writes
        while True:
            _, identifier, public = hub.Session.guest(session)
            await session.pairing.add_pairing(identifier, public, "User")
            await session.pairing.remove_pairing(identifier)
            writes += 2

    for _ in range(CUTS):
        writes = 0
        writer = asyncio.create_task(write(session))
        await asyncio.sleep(random.uniform(0.5, 2.5))
        since = camera.last()
        await camera.machine("system_reset")
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        at, _ = await camera.says("serves HomeKit", since, BOOT_S)
        before, session = session, await back(session, options)
        await before.close()
        listed = [p["pairingId"] for p in await session.pairing.list_pairings()]
        took = f"back after {at - since:.1f} s, paired"
        step.check(mine in listed and len(listed) <= 2, f"power cut at write {writes} of the pairings: {took}", listed)
        for other in listed:
            if other != mine:
                require(await session.pairing.remove_pairing(other), "removed")
    damaged = await camera.run_soon("ls /etc/hksvd | grep damaged || echo none")
    step.equal(damaged, "none", "nothing of its state was damaged")
    await camera.serves()
    return session


async def upgrade(step, camera, session, options):
    """A new firmware, which restores only what the backup list names."""
    await camera.run_soon("echo x >/etc/not-in-the-list; touch /overlay/upgrade; sync")
    since = camera.last()
    await camera.run_soon("reboot")
    _, found = await camera.says("guest: upgraded; kept: (.*)", since, BOOT_S)
    await camera.serves()
    again = await back(session, options)
    require(await camera.run_soon("ls /etc/not-in-the-list 2>/dev/null || echo gone") == "gone", "the rest is gone")
    step.ok(f"upgraded, still paired; kept: {found[1]}")
    await session.close()
    return again


async def told_of(session, iid, wanted, text, within=EVENT_S):
    """Waits until the controller is told this; seconds."""
    began = time.monotonic()
    require(await session.event(iid, within) == wanted, f"{text}: the controller is told {wanted}")
    return time.monotonic() - began


async def pressed(camera, session, iid, keys, wanted, text):
    """Keys that the machine presses; again when it was late with them, so that they were told as another press."""
    for _ in range(10):
        await camera.machine(keys)
        if (seen := await session.event(iid, EVENT_S)) in (wanted, None):
            break
        await session.told(2)
    require(seen == wanted, f"{text}: the controller is told {wanted}", seen)


async def all_presses(step, camera, session, options):
    """Keys of an input device, held and pressed twice, and a lamp of the kernel's."""
    lamp = await camera.run_soon("ls /sys/class/leds | grep capslock")
    await camera.configure(
        {"doorbell": {"button": "evdev:auto:KEY_1", "presses": "all"}, "led": {"status": f"led:{lamp}"}}
    )
    again = await back(session, options)
    press = again.iid("121", "73")
    require(await again.put({"iid": press, "ev": True}) == [], "subscribed to the button")
    again.forget_events()
    await pressed(camera, again, press, "sendkey 1 60", 0, "a short press")
    await pressed(camera, again, press, "sendkey 1 2000", 2, "a long press")
    # The machine sends them one behind the other. They are as far apart as they may be: a processor that is held up finds
    # them at once, as bounces.
    await pressed(camera, again, press, "sendkey 1 200\nsendkey 1 200", 1, "a double press")
    step.ok("a key of the kernel's input device: a short, a long and a double press are told apart")
    lit = f"cat /sys/class/leds/{lamp}/brightness; grep -o '^.none.' /sys/class/leds/{lamp}/trigger"
    step.equal(await camera.run_soon(lit), "1\n[none]", f"the lamp {lamp} is lit, and taken from the kernel")
    await again.write("21A", "21D", False, timed=True)
    await camera.until(f"grep -x 0 /sys/class/leds/{lamp}/brightness", 10)
    await again.write("21A", "21D", True, timed=True)
    await camera.until(f"grep -x 1 /sys/class/leds/{lamp}/brightness", 10)
    step.ok("and Home turns it off and on")
    await session.close()
    return again


async def switched(camera, session, line):
    """Moves a contact that is on at low level, and back; the controller is told of both."""
    off = session.iid("21A", "227")
    require(await session.put({"iid": off, "ev": True}) == [], "subscribed to the switch")
    # It counts as off until its switch is read for the first time.
    end = time.monotonic() + EVENT_S
    while await session.value("21A", "227") != 0:
        require(time.monotonic() < end, "it is on at first")
        await asyncio.sleep(0.2)
    for level, value in ((0, 1), (1, 0)):
        session.forget_events()
        await camera.pin(line, level)
        await told_of(session, off, value, f"line {line} at {level}")


async def interrupts(camera):
    """How often a line of the GPIO chip has changed, by line: (count, who listens)."""
    lines = (await camera.run_soon("grep pl061 /proc/interrupts")).splitlines()
    fields = [line.split() for line in lines]
    return {int(f[3]): (int(f[1]), f[5]) for f in fields}


async def changed(camera, line, count):
    """Waits until a line has changed so often: the next change would be one with this while a processor is held up."""
    end = time.monotonic() + EVENT_S
    while (seen := (await interrupts(camera)).get(line, (0, "nobody"))[0]) < count:
        require(time.monotonic() < end, f"line {line} has changed {count} times", seen)
        await asyncio.sleep(0.2)


async def pins(step, camera, session, options):
    """The board's own GPIO chip, whose lines are moved from outside of the machine."""
    chip, base = "gpiochip:/dev/gpiochip0", int(await camera.run_soon("cat /sys/class/gpio/gpiochip*/base"))
    button, switch, bell = 6, 5, 7
    await camera.pin(button, 0)
    await camera.pin(switch, 1)

    # The power key hangs on this chip, and its driver makes an input device of it.
    await camera.configure({
        "doorbell": {"button": "evdev:auto:KEY_POWER"}, "privacy": {"switch": f"{chip}:{switch}:low"},
        "chime": {"output": f"sysfs:{base + bell}", "pulse_ms": 5000},
    })  # fmt: skip
    again = await back(session, options)
    level = f"/sys/class/gpio/gpio{base + bell}/value"
    await camera.until(f"grep -x 0 {level}", 10)
    took = await rings(camera, again, "system_powerdown")
    await camera.until(f"grep -x 1 {level}", 4)
    step.ok(f"the power key, a GPIO of the board: told of it after {took * 1000:.0f} ms; the chime's pin is high")
    await switched(camera, again, switch)
    files = await camera.run_soon(f"ls -l /proc/{await camera.daemon()}/fd")
    step.check("anon_inode:gpio-line" in files, "a GPIO device, by 5.10's interface, switches the camera off and on", files)
    before = await interrupts(camera)
    step.equal(before[switch], (2, "hksvd"), "by two interrupts")
    await camera.until(f"grep -x 0 {level}", 20)
    step.ok("the chime has ended")
    await session.close()

    # What 4.8 had, and what all kernels have.
    await camera.run_soon("sed -i 's/exec \"$2\" run/exec gpio-v1 \"$2\" run/' /etc/init.d/S98hksvd")
    await camera.configure({"doorbell": {"button": f"sysfs:{base + button}"}, "chime": None})
    session, again = again, await back(again, options)
    press = again.iid("121", "73")
    require(await again.put({"iid": press, "ev": True}) == [], "subscribed to the button")
    for presses in range(2):
        again.forget_events()
        began = time.monotonic()
        await camera.pin(button, 1)
        await told_of(again, press, 0, "a pin goes high")
        took = time.monotonic() - began
        await changed(camera, button, 2 * presses + 1)
        await camera.pin(button, 0)
        await changed(camera, button, 2 * presses + 2)
        await asyncio.sleep(0.5)  # The daemon is to see it, too.
    count = await interrupts(camera)
    text = f"a pin of /sys/class/gpio: told of two presses, the last after {took * 1000:.0f} ms, by four interrupts"
    step.equal(count[button], (4, "gpiolib"), text)
    await switched(camera, again, switch)
    pid = await camera.daemon()
    files = await camera.run_soon(f"ls -l /proc/{pid}/fd")
    step.check("anon_inode:gpio-event" in files, "a GPIO device, by 4.8's interface, switches the camera off and on", files)
    step.equal((await interrupts(camera))[switch], (before[switch][0] + 2, "hksvd"), "by two interrupts")
    # A value of sysfs can always be read: whoever waits for that would never sleep.
    work = f"cut -d ' ' -f 14,15 /proc/{pid}/stat; sleep 4; cut -d ' ' -f 14,15 /proc/{pid}/stat"
    user, system, user_then, system_then = map(int, (await camera.run_soon(work)).split())
    share = (user_then + system_then - user - system) / 400
    step.check(share < 0.5, f"while nothing moves, it works {share * 100:.0f} % of the time", share)
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
    require(await life.ended(stream.reader, STOP_S), "the data stream ends")
    ended = time.monotonic() - began
    while not hap.is_closing() and time.monotonic() < began + STOP_S:
        await asyncio.sleep(0.02)
    require(hap.is_closing(), "the HAP connection ends")
    tenths = int(await stop)
    # It has 2 s where it is not emulated (life.py); the script kills it after 6.
    step.check(tenths <= 40, f"S98hksvd stop in a recording: connections end after {ended:.1f} s, the process after "
               f"{tenths / 10:.1f} s", tenths)  # fmt: skip
    goodbyes = len([ttl for _, ttl in camera.told() if ttl == 0])
    step.check(goodbyes > before, "and it said goodbye by mDNS", (before, goodbyes))
    said = await camera.run_soon("/etc/init.d/S98hksvd status; [ $? = 3 ]")
    step.equal(said, "hksvd is not running", "its status says so")


async def whole(step, options):
    """From power-on to the end."""
    camera = Camera(options.arch)
    served, _ = await camera.says("serves HomeKit", 0, LINE_S)
    _, up = await camera.says("guest: (Linux.*)", 0, LINE_S)
    end = time.monotonic() + EVENT_S
    while not (announcements := [at - options.began for at, ttl in camera.told() if ttl > 0]):
        require(time.monotonic() < end, "announced")
        await asyncio.sleep(0.5)
    first = min(announcements)
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
    session = await all_presses(step, camera, session, options)
    if options.arch == "armhf":
        session = await pins(step, camera, session, options)
    await camera.serves()
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
