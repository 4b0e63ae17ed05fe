#!/usr/bin/python3
"""GStreamer's RTSP server with a recording of the demo clip behind a login: another project's word on what RTSP is.

Runs with the system's Python, which has GStreamer's bindings (gir1.2-gst-rtsp-server-1.0, python3-gi). Prints the
port when it listens.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clip", required=True, help="Matroska file with H.264 and AAC")
    arguments.add_argument("--port", default="0")
    arguments.add_argument("--path", default="/ch0")
    arguments.add_argument("--login", default="thingino:thin:gino", help="NAME:PASSWORD")
    arguments.add_argument("--basic", action="store_true", help="Basic instead of Digest")
    arguments.add_argument("--in-band", action="store_true", help="parameter sets in the stream, too")
    arguments.add_argument("--mtu", type=int, default=1400)
    arguments = arguments.parse_args()
    Gst.init(None)

    server = GstRtspServer.RTSPServer()
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

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( filesrc location={arguments.clip} ! matroskademux name=d "
        f"d. ! queue ! h264parse ! rtph264pay name=pay0 pt=96 mtu={arguments.mtu} "
        f"config-interval={-1 if arguments.in_band else 0} "
        f"d. ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 mtu={arguments.mtu} )"
    )
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role(name, right, True)
    factory.set_permissions(permissions)
    # A camera has one encoder for all.
    factory.set_shared(True)
    server.get_mount_points().add_factory(arguments.path, factory)

    if server.attach(None) == 0:
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
