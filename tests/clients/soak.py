#!/usr/bin/env python3
"""Two live views and one recording at once, for long: is anything lost, does the memory grow?

usage: soak.py --port N --socket PATH --pid PID --stream FILE --clock FILE --out FILE.json [--seconds 600]
Every picture of the recording and of both views is compared with the file that is fed round and round; sequence
numbers and tfdt are followed. `scripts/bench --soak` starts everything. The accessory must be unpaired.
"""

import asyncio
import json
import pathlib
import subprocess
import sys
import time

import boxes
import fed
import hub
import record
import speed
import steps
from live import AUDIO, END, VIDEO, View
from rtp import depacketise
from steps import require

SAMPLE_S = 10
# The camera ends a recording by itself after three minutes.
RECORDING_S = 150
TRACE_S = 60
# What timeout(1) ends with when the time was over.
TIMED_OUT = 124


class Watching:
    """One live view; what came is looked at and forgotten every second."""

    def __init__(self, view, stream):
        self.view = view
        self.tally = fed.Tally(stream)
        self.packets, self.last = {VIDEO: 0, AUDIO: 0}, {}
        self.gaps, self.lost, self.unreadable = 0, 0, 0
        self.longest_pause = 0.0
        self._picture_at = None

    def look(self):
        """All that has come, up to the last picture that is whole."""
        for medium, receiver in self.view.receivers.items():
            packets = receiver.packets
            whole = len(packets)
            if medium == VIDEO:
                while whole and not packets[whole - 1].marker:
                    whole -= 1
            taken, receiver.packets = packets[:whole], packets[whole:]
            receiver.sizes.clear()
            receiver.rtcp.clear()
            self.follow(medium, taken)
            if medium == VIDEO:
                self.pictures(taken)

    def follow(self, medium, packets):
        """Sequence numbers."""
        self.packets[medium] += len(packets)
        for packet in packets:
            before = self.last.get(medium)
            if before is not None and (step := (packet.sequence - before) & 0xFFFF) != 1:
                self.gaps += 1
                self.lost += step - 1 if 0 < step < 0x8000 else 0
            self.last[medium] = packet.sequence

    def pictures(self, packets):
        """Their content."""
        try:
            frames = depacketise(packets)
        except ValueError:  # a fragment is missing; the pictures of this second are counted as such
            self.unreadable += 1
            return
        for frame in frames:
            self.tally.take(frame.nals)
            if self._picture_at is not None:
                self.longest_pause = max(self.longest_pause, frame.whole - self._picture_at)
            self._picture_at = frame.whole

    def figures(self):
        """For JSON."""
        receivers = self.view.receivers
        return {
            "video_packets": self.packets[VIDEO], "audio_packets": self.packets[AUDIO],
            "sequence_gaps": self.gaps, "packets_lost": self.lost,
            "dropped_by_our_socket": sum(e.dropped() for e in self.view.endpoints.values()),
            "not_genuine": sum(r.bad for r in receivers.values()), "unreadable_seconds": self.unreadable,
            "longest_pause_ms": round(self.longest_pause * 1000), "pictures": self.tally.figures(),
        }  # fmt: skip


class Recorded:
    """The recording, fragment by fragment."""

    def __init__(self, step, init, stream):
        self.tracks = boxes.check_init(step, init, audio=True, stand_in=False)
        self.tally = fed.Tally(stream)
        self.fragments = self.samples = 0

    def take(self, data):
        """boxes.py checks tfdt against the durations so far; the samples are compared with the file."""
        boxes.check_fragment(self.fragments, data, self.tracks)
        self.fragments += 1
        moof = boxes.parse(data)[0]
        for traf in moof.all("traf"):
            track = self.tracks[boxes.u32(traf.one("tfhd").payload, 4)]
            if track.handler != "vide":
                continue
            for _, _, size, offset in boxes.samples_of(traf, moof, data, track):
                self.tally.take(lengths(data[offset : offset + size]))

    def figures(self):
        """For JSON."""
        video = next(t for t in self.tracks.values() if t.handler == "vide")
        return {
            "fragments": self.fragments, "tfdt_gaps": 0, "seconds": round(video.seconds(video.next - video.first), 2),
            "from_picture": self.tally.first, "to_picture": self.tally.last, "pictures": self.tally.figures(),
        }  # fmt: skip


def lengths(sample):
    """NAL units of a sample."""
    at, found = 0, []
    while at < len(sample):
        size = boxes.u32(sample, at)
        found.append(sample[at + 4 : at + 4 + size])
        at += 4 + size
    return found


async def beside(watching, options, samples, began):
    """Looks at the views once a second and at the memory now and then, until it is cancelled."""
    while True:
        for one in watching:
            one.look()
        after = time.monotonic() - began
        if after >= len(samples) * SAMPLE_S:
            sample = {"s": round(after), **speed.resident_kb(options.pid), "fds": descriptors(options.pid)}
            if options.heap:
                sample |= heap(options.heap)
            samples.append(sample)
        await asyncio.sleep(1)


