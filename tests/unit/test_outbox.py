"""Writes to a store that is away: kept in order, none twice, other errors raised."""

import pytest

from orchestrator.tracking.outbox import Outbox


class Store:
    """Notes what is written; away for a number of attempts."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.away = False
        self.said: list[str] = []

    def write(self, number: int) -> None:
        if self.away:
            raise ConnectionError(f"refused\nfor {number}")
        self.written.append(number)


@pytest.fixture
def store() -> Store:
    return Store()


def outbox(store: Store, pause: float) -> Outbox:
    return Outbox(lambda error: isinstance(error, ConnectionError), store.said.append, pause)


def test_writes_wait_in_order_and_are_sent_once(store: Store) -> None:
    box = outbox(store, 0.0)
    box.send(lambda: store.write(1))
    store.away = True
    for number in (2, 3):
        box.send(lambda number=number: store.write(number))  # type: ignore[misc]
    assert store.written == [1] and box.is_delayed
    store.away = False
    box.send(lambda: store.write(4))
    assert store.written == [1, 2, 3, 4] and not box.is_delayed
    assert store.said == [
        "the store does not answer (refused); the job goes on",
        "the store answers again; all values are sent",
    ]


def test_after_a_failure_there_is_no_attempt_for_a_while(store: Store) -> None:
    box = outbox(store, 60.0)
    store.away = True
    box.send(lambda: store.write(1))
    store.away = False
    box.send(lambda: store.write(2))
    assert store.written == []
    assert box.flush(0) == 0 and store.written == [1, 2]


def test_what_is_not_sent_in_time_is_counted(store: Store) -> None:
    box = outbox(store, 0.05)
    store.away = True
    box.send(lambda: store.write(1))
    assert box.flush(0.1) == 1


def test_another_error_is_raised_and_its_write_is_not_tried_again(store: Store) -> None:
    box = outbox(store, 0.0)
    with pytest.raises(ZeroDivisionError):
        box.send(lambda: 1 / 0)
    box.send(lambda: store.write(1))
    assert store.written == [1]
