"""GSM8K questions, and the exact check of final answers."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.data.final_answers import extract_answer
from orchestrator.data.math_answers import verdict
from orchestrator.data.pairs import prompt_id, read_pairs
from orchestrator.data.questions import NO_ANSWER, read_questions
from orchestrator.data.rejects import reasons

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
GSM8K = SHARED / "gsm8k"
needs_data = pytest.mark.skipif(not GSM8K.is_dir(), reason=f"no GSM8K sample in {GSM8K}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "18"),
        ("#### 3\nno, wait\n#### 4", "4"),
        ("#### 1,234,567", "1234567"),
        ("#### 1,2345", "1"),
        ("#### $1,250.50", "1250.5"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5.00", "-5"),
        ("#### \u22127", "-7"),
        ("#### 20%", "20"),
        ("#### 18.0", "18"),
        ("#### 100", "100"),
        ("#### 007", "7"),
        ("#### -0.0", "0"),
        ("#### .50", "0.5"),
        ("#### 3/4 of a cup", "3/4"),
        ("#### 5/0", "5"),
        ("#### **18** dollars", "18"),
        ("####18.", "18"),
        ("#### 9*2=18", "18"),
        ("#### none\nA: 7", "7"),
        ("so 3 + 4 = 7\nA: 18", "18"),
        ("A: 18 out of 20", "18"),
        ("Option A: 3 beats 5", "5"),
        ("The answer is 6. She had 3 left.", "6"),
        ("The answer is 6. Checked: 2*4=8.", "6"),
        ("The Answer  is: $18.50.\nChecked 2 times", "18.5"),
        ("the answer is 3. No, the answer is 4!", "4"),
        ("the answer is \\boxed{42}", "42"),
        ("\\boxed{42}. I am 100% sure!", "42"),
        ("\\boxed{1,\\!234 \\text{ eggs}}", "1234"),
        ("\\boxed{-\\frac{1}{2}}", "-1/2"),
        ("Answer: 42 times, that is 100%!", "42"),
        ("**Final answer:** 42\nThis took 3 steps.", "42"),
        ("The answer is:\n\n42. It took 3 steps.", "42"),
        ("#### $18$ eggs of 20", "18"),
        ("A: $18 and $20", "18"),
        ("10 - 3 leaves 7 eggs", "7"),
        ("it is 10-3", "3"),
        ("it is -3", "-3"),
        ("on (-3)", "-3"),
        ("from 1. to 2.", "2"),
        ("#### 1e5", "100000"),
        ("#### 1/2e3", "1/2000"),
        ("#### -1/2E-3", "-500"),
        ("A: 1.5E-3 m", "0.0015"),
        ("it is -2e+1", "-20"),
        ("1e99999 or more", None),  # no piece of a number is one
        ("run the e2e tests 5 times", "5"),
        ("I do not know", None),
        ("", None),
        ("####", None),
        ("\u0663 eggs", None),  # digits of other scripts are not read
    ],
)
def test_the_final_answer_is_found_and_made_plain(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("#### 18.00", "18", True),
        ("A: 0.75", "3/4", True),
        ("A: 6/3", "2", True),
        ("A: 0.333", "1/3", False),
        ("A: 1,000", "1000", True),
        ("A: 0.1", "0.10000000000000000001", False),
        ("A: -18", "18", False),
        ("no idea", "18", False),
        ("#### 1e5", "1", False),
        ("#### 1e5", "100000", True),
        ("Answer: 42 times, that is 100%!", "42", True),
        ("A: " + "9" * 5_000, "18", False),
        ("A: " + "9" * 5_000, "9" * 5_000, True),
        ("A: 1/" + "9" * 5_000, "18", False),
    ],
)
def test_answers_are_compared_exactly(text: str, answer: str, right: bool) -> None:
    assert (verdict(text, answer) == "right") is right


# Where a true answer is not written plainly, a piece of it would be taken for the whole.
NOT_PLAIN = ["1e5", "1.5E3", "10:30", "3 or 4", "5k", "1,2345", "1 000", "5/0", "0x1F", "2^10"]
PLAIN = {"1,250": "1250", "$18.00": "18", "-5": "-5", "20%": "20", "3/4 of a cup": "3/4",
         "**18** dollars": "18", "9*2=18": "18", "$18$ eggs": "18", "7.": "7"}  # fmt: skip


def test_questions_become_demonstrations_and_bad_rows_rejects(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": "2 + 2?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
        {"question": "2 + 3?", "answer": "A: 5"},
        {"question": "2 + 3?", "answer": "#### five"},
        {"question": "", "answer": "#### 5"},
        {"question": "2 + 3?", "answer": " "},
        {"question": ["2 + 3?"], "answer": "#### 5"},
        {"question": "2 + 3?"},
        {"question": "2 + 2?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
        {"question": "2 + 500?", "answer": "#### 502"},
    ]
    rows += [
        {"question": f"which? {i}", "answer": f"#### {bad}"} for i, bad in enumerate(NOT_PLAIN)
    ]
    rows += [{"question": f"how? {i}", "answer": f"#### {gold}"} for i, gold in enumerate(PLAIN)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    demonstrations, rejects = read_questions(path)

    first, last, *plain = demonstrations
    assert [row.prompt.facts["answer"] for row in plain] == list(PLAIN.values())
    assert first.prompt.messages == ({"role": "user", "content": "2 + 2?"},)
    assert first.prompt.prompt_id == prompt_id(first.prompt.messages)
    assert first.prompt.facts == {"answer": "4"}
    assert first.response == "2+2=<<2+2=4>>4\n#### 4"
    assert last.prompt.facts == {"answer": "502"}
    assert [(r.row, r.reason) for r in rejects] == [
        (2, NO_ANSWER),
        (3, NO_ANSWER),
        (4, "empty prompt"),
        (5, "empty response: answer"),
        (6, "wrong type: question is not text"),
        (7, "missing field: answer"),
        (8, "duplicate row"),
        *((10 + i, NO_ANSWER) for i in range(len(NOT_PLAIN))),
    ]


@needs_data
@pytest.mark.parametrize(("name", "count"), [("train", 7_473), ("test", 924)])
def test_every_real_question_has_its_answer(name: str, count: int) -> None:
    demonstrations, rejects = read_questions(GSM8K / f"{name}.jsonl")

    assert (len(demonstrations), rejects) == (count, [])
    for demonstration in demonstrations:
        # The data set's own answers are whole numbers, with commas at times.
        written = demonstration.response.rsplit("####", 1)[1].strip().replace(",", "")
        assert demonstration.prompt.facts["answer"] == str(int(written))
        assert verdict(demonstration.response, written) == "right"


@needs_data
def test_real_solution_pairs_hold_a_right_and_a_wrong_answer() -> None:
    pairs, rejects = read_pairs(GSM8K / "solution_pairs.jsonl")
    questions, _ = read_questions(GSM8K / "test.jsonl")
    answers = {q.prompt.prompt_id: q.prompt.facts["answer"] for q in questions}

    assert len(pairs) == 1_696
    assert reasons(rejects) == {"duplicate row": 2}
    for pair in pairs:
        answer = answers[pair.prompt.prompt_id]  # every prompt is a test question
        assert verdict(pair.prompt.facts["ground_truth"], answer) == "right"
        assert verdict(pair.chosen, answer) == "right", pair.pair_id
        assert verdict(pair.rejected, answer) == "wrong", pair.pair_id
    assert len({pair.prompt.prompt_id for pair in pairs}) == 509
