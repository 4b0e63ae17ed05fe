#!/usr/bin/env python3
"""What the daemon costs and how fast it answers: CPU time from /proc, a paired hub with a clock.

usage: speed.py --port N --socket PATH --pid PID --out FILE.json [--seconds 60] [--idle-only]
The accessory must be unpaired; it is unpaired again at the end. `scripts/bench` starts everything and prints the table.
"""

import asyncio
import json
import os
import pathlib
import statistics
import sys
import time

import hub
import record
import steps
from live import END, VIDEO, View
from steps import require


def cost(pid):
    """CPU seconds of all threads of a process (nanosecond resolution), and how often they fell asleep."""
    seconds = switches = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    return seconds, switches


def resident_kb(pid):
    """VmRSS and VmHWM."""
    fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")}


async def measure(options, step, name, found, during=None):
    """Adds what `options.seconds` of this state cost to `found`."""
    began, (before, slept) = time.monotonic(), cost(options.pid)
    if during is None:
        await asyncio.sleep(options.seconds)
    else:
        await during(began + options.seconds)
    lasted, (after, awake) = time.monotonic() - began, cost(options.pid)
    found[name] = {
        "cpu_s_per_60_s": round((after - before) * 60 / lasted, 4),
        "wakeups_per_s": round((awake - slept) / lasted, 1),
        "seconds": round(lasted, 1),
        **resident_kb(options.pid),
    }
    step.ok(f"{name}: {found[name]}")


async def post(options, method):
    """One request to /motion, without the start of a program in the figure."""
    reader, writer = await asyncio.open_unix_connection(options.socket)
    writer.write(f"{method} /motion HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    line = await reader.readline()
    require(b" 200 " in line or b" 204 " in line, "the control socket answers", line)
    writer.close()


async def raised(session, options):
    """Seconds from a POST to the event at the hub."""
    motion = session.iid("85", "22")
    await post(options, "DELETE")
    await asyncio.sleep(0.3)
    session.forget_events()
    began = time.monotonic()
    await post(options, "POST")
    while (told := await session.event(motion, within=3)) in (False, 0):
        pass
    require(told in (True, 1), "the motion event comes", told)
    return time.monotonic() - began


async def opened(stream, number):
    """A recording that was opened; its Recording, seconds to the init segment and to the first fragment."""
    recording = record.Recording(number)
    began = time.monotonic()
    status, body = await stream.open(number)
    require(status == 0, "open", (status, body))
    init = await record.follow(stream, recording, lambda s: True)
    fragment = await record.follow(stream, recording, lambda s: True)
    return recording, init.finished - began, fragment.finished - began


def spread(values):
    """Median and worst, in milliseconds."""
    return {"median_ms": round(statistics.median(values) * 1000, 2), "worst_ms": round(max(values) * 1000, 2)}


def before(recording, moved):
    """Seconds of video before `moved`, with the smallest delay that any fragment had."""
    scale = record.video_timescale(recording.segments[0].data)
    ends = [(s.finished, record.video_time(s.data, scale, 0)[1]) for s in recording.segments[1:]]
    return moved - min(finished - end for finished, end in ends)


async def second_controller(session, options):
    """A guest who watches with sound; the session and the view."""
    guest, identifier, public = hub.Session.guest(session)
    require(await session.pairing.add_pairing(identifier, public, "User"), "added")
    await guest.verify()
    await guest.load()
    view = View(guest, 0, options)
    require(await view.set_up() == 0 and await view.start(width=1920, height=1080) == 0, "a view starts")
    await asyncio.sleep(2)
    require(view.receivers[VIDEO].packets, "pictures come")
    return guest, view


async def whole(step, options):
    """Idle, detect, recording, a live view beside it; one after the other."""
    found = {}
    if options.idle_only:
        await measure(options, step, "idle", found)
    else:
        session = await hub.pair(options.host, options.port, options.code)
        await session.verify()
        await session.load()
        await record.arm(step, session, options)
        await asyncio.sleep(9)
        if not options.live_only:
            await measure(options, step, "detect", found)
        latencies = {"motion_to_event": [], "open_to_init": [], "open_to_first_fragment": []}
        stream = await record.data_stream(session, options)
        for number in range(1, options.rounds + 1):
            latencies["motion_to_event"].append(await raised(session, options))
            recording, init, fragment = await opened(stream, number)
            latencies["open_to_init"].append(init)
            latencies["open_to_first_fragment"].append(fragment)
            await stream.close_stream(number)
            await asyncio.sleep(0.3)
        found["latency"] = {name: spread(values) for name, values in latencies.items()}
        step.ok(f"latency: {found['latency']}")
        await raised(session, options)
        moved = time.monotonic()
        recording, _, _ = await opened(stream, 99)

        async def follow(until):
            await record.follow(stream, recording, lambda s: s.finished >= until)

        if not options.live_only:
            await measure(options, step, "recording", found, follow)
            found["seconds_before_motion"] = round(before(recording, moved), 2)
            fragments = recording.segments[2:]
            sent = sum(len(s.data) for s in fragments) * 8 / (fragments[-1].finished - recording.segments[1].finished)
            found["recording"]["kbps"] = round(sent / 1000)
        if not options.without_live:
            guest, view = await second_controller(session, options)
            came = sum(view.receivers[VIDEO].sizes)
            await measure(options, step, "live", found, follow)
            lasted = found["live"]["seconds"]
            found["live"]["kbps"] = round((sum(view.receivers[VIDEO].sizes) - came) * 8 / 1000 / lasted)
            require(await view.control(END) == 0, "end")
            view.close()
            await guest.close()
        await stream.close_stream(99)
        await post(options, "DELETE")
        stream.abandon()
        await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
        await session.close()
    pathlib.Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pid", type=int, required=True, help="the daemon")
    parser.add_argument("--out", required=True, help="where the figures go")
    parser.add_argument("--seconds", type=float, default=60, help="how long each state is measured")
    parser.add_argument("--rounds", type=int, default=10, help="recordings that are opened for the latencies")
    parser.add_argument("--audio", choices=("on", "off"), default="on")
    parser.add_argument("--idle-only", action="store_true", help="nobody pairs")
    parser.add_argument("--live-only", action="store_true", help="neither detect nor recording alone")
    parser.add_argument("--without-live", action="store_true", help="no live view")
    parser.add_argument("--stream", help="the file that is fed; not used")
    parser.add_argument("--clock", help="of its feeder; not used")
    parser.add_argument("--fps", help="pictures a second; not used")
    options = parser.parse_args()
    os.makedirs(os.path.dirname(options.out) or ".", exist_ok=True)
    return steps.run("speed", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
