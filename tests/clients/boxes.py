#!/usr/bin/env python3
"""Checks a recording that record.py wrote: an fMP4 box parser of its own, then ffprobe and ffmpeg.

usage: boxes.py FILE.mp4 [--audio off] [--tones FIRST_HZ,STEP_HZ,COUNT]
FILE.d/ must lie beside it. --tones: the sound changes once a second through COUNT tones, in step with the picture's
clock of the demo clip; the offset between sound and media time is measured and must stay below 100 ms.
"""

import argparse
import array
import cmath
import json
import math
import pathlib
import subprocess
import sys

import steps
from steps import require

CONTAINERS = {"moov", "trak", "mdia", "minf", "dinf", "stbl", "mvex", "moof", "traf"}
SYNC, NON_SYNC = 0x02000000, 0x01010000


def u16(data, at=0):
    return int.from_bytes(data[at : at + 2], "big")


def u32(data, at=0):
    return int.from_bytes(data[at : at + 4], "big")


def u64(data, at=0):
    return int.from_bytes(data[at : at + 8], "big")


class Box:
    """One box: type, where it starts in its segment, payload, children."""

    def __init__(self, kind, at, payload):
        self.kind, self.at, self.payload = kind, at, payload
        self.children = parse(payload, at + 8) if kind in CONTAINERS else []

    def all(self, kind):
        return [child for child in self.children if child.kind == kind]

    def one(self, kind):
        found = self.all(kind)
        require(len(found) == 1, f"exactly one {kind} in {self.kind}", [c.kind for c in self.children])
        return found[0]

    def path(self, *kinds):
        box = self
        for kind in kinds:
            box = box.one(kind)
        return box

    @property
    def version(self):
        return self.payload[0]

    @property
    def flags(self):
        return int.from_bytes(self.payload[1:4], "big")


def parse(data, base=0):
    """Boxes that fill `data` to the last byte."""
    found, at = [], 0
    while at < len(data):
        require(at + 8 <= len(data), "a whole box header")
        size = u32(data, at)
        require(8 <= size <= len(data) - at, "a box inside its parent", (data[at + 4 : at + 8], size, len(data) - at))
        found.append(Box(data[at + 4 : at + 8].decode("latin1"), base + at, data[at + 8 : at + size]))
        at += size
    return found


def parameter_sets(avcc):
    """(profile bytes, SPS list, PPS list) of an avcC payload."""
    require(avcc[0] == 1, "avcC version 1", avcc[0])
    require(avcc[4] & 3 == 3, "NAL lengths of 4 bytes", avcc[4])
    at, sets = 6, []
    for count in (avcc[5] & 31, None):
        if count is None:
            count, at = avcc[at], at + 1
        found = []
        for _ in range(count):
            found.append(avcc[at + 2 : at + 2 + u16(avcc, at)])
            at += 2 + u16(avcc, at)
        sets.append(found)
    return avcc[1:4], *sets


def descriptor(data, wanted):
    """Payload of the first MPEG-4 descriptor with a tag, from a run of descriptors."""
    at = 0
    while at < len(data):
        tag, at, length = data[at], at + 1, 0
        while True:
            byte, at = data[at], at + 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if tag == wanted:
            return data[at : at + length]
        at += length
    raise steps.Failed(f"no descriptor {wanted} in esds")


class Track:
    """What the init segment says of a track, and where its time line is."""

    def __init__(self, trak):
        tkhd = trak.one("tkhd")
        self.id = u32(tkhd.payload, 20 if tkhd.version else 12)
        mdhd = trak.path("mdia", "mdhd")
        self.timescale = u32(mdhd.payload, 20 if mdhd.version else 12)
        self.handler = trak.path("mdia", "hdlr").payload[8:12].decode()
        table = trak.path("mdia", "minf", "stbl")
        stsd = table.one("stsd").payload
        require(u32(stsd, 4) == 1, "one sample entry", u32(stsd, 4))
        self.entry = parse(stsd[8:])[0]
        for empty in ("stts", "stsc", "stco"):
            require(u32(table.one(empty).payload, 4) == 0, f"{empty} has no entries")
        require(u32(table.one("stsz").payload, 8) == 0, "stsz has no entries")
        trak.path("mdia", "minf", "dinf")
        trak.path("mdia", "minf", "vmhd" if self.handler == "vide" else "smhd")
        self.next = self.first = None
        self.samples = 0

    def seconds(self, ticks):
        return ticks / self.timescale


