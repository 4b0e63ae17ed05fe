"""What live view offers and answers, read by aiohomekit's TLV reader."""

import base64
import ipaddress
import os
from dataclasses import dataclass

from aiohomekit.model.characteristics import const, structs
from aiohomekit.tlv8 import TLVStruct, tlv_entry, u8, u16, u32
from steps import require


@dataclass
class Address(TLVStruct):
    """Where one side receives."""

    version: u8 = tlv_entry(1)
    text: str = tlv_entry(2)
    video_port: u16 = tlv_entry(3)
    audio_port: u16 = tlv_entry(4)


@dataclass
class Srtp(TLVStruct):
    """Keys of one direction of one medium."""

    suite: const.SRTPCryptoSuiteValues = tlv_entry(1)
    key: bytes = tlv_entry(2)
    salt: bytes = tlv_entry(3)


@dataclass
class Request(TLVStruct):
    """What is written to 118."""

    session: bytes = tlv_entry(1)
    address: Address = tlv_entry(3)
    video: Srtp = tlv_entry(4)
    audio: Srtp = tlv_entry(5)


@dataclass
class Answer(TLVStruct):
    """What is read from 118."""

    session: bytes = tlv_entry(1)
    status: u8 = tlv_entry(2)
    address: Address = tlv_entry(3)
    video: Srtp = tlv_entry(4)
    audio: Srtp = tlv_entry(5)
    video_ssrc: u32 = tlv_entry(6)
    audio_ssrc: u32 = tlv_entry(7)


def srtp():
    """Fresh keys of the one suite that is offered."""
    return Srtp(const.SRTPCryptoSuiteValues.AES_CM_128_HMAC_SHA1_80, os.urandom(16), os.urandom(14))


async def read(session, kind, struct, by=None):
    """The value of one characteristic of the first 110, as another connection sees it."""
    entry = (await (by or session).read(session.iid("110", kind)))[0]
    require("value" in entry, f"110.{kind} is read", entry)
    return struct.decode(base64.b64decode(entry["value"]))


async def offers(step, session):
    """114, 115, 116 and 120."""
    video = await read(session, "114", structs.SupportedVideoStreamConfiguration)
    codec = video.config[0]
    require(codec.codec_type == const.VideoCodecTypeValues.H264, "the codec is H.264", codec)
    for parameters in codec.codec_params:
        require(parameters.packetization_mode == const.PacketizationModeValues.NON_INTERLEAVED_MODE,
                "the packetization mode is the one there is", parameters)  # fmt: skip
    # Their reader takes the separators between sizes for those between codecs.
    sizes = {(s.width, s.height, s.fps) for config in video.config for s in config.video_attrs}
    for size in (1920, 1080, 30), (1280, 720, 30), (640, 360, 30), (320, 240, 15):
        require(size in sizes, f"the size {size} is offered", sizes)
    audio = await read(session, "115", structs.SupportedAudioStreamConfiguration)
    require(audio.comfort_noise == 0, "no comfort noise", audio)
    require([c.codec for c in audio.config] == [const.AudioCodecValues.OPUS], "the audio codec is Opus", audio)
    rates = {p.sample_rate for p in audio.config[0].parameters}
    require(rates <= {const.SampleRateValues.SIXTEEN_KHZ, const.SampleRateValues.TWENTY_FOUR_KHZ} and rates,
            "at 16 or 24 kHz", rates)  # fmt: skip
    suite = (await read(session, "116", structs.SupportedRTPConfiguration)).srtp_crypto_suite
    require(suite == const.SRTPCryptoSuiteValues.AES_CM_128_HMAC_SHA1_80, "AES with 128 bits", suite)
    status = (await read(session, "120", structs.StreamingStatus)).status
    require(status == const.StreamingStatusValues.AVAILABLE, "nobody watches", status)
    step.ok(f"live view is offered: {len(sizes)} sizes, {len(rates)} rates of Opus, SRTP with 128 bits")


async def set_up(step, session, other, host):
    """Sets a live view up and gives it up again."""
    setup = session.iid("110", "118")
    # It is never started, so nothing is sent to these ports.
    address = Address(u8(ipaddress.ip_address(host).version == 6), host, u16(50210), u16(50211))
    request = Request(os.urandom(16), address, srtp(), srtp())
    value = base64.b64encode(request.encode()).decode()
    require(await session.put({"iid": setup, "value": value}) == [], "a live view is set up: 204")
    answer = await read(session, "118", Answer)
    require((answer.session, answer.status) == (request.session, 0), "its answer is success", answer)
    theirs = ipaddress.ip_address(answer.address.text)
    # An emulated camera behind a forwarded port has an address of its own.
    require(theirs.version == ipaddress.ip_address(host).version and not theirs.is_unspecified
            and answer.address.version == address.version,
            "the accessory receives on an address of the family asked for", answer.address)  # fmt: skip
    ports = {answer.address.video_port, answer.address.audio_port}
    require(len(ports) == 2 and min(ports) >= 1024, "on two ports", ports)
    for keys in answer.video, answer.audio:
        require(keys.suite == const.SRTPCryptoSuiteValues.AES_CM_128_HMAC_SHA1_80, "with the suite of the request")
        require((len(keys.key), len(keys.salt)) == (16, 14), "and keys of its lengths")
    require(answer.video.key != answer.audio.key, "each medium has a key of its own")
    require(answer.video_ssrc != answer.audio_ssrc, "and an SSRC of its own")
    step.ok("a live view is set up: address, ports, keys and SSRCs")

    status = (await read(session, "120", structs.StreamingStatus)).status
    require(status == const.StreamingStatusValues.IN_USE, "the service is in use", status)
    seen = await read(session, "118", Answer, other)
    require((seen.session, seen.status) == (None, 2), "another connection reads nothing of it", seen)
    value = base64.b64encode(Request(os.urandom(16), address, srtp(), srtp()).encode()).decode()
    require(await other.put({"iid": setup, "value": value}) == [], "it may ask all the same: 204")
    step.equal((await read(session, "118", Answer, other)).status, 1, "and is told that the service is busy")

    control = b"\x01\x15" + b"\x01\x10" + request.session + b"\x02\x01\x00"
    for _ in range(2):
        value = base64.b64encode(control).decode()
        require(await session.put({"iid": session.iid("110", "117"), "value": value}) == [], "it is ended: 204")
    status = (await read(session, "120", structs.StreamingStatus)).status
    require(status == const.StreamingStatusValues.AVAILABLE, "the service is free", status)
    step.equal((await read(session, "118", Answer)).status, 2, "a live view is ended, twice, and nothing is left of it")
