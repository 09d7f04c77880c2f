"""What holds for every registered task: its splits, its grades, its preferences."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.metric import METRICS
from orchestrator.judges.judge import JUDGES, Judge, Judged, Verdict, verdicts_of
from orchestrator.records import Prompt
from orchestrator.registry import PluginError
from orchestrator.tasks.helpdesk.task import Helpdesk
from orchestrator.tasks.task import (
    PAIR_SPLITS,
    TASKS,
    Grades,
    Progress,
    Task,
    TaskData,
    check_data,
    grades_of,
    register,
)


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def helpdesk(folder: Path) -> Task:
    sizes = {"demonstrations": 30, "orm_pairs": 10, "reference_pairs": 12, "prm_pairs": 8}
    return TASKS["helpdesk"](**sizes, test_prompts=9)


def hh_rlhf(folder: Path) -> Task:
    rows = [
        {
            "chosen": f"\n\nHuman: question {i}?\n\nAssistant: yes, {i}.",
            "rejected": f"\n\nHuman: question {i}?\n\nAssistant: no.",
        }
        for i in range(60)
    ]
    pairs = written(folder / "hh.jsonl", rows)
    return TASKS["hh_rlhf"].model_validate({"pairs": pairs, "test_prompts": 9})


def worked(name: str) -> Callable[[Path], Task]:
    def make(folder: Path) -> Task:
        questions = [
            {"question": f"what is {i} and {i}?", "answer": f"{i} + {i}\n#### {2 * i}"}
            for i in range(80)
        ]
        pairs = [
            {"prompt": f"what is {i} and {i}?", "chosen": f"#### {2 * i}", "rejected": "#### -1"}
            for i in range(40)
        ]
        return TASKS[name].model_validate(
            {
                "demonstrations": written(folder / "train.jsonl", questions[30:60]),
                "pairs": written(folder / "pairs.jsonl", pairs),
                "test": written(folder / "test.jsonl", questions[50:]),
                "test_prompts": 9,
            }
        )

    return make


EXAMPLES: dict[str, Callable[[Path], Task]] = {
    "helpdesk": helpdesk, "hh_rlhf": hh_rlhf, "gsm8k": worked("gsm8k"), "math": worked("math"),
}  # fmt: skip


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    return EXAMPLES[request.param](tmp_path)


def silent(done: int, total: int) -> None:
    assert 0 < done <= total


def test_splits_share_no_prompt_and_are_decided_by_the_seed(task: Task) -> None:
    data, again, other = (task.read(seed, silent) for seed in (3, 3, 4))
    assert data == again and data != other
    check_data(task, data)
    splits = {name: {pair.prompt.prompt_id for pair in rows} for name, rows in data.pairs.items()}
    splits |= {name: {prompt.prompt_id for prompt in rows} for name, rows in data.prompts.items()}
    assert set(splits) >= set(PAIR_SPLITS) and all(splits.values())
    test = {prompt.prompt_id for prompt in data.test}
    trained = {row.prompt.prompt_id for row in data.demonstrations}
    assert 0 < len(data.test) <= task.test_prompts
    assert not test & trained
    for name, prompts in splits.items():
        assert name == "test" or not prompts & test
        for other_name, other_prompts in splits.items():
            assert name == other_name or not prompts & other_prompts


def test_what_is_known_before_reading_holds(task: Task) -> None:
    data, counts = task.read(0, silent), task.row_counts
    assert task.samples_pairs == bool(data.prompts) == (not data.pairs)
    if counts is not None:
        assert len(data.demonstrations) == counts["policy"]
        for name in PAIR_SPLITS:
            rows = data.prompts.get(name) or data.pairs[name]
            assert len(rows) >= counts[name]
    if (words := task.vocabulary()) is not None:
        texts = [row.response for row in data.demonstrations]
        texts += [message["content"] for prompt in data.test for message in prompt.messages]
        assert {word for text in texts for word in text.split()} <= set(words)
        longest = max(len(prompt.messages[-1]["content"].split()) for prompt in data.test)
        assert task.longest_prompt is not None and longest <= task.longest_prompt
    assert list(task.contradictions()) == []


def test_grades_are_the_same_numbers_for_every_response(task: Task) -> None:
    data = task.read(0, silent)
    prompt: Prompt = data.test[0]
    responses = ["", "no", data.demonstrations[0].response]
    grades = [task.grade(prompt, text, done) for text in responses for done in (True, False)]
    assert all(set(one) == set(grades[0]) for one in grades)
    assert set(task.faults) <= set(task.counted) <= set(grades[0])
    if task.judged_by is not None:
        assert task.judged_by in grades[0] and task.judged_by in METRICS
    shown = {"rubric", "resolved", "accuracy"} & set(grades[0])
    assert set(grades[0]) - set(task.counted) == shown  # each is a metric or is counted


def test_a_preference_is_between_the_two_responses(task: Task) -> None:
    if not task.samples_pairs:
        with pytest.raises(NotImplementedError):
            task.prefer(Prompt("p", ()), ("a", "b"), (True, True), 0)
        return
    prompt = task.read(0, silent).test[0]
    assert task.prefer(prompt, ("same", "same"), (True, True), 0) is None
    pair = task.prefer(prompt, ("one", "two"), (True, True), 0)
    assert pair is not None and {pair.chosen, pair.rejected} == {"one", "two"}
    assert pair == task.prefer(prompt, ("one", "two"), (True, True), 0)


@pytest.mark.parametrize("name", JUDGES)
def test_a_verdict_depends_on_its_text_alone(name: str, task: Task) -> None:
    judge = JUDGES[name]()
    if judge.refusal(task):
        assert task.judged_by is None
        return
    data = task.read(0, silent)
    texts = [
        Judged(prompt, row.response, finished)
        for prompt, row in zip(data.test, data.demonstrations, strict=False)
        for finished in (True, False)
    ]
    verdicts = judge.verdicts(task, texts)
    assert len(verdicts) == len(texts)
    assert judge.verdicts(task, texts[::-1]) == verdicts[::-1]
    assert [judge.verdicts(task, [text])[0] for text in texts] == verdicts


def test_a_task_without_a_name_is_refused() -> None:
    with pytest.raises(PluginError, match="has no field task"):
        register(type("Nameless", (Task,), {"__module__": __name__}))


class Careless(Helpdesk):
    """A task whose author made the mistake that a test names."""

    mistake: str = ""

    def read(self, seed: int, progress: Progress) -> TaskData:
        data = Helpdesk(demonstrations=9, orm_pairs=4, reference_pairs=4, prm_pairs=4).read(
            0, silent
        )
        prompts = dict(data.prompts)
        if self.mistake == "no split":
            del prompts["prm"]
        if self.mistake == "shared prompt":
            prompts["prm"] = [*prompts["prm"], data.test[0]]
        return replace(data, prompts=prompts, test=[] if self.mistake == "no test" else data.test)

    def grade(self, prompt: Prompt, response: str, finished: bool) -> Grades:
        grades = super().grade(prompt, response, finished)
        if self.mistake == "no grade":
            del grades["rubric"]
        return grades | ({"rubric": float("nan")} if self.mistake == "NaN" else {})


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("no split", r"task helpdesk: its data have no prompts\['prm'\]"),
        ("no test", "task helpdesk: its data have no test prompts"),
        ("shared prompt", "is in the splits prm and test; valid: each prompt in one split"),
    ],
)
def test_data_that_a_later_stage_cannot_use_are_refused(mistake: str, message: str) -> None:
    task = Careless(mistake=mistake)
    with pytest.raises(ValueError, match=message):
        check_data(task, task.read(0, silent))


@pytest.mark.parametrize(
    ("mistake", "message"), [("no grade", "no grade 'rubric'"), ("NaN", "rubric = nan")]
)
def test_grades_that_cannot_be_averaged_are_refused(mistake: str, message: str) -> None:
    prompt = Helpdesk(demonstrations=9).read(0, silent).test[0]
    with pytest.raises(ValueError, match=f"task helpdesk: .*{message}.* of a response to prompt"):
        grades_of(Careless(mistake=mistake), prompt, "bye .", True)


@pytest.mark.parametrize(
    ("values", "message"), [([1.0], "1 verdicts on 2 texts"), ([1.0, float("inf")], "value inf")]
)
def test_verdicts_that_cannot_be_compared_are_refused(values: list[float], message: str) -> None:
    class Hasty(Judge):
        name: str = "hasty"

        def verdicts(self, task: Task, texts: Sequence[Judged]) -> list[Verdict]:
            return [Verdict(value) for value in values]

    texts = [Judged(Prompt("p", ()), text, True) for text in ("a", "b")]
    with pytest.raises(ValueError, match=f"judge hasty: .*{message}"):
        verdicts_of(Hasty(), Helpdesk(), texts)