def check_init(step, data, audio, stand_in):
    """ftyp + moov; the tracks by id."""
    top = parse(data)
    step.equal([b.kind for b in top], ["ftyp", "moov"], "the init segment is ftyp and moov, once each")
    moov = top[1]
    tracks = [Track(trak) for trak in moov.all("trak")]
    step.equal([t.handler for t in tracks], ["vide", "soun"] if audio else ["vide"], "with the tracks that were asked")
    extends = [u32(box.payload, 4) for box in moov.one("mvex").all("trex")]
    step.equal(extends, [t.id for t in tracks], "and a trex for each")
    require(u32(moov.one("mvhd").payload, 12) > 0, "a movie timescale")

    video = tracks[0].entry
    require(video.kind == "avc1", "avc1", video.kind)
    width, height = u16(video.payload, 24), u16(video.payload, 26)
    avcc = next(b for b in parse(video.payload[78:]) if b.kind == "avcC").payload
    profile, sps, pps = parameter_sets(avcc)
    require(len(sps) == 1 and len(pps) >= 1, "one SPS and a PPS", (len(sps), len(pps)))
    require(sps[0][0] & 31 == 7 and all(p[0] & 31 == 8 for p in pps), "that are SPS and PPS")
    step.equal(profile, sps[0][1:4], f"avc1 {width}x{height}: avcC repeats profile and level of its SPS")
    require(profile[0] in (66, 77, 100), "baseline, main or high", profile[0])
    if audio:
        sound = tracks[1].entry
        require(sound.kind == "mp4a", "mp4a", sound.kind)
        channels, bits, rate = u16(sound.payload, 16), u16(sound.payload, 18), u32(sound.payload, 24) >> 16
        esds = next(b for b in parse(sound.payload[28:]) if b.kind == "esds").payload[4:]
        config = descriptor(descriptor(esds, 3)[3:], 4)
        require(config[0] == 0x40 and config[1] == 0x15, "MPEG-4 audio", config[:2])
        asc = descriptor(config[13:], 5)
        kind, index, count = asc[0] >> 3, (asc[0] & 7) << 1 | asc[1] >> 7, asc[1] >> 3 & 15
        rates = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350]
        if stand_in:
            channels = count  # ffmpeg writes 2 into every mp4a
        step.equal((kind, rates[index], count, bits, tracks[1].timescale), (2, rate, channels, 16, rate),
                   f"mp4a {rate} Hz, {channels} channel: AudioSpecificConfig says the same")  # fmt: skip
    return {t.id: t for t in tracks}


def samples_of(traf, moof, segment, track):
    """(flags, duration, size, offset) of each sample of a traf."""
    tfhd = traf.one("tfhd")
    require(tfhd.flags & 0x020000, "default-base-is-moof", hex(tfhd.flags))
    require(not tfhd.flags & 1, "no base data offset")
    at, defaults = 8, {}
    for bit in (0x02, 0x08, 0x10, 0x20):
        if tfhd.flags & bit:
            defaults[bit] = u32(tfhd.payload, at)
            at += 4
    found = []
    for trun in traf.all("trun"):
        require(trun.flags & 1, "a data offset in trun")
        offset = moof.at + int.from_bytes(trun.payload[8:12], "big", signed=True)
        at, first = 12, None
        if trun.flags & 4:
            first, at = u32(trun.payload, at), at + 4
        for number in range(u32(trun.payload, 4)):
            value = {0x100: defaults.get(0x08), 0x200: defaults.get(0x10), 0x400: defaults.get(0x20, 0)}
            for bit in (0x100, 0x200, 0x400, 0x800):
                if trun.flags & bit:
                    value[bit] = u32(trun.payload, at)
                    at += 4
            require(not value.get(0x800), "no composition offsets without B-frames")
            flags = first if number == 0 and first is not None else value[0x400]
            require(value[0x100] and value[0x200], "every sample has a duration and a size", value)
            found.append((flags, value[0x100], value[0x200], offset))
            offset += value[0x200]
        require(at == len(trun.payload), "trun is as long as it says", (at, len(trun.payload)))
        require(offset <= len(segment), "samples lie inside the segment")
    require(found, f"samples for track {track.id}")
    return found


