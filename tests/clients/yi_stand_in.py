#!/usr/bin/env python3
"""A stand-in for the programs on Yi cameras with a yi-hack firmware: plays a clip in real time, as their documents have it.

usage: yi_stand_in.py --root FOLDER --video FILE.h264 --low FILE.h264 --audio FILE.aac --fps N [--fifos] [--header N]
Makes FOLDER/dev/shm/fshare_frame_buf, the vendor's frame buffer on Allwinner processors, with headers of N bytes (22, 24,
26 or 28). With --fifos it makes what h264grabber leaves on MStar processors instead: FOLDER/tmp/h264_high_fifo and
FOLDER/tmp/aac_audio_fifo. Ends when it is ended.
"""

import argparse
import collections
import mmap
import os
import pathlib
import struct
import threading
import time

from raptor_stand_in import access_units, adts

# Where the frames begin, by the bytes of a frame's header.
FRAMES_AT = {22: 300, 24: 368, 26: 300, 28: 368}
BUFFER = 1_500_000
HIGH, LOW, AAC, SPS = 0x0400, 0x0800, 0x0100, 0x0002
# What the vendor's encoder says to itself: SEI of a type that no standard has.
VENDOR_SEI = b"\0\0\0\1\x06\xf0\x04\xde\xad\xbe\xef\x80"


class Buffer:
    """The frame buffer: a circle of frames, the oldest leave when there is no room."""

    def __init__(self, path, header):
        self.header, self.at, self.circle = header, FRAMES_AT[header], BUFFER - FRAMES_AT[header]
        self.frames, self.begin, self.held, self.counter = collections.deque(), 0, 0, 0
        self.streams = collections.Counter()
        with open(path, "w+b") as file:
            file.truncate(BUFFER)
            self.memory = mmap.mmap(file.fileno(), BUFFER)

    def word(self, at, value):
        """A number in the buffer's header."""
        struct.pack_into("<I", self.memory, at, value)

    def write(self, kind, payload, time_ms):
        """The next frame. One that brings an SPS has six more bytes in front of its payload."""
        if kind & (HIGH | LOW) and b"\0\0\1\x67" in payload:
            kind |= SPS
            payload = b"\xa5" * 6 + payload
        self.counter += 1
        self.streams[kind & ~SPS] += 1
        unknown = (0x5A5A5A5A,) * (2 if self.header >= 26 else 1)
        words = (len(payload), self.counter, *unknown, time_ms & 0xFFFFFFFF)
        header = struct.pack(f"<{len(words)}I", *words)
        header += struct.pack("<HH", kind, self.streams[kind & ~SPS] & 0xFFFF)
        frame = header.ljust(self.header, b"\x5a") + payload
        self.word(0, 1)
        while self.held + len(frame) > self.circle:
            oldest = self.frames.popleft()
            self.begin = (self.begin + oldest) % self.circle
            self.held -= oldest
        self.word(4, self.held)
        self.word(16, self.begin)
        end = (self.begin + self.held) % self.circle
        head = frame[: self.circle - end]
        self.memory[self.at + end : self.at + end + len(head)] = head
        tail = frame[len(head) :]
        self.memory[self.at : self.at + len(tail)] = tail
        self.frames.append(len(frame))
        self.held += len(frame)
        self.word(4, self.held)
        self.word(12, (end + len(frame)) % self.circle)
        self.word(0, 0)


def pace(units, per_s, began):
    """The units again and again, each when it is due, with its time in milliseconds."""
    number = 0
    while True:
        time.sleep(max(0, began + number / per_s - time.monotonic()))
        yield units[number % len(units)], int(number * 1000 / per_s)
        number += 1


def grab(path, units, per_s, began):
    """Writes into a FIFO for ever, for one reader after the other; a picture without a reader is lost."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    pipe = None
    for unit, _ in pace(units, per_s, began):
        try:
            if pipe is None:
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                os.set_blocking(pipe, True)
            while unit:
                unit = unit[os.write(pipe, unit) :]
        except OSError:
            if pipe is not None:
                os.close(pipe)
                pipe = None


def main():
    """Plays until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--video", type=pathlib.Path, required=True)
    parser.add_argument("--low", type=pathlib.Path, required=True, help="the small stream")
    parser.add_argument("--audio", type=pathlib.Path)
    parser.add_argument("--fps", type=int, required=True)
    parser.add_argument("--fifos", action="store_true", help="what h264grabber leaves")
    parser.add_argument("--header", type=int, choices=FRAMES_AT, default=28, help="bytes of a frame's header")
    options = parser.parse_args()
    high, low = (access_units(path.read_bytes()) for path in (options.video, options.low))
    sound = adts(options.audio.read_bytes()) if options.audio else []
    began = time.monotonic()
    if options.fifos:
        folder = options.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "highres").write_text("h264\n")
        if sound:
            feeder = (folder / "aac_audio_fifo", sound, 16000 / 1024, began)
            threading.Thread(target=grab, args=feeder, daemon=True).start()
        grab(folder / "h264_high_fifo", [VENDOR_SEI + unit for unit in high], options.fps, began)
    shm = options.root / "dev/shm"
    shm.mkdir(parents=True, exist_ok=True)
    buffer = Buffer(shm / "fshare_frame_buf", options.header)
    # The camera's clock comes round soon.
    uptime_ms = (1 << 32) - 5000
    heard = 0
    for number, (picture, due_ms) in enumerate(pace(high, options.fps, began)):
        while sound and heard * 1024 / 16 <= due_ms:
            buffer.write(AAC, sound[heard % len(sound)], uptime_ms + heard * 1024 // 16)
            heard += 1
        buffer.write(HIGH, picture, uptime_ms + due_ms)
        buffer.write(LOW, low[number % len(low)], uptime_ms + due_ms)


if __name__ == "__main__":
    main()
