"""A HomeKit controller made of aiohomekit, and the verbs of the program under test.

Nothing here is our own protocol code: pairing, pair-verify, records and HTTP are aiohomekit's. What is added is
the way in without mDNS, the key derivation of the session (HDS needs it), and names for characteristics.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import subprocess
import uuid

from aiohomekit.characteristic_cache import CharacteristicCacheMemory
from aiohomekit.controller.ip import connection as ip_connection
from aiohomekit.controller.ip.controller import IpController
from aiohomekit.controller.ip.discovery import IpDiscovery
from aiohomekit.controller.ip.pairing import IpPairing
from aiohomekit.exceptions import HomeKitException
from aiohomekit.model.categories import Categories
from aiohomekit.model.feature_flags import FeatureFlags
from aiohomekit.model.status_flags import StatusFlags
from aiohomekit.zeroconf import HomeKitService
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Its background tasks print a traceback for refusals that the steps look for.
logging.getLogger("aiohomekit").setLevel(logging.CRITICAL)

BASE = "-0000-1000-8000-0026BB765291"

# aiohomekit keeps the shared secret of pair-verify inside a closure; HDS keys are derived from the same secret, so
# the closure is put where a session can find it.
_get_session_keys = ip_connection.get_session_keys


def _remember_derivation(pairing_data, *rest, **named):
    result = yield from _get_session_keys(pairing_data, *rest, **named)
    pairing_data["derive"] = result[1]
    return result


ip_connection.get_session_keys = _remember_derivation


def arguments(description):
    """The options every client has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="HAP port")
    parser.add_argument("--code", default="031-45-154", help="setup code XXX-XX-XXX")
    parser.add_argument("--socket", required=True, help="control socket of the running daemon")
    parser.add_argument(
        "--hksvd", default=os.environ.get("HKSVD", "target/release/hksvd"), help="the program, for its verbs"
    )
    parser.add_argument(
        "--stand-in", action="store_true", help="the accessory is HAP-NodeJS: accept its known differences"
    )
    return parser


