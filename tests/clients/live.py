#!/usr/bin/env python3
"""A controller that watches: live view, talk-back, and what ends them.

usage: live.py --port N --socket PATH --out FOLDER [--talk FIFO] [--seconds S] [VARIANT]
What the camera sends goes to ffmpeg as it is (SRTP by an SDP file) and to libsrtp beside it, which also seals the
reports and the talk-back. The accessory must be unpaired; it is unpaired again at the end.
"""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import struct
import sys
import time

import hub
import steps
from hub import item
from rtp import Endpoint, Keys, Receiver, depacketise, is_rtcp, rtcp_items
from steps import require
from watch import Picture, Sound, ffmpeg_version, loudest_hz, ogg_opus, rms

from aiohomekit.model.characteristics.structs import (
    StreamingStatus,
    SupportedAudioStreamConfiguration,
    SupportedRTPConfiguration,
    SupportedVideoStreamConfiguration,
)

END, START, SUSPEND, RESUME, RECONFIGURE = range(5)
VIDEO, AUDIO = 0, 1
PAYLOAD = {VIDEO: 99, AUDIO: 110}
UNAVAILABLE, INVALID = -70412, -70410


def u16(value):
    """Little-endian, as TLV8 has it."""
    return value.to_bytes(2, "little")


def u32(value):
    """Little-endian, as TLV8 has it."""
    return value.to_bytes(4, "little")


class View:
    """One live view as its controller sees it."""

    def __init__(self, session, number, options):
        self.session, self.number, self.options = session, number, options
        self.id = os.urandom(16)
        self.keys = {VIDEO: Keys.draw(), AUDIO: Keys.draw()}
        self.ssrc = {VIDEO: 0x1000_0001 + number, AUDIO: 0x2000_0001 + number}
        self.receivers, self.endpoints = {}, {}
        self.answer = None
        self.reports = None
        self.rate_hz, self.packet_ms = 24000, 20

    async def open_ports(self, host):
        """UDP ports of the controller."""
        for medium in (VIDEO, AUDIO):
            self.endpoints[medium] = await Endpoint.open(host)

    def request(self, host, **wrong):
        """The value of 118; `wrong` replaces or (None) leaves out parts."""
        parts = {
            "session": item(1, self.id),
            "address": item(3, item(1, b"\1" if ":" in host else b"\0") + item(2, host.encode())
                            + item(3, u16(self.endpoints[VIDEO].port)) + item(4, u16(self.endpoints[AUDIO].port))),
            "video": item(4, self.keys[VIDEO].tlv()),
            "audio": item(5, self.keys[AUDIO].tlv()),
        }  # fmt: skip
        parts.update(wrong)
        return b"".join(part for part in parts.values() if part is not None)

    async def put_endpoints(self, value):
        """Writes 118; the status, 0 for none."""
        return await put_tlv(self.session, "118", self.number, value)

    async def endpoints_read(self):
        """Reads 118: items."""
        return dict(hub.base64_tlv(await self.session.value("110", "118", self.number)))

    async def set_up(self, host=None):
        """118 written and read; the status of the answer."""
        host = host or self.options.host
        if not self.endpoints:
            await self.open_ports(host)
        status = await self.put_endpoints(self.request(host))
        require(status == 0, "118 is accepted", status)
        answer = await self.endpoints_read()
        if answer[2] != b"\0":
            return answer[2][0]
        require(answer[1] == self.id, "the answer is about our session")
        address = dict(hub.tlv(answer[3]))
        require(address[1] == (b"\1" if ":" in host else b"\0"), "the address is of the family asked for")
        self.answer = {
            "host": address[2].decode(),
            VIDEO: (int.from_bytes(address[3], "little"), int.from_bytes(answer[6], "little")),
            AUDIO: (int.from_bytes(address[4], "little"), int.from_bytes(answer[7], "little")),
        }
        for medium, kind in ((VIDEO, 4), (AUDIO, 5)):
            keys = Keys.from_tlv(answer[kind])
            self.receivers[medium] = Receiver(keys, self.answer[medium][1])
            self.endpoints[medium].follow(self.receivers[medium], (self.answer["host"], self.answer[medium][0]))
        return 0

    def selected(self, command, width=1280, height=720, kbps=2000, fps=30, mtu=None, rate_hz=24000, packet_ms=20):
        """The value of 117."""
        control = item(1, item(1, self.id) + item(2, bytes([command])))
        if command in (END, SUSPEND, RESUME):
            return control
        self.rate_hz, self.packet_ms = rate_hz, packet_ms
        size = item(1, u16(width)) + item(2, u16(height)) + item(3, bytes([fps]))
        interval = struct.pack("<f", 0.5 if command == START else 0.0)
        rtp = item(1, bytes([PAYLOAD[VIDEO]])) + item(2, u32(self.ssrc[VIDEO])) + item(3, u16(kbps)) + item(4, interval)
        rtp += b"" if mtu is None else item(5, u16(mtu))
        if command == RECONFIGURE:
            return control + item(2, item(3, size) + item(4, rtp))
        codec = item(1, b"\1") + item(2, b"\2") + item(3, b"\0")
        video = item(1, b"\0") + item(2, codec) + item(3, size) + item(4, rtp)
        codec = item(1, b"\1") + item(2, b"\0") + item(3, bytes([{16000: 1, 24000: 2}[rate_hz]]))
        codec += item(4, bytes([packet_ms]))
        rtp = item(1, bytes([PAYLOAD[AUDIO]])) + item(2, u32(self.ssrc[AUDIO])) + item(3, u16(24))
        rtp += item(4, struct.pack("<f", 5.0)) + item(6, bytes([13]))
        audio = item(1, b"\3") + item(2, codec) + item(3, rtp) + item(4, b"\0")
        return control + item(2, video) + item(3, audio)

    async def control(self, command, **numbers):
        """Writes 117; the status, 0 for none."""
        return await put_tlv(self.session, "117", self.number, self.selected(command, **numbers))

    async def start(self, reports=True, **numbers):
        """117 start; from then on a receiver report a second."""
        self.began = time.monotonic()
        status = await self.control(START, **numbers)
        if status == 0 and reports:
            self.reports = asyncio.create_task(self.report())
        return status

    async def report(self):
        """Receiver reports, until it is cancelled."""
        while True:
            for medium in (VIDEO, AUDIO):
                self.send_rtcp(medium, self.receivers[medium].report(self.ssrc[medium]))
            await asyncio.sleep(1)

    def send_rtcp(self, medium, plain):
        """Seals a compound packet and sends it."""
        self.endpoints[medium].send(self.keys[medium].seal_rtcp(plain))

    def pli(self):
        """Picture loss indication (RFC 4585 §6.3.1)."""
        theirs = self.answer[VIDEO][1]
        empty = struct.pack(">BBHI", 0x80, 201, 1, self.ssrc[VIDEO])
        self.send_rtcp(VIDEO, empty + struct.pack(">BBHII", 0x81, 206, 2, self.ssrc[VIDEO], theirs))

    def close(self):
        """Gives the ports back."""
        if self.reports is not None:
            self.reports.cancel()
        for endpoint in self.endpoints.values():
            endpoint.close()


