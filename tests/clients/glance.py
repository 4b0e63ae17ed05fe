#!/usr/bin/env python3
"""How long someone waits who taps on the camera: from the start command to the first picture, and to the present.

usage: glance.py --port N --socket PATH --stream FILE --clock FILE --fps N --out FILE.json [--rounds 10]
Begins to watch at random points between two key frames. The first picture counts when its last packet is there and
SPS, PPS and IDR are whole; the present is reached with the first picture that is as new, compared with when it was fed,
as those that come later. `scripts/bench` starts everything. The accessory must be unpaired.
"""

import asyncio
import json
import pathlib
import random
import statistics
import sys
import time

import fed
import hub
import speed
import steps
from live import END, VIDEO, View, streaming_status
from rtp import depacketise
from steps import require

WATCH_S = 4


async def glance(session, options, stream):
    """One short view; its figures in seconds."""
    view = View(session, 0, options)
    require(await view.set_up() == 0, "118: the camera is ready")
    await asyncio.sleep(random.uniform(0, options.gop))
    require(await view.start(width=1920, height=1080) == 0, "117 start")
    answered = time.monotonic() - view.began
    await asyncio.sleep(WATCH_S)
    received = view.receivers[VIDEO]
    packets = received.packets[:]
    while packets and not packets[-1].marker:
        packets.pop()
    # Numbers are found within one round of the file, while all of this is in its last round.
    frames = [(frame, stream.number(frame.nals)) for frame in depacketise(packets)]
    require(await view.control(END) == 0, "117 end")
    view.close()
    require(received.gaps() == 0, "nothing is lost on the way", received.gaps())
    require(frames and all(number is not None for _, number in frames), "the pictures that were fed", len(frames))
    kinds = [nal & 31 for nal in frames[0][0].types]
    require({5, 7, 8} <= set(kinds), "the first picture is SPS, PPS and IDR", kinds)
    late = [frame.whole - stream.fed_at(number) for frame, number in frames]
    usual = statistics.median(late[-2 * int(options.fps) :])
    present = next(n for n, seconds in enumerate(late) if seconds <= usual + 0.5 / options.fps)
    while await streaming_status(session, 0) != 0:
        await asyncio.sleep(0.1)
    return {
        "start_to_answer": answered, "start_to_first_picture": frames[0][0].whole - view.began,
        "start_to_present": frames[present][0].whole - view.began,
        "age_of_key_frame": view.began - stream.fed_at(frames[0][1]), "fed_to_received": usual, "pictures_behind": present,
    }  # fmt: skip


async def whole(step, options):
    """All tries."""
    stream = fed.Fed(options.stream, options.clock, options.fps)
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    await asyncio.sleep(options.gop + 1)
    tries = []
    for _ in range(options.rounds):
        tries.append(await glance(session, options, stream))
        step.ok(", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in tries[-1].items()))
    names = ("start_to_answer", "start_to_first_picture", "start_to_present", "fed_to_received")
    found = {"glance": {name: speed.spread([one[name] for one in tries]) for name in names}, "tries": tries}
    pathlib.Path(options.out).write_text(json.dumps(found, indent=1) + "\n")
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    await session.close()


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--pid", type=int, help="the daemon; not used")
    parser.add_argument("--out", required=True, help="where the figures go")
    parser.add_argument("--stream", required=True, help="the file that is fed")
    parser.add_argument("--clock", required=True, help="where its feeder says how far it is")
    parser.add_argument("--fps", type=float, required=True, help="pictures a second")
    parser.add_argument("--gop", type=float, default=4, help="seconds between its key frames")
    parser.add_argument("--rounds", type=int, default=10, help="how often")
    options = parser.parse_args()
    return steps.run("glance", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
