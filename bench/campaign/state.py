"""What a campaign has done so far: a file that survives a cut, and the time that is left."""

import json
import os
import time

# A unit that was cut so often is not tried again: something in it does not end.
MOST_ATTEMPTS = 5
# How a unit may end for good.
FINISHED = ("done", "failed", "skipped")


class Budget:
    """Seconds of this session, counted from its start."""

    def __init__(self, seconds, clock=time.monotonic):
        self._clock = clock
        self._end = clock() + seconds

    def left(self):
        return max(0.0, self._end - self._clock())


class State:
    """The units of a campaign by name, in a JSON file that is replaced whole after each change."""

    def __init__(self, path, identity):
        self.path = path
        self.identity = identity
        self.units = {}
        self.sessions = []
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["identity"] != identity:
                raise SystemExit(
                    f"campaign: {path} belongs to another pack: {stored['identity']}, this one is {identity}; "
                    "give another --results folder"
                )
            self.units = stored["units"]
            self.sessions = stored["sessions"]

    def is_finished(self, name):
        return self.units.get(name, {}).get("status") in FINISHED

    def attempts(self, name):
        return self.units.get(name, {}).get("attempts", 0)

    def seconds(self, name):
        """Seconds spent on a unit in all its attempts."""
        return self.units.get(name, {}).get("seconds", 0.0)

    def start(self, name):
        """Notes that a unit runs: a kill from here on leaves it cut."""
        unit = self.units.setdefault(name, {"attempts": 0, "seconds": 0.0})
        unit["attempts"] += 1
        unit["status"] = "cut"
        unit["reason"] = "the campaign ended while it ran"
        self.save()

    def end(self, name, status, reason, seconds):
        unit = self.units.setdefault(name, {"attempts": 0, "seconds": 0.0})
        if status == "cut" and unit["attempts"] >= MOST_ATTEMPTS:
            status, reason = "failed", f"cut {MOST_ATTEMPTS} times: {reason}"
        unit["seconds"] = round(unit["seconds"] + seconds, 3)
        unit["status"] = status
        unit["reason"] = reason
        self.save()

    def forget(self, names):
        """Lets units run again."""
        for name in names:
            self.units.pop(name, None)
        self.save()

    def counts(self, names):
        """Counts units by how they ended; `left` are those still to run."""
        counts = {"done": 0, "failed": 0, "skipped": 0, "left": 0}
        for name in names:
            status = self.units.get(name, {}).get("status")
            counts[status if status in FINISHED else "left"] += 1
        return counts

    def save(self):
        text = json.dumps(
            {"identity": self.identity, "sessions": self.sessions, "units": self.units}, indent=1
        )
        draft = self.path.with_suffix(".new")
        with open(draft, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path)
