"""Answers as mathematics: verdicts, what votes count, and what no machine should compute."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data import math_answers
from orchestrator.data.math_answers import call_worker, canonical_answers, verdict
from orchestrator.data.questions import NO_BOX, read_questions
from orchestrator.records import Prompt
from orchestrator.tasks.worked_answers import MATH

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
MATH500 = SHARED / "math500" / "math500.jsonl"
needs_data = pytest.mark.skipif(not MATH500.is_file(), reason=f"no MATH-500 sample: {MATH500}")


def box(latex: str) -> str:
    return f"so it is \\boxed{{{latex}}}."


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        (box(r"\frac{1}{2}"), "0.5", "right"),
        ("Answer: 42, and I am sure: 100%!", "42", "right"),
        ("Answer: 42, and I am sure: 100%!", "100", "wrong"),
        (box(r"2\sqrt{2}"), "2", "wrong"),
        (box(r"\frac{\sqrt{2}}{4}") + " Checked with 2 and 4.", r"\frac{1}{2\sqrt{2}}", "right"),
        ("The answer is $\\frac{1}{2}$. It took 3 steps.", "0.5", "right"),
        ("The answer is\n$$\\frac{1}{2}$$ of 3", "0.5", "right"),
        ("The answer is \\(x = 5\\).", "5", "right"),
        ("The answer is 2\\sqrt{3}.", r"\sqrt{12}", "right"),
        ("The answer is 2^3.", "8", "right"),
        ("The answer is (3, 4).", "(3,4)", "right"),
        ("The answer is Evelyn.", r"\text{Evelyn}", "right"),
        ("The answer is Navin.", r"\text{Evelyn}", "wrong"),
        ("**Answer:** (C)", r"\text{(C)}", "right"),
        ("The answer is x = 1 or x = -2.", "1,-2", "right"),
        (box("-2, 1"), "1,-2", "right"),
        (box("-2, 2"), "1,-2", "wrong"),
        (box("x > 2"), r"(2,\infty)", "right"),
        (box("50\\%"), "0.5", "right"),
        ("Hence $x = \\frac{3}{4}$", "0.75", "right"),
        ("#### $18$ eggs of 20", "18", "right"),
        ("I do not know", "18", "missing"),
        ("", "18", "missing"),
        (box(""), "18", "missing"),
        ("\\alpha but no more", "18", "missing"),
        ("cut off at \\boxed{\\frac{1}{2}", "0.5", "right"),  # the last formula of an unmarked text
    ],
)
def test_the_marked_answer_is_compared(text: str, gold: str, expected: str) -> None:
    assert verdict(text, gold) == expected


SAME = [
    ["0.5", r"\frac{1}{2}", r"\frac12", r"\dfrac{2}{4}", "1/2", ".50", r"\cos\frac{\pi}{3}"],
    [r"\sqrt{8}", r"2\sqrt2", r"\sqrt{2}\cdot 2"],
    [r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"],
    [r"\frac{1}{1+\sqrt2}", r"\sqrt2 - 1"],
    ["90", r"90^\circ", "90.0", r"90\%", r"90\text{ degrees}", "x = 90", r"\$90"],
    ["10080", r"10,\!080", "10,080"],
    ["1,-2", "-2, 1", r"\{-2, 1\}"],
    [r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"],
    ["(a+5)(b+2)", "ab+2a+5b+10"],
    [r"\frac{x^2-1}{x-1}", "x+1", "1 + x"],
    [r"\cot x", r"\frac{\cos x}{\sin x}"],
    [r"\sin^2 x + \cos^2 x", "1"],
    ["5x - 7y + 4 = 0", "7y - 5x = 4", "10x - 14y = -8"],
    ["x > 2", r"(2,\infty)", r"x \in (2,\infty)"],
    [r"-2 \le x \le 7", r"x \in [-2,7]", "[-2,7]"],
    [r"(0,9) \cup (9,36)", r"(9,36) \cup (0,9)"],
    [r"\begin{pmatrix} 1/5 \\ -2 \end{pmatrix}", r"\begin{bmatrix} 0.2 \\ -2.0 \end{bmatrix}"],
    [r"\text{Evelyn}", "Evelyn", r"\text{ evelyn }"],
    ["C", r"\text{(C)}", r"\text{C}"],
    ["|x|", r"\left|x\right|"],
    [r"\infty", r"+\infty"],
    ["3R^2", r"3 \cdot R^{2}"],
]


def test_equal_answers_of_any_spelling_are_one_vote_and_others_are_not() -> None:
    spellings = [spelling for group in SAME for spelling in group]
    found = canonical_answers([box(spelling) for spelling in spellings])
    by_spelling = dict(zip(spellings, found, strict=True))
    groups = [{by_spelling[spelling] for spelling in group} for group in SAME]
    assert [len(group) for group in groups] == [1] * len(SAME), groups
    assert len(set.union(*groups)) == len(SAME)


def test_what_stands_in_no_box_votes_like_what_does() -> None:
    texts = ["#### 18", "A: 18.0", "The answer is 18, of 20.", "18", box("18"), "\\(18\\) it is"]
    assert len(set(canonical_answers(texts))) == 1
    assert canonical_answers(["no number", "", "x = y"]) == [None, None, None]
    assert canonical_answers(["none of \\alpha"]) == [None]


def test_a_vote_by_answers_is_won_by_the_value() -> None:
    from orchestrator.search.methods.vote import weighted_choice

    texts = [box("7"), box("0.5"), box(r"\frac{1}{2}"), box("7"), "The answer is 1/2."]
    assert weighted_choice(canonical_answers(texts)) == 1


HOPELESS = [
    r"9^{9^{9^9}}", r"10^{10^{10}}", r"(x+1)^{9999} - (x+2)^{9999}", "9**9**9**9",
    r"\sum_{k=1}^{1000000} \frac{1}{k}",
]  # fmt: skip
ODD = [
    "}}}}{{{{",
    r"\frac{1}{0}",
    r"\frac{\frac{\frac{",
    "9" * 10_000,
    "0." + "9" * 10_000,
    "1+" * 2_000 + "1",
    r"\sqrt{" * 300 + "2" + "}" * 300,
    r"\int_0^1 x^x dx",
    r"\binom{100000}{50000}",
    "100000!",
    "\ud800",
    "\u0663",
    "\0",
    "{" * 5_000,
]


@pytest.fixture
def _forgets() -> Iterator[None]:
    """Answers of other tests are not remembered."""
    math_answers._compared.cache_clear()
    math_answers._canonical.cache_clear()
    yield
    math_answers._compared.cache_clear()
    math_answers._canonical.cache_clear()


@pytest.mark.usefixtures("_forgets")
@pytest.mark.parametrize(
    "latex",
    [HOPELESS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in HOPELESS[1:]), *ODD],
)
def test_no_answer_hangs_or_ends_this_process(latex: str) -> None:
    began = time.process_time()
    for text in (box(latex), latex, f"The answer is {latex}"):
        assert verdict(text, r"\sqrt{8}") in ("wrong", "missing", "unchecked")
    assert time.process_time() - began < 5  # the work is not done here
    assert verdict(box(r"2\sqrt{2}"), r"\sqrt{8}") == "right"  # and the next one is compared


@pytest.mark.usefixtures("_forgets")
def test_a_limit_is_no_wrong_answer() -> None:
    latex = HOPELESS[0]
    assert verdict(box(latex), "8") == "unchecked"
    grades = MATH(demonstrations="d", pairs="p", test="t").grade(
        Prompt("p", (), {"answer": "8"}), box(latex), True
    )
    assert grades == {
        "accuracy": 0.0,
        "wrong_answers": 0.0,
        "missing_answers": 0.0,
        "unchecked_answers": 1.0,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("_forgets")
def test_a_vote_among_hopeless_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(task: dict[str, str]) -> dict[str, Any]:
        asked.append(task["answer"])
        return call_worker(task)

    monkeypatch.setattr(math_answers, "call_worker", counted)
    monkeypatch.setattr(math_answers, "PATIENCE", 2)
    texts = [box(f"9^{{9^{{9^{i}}}}}") for i in range(9, 14)]
    found = canonical_answers([*texts, texts[0], box(r"\sqrt{4}")])
    assert len(asked) == 2
    assert len(set(found[:-2])) == len(texts)  # each votes by its text
    assert found[-2] == found[0]


def test_an_error_of_the_library_is_told_apart() -> None:
    answer = call_worker({"answer": r"\boxed{1}", "nonsense": "1"})
    assert answer == {"error": "math-verify raised TypeError"}
    unread = {"error": "the reference answer cannot be parsed"}
    assert call_worker({"answer": r"\boxed{1}", "gold": r"\boxed{}"}) == unread
    assert call_worker({"answer": r"\boxed{1}", "gold": r"\boxed{1}"}) == {"right": True}


def test_a_process_that_was_ended_is_started_again() -> None:
    assert call_worker({"answer": r"\boxed{1}"}) == {"canonical": "1/1"}
    process = math_answers._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert call_worker({"answer": r"\boxed{2}"}) == {"canonical": "2/1"}


@pytest.mark.usefixtures("_forgets")
def test_it_is_asked_from_many_threads_at_once() -> None:
    found: dict[int, list[str]] = {}

    def judge(number: int) -> None:
        found[number] = [
            verdict(box(rf"\sqrt{{{number}}}"), rf"\frac{{{number}}}{{\sqrt{{{number}}}}}"),
            verdict(box(rf"\sqrt{{{number}}}"), rf"\sqrt{{{number + 1}}}"),
            verdict(box(r"9^{9^{9^9}}"), "8") if number == 2 else "unchecked",
        ]

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: ["right", "wrong", "unchecked"] for number in range(2, 10)}


def test_a_forked_process_asks_one_of_its_own() -> None:
    assert call_worker({"answer": r"\boxed{1}"}) == {"canonical": "1/1"}
    child = os.fork()
    if child == 0:
        right = call_worker({"answer": r"\boxed{3}"}) == {"canonical": "3/1"}
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call_worker({"answer": r"\boxed{2}"}) == {"canonical": "2/1"}


def test_a_program_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_answers, "PROGRAM", Path("/nowhere/math_worker.py"))
    monkeypatch.setattr(math_answers, "_worker", math_answers._Worker())
    with pytest.raises(RuntimeError, match=r"pip install -c constraints\.txt math-verify"):
        call_worker({"answer": "1"})


def test_rows_of_math_become_demonstrations(tmp_path: Path) -> None:
    rows = [
        {"problem": "x?", "solution": r"It is \boxed{\frac{1}{2}}.", "answer": r"\frac{1}{2}",
         "subject": "Algebra", "level": 1, "unique_id": "test/1.json"},
        {"problem": "y?", "solution": r"It is \boxed{7}.", "level": "Level 1", "type": "Algebra"},
        {"problem": "z?", "solution": "It is 7."},
        {"messages": [{"role": "user", "content": "v?"},
                      {"role": "assistant", "content": "2 + 2 = 4\n#### 4"}]},
        {"conversations": [{"from": "human", "value": "w?"}, {"from": "gpt", "value": "4"}]},
    ]  # fmt: skip
    path = tmp_path / "math.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    demonstrations, rejects = read_questions(path)

    answers = [(d.prompt.messages[0]["content"], d.prompt.facts["answer"]) for d in demonstrations]
    assert answers == [("x?", r"\frac{1}{2}"), ("y?", "7"), ("v?", "4")]
    assert [(r.row, r.reason) for r in rejects] == [
        (3, NO_BOX),
        (5, "no final answer, valid is a plain number after the last ####, such as 1,250 or 3/4"),
    ]


def respelled(gold: str) -> list[str]:
    """Other ways to write an answer of MATH."""
    return [
        gold.replace(r"\frac", r"\dfrac"),
        gold.replace(r"\left", "").replace(r"\right", ""),
        f" {gold} ",
        re.sub(r"\\!\s*", "", gold),
        gold.replace(r"^\circ", r"^{\circ}"),
    ]


@needs_data
def test_every_real_gold_answer_is_right_in_every_spelling_and_for_its_solution() -> None:
    demonstrations, rejects = read_questions(MATH500)
    assert (len(demonstrations), rejects) == (500, [])
    for one in demonstrations:
        gold = one.prompt.facts["answer"]
        assert verdict(one.response, gold) == "right", gold
        for spelling in respelled(gold):
            assert verdict(box(spelling), gold) == "right", (gold, spelling)
            assert verdict(f"The answer is ${spelling.strip()}$.", gold) == "right", (
                gold,
                spelling,
            )


@pytest.mark.slow
@needs_data
def test_real_gold_answers_of_another_question_are_wrong_and_votes_agree_with_verdicts() -> None:
    demonstrations, _ = read_questions(MATH500)
    golds = list(dict.fromkeys(one.prompt.facts["answer"] for one in demonstrations))
    votes = canonical_answers([box(gold) for gold in golds])
    assert None not in votes
    for (gold, vote), (other, other_vote) in zip(
        zip(golds, votes, strict=True), list(zip(golds, votes, strict=True))[1:], strict=False
    ):
        right = verdict(box(other), gold) == "right"
        assert right == (vote == other_vote), (gold, other)
    for gold, vote in zip(golds, votes, strict=True):
        again = canonical_answers([box(spelling) for spelling in respelled(gold)])
        assert set(again) == {vote}, gold
