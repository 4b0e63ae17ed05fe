#!/usr/bin/env python3
"""A stand-in for the streamer Raptor: publishes a clip into rings of shared memory, as its document has them.

usage: raptor_stand_in.py --root FOLDER --video FILE.h264 --audio FILE.aac --fps N [--embedded] [--buffers N]
                          [--clock FILE]
Makes FOLDER/dev/shm/rss_ring_main (version 4, with its frames in rss_enc_main unless --embedded), rss_ring_audio and the
control socket FOLDER/var/run/rss/rvd.sock, and publishes in real time until it is ended. What it is told to set is said
on standard output. The program under test finds all that with HKSVD_ROOT=FOLDER. SIGUSR1 makes the rings anew, in other
files, as a streamer that starts again does.
"""

import argparse
import ctypes
import json
import mmap
import os
import pathlib
import platform
import signal
import socket
import struct
import threading
import time

SLOTS = 32
STRIDE = 262_144
FUTEX_WAKE = 1
FUTEX = {"x86_64": 202, "aarch64": 98, "armv7l": 240, "i686": 240}[platform.machine()]
LIBC = ctypes.CDLL(None, use_errno=True)
BUSY = (1 << 64) - 1


def access_units(stream):
    """Pictures of one slice each, with the parameter sets and SEI in front of them."""
    units, current, has_slice = [], bytearray(), False
    for nal in stream.split(b"\0\0\1")[1:]:
        nal = nal.rstrip(b"\0")
        kind = nal[0] & 31
        if has_slice and (kind not in (1, 5) or nal[1] & 0x80):
            units.append(bytes(current))
            current, has_slice = bytearray(), False
        current += b"\0\0\0\1" + nal
        has_slice = has_slice or kind in (1, 5)
    return [*units, bytes(current)]


def is_key(unit):
    """Whether it has an IDR slice."""
    return any(nal and nal[0] & 31 == 5 for nal in unit.split(b"\0\0\1"))


def adts(stream):
    """AAC frames with their ADTS headers."""
    frames, at = [], 0
    while at + 7 <= len(stream):
        size = (stream[at + 3] & 3) << 11 | stream[at + 4] << 3 | stream[at + 5] >> 5
        frames.append(stream[at : at + size])
        at += size
    return frames


def raw_aac(stream):
    """AAC frames alone."""
    return [frame[7 if frame[1] & 1 else 9 :] for frame in adts(stream)]


class Ring:
    """A header page, slots, and the bytes behind them or elsewhere."""

    def __init__(self, folder, name, fields, data, buffers=0):
        self.path, self.buffers = folder / f"rss_ring_{name}", buffers
        size = 4096 + 32 * SLOTS + (4096 if buffers else data)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        before = os.fstat(file).st_size
        incarnation = struct.unpack("<I", os.pread(file, 4, 60))[0] if before >= 4096 else 0
        os.ftruncate(file, size)
        self.memory = mmap.mmap(file, size)
        os.close(file)
        self.memory[52:56] = bytes(4)
        self.memory[0:52] = bytes(52)
        self.memory[56:192] = bytes(136)
        self.memory[4096 : 4096 + 32 * SLOTS] = b"\xff" * 32 * SLOTS
        self.data, self.head, self.sequence = data, 0, 0
        self.put(12, SLOTS)
        self.put(16, 4096 if buffers else data)
        for at, value in fields.items():
            self.put(at, value)
        self.encoder, self.filled = None, [0] * 8
        if buffers:
            with open(folder / f"rss_enc_{name}", "w+b") as encoder:
                encoder.truncate(buffers * STRIDE)
                self.encoder = mmap.mmap(encoder.fileno(), buffers * STRIDE)
            for at, value in {88: 1, 92: buffers, 96: buffers * STRIDE, 104: STRIDE}.items():
                self.put(at, value)
        self.put(56, 4)
        self.put(60, incarnation + 1)
        self.put(52, 0x52535352)

    def put(self, at, value):
        """A word of the header."""
        struct.pack_into("<I", self.memory, at, value)

    def take(self, at):
        """A word that a reader stores; 0 is left there."""
        value = struct.unpack_from("<I", self.memory, at)[0]
        if value:
            self.put(at, 0)
        return value

    def publish(self, frame, timestamp_us, key, nal_type):
        """The next frame."""
        self.sequence += 1
        slot = 4096 + 32 * (self.sequence % SLOTS)
        struct.pack_into("<Q", self.memory, slot, BUSY)
        buffer = self.sequence % self.buffers if self.buffers else 0
        if self.buffers:
            self.filled[buffer] += 1
            self.put(108 + 4 * buffer, self.filled[buffer])
            offset = buffer * STRIDE
            self.encoder[offset : offset + len(frame)] = frame
        else:
            if self.head + len(frame) > self.data:
                self.head = 0
            offset = self.head
            at = 4096 + 32 * SLOTS + offset
            self.memory[at : at + len(frame)] = frame
            self.head += len(frame)
            self.put(20, self.head)
        fields = (offset, len(frame), timestamp_us, nal_type, key, buffer, self.filled[buffer])
        struct.pack_into("<IIqHBBI", self.memory, slot + 8, *fields)
        struct.pack_into("<Q", self.memory, slot, self.sequence)
        struct.pack_into("<Q", self.memory, 0, self.sequence)
        self.put(8, self.sequence & 0xFFFFFFFF)
        word = ctypes.c_uint32.from_buffer(self.memory, 8)
        LIBC.syscall(FUTEX, ctypes.byref(word), FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)


