"""ffmpeg as the one who watches: it is given an SDP file with the camera's keys and decrypts and decodes by itself."""

import asyncio
import base64
import contextlib
import json
import math
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time

from steps import require


def ffmpeg_version():
    """Its first line."""
    return subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _free_port():
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1] & ~1
        # Which one of the pair it was is chance.
        if not any(map(_is_open, (port, port + 1))):
            return port


def _is_open(port):
    """Whether somebody listens on this UDP port of IPv4."""
    lines = pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
    return any(int(line.split()[1].rpartition(":")[2], 16) == port for line in lines)


class _Watcher:
    medium = rtpmap = ""

    def __init__(self, name, keys):
        self.port = _free_port()
        self.name = pathlib.Path(f"{name}.{self.medium}")
        inline = base64.b64encode(keys.key + keys.salt).decode()
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=live", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [f"m={self.medium} {self.port} RTP/SAVP {self.rtpmap.split()[0]}", f"a=rtpmap:{self.rtpmap}"]
        lines += self.extra + [f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{inline}"]
        self.sdp = self.name.with_suffix(self.name.suffix + ".sdp")
        self.sdp.write_text("\n".join(lines) + "\n")
        self.log = self.name.with_suffix(self.name.suffix + ".log")
        self.process = None

    extra = []

    async def begin(self):
        """Starts ffmpeg; it listens when this returns."""
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                "ffmpeg", "-nostdin", "-y", "-v", "warning", "-protocol_whitelist", "file,udp,rtp,srtp",
                "-analyzeduration", "1000000", "-buffer_size", str(8 << 20), "-i", str(self.sdp), *self.output(),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 20
        while not _is_open(self.port):
            require(time.monotonic() < end and self.process.returncode is None, f"ffmpeg listens ({self.log})")
            await asyncio.sleep(0.05)

    def output(self):
        """Where it goes."""
        raise NotImplementedError

    async def stop(self):
        """Ends ffmpeg as a person would, with Ctrl-C; it finishes its file. The camera's BYE may have ended it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(self.process.wait(), 20)


class Picture(_Watcher):
    """The video."""

    medium = "video"
    rtpmap = "99 H264/90000"
    extra = ["a=fmtp:99 packetization-mode=1"]

    @property
    def file(self):
        """What was received, not encoded again."""
        return self.name.with_suffix(".mkv")

    def output(self):
        """Copied."""
        return ["-c", "copy", str(self.file)]

    def probe(self, *options):
        """ffprobe's answer about the video, and what it had to say."""
        probe = subprocess.run(
            ["ffprobe", "-v", "error", "-select_streams", "v", *options, "-of", "json", str(self.file)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(probe.stdout)["streams"][0], probe.stderr.splitlines()

    async def end(self, whole=True):
        """Stops; how many pictures decode, their size and what ffmpeg had to say. The last one only if it is whole."""
        await self.stop()
        received = int(self.probe("-count_packets", "-show_entries", "stream=nb_read_packets")[0]["nb_read_packets"])
        stream, said = self.probe("-count_frames", "-read_intervals", f"%+#{received if whole else received - 1}",
                                  "-show_entries", "stream=nb_read_frames,width,height")  # fmt: skip
        words = [line for line in self.log.read_text(errors="replace").splitlines() if complaint(line)]
        return {
            "frames": int(stream["nb_read_frames"]), "width": stream["width"], "height": stream["height"],
            "errors": words + [line for line in said if complaint(line)],
        }  # fmt: skip


def complaint(line):
    """Whether a line of ffmpeg's log is about what was received, not about how it was called."""
    return bool(re.search(r"h264|opus|missed|missing|decod|corrupt|invalid|srtp|hmac|nal", line, re.IGNORECASE)) and not (
        "Timestamps are unset" in line or "deprecated" in line
    )


class Sound(_Watcher):
    """The audio."""

    medium = "audio"

    def __init__(self, name, keys, rate_hz):
        # RFC 7587 says 48000; HomeKit counts in the rate that was negotiated.
        self.rtpmap = f"110 opus/{rate_hz}/1"
        super().__init__(name, keys)

    @property
    def file(self):
        """Decoded."""
        return self.name.with_suffix(".wav")

    def output(self):
        """Decoded to 16 kHz mono."""
        return ["-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", str(self.file)]

    async def end(self):
        """Stops; seconds, and the loudest frequency in the middle of each second that is not silent."""
        await self.stop()
        raw = self.file.read_bytes()
        pcm = [s[0] for s in struct.iter_unpack("<h", raw[raw.index(b"data") + 8 :][: (len(raw) - 100) & ~1])]
        tones = []
        for at in range(0, len(pcm) - 1600, 4000):
            piece = pcm[at : at + 1600]
            if rms(piece) > 300:
                tones.append(loudest_hz(piece, 16000))
        # A piece across a change of tone is neither: only what two pieces in a row agree on counts.
        steady = [a for a, b in zip(tones, tones[1:]) if abs(a - b) < 5]
        return {"seconds": len(pcm) / 16000, "tones": steady, "rms": rms(pcm)}


def rms(pcm):
    """Root mean square."""
    return math.sqrt(sum(s * s for s in pcm) / max(1, len(pcm)))


def loudest_hz(pcm, rate_hz):
    """The frequency with the most energy between 100 and 2000 Hz, by Goertzel."""

    def power(hz):
        w = 2 * math.cos(2 * math.pi * hz / rate_hz)
        a = b = 0.0
        for s in pcm:
            a, b = s + w * a - b, a
        return a * a + b * b - w * a * b

    width = max(1, rate_hz // max(1, len(pcm)))
    coarse = max(range(100, 2000, width), key=power)
    return max((coarse + d * width / 8 for d in range(-8, 9)), key=power)


def ogg_opus(hz, seconds, packet_ms):
    """Opus packets of a tone, encoded by ffmpeg's libopus."""
    made = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", f"sine=frequency={hz}:duration={seconds}:sample_rate=48000",
         "-af", "volume=4", "-ac", "1", "-c:a", "libopus", "-application", "voip", "-frame_duration", str(packet_ms), "-b:a", "24k", "-f", "ogg", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    packets, part, at = [], b"", 0
    while at < len(made):
        if made[at : at + 4] != b"OggS":
            raise ValueError("not Ogg")
        lacing = made[at + 27 : at + 27 + made[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            part += made[at : at + size]
            at += size
            if size < 255:
                packets.append(part)
                part = b""
    return packets[2:]  # behind OpusHead and OpusTags