def verb(options, *words, timeout=10):
    """Runs `hksvd WORDS` against the daemon and returns what it printed; an error status is an error here."""
    done = subprocess.run(
        [options.hksvd, *words, "--socket", options.socket],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"hksvd {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


async def verb_soon(options, *words):
    """`verb` without stopping the event loop, which has events to receive."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: verb(options, *words))


def status(options):
    """`hksvd status --json`."""
    return json.loads(verb(options, "status", "--json"))


def short(uuid_text):
    """`00000204-0000-…` as `204`."""
    text = uuid_text.upper()
    return text[: -len(BASE)].lstrip("0") if text.endswith(BASE) else text.lstrip("0")


def controller():
    """aiohomekit's IP controller without a network behind it."""
    return IpController(char_cache=CharacteristicCacheMemory(), zeroconf_instance=None)


def discovery(host, port, device_id="00:00:00:00:00:00"):
    """What mDNS would have told, from an address that is known."""
    service = HomeKitService(
        name="known address", id=device_id, model="", feature_flags=FeatureFlags(0), status_flags=StatusFlags(1),
        config_num=1, state_num=1, category=Categories.IP_CAMERA, protocol_version="1.1", type="_hap._tcp.local.",
        address=host, addresses=[host], port=port,
    )  # fmt: skip
    return IpDiscovery(controller(), service)


async def pair(host, port, code):
    """Pair-setup M1 to M6; a Session of the new pairing."""
    found = discovery(host, port)
    finish = await found.async_start_pairing("hub")
    pairing = await finish(code)
    return Session(pairing)


class Session:
    """One verified HAP connection."""

    def __init__(self, pairing):
        self.pairing = pairing
        self.events = asyncio.Queue()
        self.services = []
        pairing.dispatcher_connect(self._received)

    @classmethod
    def again(cls, session):
        """Another connection of the same controller."""
        return cls(IpPairing(controller(), {k: v for k, v in session.pairing.pairing_data.items() if k != "derive"}))

    @classmethod
    def guest(cls, session):
        """A controller with keys of its own that `session` has yet to add; also its id and its public key."""
        key = Ed25519PrivateKey.generate()
        raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        public = key.public_key().public_bytes(*raw).hex()
        secret = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        ).hex()
        kept = {k: v for k, v in session.pairing.pairing_data.items() if k != "derive"}
        identifier = str(uuid.uuid4()).upper()
        kept.update(iOSPairingId=identifier, iOSDeviceLTSK=secret, iOSDeviceLTPK=public)
        return cls(IpPairing(controller(), kept)), identifier, public

    def _received(self, changes):
        for (aid, iid), change in changes.items():
            if "value" in change:
                self.events.put_nowait((iid, change["value"]))

    @property
    def connection(self):
        """aiohomekit's connection, for requests it has no method for."""
        return self.pairing.connection

    @property
    def derive(self):
        """HKDF-SHA-512 over the shared secret of this connection's pair-verify: `derive(salt, info)`."""
        return self.pairing.pairing_data["derive"]

    async def verify(self):
        """Connects and verifies, without any other request."""
        await self.pairing._ensure_connected()
        return self

    async def load(self):
        """Reads `/accessories`; services as a list of (short type, service)."""
        accessories = await self.pairing.list_accessories_and_characteristics()
        if len(accessories) != 1 or accessories[0]["aid"] != 1:
            raise RuntimeError(f"one accessory with aid 1 expected, seen {[a['aid'] for a in accessories]}")
        self.services = [(short(s["type"]), s) for s in accessories[0]["services"]]
        return self

    def iid(self, service, characteristic, instance=0):
        """Instance id of a characteristic by short types."""
        found = [
            c["iid"] for kind, s in self.services if kind == service
            for c in s["characteristics"] if short(c["type"]) == characteristic
        ]  # fmt: skip
        if len(found) <= instance:
            raise RuntimeError(f"no characteristic {characteristic} number {instance} in service {service}")
        return found[instance]

    async def read(self, *iids):
        """Entries of `GET /characteristics`, in the order of the answer."""
        target = "/characteristics?id=" + ",".join(f"1.{iid}" for iid in iids)
        return (await self.connection.get_json(target))["characteristics"]

    async def value(self, service, characteristic, instance=0):
        """The value of one characteristic; an error status is an error here."""
        entry = (await self.read(self.iid(service, characteristic, instance)))[0]
        if "value" not in entry:
            raise RuntimeError(f"{service}.{characteristic} has no value: {entry}")
        return entry["value"]

    async def put(self, *entries, pid=None):
        """`PUT /characteristics`; the entries of the answer, or [] after 204."""
        body = {"characteristics": [{"aid": 1, **entry} for entry in entries]}
        if pid is not None:
            body["pid"] = pid
        return (await self.connection.put_json("/characteristics", body)).get("characteristics", [])

    async def write(self, service, characteristic, value, instance=0, timed=False):
        """One write that must succeed; `timed` prepares it first."""
        entry = {"iid": self.iid(service, characteristic, instance), "value": value}
        answer = await self.put(entry, pid=await self.prepare() if timed else None)
        if any(e.get("status") for e in answer):
            raise RuntimeError(f"write of {service}.{characteristic} refused: {answer}")

    async def prepare(self, ttl=2500, pid=11122333):
        """`PUT /prepare`; the pid to use."""
        answer = await self.connection.put_json("/prepare", {"ttl": ttl, "pid": pid})
        if answer != {"status": 0}:
            raise RuntimeError(f"/prepare answered {answer}")
        return pid

    async def event(self, iid, within=2.0):
        """The next event of `iid`; others are dropped. None: nothing came in time."""
        try:
            async with asyncio.timeout(within):
                while True:
                    seen, value = await self.events.get()
                    if seen == iid:
                        return value
        except TimeoutError:
            return None

    async def told(self, within):
        """All events that come within this time: iid → last value."""
        await asyncio.sleep(within)
        last = {}
        while not self.events.empty():
            iid, value = self.events.get_nowait()
            last[iid] = value
        return last

    async def told_of(self, *iids, within=10.0):
        """The events until each of these has come, or the time is over: iid → last value."""
        last = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not last.keys() >= set(iids):
                    iid, value = await self.events.get()
                    last[iid] = value
        return last

    def forget_events(self):
        """Drops what has been received."""
        while not self.events.empty():
            self.events.get_nowait()

    async def close(self):
        """Closes the connection; the pairing stays."""
        with contextlib.suppress(HomeKitException):  # a refused pair-verify is raised once more here
            await self.pairing.close()


def tlv(data):
    """TLV8 items as (type, value), fragments merged."""
    items, at, previous = [], 0, 0
    while at < len(data):
        kind, length = data[at], data[at + 1]
        value = data[at + 2 : at + 2 + length]
        if len(value) != length:
            raise ValueError("truncated TLV")
        if items and items[-1][0] == kind and previous == 255:
            items[-1] = (kind, items[-1][1] + value)
        else:
            items.append((kind, value))
        previous = length
        at += 2 + length
    return items


def first(items, kind):
    """The value of the first item of a type."""
    for seen, value in items:
        if seen == kind:
            return value
    raise ValueError(f"no item {kind}")


def item(kind, value):
    """One item shorter than 256 bytes."""
    if len(value) > 255:
        raise ValueError("fragmented TLVs are not written here")
    return bytes([kind, len(value)]) + value


def base64_tlv(text):
    """Items of a tlv8 characteristic's value."""
    return tlv(base64.b64decode(text))