def descriptors(pid):
    """Open files of a process."""
    return sum(1 for _ in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def heap(path):
    """What tests/launcher/count_heap.c has counted."""
    calls, freed = (int.from_bytes(pathlib.Path(path).read_bytes()[at : at + 8], sys.byteorder) for at in (0, 8))
    return {"allocations": calls, "frees": freed}


def trace(options):
    """strace on all threads for a minute."""
    return subprocess.Popen(
        ["timeout", "-s", "INT", str(TRACE_S), "strace", "-f", "-c", "-e", "trace=brk,mmap,munmap,mremap",
         "-p", str(options.pid), "-o", options.out + ".strace"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def traced(options, tracing):
    """Calls it counted; None where it could not, as nothing counted would look the same."""
    if tracing.wait(TRACE_S + 10) != TIMED_OUT:
        return None
    lines = pathlib.Path(options.out + ".strace").read_text().splitlines()
    rows = [line.split() for line in lines if line and line[0] in " 0123456789"]
    return {row[-1]: int(row[3]) for row in rows if row[-1] != "total" and row[3].isdigit()}


async def soak(step, options):
    """All of it."""
    stream = fed.Fed(options.stream, options.clock, options.fps)
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    await record.arm(step, session, options)
    guest, identifier, public = hub.Session.guest(session)
    require(await session.pairing.add_pairing(identifier, public, "User"), "added")
    await guest.verify()
    await guest.load()
    await asyncio.sleep(9)

    watching = []
    for number, who in enumerate((session, guest)):
        view = View(who, number, options)
        require(await view.set_up() == 0 and await view.start(width=1920, height=1080) == 0, f"view {number} starts")
        watching.append(Watching(view, stream))
    data = await record.data_stream(session, options)
    began, samples, recorded = time.monotonic(), [], []
    beside_it = asyncio.create_task(beside(watching, options, samples, began))
    tracing = None
    while (after := time.monotonic() - began) < options.seconds:
        if tracing is None and after >= options.seconds / 2:
            tracing = trace(options)
        await speed.raised(session, options)
        recording, _, _ = await speed.opened(data, len(recorded) + 1)
        init, first_one = recording.segments
        one = Recorded(step, init.data, stream)
        one.take(first_one.data)
        recorded.append(one)
        until = min(time.monotonic() + RECORDING_S, began + options.seconds)

        def fragment(segment, one=one, until=until):
            one.take(segment.data)
            segment.data = b""
            data.payloads.clear()
            return segment.finished >= until

        await record.follow(data, recording, fragment)
        await data.close_stream(len(recorded))
        if beside_it.done():
            beside_it.result()
        step.ok(f"recording {len(recorded)}: {one.figures()}")
    lasted = time.monotonic() - began
    beside_it.cancel()
    for one in watching:
        require(await one.view.control(END) == 0, "end")
    await asyncio.sleep(0.5)
    for one in watching:
        one.look()
    found = {
        "seconds": round(lasted), "recordings": [one.figures() for one in recorded], "views": [one.figures() for one in watching],
        "memory": samples,
    }  # fmt: skip
    if tracing is not None:
        found["memory_calls_in_60_s"] = traced(options, tracing)
    for one in watching:
        one.view.close()
    pathlib.Path(options.out).write_text(json.dumps(found, indent=1) + "\n")
    judge(step, options, found)
    data.abandon()
    await guest.close()
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    await session.close()


def judge(step, options, found):
    """Nothing was lost, nothing grew."""
    for before, one in zip([None, *found["recordings"]], found["recordings"]):
        seen = one["pictures"]
        whole = seen["received"] == seen["fed"] and not seen["missing"] and not seen["not_from_the_file"]
        joined = before is None or one["from_picture"] <= before["to_picture"] + 1
        step.check(whole and joined, f"{seen['received']} pictures recorded, all that were fed, tfdt without a gap", one)
    step.ok(f"each of the {len(found['recordings'])} recordings begins before the last one ended")
    for number, view in enumerate(found["views"]):
        lost, ours, seen = view["packets_lost"], view["dropped_by_our_socket"], view["pictures"]
        step.check(view["sequence_gaps"] == 0 or lost <= ours, f"view {number}: {view['video_packets']} packets of "
                   f"video and {view['audio_packets']} of sound, {lost} lost, {ours} of them by our own socket", view)  # fmt: skip
        whole = not seen["missing"] and not seen["not_from_the_file"]
        step.check(whole or lost, f"view {number}: {seen['received']} pictures, each as it was fed", seen)
    settled = [s["VmRSS"] for s in found["memory"] if s["s"] >= min(120, options.seconds / 3)]
    step.check(max(settled) - settled[0] <= 64, "the memory does not grow", settled)


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pid", type=int, required=True, help="the daemon")
    parser.add_argument("--out", required=True, help="where the figures go")
    parser.add_argument("--stream", required=True, help="the file that is fed")
    parser.add_argument("--clock", required=True, help="where its feeder says how far it is")
    parser.add_argument("--fps", type=float, required=True, help="pictures a second")
    parser.add_argument("--heap", help="where count_heap.c counts")
    parser.add_argument("--seconds", type=float, default=600, help="how long")
    parser.add_argument("--audio", choices=("on", "off"), default="on")
    options = parser.parse_args()
    return steps.run("soak", lambda step: asyncio.run(soak(step, options)))


if __name__ == "__main__":
    sys.exit(main())
