#!/usr/bin/env python3
"""Finds the accessory by mDNS with python-zeroconf, with Avahi and with aiohomekit, and watches it leave.

Runs in a network namespace of its own, on the other end of a link to the namespace of the daemon (scripts/test makes
both), because Avahi and the daemon then are two hosts. Avahi and D-Bus are started here, under a /run of their own:
call this through `unshare --mount`. The accessory must be unpaired; in the end it is stopped with SIGTERM.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import hub
import steps
from aiohomekit.characteristic_cache import CharacteristicCacheMemory
from aiohomekit.controller.ip.controller import IpController
from steps import require
from zeroconf import IPVersion, RecordUpdateListener, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

HAP = "_hap._tcp.local."
TXT = 16
KEYS = {"c#", "ff", "id", "md", "pv", "s#", "sf", "ci", "sh"}


class Watch:
    """What a browser has been told, with the time."""

    def __init__(self, zeroconf):
        self.told = []
        self.news = asyncio.Event()
        self.zeroconf = zeroconf
        self.announced = Announced()
        zeroconf.zeroconf.async_add_listener(self.announced, None)

    def __call__(self, zeroconf, service_type, name, state_change):
        self.told.append((state_change, name))
        self.news.set()

    async def wait(self, change, within):
        """The name of the first service of which `change` is told; what came before is forgotten."""
        async with asyncio.timeout(within):
            while True:
                while self.told:
                    seen, name = self.told.pop(0)
                    if seen == change:
                        return name
                self.news.clear()
                await self.news.wait()

    async def info(self, name):
        """SRV, TXT and addresses, asked from the network."""
        info = AsyncServiceInfo(HAP, name)
        require(await info.async_request(self.zeroconf.zeroconf, 3000), f"{name} is resolved")
        return info

    async def text(self, name, key, value, within=6.0):
        """Waits until a TXT key has a value, by what was announced: zeroconf's cache forgets an older record, and what
        was said once more is one, when its ten seconds are round."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.announced.texts.get(name, {}).get(key) == value:
                return True
            await asyncio.sleep(0.1)
        return False


class Announced(RecordUpdateListener):
    """The TXT records as they come."""

    def __init__(self):
        self.texts = {}

    def async_update_records(self, zc, now, records):
        """Notes the newest of each name."""
        for record in (update.new for update in records):
            if record.type == TXT:
                text, pairs = record.text, {}
                while text:
                    key, _, value = text[1 : 1 + text[0]].decode().partition("=")
                    pairs[key] = value
                    text = text[1 + text[0] :]
                self.texts[record.name] = pairs

    def async_update_records_complete(self):
        """Nothing is left to do."""


