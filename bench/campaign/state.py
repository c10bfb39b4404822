"""What a campaign has done so far: a file that survives a cut."""

import json
import os

# A unit that was cut so often is not tried again: something in it does not end.
MOST_ATTEMPTS = 5
# How a unit may end for good. One that is `bounded` has results, and ended by its share of the time: a further call goes on
# with it. One that is `cut` or `not reached` has none.
FINISHED = ("done", "failed", "skipped")


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

    def status(self, name):
        return self.units.get(name, {}).get("status")

    def start(self, name):
        """Notes that a unit runs: a kill from here on leaves it cut, or bounded if it was that already."""
        unit = self.units.setdefault(name, {"attempts": 0, "seconds": 0.0})
        unit["attempts"] += 1
        if unit.get("status") != "bounded":
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

    def pass_over(self, name):
        """Notes that there was no time for a unit; what it has stays."""
        unit = self.units.setdefault(name, {"attempts": 0, "seconds": 0.0})
        if unit.get("status") not in ("bounded", "cut"):
            unit |= {"status": "not reached", "reason": "the time of the call was divided among what tells more"}
            self.save()

    def forget(self, names):
        """Lets units run again."""
        for name in names:
            self.units.pop(name, None)
        self.save()

    def counts(self, names):
        """Counts units by how they ended; `left` are those without results."""
        counts = {"done": 0, "bounded": 0, "failed": 0, "skipped": 0, "left": 0}
        for name in names:
            status = self.status(name)
            counts[status if status in counts else "left"] += 1
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