def nal_types(data):
    """NAL unit types of a length-prefixed sample."""
    at, found = 0, []
    while at < len(data):
        length = u32(data, at)
        require(0 < length <= len(data) - at - 4, "a NAL unit inside its sample", length)
        found.append(data[at + 4] & 31)
        at += 4 + length
    return found


def check_fragment(number, segment, tracks):
    """One moof, one mdat, IDR first, tfdt where the last one ended; the first sequence number."""
    top = parse(segment)
    require(
        [b.kind for b in top] == ["moof", "mdat"], f"fragment {number} is one moof and one mdat", [b.kind for b in top]
    )
    moof, mdat = top
    trafs = moof.all("traf")
    require(len(trafs) == len(tracks), f"fragment {number} has every track", len(trafs))
    covered = []
    for traf in trafs:
        track = tracks[u32(traf.one("tfhd").payload, 4)]
        tfdt = traf.one("tfdt")
        require(tfdt.version == 1, "tfdt version 1", tfdt.version)
        start = u64(tfdt.payload, 4)
        if track.next is None:
            track.first = track.next = start
        require(start == track.next, f"fragment {number}, track {track.id}: tfdt continues", (start, track.next))
        samples = samples_of(traf, moof, segment, track)
        track.next += sum(duration for _, duration, _, _ in samples)
        track.samples += len(samples)
        covered += [(offset, offset + size) for _, _, size, offset in samples]
        for index, (flags, duration, size, offset) in enumerate(samples):
            where = f"fragment {number}, track {track.id}, sample {index}"
            if track.handler == "soun":
                require(duration == 1024, f"{where}: an AAC frame is 1024 samples", duration)
                require(flags & NON_SYNC == 0, f"{where}: audio is sync", hex(flags))
                continue
            types = nal_types(segment[offset : offset + size])
            require(
                (5 in types) == (index == 0 or flags == SYNC), f"{where}: IDR and sync flag agree", (types, hex(flags))
            )
            require(5 in types or index > 0, f"{where}: a fragment starts with an IDR", types)
            require(flags == (SYNC if 5 in types else NON_SYNC), f"{where}: sample flags", hex(flags))
            require(not {9, 12} & set(types), f"{where}: no delimiters and no filler", types)
    covered.sort()
    require(covered[0][0] == mdat.at + 8 and covered[-1][1] == len(segment), "samples fill mdat")
    require(all(a[1] == b[0] for a, b in zip(covered, covered[1:])), "without holes and overlaps")
    by_handler = {t.handler: t for t in tracks.values()}
    if "soun" in by_handler:
        video, sound = by_handler["vide"], by_handler["soun"]
        apart = sound.seconds(sound.next) - video.seconds(video.next)
        require(abs(apart) <= 1024 / sound.timescale + 1e-4, f"fragment {number}: audio ends with video", apart)
    return u32(moof.one("mfhd").payload, 4)


def quiet(*command):
    """Runs a program that must print no complaint; what it printed on stdout."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    complaint = done.stderr.decode(errors="replace").strip()
    require(done.returncode == 0 and not complaint, f"{command[0]} finds nothing wrong", complaint[:400])
    return done.stdout


def decode(path):
    """Decodes every stream of a file to nothing."""
    quiet("ffmpeg", "-nostdin", "-v", "error", "-xerror", "-err_detect", "explode", "-i", str(path), "-map", "0",
          "-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-")  # fmt: skip


def tone_offset(path, start, tones):
    """Seconds by which the sound lags the media time line: where its tone changes against whole seconds."""
    rate, window = 16000, 160
    raw = quiet("ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-map", "0:a", "-ac", "1", "-ar", str(rate),
                "-f", "s16le", "-")  # fmt: skip
    pcm = array.array("h", raw)
    turns = [[cmath.exp(-2j * math.pi * hz * n / rate) for n in range(2 * window)] for hz in tones]
    heard = []
    for at in range(0, len(pcm) - 2 * window, window):
        piece = pcm[at : at + 2 * window]
        power = [abs(sum(s * t for s, t in zip(piece, turn))) for turn in turns]
        heard.append(power.index(max(power)))
    changes = [
        (i + 1) * window / rate for i in range(10, len(heard) - 10)
        if len(set(heard[i - 10 : i])) == 1 and len(set(heard[i + 1 : i + 11])) == 1 and heard[i - 1] != heard[i + 1]
    ]  # fmt: skip
    marks = [changes[0]] if changes else []
    marks += [b for a, b in zip(changes, changes[1:]) if b - a > 0.3]
    require(len(marks) >= 5, "the tone changes once a second", len(marks))
    return marks, start


def main():
    """Parses, runs, tells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--audio", choices=("on", "off"), default="on")
    parser.add_argument("--tones", help="FIRST_HZ,STEP_HZ,COUNT")
    parser.add_argument("--minimum", type=float, default=0, help="seconds of video wanted")
    parser.add_argument("--stand-in", action="store_true", help="ffmpeg made the file: accept what it always does")
    options = parser.parse_args()
    return steps.run("boxes", lambda step: body(step, options))