@contextlib.contextmanager
def avahi(folder):
    """D-Bus and Avahi under a /run of this mount namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True, stdin=subprocess.DEVNULL)
    pathlib.Path("/run/dbus").mkdir()
    configuration = folder / "avahi.conf"
    configuration.write_text("[server]\nhost-name=hub\nuse-ipv4=yes\nuse-ipv6=yes\n[publish]\npublish-workstation=no\n")
    log = (folder / "avahi.log").open("wb")
    children = []
    try:
        for command in (
            ["dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog"],
            ["avahi-daemon", "-f", str(configuration), "--no-drop-root", "--no-chroot", "--no-rlimits"],
        ):
            children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            end = time.monotonic() + 5
            socket = {"dbus-daemon": "/run/dbus/system_bus_socket"}.get(command[0], "/run/avahi-daemon/socket")
            while not os.path.exists(socket):
                require(time.monotonic() < end and children[-1].poll() is None, f"{command[0]} runs (avahi.log)")
                time.sleep(0.05)
        yield
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait(timeout=5)
        log.close()


async def tool(*command, within=15):
    """Output of an Avahi tool."""
    run = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(within):
        out, _ = await run.communicate()
    require(run.returncode == 0, f"{' '.join(command)} succeeds", out.decode())
    return out.decode()


async def tool_until(holds, *command):
    """Output of an Avahi tool once it holds, or the third: each asks for a moment, and a datagram may be late."""
    for _ in range(3):
        said = await tool(*command)
        if holds(said):
            break
    return said


def running(pid):
    """Is the process there and no zombie?"""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_text(step, text, options):
    """Every TXT key."""
    wanted = KEYS - ({"sh"} if options.stand_in and "sh" not in text else set())
    step.equal(set(text), wanted, "TXT has exactly the nine keys")
    for key, pattern in {
        "c#": r"[1-9]\d{0,4}", "ff": "0", "id": "([0-9A-F]{2}:){5}[0-9A-F]{2}", "md": ".{1,64}", "pv": r"1\.1",
        "s#": "1", "sf": "1", "ci": "17|18", "sh": "[A-Za-z0-9+/]{6}==",
    }.items():  # fmt: skip
        require(re.fullmatch(pattern, text[key]), f"{key} is right", text[key])
    step.ok("and each has a legal value: " + " ".join(f"{k}={v}" for k, v in sorted(text.items())))
    if not options.stand_in:
        payload = re.search(r"X-HM://[0-9A-Z]{9}([0-9A-Z]{4})\b", hub.verb(options, "qr"))
        require(payload, "`hksvd qr` prints the setup payload")
        digest = hashlib.sha512((payload[1] + text["id"]).encode()).digest()[:4]
        step.equal(text["sh"], base64.b64encode(digest).decode(), "sh belongs to the setup id of the QR code")


async def whole(step, options):
    """All three browsers."""
    zeroconf = AsyncZeroconf(interfaces=[options.own], ip_version=IPVersion.V4Only)
    watch = Watch(zeroconf)
    browser = AsyncServiceBrowser(zeroconf.zeroconf, HAP, handlers=[watch])
    name = await watch.wait(ServiceStateChange.Added, 10)
    info = await watch.info(name)
    text = info.decoded_properties
    step.ok(f"zeroconf finds {name}")
    step.equal(info.port, options.port, "SRV has the HAP port")
    named = re.fullmatch(r"[A-Za-z0-9-]+\.local\.", info.server) or options.stand_in
    step.check(named, f"and a host name, {info.server}", info.server)
    addresses = info.parsed_addresses(IPVersion.V4Only)
    step.check(options.host in addresses, f"A has the address of the interface: {addresses}", addresses)
    step.check("127.0.0.1" not in addresses, "and not that of loopback")
    check_text(step, text, options)

    def resolved(listed):
        rows = [line.split(";") for line in listed.splitlines() if line.startswith("=")]
        return [row for row in rows if row[2] == "IPv4" and row[7] == options.host]

    listed = await tool_until(resolved, "avahi-browse", "--resolve", "--terminate", "--parsable", "_hap._tcp")
    rows = resolved(listed)
    step.check(len(rows) >= 1, "avahi-browse resolves it over IPv4", listed)
    seen = dict(pair.split("=", 1) for pair in re.findall(r'"([^"]*)"', rows[0][9]))
    step.equal((seen, int(rows[0][8])), (text, options.port), "with the same TXT and port")
    listed = await tool_until(
        lambda said: "_hap._tcp" in said, "avahi-browse", "--all", "--terminate", "--parsable", "--no-db-lookup"
    )
    step.check("_hap._tcp" in listed, "the service type is enumerated", listed)
    listed = await tool("avahi-resolve", "-4", "--name", info.server.rstrip("."))
    step.check(options.host in listed, "avahi-resolve finds the host", listed)

    controller = IpController(char_cache=CharacteristicCacheMemory(), zeroconf_instance=zeroconf)
    await controller.async_start()
    found = await controller.async_find(text["id"], timeout=10)
    step.ok("aiohomekit finds it by its device id")
    finish = await found.async_start_pairing("found")
    session = hub.Session(await finish(options.code))
    step.ok("and pairs without being told an address")
    step.check(await watch.text(name, "sf", "0"), "sf becomes 0")
    await session.verify()
    await session.load()
    step.ok("the session works")
    await asyncio.sleep(2)  # two announcements a second apart are under way
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    step.check(await watch.text(name, "sf", "1"), "unpaired: sf becomes 1 again")
    step.equal((await watch.info(name)).decoded_properties["c#"], text["c#"], "and c# is what it was")
    await session.close()

    watch.told.clear()
    os.kill(options.pid, signal.SIGTERM)
    began = time.monotonic()
    step.equal(await watch.wait(ServiceStateChange.Removed, 5), name, "SIGTERM: the goodbye is heard")
    while running(options.pid) and time.monotonic() < began + 5:
        await asyncio.sleep(0.05)
    step.check(not running(options.pid), f"and the process has ended after {time.monotonic() - began:.1f} s")
    # A second after the goodbye Avahi forgets it.
    end, own = time.monotonic() + 6, name.split(".")[0].split(" ")[0]
    while own in (listed := await tool("avahi-browse", "--terminate", "--parsable", "_hap._tcp")):
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.5)
    step.check(own not in listed, "avahi-browse lists it no more", listed)
    await browser.async_cancel()
    await controller.async_stop()
    await zeroconf.async_close()


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--own", required=True, help="IPv4 address of this end of the link")
    parser.add_argument("--pid", type=int, required=True, help="process of the daemon")
    parser.add_argument("--folder", default="target/test-logs", help="where Avahi's configuration and log go")
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)

    def body(step):
        with avahi(folder):
            asyncio.run(whole(step, options))

    return steps.run("discover", body)


if __name__ == "__main__":
    sys.exit(main())
