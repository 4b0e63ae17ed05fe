"""What was fed to the camera: which picture of the file is that, and was one left out?"""

import mmap
import struct

from steps import require

# When the first picture was written (CLOCK_MONOTONIC), and the number of the newest: scripts/bench writes it.
CLOCK = struct.Struct("<dQ")


def nal_units(unit):
    """NAL units of an access unit with start codes (ISO/IEC 14496-10 Annex B)."""
    return [nal.rstrip(b"\0") for nal in unit.split(b"\0\0\1") if nal.rstrip(b"\0")]


def slices(nals):
    """What makes a picture that picture: its coded slices."""
    return b"".join(nal for nal in nals if nal[0] & 31 in (1, 5))


class Fed:
    """The pictures of a file that goes round and round, and the clock of who feeds it."""

    def __init__(self, stream, clock, fps):
        with open(stream, "rb") as file:
            mark = b"\0\0\0\x01\x09"
            pictures = [slices(nal_units(mark + unit)) for unit in file.read().split(mark)[1:]]
        self.count, self.fps = len(pictures), fps
        self._number = {picture: number for number, picture in enumerate(pictures)}
        require(len(self._number) == self.count, "no picture is in the file twice", len(self._number))
        with open(clock, "rb") as file:
            self._clock = mmap.mmap(file.fileno(), CLOCK.size, prot=mmap.PROT_READ)

    def newest(self):
        """Number of the picture that is fed now; the first is 0."""
        return CLOCK.unpack(self._clock)[1]

    def number(self, nals):
        """Running number of the last picture fed that looks like this; None: it is not from the file."""
        known = self._number.get(slices(nals))
        if known is None:
            return None
        newest = self.newest()
        return newest - (newest - known) % self.count

    def fed_at(self, number):
        """When it was due."""
        return CLOCK.unpack(self._clock)[0] + number / self.fps


class Tally:
    """Follows pictures that must come one after the other."""

    def __init__(self, fed):
        self._fed = fed
        self.first = self.last = None
        self.pictures = self.missing = self.strange = 0

    def take(self, nals):
        """The next picture."""
        number = self._fed.number(nals)
        self.pictures += 1
        if number is None:
            self.strange += 1
        elif self.first is None:
            self.first = self.last = number
        else:
            # A picture that came late is no loss: its number counts from the last one, within one round of the file.
            step = (number - self.last) % self._fed.count
            self.missing += (step - 1) % self._fed.count
            self.last += step

    def figures(self):
        """For JSON. Fed: all from the first to the last that was received."""
        fed = 0 if self.first is None else self.last - self.first + 1
        return {"fed": fed, "received": self.pictures, "missing": self.missing, "not_from_the_file": self.strange}
