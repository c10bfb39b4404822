"""The samples of one shape against the field: JSON lines, flushed as they come, that survive a cut."""

import json

UNREACHED = "not reached within its share"


def rows_in(path):
    """Reads a log; a line that a kill cut short is left out."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def latest(rows):
    """Keeps of each policy the rows of the last attempt that finished; of one that never did, none."""
    attempts = {row["policy"]: row["attempt"] for row in rows if row["kind"] == "finished"}
    return [row for row in rows if row["attempt"] == attempts.get(row["policy"])]


class Log:
    """The lines of one shape. A policy that an earlier attempt has measured as a whole is not measured again; one that it has
    measured in part is, and keeps those rows until then."""

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = latest(rows_in(path)) if path.exists() else []
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._whole = {row["policy"]: row["whole"] for row in rows if row["kind"] == "finished"}
        self._attempt = 1 + max((row["attempt"] for row in rows), default=0)
        self._file = open(path, "a")

    @property
    def whole(self):
        """Policies that are measured as a whole."""
        return {policy for policy, whole in self._whole.items() if whole}

    @property
    def measured(self):
        """Policies that are measured, be it in part."""
        return set(self._whole)

    def write(self, **row):
        self._file.write(json.dumps(row | {"attempt": self._attempt}) + "\n")
        self._file.flush()

    def finish(self, whole, **row):
        """Ends the rows of a policy: they stand for it from now on."""
        self.write(kind="finished", whole=whole, **row)
        self._whole[row["policy"]] = whole
