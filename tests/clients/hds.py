"""A HomeKit Data Stream client that is not ours to trust alone: every payload it receives can be kept for
`hdsdecode.js`, where HAP-NodeJS decodes it a second time.
"""

import asyncio
import hashlib
import json
import os
import pathlib
import socket
import struct
import subprocess

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

CHUNK = 0x40000


class Malformed(Exception):
    """The accessory sent what the data format does not allow."""


class Reader:
    """HDS data format. Back references are read, and counted: our accessory must not write them."""

    def __init__(self, data):
        self.data, self.at = data, 0
        self.table, self.references = [], 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Malformed("value beyond the end")
        self.at += count
        return self.data[self.at - count : self.at]

    def sized(self, width):
        return self.take(int.from_bytes(self.take(width), "little"))

    def until_terminator(self, one):
        found = []
        while self.data[self.at : self.at + 1] != b"\x03":
            found.append(one())
        self.take(1)
        return found

    def pair(self):
        return (self.value(), self.value())

    def value(self):
        start = self.at
        tag = self.take(1)[0]
        if 0xA0 <= tag <= 0xCF:
            if tag - 0xA0 >= len(self.table):
                raise Malformed(f"back reference {tag - 0xA0} of {len(self.table)}")
            self.references += 1
            return self.table[tag - 0xA0]
        value = self.of(tag)
        leaf = not isinstance(value, (list, dict))
        if leaf and self.at - start > 1 and not any(type(v) is type(value) and v == value for v in self.table):
            self.table.append(value)
        return value

    def of(self, tag):
        if tag in (0x01, 0x02):
            return tag == 0x01
        if tag == 0x04:
            return None
        if tag == 0x05:
            return self.take(16).hex()
        if tag == 0x07:
            return -1
        if 0x08 <= tag <= 0x2F:
            return tag - 0x08
        if 0x30 <= tag <= 0x33:
            return int.from_bytes(self.take(1 << (tag - 0x30)), "little", signed=True)
        if tag == 0x35:
            return struct.unpack("<f", self.take(4))[0]
        if tag in (0x06, 0x36):
            return struct.unpack("<d", self.take(8))[0]
        if 0x40 <= tag <= 0x60:
            return self.take(tag - 0x40).decode()
        if 0x61 <= tag <= 0x64:
            return self.sized(1 << (tag - 0x61)).decode()
        if 0x70 <= tag <= 0x90:
            return bytes(self.take(tag - 0x70))
        if 0x91 <= tag <= 0x94:
            return bytes(self.sized(1 << (tag - 0x91)))
        if 0xD0 <= tag <= 0xDE:
            return [self.value() for _ in range(tag - 0xD0)]
        if tag == 0xDF:
            return self.until_terminator(self.value)
        if 0xE0 <= tag <= 0xEE:
            return dict(self.pair() for _ in range(tag - 0xE0))
        if tag == 0xEF:
            return dict(self.until_terminator(self.pair))
        raise Malformed(f"tag {tag:#04x}")


def references(payload):
    """Back references in a plain payload."""
    count = 0
    for part in (payload[1 : 1 + payload[0]], payload[1 + payload[0] :]):
        reader = Reader(part)
        reader.value()
        count += reader.references
    return count


def decode(payload):
    """Header and message of one frame's plain payload."""
    if not payload or 1 + payload[0] > len(payload):
        raise Malformed("header longer than the frame")
    parts = []
    for part in (payload[1 : 1 + payload[0]], payload[1 + payload[0] :]):
        reader = Reader(part)
        parts.append(reader.value())
        if reader.at != len(part):
            raise Malformed(f"{len(part) - reader.at} bytes after the value")
    return tuple(parts)


def encode(value):
    """The few types a hub writes."""
    if value is True or value is False:
        return b"\x01" if value else b"\x02"
    if isinstance(value, int):
        if 0 <= value < 39:
            return bytes([0x08 + value])
        return b"\x33" + value.to_bytes(8, "little", signed=True)
    if isinstance(value, str):
        text = value.encode()
        return bytes([0x40 + len(text)]) + text if len(text) <= 32 else b"\x61" + bytes([len(text)]) + text
    if isinstance(value, dict):
        return bytes([0xE0 + len(value)]) + b"".join(encode(k) + encode(v) for k, v in value.items())
    raise TypeError(type(value))


def plain(header, message):
    """Plain payload of a frame."""
    head = encode(header)
    return bytes([len(head)]) + head + encode(message)


