"""The benchmark's measurements: medians and peaks of real processes."""

import sys
import time
from functools import partial

import pytest

from jobs.benchmarks.measure import compare

MIB = 2**20


def test_times_and_peaks_are_those_of_each_way() -> None:
    found = compare(partial(time.sleep, 0.05), partial(time.sleep, 0.3), time.time, repeats=1)
    assert 0.05 <= found.ours_s < 0.3 <= found.other_s


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_a_peak_is_the_rise_over_what_was_there() -> None:
    found = compare(partial(bytes.join, b"", [b"x"]), partial(_fill, 200), partial(_fill, 300), 1)
    assert found.ours_peak_mib is not None and found.ours_peak_mib < 50  # not the warm-up's 300
    assert found.other_peak_mib is not None and 150 < found.other_peak_mib < 260


def _fill(size: int) -> None:
    bytearray(b"x") * (size * MIB)
