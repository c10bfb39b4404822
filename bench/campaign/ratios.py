"""Medians, their intervals, and ratios of times that were taken in turns."""

import math
import statistics


def interval_ranks(n, level=0.95):
    """Returns ranks (low, high), from 0, between which the median of n samples lies with the given probability.

    None where so few samples have no such interval. The count of samples below the median is binomial.
    """
    best = None
    for low in range(n // 2):
        outside = 2 * sum(math.comb(n, i) for i in range(low + 1)) / 2**n
        if 1 - outside >= level:
            best = (low, n - 1 - low)
    return best


def median_interval(samples):
    """Returns median, lower and upper end of its 95 % interval; the ends are None with fewer than six samples."""
    ordered = sorted(samples)
    ranks = interval_ranks(len(ordered))
    low, high = (ordered[ranks[0]], ordered[ranks[1]]) if ranks else (None, None)
    return statistics.median(ordered), low, high


def paired_ratio(ours, theirs):
    """Returns the median of theirs over ours, round by round, with its interval: what drifts falls on both."""
    return median_interval([b / a for a, b in zip(ours, theirs, strict=True)])


def with_interval(value, low, high, digits=2, unit=""):
    """Writes `1.34x (1.30-1.38)`, or without the interval where there is none."""
    text = f"{value:.{digits}f}{unit}"
    return text if low is None else f"{text} ({low:.{digits}f}-{high:.{digits}f})"
