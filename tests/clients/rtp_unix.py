#!/usr/bin/python3
"""GStreamer's RTP packets of the demo clip, in real time, as datagrams to a Unix socket: what OpenIPC's majestic does with
`outgoing.servers: unix:PATH`.

Runs with the system's Python, which has GStreamer's bindings. Nobody has to receive.
"""

import argparse
import socket
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clip", required=True, help="Matroska file with H.264")
    arguments.add_argument("--mtu", type=int, default=1200)
    arguments.add_argument("path", help="the socket")
    arguments = arguments.parse_args()
    Gst.init(None)
    pipeline = Gst.parse_launch(
        f"filesrc location={arguments.clip} ! matroskademux ! h264parse ! "
        f"rtph264pay pt=97 config-interval=-1 mtu={arguments.mtu} ! appsink name=out emit-signals=true sync=true"
    )
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(sink):
        """One packet, or several of a picture."""
        buffer = sink.emit("pull-sample").get_buffer()
        try:
            out.sendto(buffer.extract_dup(0, buffer.get_size()), arguments.path)
        except OSError:
            pass
        return Gst.FlowReturn.OK

    pipeline.get_by_name("out").connect("new-sample", send)
    pipeline.set_state(Gst.State.PLAYING)
    loop = GLib.MainLoop()
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message::eos", lambda *_: loop.quit())
    bus.connect("message::error", lambda _, message: sys.exit(str(message.parse_error())))
    loop.run()


if __name__ == "__main__":
    main()
