#!/usr/bin/env python3
"""What must outlive a restart: identity, pairings, recording configuration, switches.

usage: restart.py --keep FILE before    pairs, writes settings, remembers all in FILE
       restart.py --keep FILE after     finds everything as it was, then unpairs
The daemon is restarted in between, on the same port and state folder.
"""

import asyncio
import json
import pathlib
import sys

import hub
import record
import steps
from aiohomekit.controller.ip.pairing import IpPairing

KEPT = (("204", "209"), ("204", "B0"), ("204", "226"), ("21A", "223"), ("21A", "225"), ("21A", "21B"), ("110", "B0"))


def shape(services):
    """The attribute database without its values."""
    return [
        [kind, s["iid"], sorted(s.get("linked", [])), [{k: v for k, v in c.items() if k not in ("value", "ev")}
                                                      for c in s["characteristics"]]]
        for kind, s in services
    ]  # fmt: skip


async def before(step, options):
    """Pairs and writes what differs from the defaults."""
    session = await hub.pair(options.host, options.port, options.code)
    await session.verify()
    await session.load()
    options.audio = "on"
    await record.arm(step, session, options)
    await session.write("21A", "223", 0)
    await session.write("110", "B0", 0)
    guest, identifier, public = hub.Session.guest(session)
    await session.pairing.add_pairing(identifier, public, "User")
    values = {f"{s}.{c}": await session.value(s, c) for s, c in KEPT}
    kept = {
        "pairing": {k: v for k, v in session.pairing.pairing_data.items() if k != "derive"},
        "guest": {k: v for k, v in guest.pairing.pairing_data.items() if k != "derive"},
        "values": values, "database": shape(session.services),
    }  # fmt: skip
    pathlib.Path(options.keep).write_text(json.dumps(kept))
    await session.close()
    step.ok(f"two controllers are paired and {len(values)} settings are written")


async def after(step, options):
    """Everything is as it was."""
    kept = json.loads(pathlib.Path(options.keep).read_text())
    session = await hub.Session(IpPairing(hub.controller(), kept["pairing"])).verify()
    step.ok("pair-verify with the pairing from before: the identity is the same")
    await session.load()
    step.equal(json.loads(json.dumps(shape(session.services))), kept["database"], "the attribute database is the same")
    for service, characteristic in KEPT:
        name = f"{service}.{characteristic}"
        step.equal(await session.value(service, characteristic), kept["values"][name], f"{name} is as it was written")
    step.check(await session.value("85", "22") in (False, 0), "motion starts off")
    guest = await hub.Session(IpPairing(hub.controller(), kept["guest"])).verify()
    step.ok("the second controller is known, too")
    await guest.close()
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    await session.close()
    guest = hub.Session(IpPairing(hub.controller(), kept["guest"]))
    try:
        await guest.verify()
        raise steps.Failed("with its last admin every pairing goes")
    except hub.HomeKitException:
        step.ok("with its last admin every pairing goes")
    await guest.close()


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__.splitlines()[0])
    parser.add_argument("--keep", required=True, help="file between the two phases")
    parser.add_argument("phase", choices=("before", "after"))
    options = parser.parse_args()
    body = before if options.phase == "before" else after
    return steps.run("restart", lambda step: asyncio.run(body(step, options)))


if __name__ == "__main__":
    sys.exit(main())
