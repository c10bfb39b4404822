"""How the time of one call is divided among the units, so that each of them comes to something."""

import time

# A unit that was asked to end has so long before it is killed; part of its share.
GRACE_S = 2
# Of a share without its grace, what the command is told: the rest is for what it has begun.
TOLD = 0.9


class Budget:
    """Seconds of this call, counted from its start."""

    def __init__(self, seconds, clock=time.monotonic):
        self._clock = clock
        self._end = clock() + seconds

    def left(self):
        return max(0.0, self._end - self._clock())


class Shares:
    """The units still to come, in the order of what they tell, and what is left for them.

    Each has its least; what is left beyond all leasts is divided by weight. So the sum is never more than the budget, what
    ends early gives its time to those after it, and where not even the leasts fit, those that tell most get theirs.
    """

    def __init__(self, budget, units):
        self._budget = budget
        self._ahead = list(units)

    def take(self, unit):
        """Returns the seconds of the next unit, None where there is no time for it."""
        if not self._ahead or self._ahead[0] is not unit:
            raise ValueError(f"{unit.name} is not the next unit")
        left = self._budget.left()
        spare = left - sum(ahead.least_s for ahead in self._ahead)
        weights = sum(ahead.weight for ahead in self._ahead)
        self._ahead.pop(0)
        if spare >= 0:
            return unit.least_s + spare * unit.weight / weights
        return unit.least_s if left >= unit.least_s else None


def told(seconds):
    """Returns the seconds that a command is told it has, of a share without its grace."""
    return max(1, int(seconds * TOLD))