async def put_tlv(session, characteristic, instance, value):
    """Writes a tlv8 value; the status, 0 for none."""
    entry = {"iid": session.iid("110", characteristic, instance), "value": base64.b64encode(value).decode()}
    answer = await session.put(entry)
    return answer[0].get("status", 0) if answer else 0


async def streaming_status(session, number):
    """120 as aiohomekit reads it."""
    value = base64.b64decode(await session.value("110", "120", number))
    return int(StreamingStatus.decode(value).status)


async def quiet(receiver):
    """Datagrams of a view that is told to be quiet: what has come so far may wait in our socket when we are late."""
    end = time.monotonic() + 5
    count = None
    while count != (count := len(receiver.packets)) and time.monotonic() < end:
        await asyncio.sleep(0.3)
    return count


async def offers(step, session):
    """114, 115 and 116, read by aiohomekit's own structures."""
    for number in range(len([kind for kind, _ in session.services if kind == "110"])):
        raw = [base64.b64decode(await session.value("110", kind, number)) for kind in ("114", "115", "116")]
        video = SupportedVideoStreamConfiguration.decode(raw[0])
        sizes = {(a.width, a.height, a.fps) for config in video.config for a in config.video_attrs}
        for size in ((1920, 1080, 30), (1280, 720, 30), (640, 360, 30), (480, 270, 30), (320, 240, 15)):
            require(size in sizes, f"114 offers {size}", sizes)
        audio = SupportedAudioStreamConfiguration.decode(raw[1])
        require([int(c.codec) for c in audio.config] == [3], "115 offers Opus alone", audio)
        require(audio.comfort_noise == 0, "no comfort noise", audio)
        require(int(SupportedRTPConfiguration.decode(raw[2]).srtp_crypto_suite) == 0, "116 offers AES_CM_128")
        require(await streaming_status(session, number) == 0, "120 says available")
        idle = await View(session, number, None).endpoints_read()
        require(idle == {2: b"\2"}, "118 reads as idle", idle)
    step.ok("114, 115, 116, 118 and 120 are what aiohomekit expects, in every stream service")


