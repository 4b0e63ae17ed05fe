#!/usr/bin/env python3
"""A controller made of aiohomekit pairs with the accessory and uses everything but the recording.

The accessory must be unpaired; it is unpaired again at the end.
"""

import asyncio
import socket
import struct
import sys

import endpoints
import hub
import steps
import structure
from aiohomekit.exceptions import AuthenticationError, HomeKitException, UnavailableError
from steps import require

CONNECTIONS = 16
# For an event that must come.
EVENT_S = 5


def http(options, request):
    """One plain request on a connection of its own; (status, rest of the answer)."""
    with socket.create_connection((options.host, options.port), timeout=10) as sock:
        sock.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(4096)
            if not more:
                break
            answer += more
        status = answer.split(b" ", 2)[1:2]
        return (int(status[0]) if status and status[0].isdigit() else None), answer


def key(device, value):
    """KEY_1 goes down or up: two `struct input_event` as a 64-bit kernel writes them."""
    with open(device, "wb", buffering=0) as events:
        events.write(struct.pack("=qqHHiqqHHi", 0, 0, 1, 2, value, 0, 0, 0, 0, 0))


def statuses(answer):
    """iid → status of a 207."""
    return {entry["iid"]: entry.get("status", 0) for entry in answer}


async def refused(awaitable, *kinds):
    """True when the library raises one of these."""
    try:
        await awaitable
    except kinds:
        return True
    return False


