"""One printed line for each step of a client, and an exit code that cannot lie.

A step that does not hold ends the client: nothing after it is counted, nothing is skipped.
"""

import sys
import time
import traceback


class Failed(Exception):
    """A step did not hold; the text says what was seen."""


class Steps:
    """Counts and prints the steps of one client."""

    def __init__(self, client):
        self.client = client
        self.passed = 0
        self.began = time.monotonic()

    def ok(self, text):
        """Prints a step that held."""
        self.passed += 1
        print(f"ok {self.passed:3} {time.monotonic() - self.began:7.2f}s {text}", flush=True)

    def check(self, holds, text, seen=None):
        """A step: prints it when it holds, ends the client when it does not."""
        if not holds:
            raise Failed(text if seen is None else f"{text}: seen {seen!r}")
        self.ok(text)

    def equal(self, seen, wanted, text):
        """A step: two values are the same."""
        if seen != wanted:
            raise Failed(f"{text}: wanted {wanted!r}, seen {seen!r}")
        self.ok(text)


def require(holds, text, seen=None):
    """A condition inside a step; says nothing when it holds."""
    if not holds:
        raise Failed(text if seen is None else f"{text}: seen {seen!r}")


def run(client, body):
    """Runs `body(steps)`; prints the closing line; returns the exit code."""
    steps = Steps(client)
    failed = 0
    try:
        body(steps)
        if steps.passed == 0:
            raise Failed("no step was run")
    except Failed as failure:
        failed = 1
        print(f"FAILED {client}: {failure}", flush=True)
    except Exception:  # noqa: BLE001  whatever a library raises is a failed step, told in full
        failed = 1
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED {client}: after step {steps.passed}", flush=True)
    print(f"{client}: {steps.passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
