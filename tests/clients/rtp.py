"""RTP as a controller receives it: libsrtp opens and seals, the rest is RFC 3550 and RFC 6184 read for the tests."""

import asyncio
import dataclasses
import os
import socket
import struct
import time

import pylibsrtp
from hub import first, item, tlv

# Linux, asm-generic/socket.h; Python has no names for them.
SO_RCVBUFFORCE, SO_MEMINFO, SK_MEMINFO_DROPS = 33, 55, 8


class Keys:
    """Master key and salt of one direction of one medium."""

    def __init__(self, key, salt):
        self.key, self.salt = key, salt
        out = pylibsrtp.Policy(
            key=key + salt, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
            srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
        )  # fmt: skip
        inwards = pylibsrtp.Policy(
            key=key + salt, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND,
            srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
        )  # fmt: skip
        self._out, self._in = pylibsrtp.Session(out), pylibsrtp.Session(inwards)

    @classmethod
    def draw(cls):
        """New ones."""
        return cls(os.urandom(16), os.urandom(14))

    @classmethod
    def from_tlv(cls, value):
        """Of a list 04 or 05 of SetupEndpoints."""
        items = tlv(value)
        if first(items, 1) != b"\0":
            raise ValueError("not AES_CM_128_HMAC_SHA1_80")
        key, salt = first(items, 2), first(items, 3)
        if (len(key), len(salt)) != (16, 14):
            raise ValueError("a key of 16 and a salt of 14 bytes are needed")
        return cls(key, salt)

    def tlv(self):
        """As list 04 or 05 of SetupEndpoints has it."""
        return item(1, b"\0") + item(2, self.key) + item(3, self.salt)

    def seal_rtp(self, packet):
        """SRTP."""
        return self._out.protect(packet)

    def seal_rtcp(self, packet):
        """SRTCP."""
        return self._out.protect_rtcp(packet)

    def open(self, packet):
        """The plain packet; pylibsrtp.Error when it is not genuine."""
        return self._in.unprotect_rtcp(packet) if is_rtcp(packet) else self._in.unprotect(packet)


def is_rtcp(packet):
    """RFC 5761 §4."""
    return len(packet) > 1 and 192 <= packet[1] <= 223


@dataclasses.dataclass
class Packet:
    """One RTP packet and when it came."""

    at: float
    marker: bool
    kind: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


class Receiver:
    """What one medium of a view receives."""

    def __init__(self, keys, ssrc):
        self.keys, self.ssrc = keys, ssrc
        self.packets, self.sizes, self.rtcp = [], [], []
        self.bad = 0
        self._copies = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def also(self, port):
        """Sends what comes, as it is, to this port of ours."""
        self._copies.append(port)

    def take(self, datagram):
        """One datagram of the camera."""
        now = time.monotonic()
        for port in self._copies:
            self._socket.sendto(datagram, ("127.0.0.1", port))
        try:
            plain = self.keys.open(datagram)
        except pylibsrtp.Error:
            self.bad += 1
            return
        if is_rtcp(plain):
            self.rtcp.append((now, plain))
            return
        first_byte, second, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", plain)
        if first_byte != 0x80 or ssrc != self.ssrc:
            self.bad += 1
            return
        self.sizes.append(len(datagram))
        self.packets.append(Packet(now, bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, plain[12:]))

    def gaps(self):
        """Sequence numbers that are missing, or not in order."""
        numbers = [p.sequence for p in self.packets]
        return sum((b - a) & 0xFFFF != 1 for a, b in zip(numbers, numbers[1:]))

    def report(self, ours):
        """A receiver report about what has come (RFC 3550 §6.4.2)."""
        highest = self.packets[-1].sequence if self.packets else 0
        block = struct.pack(">IIIIII", self.ssrc, 0, highest, 0, 0, 0)
        return struct.pack(">BBHI", 0x81, 201, 7, ours) + block

    def sender_reports(self):
        """One for each: when, NTP time in seconds, RTP time, whether a CNAME came with it."""
        found = []
        for at, plain in self.rtcp:
            items = list(rtcp_items(plain))
            for kind, body in items:
                if kind == 200:
                    high, low, rtp = struct.unpack_from(">III", body, 4)
                    cname = any(k == 202 and b[4:5] == b"\1" for k, b in items)
                    found.append({"at": at, "ntp": high + low / 2**32, "rtp": rtp, "cname": cname})
        return found


