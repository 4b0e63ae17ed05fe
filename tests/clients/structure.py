"""What the attribute database of an HKSV camera must look like: the tables the accessory is checked against.

Perms: r `pr`, w `pw`, e `ev`, t `tw`, R `wr`. A leading `?` marks a characteristic that may be absent.
"""

from hub import short
from steps import require

PERMS = {"r": "pr", "w": "pw", "e": "ev", "t": "tw", "R": "wr"}

TABLE = {
    "3E": {
        "14": ("bool", "w"), "20": ("string", "r"), "21": ("string", "r"), "23": ("string", "r"),
        "30": ("string", "r"), "52": ("string", "r"), "?53": ("string", "r"), "?A6": ("uint32", "re"),
        "?220": ("data", "r"),
    },
    "A2": {"37": ("string", "r")},
    "110": {
        "120": ("tlv8", "re"), "114": ("tlv8", "r"), "115": ("tlv8", "r"), "116": ("tlv8", "r"),
        "118": ("tlv8", "rw"), "117": ("tlv8", "rw"), "B0": ("uint8", "rwe"),
    },
    "112": {"11A": ("bool", "rwe"), "?119": ("uint8", "rwe")},
    "113": {"11A": ("bool", "rwe"), "?119": ("uint8", "rwe")},
    "85": {
        "22": ("bool", "re"), "75": ("bool", "re"), "?77": ("uint8", "re"), "?7A": ("uint8", "re"),
        "?79": ("uint8", "re"),
    },
    "121": {"73": ("uint8", "re"), "?8": ("int", "rwe"), "?119": ("uint8", "rwe"), "?11A": ("bool", "rwe")},
    "21A": {
        "223": ("uint8", "rwe"), "21B": ("uint8", "rwe"), "225": ("uint8", "rwe"), "?21D": ("bool", "rwet"),
        "?11B": ("bool", "rwet"), "?227": ("bool", "re"), "?21C": ("uint8", "re"), "?224": ("float", "re"),
    },
    "204": {
        "B0": ("uint8", "rwe"), "205": ("tlv8", "re"), "206": ("tlv8", "re"), "207": ("tlv8", "re"),
        "209": ("tlv8", "rwe"), "226": ("uint8", "rwet"),
    },
    "129": {"130": ("tlv8", "r"), "131": ("tlv8", "rwR"), "37": ("string", "r")},
}  # fmt: skip

# HAP-NodeJS: Volume is optional, its 37 of service 129 may be notified, 130 and 131 are as here.
COUNTS = {"3E": 1, "A2": 1, "112": 1, "85": 1, "21A": 1, "204": 1, "129": 1}

PYTHON = {"bool": (bool, int), "uint8": (int,), "uint32": (int,), "int": (int,), "float": (int, float),
          "string": (str,), "tlv8": (str,), "data": (str,)}  # fmt: skip


def check_services(services, doorbell=False):
    """Raises `Failed` at the first deviation; returns (services, characteristics) that were looked at."""
    kinds = [kind for kind, _ in services]
    wanted = dict(COUNTS)
    if doorbell:
        wanted.update({"121": 1, "113": 1})
    else:
        require("121" not in kinds, "a camera without a button has no doorbell service")
    for kind, count in wanted.items():
        require(kinds.count(kind) == count, f"{count} service {kind}", kinds)
    require(1 <= kinds.count("110") <= 4, "one to four services 110", kinds)
    require(kinds[0] == "3E" and services[0][1]["iid"] == 1, "AccessoryInformation comes first with iid 1")

    iids = [s["iid"] for _, s in services] + [c["iid"] for _, s in services for c in s["characteristics"]]
    require(len(iids) == len(set(iids)), "every iid once")
    counted = 0
    for kind, service in services:
        table = TABLE.get(kind)
        require(table is not None, "only services of an HKSV camera", kind)
        seen = {}
        for characteristic in service["characteristics"]:
            name = short(characteristic["type"])
            require(name not in seen, f"{kind}.{name} once")
            seen[name] = characteristic
            row = table.get(name) or table.get("?" + name)
            if name == "23":
                row = ("string", "r")
            require(row is not None, f"only known characteristics in {kind}", name)
            check_characteristic(f"{kind}.{name}", characteristic, *row)
            counted += 1
        for name in table:
            require(name.startswith("?") or name in seen, f"{kind} has {name}", sorted(seen))

    def iid_of(kind):
        return next(s["iid"] for k, s in services if k == kind)

    recording = next(s for k, s in services if k == "204")
    links = set(recording.get("linked", []))
    require({iid_of("129"), iid_of("85")} <= links, "204 is linked to 129 and 85", sorted(links))
    if doorbell:
        require(next(s for k, s in services if k == "121").get("primary") is True, "the doorbell is primary")
    return len(services), counted


def check_characteristic(name, characteristic, form, perms):
    """Format, permissions, and a value of the right type."""
    require(characteristic["format"] == form, f"{name} is {form}", characteristic["format"])
    seen = set(characteristic["perms"]) - {"hd"}
    require(seen == {PERMS[p] for p in perms}, f"{name} has permissions {perms}", sorted(seen))
    value = characteristic.get("value")
    if "pr" not in seen:
        require("value" not in characteristic, f"{name} cannot be read and has no value")
    elif name == "121.73":
        require(value is None, "ProgrammableSwitchEvent reads null", value)
    else:
        require(isinstance(value, PYTHON[form]), f"{name} holds a {form}", value)
    if form == "string":
        require(0 < len(value.encode()) <= characteristic.get("maxLen", 64), f"{name} is 1 to 64 bytes", value)
    for low, high in (("minValue", "maxValue"),):
        if low in characteristic and high in characteristic and isinstance(value, (int, float)):
            require(characteristic[low] <= value <= characteristic[high], f"{name} is in its range", value)