async def watched(step, session, options):
    """A good view, seen by ffmpeg; the figures."""
    folder = pathlib.Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    other = await hub.Session.again(session).verify()
    await other.load()
    status_iid = other.iid("110", "120", 0)
    require(await other.put({"iid": status_iid, "ev": True}) == [], "subscribed to 120")

    view = View(session, 0, options)
    step.equal(await view.set_up(), 0, "118: the camera is ready")
    require(await View(other, 0, options).endpoints_read() == {2: b"\2"}, "the answer is for who wrote it")
    picture, sound = Picture(folder / "live", view.receivers[VIDEO].keys), None
    await picture.begin()
    view.receivers[VIDEO].also(picture.port)
    if options.sound != "none":
        sound = Sound(folder / "live", view.receivers[AUDIO].keys, view.rate_hz)
        await sound.begin()
        view.receivers[AUDIO].also(sound.port)
    await asyncio.sleep(options.settle)
    step.equal(await view.start(), 0, "117 start")
    event = await other.event(status_iid, within=3)
    step.check(event is not None and hub.base64_tlv(event) == [(1, b"\1")], "120 says in use, by an event", event)
    await asyncio.sleep(options.seconds)

    video = view.receivers[VIDEO]
    frames = depacketise(video.packets)
    require(frames, "pictures come")
    kinds = [nal & 31 for nal in frames[0].types]
    step.check(kinds[:2] == [7, 8] and 5 in kinds, "the first picture is SPS, PPS and IDR", kinds)
    first_ms = (frames[0].whole - view.began) * 1000
    step.ok(f"first picture {first_ms:.0f} ms after the start command")
    step.check(video.gaps() == 0 and video.bad == 0, f"{len(video.packets)} packets of video, no gap",
               (video.gaps(), video.bad))  # fmt: skip
    limit = 1378 - 20
    largest = max(video.sizes)
    step.check(largest <= limit - 8, f"no datagram is larger than the MTU allows ({largest} bytes)")
    times = [f.timestamp for f in frames]
    back = sum((b - a) & 0xFFFF_FFFF >= 1 << 31 for a, b in zip(times, times[1:]))
    step.equal(back, 0, "RTP time never goes back")
    backlog = [f for f in frames if f.whole - view.began < 0.6]
    late = frames[-1]
    span = ((late.timestamp - frames[0].timestamp) & 0xFFFF_FFFF) / 90000
    step.check(abs(span - (late.whole - frames[0].whole)) < 1.0,
               f"RTP time follows the clock: {span:.2f} s in {late.whole - frames[0].whole:.2f} s",
               (span, late.whole - frames[0].whole))  # fmt: skip
    reports = video.sender_reports()
    step.check(len(reports) >= options.seconds and all(r["cname"] for r in reports),
               f"{len(reports)} sender reports with CNAME in {options.seconds:.0f} s")  # fmt: skip
    step.check(reports[0]["at"] <= frames[0].whole + 0.5, "the first with the first packets")
    figures = {
        "first_picture_ms": round(first_ms, 1), "pictures_in_backlog": len(backlog), "pictures": len(frames),
        "video_kbps": round(sum(video.sizes) * 8 / 1000 / options.seconds), "packets": len(video.packets),
    }  # fmt: skip

    if sound is not None:
        audio = view.receivers[AUDIO]
        stamps = [p.timestamp for p in audio.packets]
        steps_seen = {(b - a) & 0xFFFF_FFFF for a, b in zip(stamps, stamps[1:])}
        step.check(steps_seen == {view.rate_hz * view.packet_ms // 1000},
                   f"{len(audio.packets)} packets of Opus, {view.packet_ms} ms each in RTP time", steps_seen)  # fmt: skip
        step.check(len(audio.sender_reports()) >= 1, "sender reports for audio")
        figures["audio_packets"] = len(audio.packets)

    if options.talk:
        await talk(step, view, options)
    view.pli()
    await asyncio.sleep(0.3)
    before = len(video.packets)
    hostile(view)
    await asyncio.sleep(0.5)
    step.check(len(video.packets) > before, "garbage, wrong keys and replays on both ports change nothing")

    step.equal(await view.control(RECONFIGURE, width=640, height=360, kbps=132), 0, "117 reconfigure")
    await asyncio.sleep(1.5)
    step.check(video.gaps() == 0 and len({p.ssrc for p in video.packets}) == 1, "goes on with the same SSRC and sequence")
    step.equal(await view.control(SUSPEND), 0, "117 suspend")
    silent = await quiet(video)
    await asyncio.sleep(1)
    step.equal(len(video.packets), silent, "nothing is sent while suspended")
    step.equal(await view.control(RESUME), 0, "117 resume")
    await asyncio.sleep(5)
    step.check(len(video.packets) > silent and video.gaps() == 0, "and it goes on")
    other.forget_events()
    step.equal(await view.control(END), 0, "117 end")
    event = await other.event(status_iid, within=3)
    step.check(event is not None and hub.base64_tlv(event) == [(1, b"\0")], "120 says available, by an event", event)
    over = await quiet(video)
    await asyncio.sleep(1)
    step.equal(len(video.packets), over, "nothing is sent any more")
    require(await view.endpoints_read() == {2: b"\2"}, "118 is idle again")
    step.equal(await view.control(END), 0, "a second end is no error")
    require(await view.control(START) == INVALID, "start of a session that is over is refused")
    view.close()

    # The end may come within a picture: what was sent of it is nothing to decode.
    seen = await picture.end(whole=video.packets[-1].marker)
    decoded, words = seen["frames"], seen["errors"]
    step.check(not words, "ffmpeg decrypted and decoded the video without a word", words)
    step.check(decoded > options.seconds * 10, f"{decoded} pictures of {seen['width']}x{seen['height']}", decoded)
    figures.update(decoded=decoded, width=seen["width"], height=seen["height"])
    if sound is not None:
        heard = await sound.end()
        step.check(heard["seconds"] > options.seconds * 0.8, f"ffmpeg decoded {heard['seconds']:.1f} s of sound", heard)
        if options.tones:
            start, width, count = map(int, options.tones.split(","))
            wanted = [start + width * n for n in range(count)]
            near = [min(wanted, key=lambda w: abs(w - hz)) for hz in heard["tones"]]
            step.check(all(abs(a - b) < 15 for a, b in zip(heard["tones"], near)) and len(set(near)) >= 3,
                       f"the tones of the clip: {[round(hz) for hz in heard['tones']]} Hz", heard["tones"])  # fmt: skip
        figures["sound_s"] = round(heard["seconds"], 2)
    await other.close()
    (folder / "live.json").write_text(json.dumps(figures, indent=1) + "\n")


def hostile(view):
    """What must not have any effect."""
    wrong = Keys.draw()
    for medium in (VIDEO, AUDIO):
        endpoint, report = view.endpoints[medium], view.receivers[medium].report(view.ssrc[medium])
        for packet in (b"", b"\x80", bytes(12), os.urandom(200), b"\x80\xc8" + os.urandom(30), os.urandom(1472),
                       wrong.seal_rtcp(report), wrong.seal_rtp(rtp_packet(110, 5, 5, view.ssrc[medium], b"\0" * 40))):  # fmt: skip
            endpoint.send(packet)
        good = view.keys[medium].seal_rtcp(report)
        for _ in range(3):
            endpoint.send(good)
        bye = wrong.seal_rtcp(struct.pack(">BBHI", 0x81, 203, 1, view.ssrc[medium]))
        endpoint.send(bye)


def rtp_packet(kind, sequence, timestamp, ssrc, payload):
    """RFC 3550 §5.1."""
    return struct.pack(">BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFF_FFFF, ssrc) + payload


async def talk(step, view, options):
    """Opus made by ffmpeg goes in as SRTP; the FIFO behind the speaker must give the same tone."""
    hz = 770
    seconds = 6
    packets = ogg_opus(hz, seconds=seconds, packet_ms=view.packet_ms)
    # A FIFO that is read all the time, as an amplifier reads it.
    taken = bytearray()
    fd = os.open(options.talk, os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()

    def take():
        with contextlib.suppress(BlockingIOError):
            taken.extend(os.read(fd, 65536))

    loop.add_reader(fd, take)
    await asyncio.sleep(3)  # the daemon looks for a reader once a second
    samples = view.rate_hz * view.packet_ms // 1000
    began, sequence = time.monotonic(), 1000
    keys = view.keys[AUDIO]
    for n, payload in enumerate(packets):
        packet = keys.seal_rtp(rtp_packet(PAYLOAD[AUDIO], sequence + n, 7000 + n * samples, view.ssrc[AUDIO], payload))
        if n % 50 == 10:
            continue  # one of fifty is lost
        view.endpoints[AUDIO].send(packet)
        if n % 50 == 20:
            view.endpoints[AUDIO].send(packet)  # and one comes twice
        await asyncio.sleep(max(0.0, began + (n + 1) * view.packet_ms / 1000 - time.monotonic()))
    await asyncio.sleep(1)
    loop.remove_reader(fd)
    os.close(fd)
    pcm = [s[0] for s in struct.iter_unpack("<h", bytes(taken[: len(taken) & ~1]))]
    heard = [s for s in pcm if s] or [0]
    out_s = len(heard) / options.talk_rate
    step.check(out_s > 0.625 * seconds, f"talk-back: {out_s:.1f} s came out", len(pcm))
    middle = pcm[len(pcm) // 3 :][: options.talk_rate]
    found = loudest_hz(middle, options.talk_rate)
    step.check(abs(found - hz) < 8, f"the tone of {hz} Hz that was said: {found:.0f} Hz")
    step.check(rms(middle) > 1000, f"as loud as it was (rms {rms(middle):.0f})", rms(middle))


async def crowd(step, session, options):
    """Two views at once, a third is told busy; the camera goes off; a connection goes away."""
    count = len([kind for kind, _ in session.services if kind == "110"])
    step.check(count >= 2, f"{count} stream services")
    views = []
    for number in range(count):
        view = View(session, number, options)
        require(await view.set_up() == 0, f"view {number} is set up")
        require(await view.start() == 0, f"view {number} starts")
        views.append(view)
    await asyncio.sleep(1.5)
    step.check(all(len(v.receivers[VIDEO].packets) > 20 for v in views), f"{count} views at once")
    other = await hub.Session.again(session).verify()
    await other.load()
    third = View(other, 0, options)
    step.equal(await third.set_up(), 1, "one more is told busy")
    before = len(views[0].receivers[VIDEO].packets)
    await asyncio.sleep(0.5)
    step.check(len(views[0].receivers[VIDEO].packets) > before, "and those that run do not notice")
    require(await views[1].control(END) == 0, "end")
    status_iid = other.iid("110", "120", 0)
    require(await other.put({"iid": status_iid, "ev": True}) == [], "subscribed to 120")

    await session.write("21A", "21B", 0)
    event = await other.event(status_iid, within=3)
    step.check(event is not None and hub.base64_tlv(event) == [(1, b"\0")], "camera off: the view ends", event)
    over = await quiet(views[0].receivers[VIDEO])
    await asyncio.sleep(1)
    step.equal(len(views[0].receivers[VIDEO].packets), over, "nothing is sent any more")
    fresh = View(session, 0, options)
    await fresh.open_ports(options.host)
    step.equal(await fresh.put_endpoints(fresh.request(options.host)), UNAVAILABLE, "118 is refused while it is off")
    await session.write("21A", "21B", 1)
    await session.write("110", "B0", 0, instance=1)
    last = View(session, 1, options)
    await last.open_ports(options.host)
    step.equal(await last.put_endpoints(last.request(options.host)), UNAVAILABLE, "and where Active is 0")
    await session.write("110", "B0", 1, instance=1)

    for name, wrong in {
        "no session": {"session": None}, "no address": {"address": None}, "no video keys": {"video": None},
        "no audio keys": {"audio": None}, "a short key": {"video": item(4, item(1, b"\0") + item(2, b"x" * 15) + item(3, b"y" * 14))},
        "a short session": {"session": item(1, b"short")}, "no text for an address": {"address": item(3, item(1, b"\0") + item(2, b"here") + item(3, u16(1)) + item(4, u16(2)))},
    }.items():  # fmt: skip
        status = await fresh.put_endpoints(fresh.request(options.host, **wrong))
        answer = await fresh.endpoints_read()
        require((status, answer) == (INVALID, {2: b"\2"}), f"{name}: refused, and nothing is set up", (status, answer))
    step.ok("endpoints with missing or wrong parts are refused")
    # It is one of HAP's, but 116 does not offer it: the answer is about this session, and it is an error.
    long_keys = item(1, b"\1") + item(2, bytes(32)) + item(3, bytes(14))
    status = await fresh.put_endpoints(fresh.request(options.host, video=item(4, long_keys), audio=item(5, long_keys)))
    answer = await fresh.endpoints_read()
    step.equal((status, answer), (0, {1: fresh.id, 2: b"\2"}), "keys of 256 bits are answered with an error")
    require(await streaming_status(session, 0) == 0, "and nothing is in use")

    gone = await hub.Session.again(session).verify()
    await gone.load()
    view = View(gone, 0, options)
    require(await view.set_up() == 0 and await view.start() == 0, "a view of another connection")
    # Nothing was held while the camera was off: it begins with the next key frame.
    async with asyncio.timeout(10):
        while not view.receivers[VIDEO].packets:
            await asyncio.sleep(0.1)
    other.forget_events()
    await gone.close()
    event = await other.event(status_iid, within=5)
    step.check(event is not None and hub.base64_tlv(event) == [(1, b"\0")], "its connection closes: the view ends", event)
    view.close()
    for view in (*views, fresh, last, third):
        view.close()
    await other.close()


async def silence(step, session, options):
    """Nobody reports: the view ends by itself after 30 s."""
    view = View(session, 0, options)
    require(await view.set_up() == 0 and await view.start(reports=False) == 0, "a view without reports")
    unused = View(session, 1, options)
    require(await unused.set_up() == 0, "a view that is never started")
    began = time.monotonic()
    while await streaming_status(session, 0) != 0:
        require(time.monotonic() - began < 40, "it ends")
        await asyncio.sleep(0.5)
    took = time.monotonic() - began
    step.check(25 < took, f"no report: the view ends after {took:.0f} s")
    while await streaming_status(session, 1) != 0:
        require(time.monotonic() - began < 45, "it ends")
        await asyncio.sleep(0.5)
    step.ok("and one that was never started is forgotten")
    for v in (view, unused):
        v.close()


async def ipv6(step, session, options):
    """The same over IPv6."""
    view = View(session, 0, options)
    require(await view.set_up() == 0, "118 over IPv6")
    require(":" in view.answer["host"], "an IPv6 address is answered", view.answer)
    require(await view.start(mtu=1280) == 0, "start")
    await asyncio.sleep(3)
    video = view.receivers[VIDEO]
    frames = depacketise(video.packets)
    step.check(len(frames) > 20 and video.gaps() == 0, f"{len(frames)} pictures over IPv6")
    step.check(max(video.sizes) <= 1280 - 48, f"within the MTU of 1280: {max(video.sizes)} bytes")
    require(await view.control(END) == 0, "end")
    view.close()


async def whole(step, options):
    """Pairs, plays the chosen part, unpairs."""
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    step.ok("paired and verified")
    part = {"crowd": crowd, "silence": silence, "ipv6": ipv6}.get(options.variant, watched)
    if part is watched:
        print(f"# {ffmpeg_version()}")
        await offers(step, session)
    await part(step, session, options)
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    await session.close()
    step.ok("unpaired")


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--out", default="target/test-logs/live", help="folder for what was received")
    parser.add_argument("--seconds", type=float, default=9, help="how long to watch")
    parser.add_argument("--settle", type=float, default=3, help="seconds the camera runs before the start")
    parser.add_argument("--sound", choices=("opus", "none"), default="opus", help="what the camera can send")
    parser.add_argument("--tones", help="start,step,count of the tones in the sound, in Hz")
    parser.add_argument("--talk", help="FIFO behind the speaker")
    parser.add_argument("--talk-rate", type=int, default=16000, help="its sample rate")
    parser.add_argument("--variant", choices=("crowd", "silence", "ipv6"))
    options = parser.parse_args()
    return steps.run("live", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
