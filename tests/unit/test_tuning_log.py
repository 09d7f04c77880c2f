"""What is told of a trial that raised."""

import pytest

from jobs.tuning.log import cause_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Failure # 1\nTraceback\njobs.sweep.runner.StageFailed: orm: no loss\n", "orm: no loss"),
        ("StageFailed: a: first\nStageFailed: b: 1 error\n  field\n", "b: 1 error field"),
        ("Failure # 1\nThe actor died.\n\n", "The actor died."),
        ("", "the process ended without an error message"),
    ],
)
def test_the_cause_is_one_line(text: str, expected: str) -> None:
    assert cause_of(text) == expected
