"""What live view offers, read by aiohomekit's TLV reader."""

import base64

from aiohomekit.model.characteristics import const, structs
from steps import require


async def read(session, kind, struct):
    """The value of one characteristic of the first 110."""
    entry = (await session.read(session.iid("110", kind)))[0]
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