def control(path, settings):
    """Answers on the encoder's control socket for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    while True:
        peer, _ = listener.accept()
        with peer, peer.makefile("rb") as requests:
            length = requests.read(2)
            if len(length) < 2:
                continue
            request = json.loads(requests.read(int.from_bytes(length, "big")))
            answer = {"status": "ok"}
            if request["cmd"] == "status":
                answer["streams"] = [{"chn": n, "codec": "h264", **one} for n, one in enumerate(settings)]
            elif request["cmd"] in ("set-bitrate", "set-gop"):
                settings[request["channel"]][request["cmd"][4:]] = request["value"]
                print(request["cmd"], request["channel"], request["value"], flush=True)
            else:
                answer = {"status": "error", "reason": "unknown command"}
            answer = json.dumps(answer).encode()
            peer.sendall(len(answer).to_bytes(2, "big") + answer)


def main():
    """Publishes until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--video", type=pathlib.Path, required=True)
    parser.add_argument("--audio", type=pathlib.Path)
    parser.add_argument("--fps", type=int, required=True)
    parser.add_argument("--embedded", action="store_true", help="refmode off: the frames are in the ring")
    parser.add_argument("--buffers", type=int, default=4, help="of the encoder, in refmode")
    parser.add_argument("--clock", help="a file that is kept as tests/clients/fed.py reads it")
    options = parser.parse_args()
    shm = options.root / "dev/shm"
    shm.mkdir(parents=True, exist_ok=True)
    pictures = access_units(options.video.read_bytes())
    keys = [is_key(picture) for picture in pictures]
    frames = raw_aac(options.audio.read_bytes()) if options.audio else []
    clock = None
    if options.clock:
        with open(options.clock, "r+b") as file:
            clock = mmap.mmap(file.fileno(), 16)
    settings = [{"bitrate": 3_000_000, "gop": 30, "fps": options.fps}, {"bitrate": 1_000_000, "gop": 30, "fps": 25}]
    sock = options.root / "var/run/rss/rvd.sock"
    threading.Thread(target=control, args=(sock, settings), daemon=True).start()

    def rings():
        video_fields = {24: 0, 28: 0, 32: 1280, 36: 720, 40: options.fps, 44: 1, 48: 0x2864}
        data, buffers = (2_000_000, 0) if options.embedded else (0, options.buffers)
        video = Ring(shm, "main", video_fields, data, buffers)
        audio = Ring(shm, "audio", {24: 0x10, 28: 97, 32: 1024, 40: 16000, 44: 1, 48: 2}, 131_072) if frames else None
        return video, audio

    restarts = []
    signal.signal(signal.SIGUSR1, lambda *_: restarts.append(True))
    video, audio = rings()
    began = time.monotonic()
    shown = heard = 0
    while True:
        due = min(shown / options.fps, heard * 1024 / 16000 if frames else float("inf"))
        time.sleep(max(0, began + due - time.monotonic()))
        if restarts:
            restarts.clear()
            for ring in (video, audio):
                if ring:
                    ring.path.unlink()
            video, audio = rings()
            print("restarted", flush=True)
        now_us = int((began + due) * 1e6)
        if shown / options.fps <= due:
            if clock is not None:
                struct.pack_into("<dQ", clock, 0, began, shown)
            # A key frame on request would be another picture than that of the file: it comes when it comes.
            video.take(64)
            n = shown % len(pictures)
            video.publish(pictures[n], now_us, keys[n], 0x13 if keys[n] else 0x14)
            shown += 1
        else:
            audio.publish(frames[heard % len(frames)], now_us, True, 97)
            heard += 1


if __name__ == "__main__":
    main()
