#!/usr/bin/python3
"""GStreamer's RTSP server with a recording of the demo clip behind a login: another project's word on what RTSP is.

With --talk it is GStreamer's ONVIF server, with a back channel whose sound is decoded and written into a FIFO.

Runs with the system's Python, which has GStreamer's bindings (gir1.2-gst-rtsp-server-1.0, python3-gi). Prints the
port when it listens.
"""

import argparse
import os
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


# What makes RTP of the clip's sound.
SOUNDS = {
    "aac": "aacparse ! rtpmp4gpay",
    "opus": "decodebin ! audioconvert ! audioresample ! opusenc frame-size=20 ! rtpopuspay",
    "l16": "decodebin ! audioconvert ! audioresample ! audio/x-raw,format=S16BE,rate=16000,channels=1 ! rtpL16pay",
    "pcmu": "decodebin ! audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay",
    "pcma": "decodebin ! audioconvert ! audioresample ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay",
}

# What becomes of RTP that a client sends: samples as a loudspeaker takes them.
TALK = (
    '( capsfilter name=depay_backchannel caps="application/x-rtp,media=audio,payload={number},clock-rate=8000,'
    'encoding-name={name}" ! {depay} ! audioconvert ! audioresample ! '
    "audio/x-raw,format=S16LE,rate=8000,channels=1 ! appsink name=speaker emit-signals=true sync=false async=false )"
)
TALKS = {
    "pcmu": {"number": 0, "name": "PCMU", "depay": "rtppcmudepay ! mulawdec"},
    "pcma": {"number": 8, "name": "PCMA", "depay": "rtppcmadepay ! alawdec"},
}


class Loudspeaker:
    """Writes what is said into a FIFO, as long as somebody reads it."""

    def __init__(self, path):
        self.path, self.fd, self.packets = path, None, 0

    def configure(self, _, media):
        """A client has come."""
        speaker = media.get_element().get_by_name("speaker")
        if speaker is not None:
            speaker.connect("new-sample", self.take)

    def take(self, sink):
        """Some samples."""
        sample = sink.emit("pull-sample")
        buffer = sample.get_buffer()
        self.packets += 1
        if self.packets == 1:
            print("the first words", file=sys.stderr, flush=True)
        try:
            if self.fd is None:
                self.fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(self.fd, buffer.extract_dup(0, buffer.get_size()))
        except OSError:
            pass
        return Gst.FlowReturn.OK


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clip", required=True, help="Matroska file with H.264 and AAC")
    arguments.add_argument("--port", default="0")
    arguments.add_argument("--path", default="/ch0")
    arguments.add_argument("--login", default="thingino:thin:gino", help="NAME:PASSWORD")
    arguments.add_argument("--basic", action="store_true", help="Basic instead of Digest")
    arguments.add_argument("--in-band", action="store_true", help="parameter sets in the stream, too")
    arguments.add_argument("--mtu", type=int, default=1400)
    arguments.add_argument("--sound", choices=SOUNDS, default="aac")
    arguments.add_argument("--talk", metavar="FIFO", help="be an ONVIF server with a back channel into this FIFO")
    arguments.add_argument("--law", choices=TALKS, default="pcmu", help="what the back channel takes")
    arguments = arguments.parse_args()
    Gst.init(None)

    server = GstRtspServer.RTSPOnvifServer() if arguments.talk else GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)

    name, password = arguments.login.split(":", 1)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", name)
    auth = GstRtspServer.RTSPAuth()
    if arguments.basic:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(name, password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(name, password, token)
    server.set_auth(auth)

    # The other two have their own.
    number = "pt=97" if arguments.sound in ("aac", "opus", "l16") else ""
    if arguments.talk:
        factory = GstRtspServer.RTSPOnvifMediaFactory()
        factory.set_media_gtype(GstRtspServer.RTSPOnvifMedia)
        factory.set_backchannel_launch(TALK.format(**TALKS[arguments.law]))
        speaker = Loudspeaker(arguments.talk)
        factory.connect("media-configure", speaker.configure)
    else:
        factory = GstRtspServer.RTSPMediaFactory()
    chain, payloader = SOUNDS[arguments.sound].rsplit(" ! ", 1)
    # Who comes to talk alone takes neither picture nor sound, and "not linked" would end the pipeline with its back channel.
    spare = ["! tee name=v v. ", "! tee name=s s. "] if arguments.talk else ["", ""]
    sinks = "v. ! {0} s. ! {0} ".format("fakesink sync=false async=false") if arguments.talk else ""
    factory.set_launch(
        f"( filesrc location={arguments.clip} ! matroskademux name=d "
        f"d. ! queue ! h264parse {spare[0]}! rtph264pay name=pay0 pt=96 mtu={arguments.mtu} "
        f"config-interval={-1 if arguments.in_band else 0} "
        f"d. ! queue ! {chain} {spare[1]}! {payloader} name=pay1 {number} mtu={arguments.mtu} {sinks})"
    )
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role(name, right, True)
    factory.set_permissions(permissions)
    # A camera has one encoder for all. GStreamer's back channels cannot be shared.
    factory.set_shared(not arguments.talk)
    server.get_mount_points().add_factory(arguments.path, factory)

    if server.attach(None) == 0:
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