class DataStream:
    """One HDS connection, as a hub makes it."""

    def __init__(self, derive, controller_salt, accessory_salt):
        salt = controller_salt + accessory_salt
        self.opening = ChaCha20Poly1305(derive(salt, b"HDS-Read-Encryption-Key"))
        self.sealing = ChaCha20Poly1305(derive(salt, b"HDS-Write-Encryption-Key"))
        self.received = self.sent = 0
        self.request_id = 0
        self.payloads = []
        self.reader = self.writer = None

    async def connect(self, host, port, receive_buffer=None):
        """TCP only; `receive_buffer` makes a hub with a small window."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        limit = receive_buffer or 1 << 20
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=limit)
        return self

    def seal(self, payload):
        """One frame of ours."""
        head = b"\x01" + len(payload).to_bytes(3, "big")
        nonce = bytes(4) + self.sent.to_bytes(8, "little")
        self.sent += 1
        return head + self.sealing.encrypt(nonce, payload, head)

    async def send(self, header, message):
        """Seals and writes."""
        self.writer.write(self.seal(plain(header, message)))
        await self.writer.drain()

    async def frame(self):
        """The next (header, message); None when the accessory has closed."""
        try:
            head = await self.reader.readexactly(4)
            length = int.from_bytes(head[1:], "big")
            if head[0] != 1 or length > 0xFFFFF:
                raise Malformed(f"frame head {head.hex()}")
            sealed = await self.reader.readexactly(length + 16)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            payload = self.opening.decrypt(bytes(4) + self.received.to_bytes(8, "little"), sealed, head)
        except InvalidTag as bad:
            raise Malformed(f"tag of frame {self.received}") from bad
        self.received += 1
        self.payloads.append(payload)
        return decode(payload)

    async def request(self, protocol, topic, message, within=10.0):
        """Sends a request and waits for its response; whatever comes before it is an error here."""
        self.request_id += 1
        await self.send({"protocol": protocol, "request": topic, "id": self.request_id}, message)
        async with asyncio.timeout(within):
            answer = await self.frame()
        if answer is None:
            raise Malformed(f"closed instead of answering {topic}")
        header, body = answer
        wanted = {"protocol": protocol, "response": topic, "id": self.request_id}
        if {k: header.get(k) for k in wanted} != wanted or "status" not in header:
            raise Malformed(f"answer to {topic}: {header}")
        return header["status"], body

    async def hello(self):
        """control/hello; the status."""
        status, _ = await self.request("control", "hello", {})
        return status

    async def open(self, stream_id, reason="motion", **other):
        """dataSend/open; (header status, body)."""
        message = {"type": "ipcamera.recording", "target": "controller", "streamId": stream_id, "reason": reason}
        return await self.request("dataSend", "open", {**message, **other})

    async def close_stream(self, stream_id, reason=0):
        """dataSend/close."""
        await self.send({"protocol": "dataSend", "event": "close"}, {"streamId": stream_id, "reason": reason})

    async def ended(self, within):
        """True when the accessory closes the connection in time; frames before that are dropped."""
        try:
            async with asyncio.timeout(within):
                while await self.frame() is not None:
                    pass
            return True
        except TimeoutError:
            return False

    def abandon(self):
        """Closes the TCP connection."""
        if self.writer:
            self.writer.close()


def comparable(value):
    """JSON form of a decoded value that both decoders can produce."""
    if isinstance(value, bytes):
        return {"data": hashlib.sha256(value).hexdigest(), "length": len(value)}
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [comparable(v) for v in value]
    return value


def second_opinion(payloads, dump):
    """Lets HAP-NodeJS decode the payloads; the number of frames where it says the same, and the first difference."""
    dump = pathlib.Path(dump)
    with dump.open("wb") as out:
        for payload in payloads:
            out.write(len(payload).to_bytes(4, "big") + payload)
    here = pathlib.Path(__file__).resolve()
    modules = os.environ.get("CLIENTS_NODE", str(here.parents[2] / "target" / "clients-node"))
    done = subprocess.run(
        ["node", str(here.parent / "hdsdecode.js"), modules, str(dump)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise Malformed(f"HAP-NodeJS could not decode: {done.stderr.strip()[-400:]}")
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    ours = [[comparable(part) for part in decode(payload)] for payload in payloads]
    if len(theirs) != len(ours):
        raise Malformed(f"HAP-NodeJS decoded {len(theirs)} of {len(ours)} frames")
    for number, (left, right) in enumerate(zip(ours, theirs)):
        if left != right:
            raise Malformed(f"frame {number}: we read {left}, HAP-NodeJS reads {right}")
    return len(ours)