def body(step, options):
    """All checks of one file."""
    folder = pathlib.Path(options.file + ".d")
    init = (folder / "init.mp4").read_bytes()
    fragments = [path.read_bytes() for path in sorted(folder.glob("fragment-*.mp4"))]
    require(fragments, "fragments were written")
    require(pathlib.Path(options.file).read_bytes() == init + b"".join(fragments), "the parts make the file")
    tracks = check_init(step, init, options.audio == "on", options.stand_in)
    sequences = [check_fragment(number, fragment, tracks) for number, fragment in enumerate(fragments)]
    step.ok(f"{len(fragments)} fragments: one moof and one mdat each, IDR first, sync flags, samples fill mdat")
    step.check(all(b == a + 1 for a, b in zip(sequences, sequences[1:])), "mfhd counts up by one", sequences)
    for track in tracks.values():
        step.ok(f"{track.handler}: {track.samples} samples, tfdt without a gap, "
                f"{track.seconds(track.next - track.first):.3f} s")  # fmt: skip
    video = next(t for t in tracks.values() if t.handler == "vide")
    length = video.seconds(video.next - video.first)
    step.check(length >= options.minimum, f"at least {options.minimum} s of video", length)
    if options.audio == "on":
        sound = next(t for t in tracks.values() if t.handler == "soun")
        ahead = sound.seconds(sound.first) - video.seconds(video.first)
        step.check(
            abs(ahead) <= 1024 / sound.timescale + 1e-4, f"audio starts {ahead * 1000:+.1f} ms from video", ahead
        )
        step.ok("audio ends within one AAC frame of the video in every fragment")

    joined = folder / "joined.mp4"
    for number, fragment in enumerate(fragments):
        joined.write_bytes(init + fragment)
        decode(joined)
    joined.unlink()
    step.ok(f"ffmpeg decodes init + each of {len(fragments)} fragments without a word")
    decode(options.file)
    step.ok("and the whole file")
    probed = json.loads(quiet("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", options.file))
    frames = {s["codec_type"]: (s["codec_name"], int(s["nb_read_frames"])) for s in probed["streams"]}
    step.check(frames["video"] == ("h264", video.samples), f"ffprobe counts {video.samples} frames", frames)
    step.equal("audio" in frames, options.audio == "on", "and finds audio exactly when it was asked for")
    if options.tones:
        first_hz, step_hz, count = (int(n) for n in options.tones.split(","))
        marks, _ = tone_offset(options.file, 0, [first_hz + step_hz * n for n in range(count)])
        # The sound begins at the audio track's tfdt; the demo clip changes its tone on whole seconds of media time
        # counted from the first picture of the clip, which is why only the phase can be measured.
        sound = next(t for t in tracks.values() if t.handler == "soun")
        phases = [(mark + sound.seconds(sound.first) - video.seconds(video.first)) % 1.0 for mark in marks]
        spread = max(phases) - min(phases)
        if spread > 0.5:
            phases = [p - 1 if p > 0.5 else p for p in phases]
            spread = max(phases) - min(phases)
        phase = sum(phases) / len(phases)
        phase -= round(phase)
        step.check(spread < 0.1, f"{len(marks)} tone changes one second apart, spread {spread * 1000:.0f} ms", phases)
        step.check(abs(phase) < 0.1, f"lip sync: the tone changes {phase * 1000:+.0f} ms from whole seconds", phase)


if __name__ == "__main__":
    sys.exit(main())