async def unpaired(step, options):
    """What an accessory without a pairing answers."""
    for path in ("/accessories", "/characteristics?id=1.2"):
        status, _ = http(options, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        step.equal(status, 470, f"GET {path} before pair-verify is refused")
    status, _ = http(options, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
    step.equal(status, 404, "an unknown path is not found")
    found = hub.discovery(options.host, options.port)
    await found.async_identify()
    await found.close()
    step.ok("POST /identify before pairing")

    wrong = "111-22-333" if options.code != "111-22-333" else "111-22-334"
    found = hub.discovery(options.host, options.port)
    finish = await found.async_start_pairing("wrong")
    step.check(await refused(finish(wrong), AuthenticationError), "a wrong setup code is refused")
    await found.close()


async def read_everything(step, session, options):
    """Reads through `/characteristics` what `/accessories` calls readable."""
    readable = [
        (f"{kind}.{hub.short(c['type'])}", c)
        for kind, s in session.services for c in s["characteristics"] if "pr" in c["perms"]
    ]  # fmt: skip
    entries = await session.read(*(c["iid"] for _, c in readable))
    by_iid = {e["iid"]: e for e in entries}
    require(len(by_iid) == len(readable), "one entry for each id", len(entries))
    for name, characteristic in readable:
        entry = by_iid[characteristic["iid"]]
        if name == "204.209":
            require(entry.get("status") == -70402, "209 cannot be read before it is written", entry)
        else:
            require("value" in entry and entry.get("status", 0) == 0, f"{name} is read", entry)
    step.ok(f"{len(readable)} characteristics read, 209 fails with -70402 as it must")

    identify, unknown = session.iid("3E", "14"), 65000
    name = session.iid("3E", "23")
    entries = {e["iid"]: e for e in await session.read(name, identify, unknown)}
    require(entries[name].get("status") == 0 and "value" in entries[name], "the good one keeps its value", entries)
    step.equal(entries[identify]["status"], -70405, "a write-only characteristic is not read")
    step.check(entries[unknown]["status"] in ((-70409, -70410) if options.stand_in else (-70409,)),
               "an unknown iid is named", entries[unknown])  # fmt: skip


async def write_rules(step, session, options):
    """Writes that succeed and writes that must not."""
    active = session.iid("110", "B0")
    step.equal(await session.put({"iid": active, "value": 0}), [], "110.Active is written: 204")
    step.equal(await session.value("110", "B0"), 0, "and read back")
    await session.write("110", "B0", 1)
    snapshots = session.iid("21A", "223")
    answer = statuses(await session.put({"iid": snapshots, "value": 7}, {"iid": active, "value": 1}))
    step.equal(answer, {snapshots: -70410, active: 0}, "a value out of range is refused, the other one is taken")
    motion = session.iid("85", "22")
    step.equal(statuses(await session.put({"iid": motion, "value": True})), {motion: -70404},
               "a read-only characteristic is not written")  # fmt: skip
    video = session.iid("110", "114")
    step.equal(statuses(await session.put({"iid": video, "ev": True})), {video: -70406},
               "a characteristic without ev is not subscribed")  # fmt: skip

    audio = session.iid("204", "226")
    step.equal(statuses(await session.put({"iid": audio, "value": 1})), {audio: -70410},
               "a timed-write characteristic is refused without /prepare")  # fmt: skip
    pid = await session.prepare()
    step.equal(await session.put({"iid": audio, "value": 1}, pid=pid), [], "and taken in a timed write")
    step.equal(await session.value("204", "226"), 1, "and read back")
    pid = await session.prepare()
    answer = statuses(await session.put({"iid": audio, "value": 0}, pid=pid + 1))
    step.equal(answer, {audio: -70410}, "another pid is refused")
    pid = await session.prepare(ttl=100)
    await asyncio.sleep(0.4)
    answer = statuses(await session.put({"iid": audio, "value": 0}, pid=pid))
    step.equal(answer, {audio: -70410}, "an expired pid is refused")
    await session.write("204", "226", 0, timed=True)

    selected = session.iid("204", "209")
    answer = statuses(await session.put({"iid": selected, "value": "AQ=="}))
    step.equal(answer, {selected: -70402 if options.stand_in else -70410},
               "a truncated recording configuration is refused")  # fmt: skip


async def events(step, session, other, options):
    """Motion, and the rule that the writer gets no event."""
    motion, active = session.iid("85", "22"), session.iid("85", "75")
    camera = session.iid("21A", "21B")
    for one in (session, other):
        require(await one.put({"iid": motion, "ev": True}, {"iid": active, "ev": True}, {"iid": camera, "ev": True})
                == [], "subscribed")  # fmt: skip
    step.ok("two connections subscribe")

    await hub.verb_soon(options, "motion", "off")
    await asyncio.sleep(0.3)  # the events of "off", if it was on
    for one in (session, other):
        one.forget_events()
    # The verb itself takes long where it is one in an emulated camera.
    await hub.verb_soon(options, "motion", "on")
    began = asyncio.get_running_loop().time()
    require(await session.event(motion, within=EVENT_S) in (True, 1), "the motion event arrives")
    require(await other.event(motion, within=EVENT_S) in (True, 1), "on both connections")
    took = asyncio.get_running_loop().time() - began
    step.check(took < 1.5, f"motion on: both are told, {took * 1000:.0f} ms after the verb has returned", took)
    require(await session.value("85", "22") in (True, 1), "and it is read")
    await hub.verb_soon(options, "motion", "on")
    step.equal(await session.event(motion, within=0.7), None, "motion on while it is on: no event")
    await hub.verb_soon(options, "motion", "off")
    step.check(await session.event(motion, within=EVENT_S) in (False, 0), "motion off: told at once")
    require(await other.event(motion, within=EVENT_S) in (False, 0), "on both connections")

    for one in (session, other):
        one.forget_events()
    require(await session.put({"iid": camera, "value": 0}) == [], "camera off")
    told = await other.told_of(camera, active)
    step.equal(
        (told.get(camera), told.get(active)), (0, 0), "21B written by one: the other is told, and of StatusActive"
    )
    told = await session.told(within=1.0)
    step.check(camera not in told, "the writer is not told of its own write", told)
    require(await session.put({"iid": camera, "value": 1}) == [], "camera on")
    other.forget_events()
    require(await session.value("85", "75") in (True, 1), "StatusActive is back")
    step.ok("camera off and on: StatusActive follows")


async def snapshot(step, session):
    """`/resource`, and its refusal while the camera is off."""
    image = await session.pairing.image(1, 640, 360)
    step.check(image is not None and image[:2] == b"\xff\xd8" and image[-2:] == b"\xff\xd9",
               f"a snapshot is a JPEG of {len(image or b'')} bytes")  # fmt: skip
    await session.write("21A", "21B", 0)
    answer = await session.connection.post_json(
        "/resource", {"aid": 1, "resource-type": "image", "image-width": 640, "image-height": 360, "reason": 0}
    )
    step.equal(answer.get("status"), -70412, "no snapshot while the camera is off")
    await session.write("21A", "21B", 1)


async def second_pairing(step, session):
    """A guest is added, may read, may not administrate, and is shown out."""
    guest, identifier, public = hub.Session.guest(session)
    stranger = hub.Session.again(guest)
    step.check(await refused(stranger.verify(), HomeKitException), "an unknown controller is refused at pair-verify")
    await stranger.close()
    require(await session.pairing.add_pairing(identifier, public, "User"), "added")
    listed = {p["pairingId"]: p for p in await session.pairing.list_pairings()}
    mine = session.pairing.pairing_data["iOSPairingId"]
    step.equal({k: (p["permissions"], p["publicKey"]) for k, p in listed.items()},
               {mine: (1, session.pairing.pairing_data["iOSDeviceLTPK"]), identifier: (0, public)},
               "a second pairing is added and both are listed")  # fmt: skip

    await guest.verify()
    await guest.load()
    await guest.value("3E", "23")
    step.ok("the second controller verifies and reads")
    camera = guest.iid("21A", "21B")
    step.equal(statuses(await guest.put({"iid": camera, "value": 1})), {camera: -70401},
               "it may not write what only admins may")  # fmt: skip
    step.check(await refused(guest.pairing.list_pairings(), HomeKitException), "it may not list pairings")

    require(await session.pairing.add_pairing(identifier, public, "Admin"), "made an admin")
    step.equal(await guest.put({"iid": camera, "value": 1}), [], "as an admin it may, on the same connection")
    closed = guest.connection.protocol
    guest.connection.closing = True  # no reconnection: the close is what is looked at
    await session.pairing.remove_pairing(identifier)
    for _ in range(30):
        if guest.connection.protocol is not closed:
            break
        await asyncio.sleep(0.1)
    step.check(guest.connection.protocol is not closed, "its removal closes its connection")
    step.equal([p["pairingId"] for p in await session.pairing.list_pairings()], [mine], "and it is listed no more")


async def many(step, session, other):
    """Sixteen verified connections work at once."""
    others = [hub.Session.again(session) for _ in range(CONNECTIONS - 2)]  # the events have one more open
    for one in others:
        await one.verify()
    answers = await asyncio.gather(
        *(
            one.connection.get_json(f"/characteristics?id=1.{session.iid('3E', '23')}")
            for one in [session, other, *others]
        )
    )
    step.equal(len({a["characteristics"][0]["value"] for a in answers}), 1,
               f"{CONNECTIONS} verified connections read at once")  # fmt: skip
    for one in others:
        await one.close()


async def whole(step, options):
    """Everything, in the order a home goes through it."""
    await unpaired(step, options)
    session = await hub.pair(options.host, options.port, options.code)
    step.ok("pair-setup with the right setup code")
    found = hub.discovery(options.host, options.port)
    step.check(await refused(found.async_start_pairing("again"), UnavailableError), "a second pair-setup is refused")
    await found.close()
    await session.verify()
    step.ok("pair-verify")
    await session.load()
    services, characteristics = structure.check_services(session.services, options.doorbell)
    step.ok(f"/accessories: {services} services and {characteristics} characteristics are as the tables say")
    await read_everything(step, session, options)
    await endpoints.offers(step, session)
    await write_rules(step, session, options)
    other = await hub.Session.again(session).verify()
    await endpoints.set_up(step, session, other, options.host)
    await events(step, session, other, options)
    await snapshot(step, session)
    if options.doorbell:
        press = session.iid("121", "73")
        require(await session.put({"iid": press, "ev": True}) == [], "subscribed")
        session.forget_events()
        await hub.verb_soon(options, "ring")
        motion = session.iid("85", "22")
        told = await session.told_of(press, motion)
        step.equal(told.get(press), 0, "`hksvd ring` is told as a press")
        step.check(told.get(motion) in (True, 1), "and raises motion")
        await hub.verb_soon(options, "motion", "off")
        if options.button:
            session.forget_events()
            key(options.button, 1)
            told = await session.told_of(press, within=5)
            key(options.button, 0)
            step.equal(told.get(press), 0, "a press of the button itself is told while the finger is there")
            await hub.verb_soon(options, "motion", "off")
    await second_pairing(step, session)
    await many(step, session, other)
    step.check(await session.pairing.identify(), "identify of a paired accessory")

    protocol = other.connection.protocol
    other.connection.closing = True
    await session.pairing.remove_pairing(session.pairing.pairing_data["iOSPairingId"])
    for _ in range(30):
        if other.connection.protocol is not protocol:
            break
        await asyncio.sleep(0.1)
    step.check(other.connection.protocol is not protocol, "unpaired: its other connection is closed, too")
    await session.close()
    found = hub.discovery(options.host, options.port)
    finish = await found.async_start_pairing("next")
    again = hub.Session(await finish(options.code))
    await again.verify()
    await again.load()
    step.check((await again.read(again.iid("204", "226")))[0]["value"] == 0, "it pairs again, with settings at default")
    await again.pairing.remove_pairing(again.pairing.pairing_data["iOSPairingId"])
    await again.close()
    step.ok("and is unpaired in the end")


def main():
    """Parses, runs, tells."""
    parser = hub.arguments(__doc__)
    parser.add_argument("--doorbell", action="store_true", help="the accessory is a video doorbell")
    parser.add_argument("--button", metavar="FIFO", help="the input device of the bell's button")
    options = parser.parse_args()
    return steps.run("controller", lambda step: asyncio.run(whole(step, options)))


if __name__ == "__main__":
    sys.exit(main())