def rtcp_items(compound):
    """(type, body) of each packet in a compound (RFC 3550 §6.1)."""
    at = 0
    while at < len(compound):
        first_byte, kind, words = struct.unpack_from(">BBH", compound, at)
        if first_byte >> 6 != 2:
            raise ValueError("not RTCP")
        yield kind, compound[at + 4 : at + 4 + 4 * words]
        at += 4 + 4 * words
    if at != len(compound):
        raise ValueError("RTCP of another length than it says")


class Endpoint(asyncio.DatagramProtocol):
    """One UDP port of the controller."""

    @classmethod
    async def open(cls, host):
        """Any free port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        except PermissionError:  # without CAP_NET_ADMIN net.core.rmem_max is the limit
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        udp.setblocking(False)
        udp.bind((host, 0))
        _, endpoint = await asyncio.get_running_loop().create_datagram_endpoint(cls, sock=udp)
        return endpoint

    def __init__(self):
        self._receiver = self._to = self._transport = None

    def connection_made(self, transport):
        """asyncio's."""
        self._transport = transport

    @property
    def port(self):
        """Ours."""
        return self._transport.get_extra_info("sockname")[1]

    def dropped(self):
        """Datagrams that came and found our socket's buffer full: lost by us, not by the camera."""
        udp = self._transport.get_extra_info("socket")
        counts = udp.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
        return struct.unpack_from("=I", counts, 4 * SK_MEMINFO_DROPS)[0]

    def follow(self, receiver, to):
        """Who takes what comes, and where it comes from."""
        self._receiver, self._to = receiver, to

    def datagram_received(self, data, addr):
        """asyncio's."""
        if self._receiver is not None and addr[1] == self._to[1]:
            self._receiver.take(data)

    def send(self, datagram):
        """To the camera."""
        self._transport.sendto(datagram, self._to)

    def close(self):
        """Gives the port back."""
        self._transport.close()


@dataclasses.dataclass
class Frame:
    """One access unit: its NALs, its RTP time, when its last packet came."""

    nals: list
    timestamp: int
    whole: float

    @property
    def types(self):
        """Header bytes of its NALs."""
        return [nal[0] for nal in self.nals]


def depacketise(packets):
    """Access units of RFC 6184 packets that came in order: single NAL, STAP-A, FU-A."""
    frames, nals, open_fragment = [], [], None
    for packet in packets:
        data = packet.payload
        kind = data[0] & 31
        if kind == 24:
            at = 1
            while at < len(data):
                size = int.from_bytes(data[at : at + 2], "big")
                if size == 0 or at + 2 + size > len(data):
                    raise ValueError("a STAP-A of another length than it says")
                nals.append(data[at + 2 : at + 2 + size])
                at += 2 + size
        elif kind == 28:
            starts, ends = data[1] & 0x80, data[1] & 0x40
            if bool(starts) == (open_fragment is not None) or (starts and ends):
                raise ValueError("FU-A out of order")
            if starts:
                open_fragment = bytearray([(data[0] & 0xE0) | (data[1] & 31)])
            open_fragment += data[2:]
            if ends:
                nals.append(bytes(open_fragment))
                open_fragment = None
        elif 1 <= kind <= 23:
            nals.append(data)
        else:
            raise ValueError(f"packet type {kind} is not of mode 1")
        if packet.marker:
            frames.append(Frame(nals, packet.timestamp, packet.at))
            nals = []
    return frames
