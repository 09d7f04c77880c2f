"""The messages between a vLLM engine's process and its parent, with an engine without a model."""

import time
from collections.abc import Iterator

import pytest
from support.stand_in_engine import StandInEngine

from orchestrator.engines.vllm import process
from orchestrator.engines.vllm.process import VllmProcess


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "check_installed", lambda: None)
        started = VllmProcess("stand-in", "cpu", StandInEngine)
    yield started
    started.close()


def add_and_step(engine: VllmProcess, numbers: list[int]) -> None:
    """Return once the engine has made a step with the numbers."""
    before = engine.call("steps")
    engine.post("add", numbers)
    while engine.call("steps") == before:
        time.sleep(0.01)


def test_finished_requests_do_not_mix_with_the_answers_to_calls(engine: VllmProcess) -> None:
    engine.post("add", [3, 1, 2])
    assert [engine.call("echo", n) for n in range(5)] == [0, 1, 2, 3, 4]
    finished: list[int] = []
    while len(finished) < 3:
        finished += engine.wait()
    assert finished == [1, 2, 3]


def test_a_failed_step_is_raised_by_wait_alone_and_not_repeated(engine: VllmProcess) -> None:
    before = engine.call("steps")
    add_and_step(engine, [5, -1])
    assert [engine.call("echo", n) for n in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="stand-in: the vLLM engine: MemoryError: no memory for"):
        engine.wait()
    engine.post("add", [6])  # 5 was dropped with -1
    assert engine.wait() == [6]
    assert engine.call("steps") == before + 2


def test_errors_and_results_before_an_abort_are_dropped(engine: VllmProcess) -> None:
    add_and_step(engine, [-1])  # its error has been received
    engine.post("add", [-2])
    time.sleep(0.1)  # this one is still in the pipe
    engine.abort()
    assert engine.call("echo", 7) == 7
    engine.post("add", [8])
    assert engine.wait() == [8]


def test_a_posted_call_that_fails_is_raised_by_wait(engine: VllmProcess) -> None:
    engine.post("add", [4, 0])
    assert engine.call("echo", 7) == 7
    with pytest.raises(RuntimeError, match="ValueError: 0 cannot be added"):
        engine.wait()
    engine.post("add", [9])
    assert engine.wait() == [9]


def test_a_call_raises_its_error_and_drops_nothing(engine: VllmProcess) -> None:
    engine.post("add", [1])
    with pytest.raises(RuntimeError, match="KeyError: -3"):
        engine.call("echo", -3)
    assert engine.call("echo", 3) == 3
    assert engine.wait() == [1]


def test_the_answer_to_an_interrupted_call_is_dropped(
    engine: VllmProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.call("echo", 1)
    monkeypatch.undo()
    assert engine.call("echo", 2) == 2


def test_an_engine_whose_process_has_ended_raises(engine: VllmProcess) -> None:
    engine._process.kill()
    with pytest.raises(RuntimeError, match=r"its process ended \(exit code -9\)"):
        engine.call("echo", 1)
