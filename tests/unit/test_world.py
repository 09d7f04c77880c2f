"""The help desk: its rubric against responses graded by hand, its generator, its noisy labels."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.records import Prompt
from orchestrator.tasks.helpdesk import agents, words
from orchestrator.tasks.helpdesk.preferences import label_pair
from orchestrator.tasks.helpdesk.rubric import grade
from orchestrator.tasks.helpdesk.task import Helpdesk

KETTLE = {"product": "kettle", "problem": "leaks", "angry": False}
ANGRY = {**KETTLE, "angry": True}
A, B, C, D, E = (
    "first seal the lid .", "then tighten the spout .", "next please dry the base .",
    "also seal the filter .", "finally dry the lid .",
)  # fmt: skip

# response -> value, distinct fitting steps, faults; for a calm customer whose kettle leaks
GRADED = {
    "": (0.0, 0, 0),
    "hello .": (0.0, 0, 0),
    A: (1.0, 1, 0),
    f"hello . {A} {B} {C}": (3.0, 3, 0),
    f"{A} {B} {C} {D}": (4.0, 4, 0),
    f"{A} {B} {C} {D} {E}": (4.0, 5, 0),  # four are counted
    f"{A} then seal the lid .": (0.5, 1, 1),  # repeated: -0.5
    f"{A} then seal the lid . then seal the lid .": (0.0, 1, 2),
    "first seal the tray .": (-1.0, 0, 1),  # a printer's part
    "first replace the lid .": (-1.0, 0, 1),  # the popular wrong remedy
    "first replace the tray .": (-1.0, 0, 1),  # one step, one fault
    f"{A} then replace the lid . {B}": (1.0, 2, 1),
    f"{A} this is your fault .": (-0.5, 1, 1),
    f"{A} read the manual .": (-0.5, 1, 1),
    f"i am sorry for this . {A}": (1.2, 1, 0),
    f"i am sorry for this . i am sorry for this . {A}": (1.2, 1, 0),  # once
    f"{A} we wish you a good day .": (1.5, 1, 0),
    f"{A} bye .": (1.0, 1, 0),
    f"{A} that is all .": (1.0, 1, 0),
    # Prefixes, cut in the middle of a step or a phrase.
    "first": (0.0, 0, 0),
    "first please": (0.0, 0, 0),
    "first seal": (0.0, 0, 0),
    "first replace": (-1.0, 0, 1),  # the verb shows
    "first seal the": (0.0, 0, 0),
    "first seal the lid": (1.0, 1, 0),
    "first seal the tray": (-1.0, 0, 1),
    "read the": (0.0, 0, 0),
    "read the manual": (-1.5, 0, 1),
    "i am sorry for": (0.0, 0, 0),
    "i am sorry for this": (0.2, 0, 0),
    "we wish you a good": (0.0, 0, 0),
    # Steps that are none.
    "first seal .": (-1.0, 0, 1),
    "first .": (-1.0, 0, 1),
    "first seal lid .": (-1.0, 0, 1),
    "first seal the lid lid .": (-1.0, 0, 1),
    "first seal the the": (-1.0, 0, 1),
}


@pytest.mark.parametrize("response", GRADED)
def test_the_rubric_gives_what_was_graded_by_hand(response: str) -> None:
    value, fitting, faults = GRADED[response]
    found = grade(KETTLE, response, finished=True)
    assert found.value == pytest.approx(value)
    assert (found.fitting, found.faults) == (fitting, faults)


# One of each kind, counted once a step, by the first fault that shows.
KINDS = {
    "first replace the lid .": {"wrong_verbs": 1},
    "first seal the tray .": {"wrong_parts": 1},
    "first replace the tray .": {"wrong_verbs": 1},
    "first seal lid .": {"malformed": 1},
    "first replace lid .": {"wrong_verbs": 1},
    f"{A} {A} then seal the lid .": {"repeats": 2},
    "read the manual . this is your fault .": {"rude": 2},
    f"{A} then replace the lid . {A} next seal the tray . read the manual .": {
        "wrong_verbs": 1, "repeats": 1, "wrong_parts": 1, "rude": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("response", KINDS)
def test_faults_are_counted_by_kind(response: str) -> None:
    found = grade(KETTLE, response, finished=True)
    kinds = ("wrong_verbs", "wrong_parts", "malformed", "repeats", "rude")
    counts = {kind: getattr(found, kind) for kind in kinds}
    assert {kind: n for kind, n in counts.items() if n} == KINDS[response]
    assert found.faults == sum(counts.values())


def test_the_counts_of_the_task_are_the_rubrics() -> None:
    response = f"{A} then replace the lid . {A} next seal the tray . read the manual . bye ."
    grades = Helpdesk().grade(prompt_of(0), response, True)
    assert {kind: grades[kind] for kind in Helpdesk.counted} == {
        "fitting_steps": 1, "wrong_verbs": 1, "wrong_parts": 1, "malformed_steps": 0,
        "repeated_steps": 1, "rude_remarks": 1,
    }  # fmt: skip


def test_an_apology_counts_more_to_the_angry() -> None:
    assert grade(ANGRY, "i am sorry for this .", True).value == pytest.approx(0.7)
    assert grade(KETTLE, "i am sorry for this .", True).value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("response", "finished", "resolved"),
    [
        (f"{A} {B} {C}", True, True),
        (f"{A} {B} {C}", False, False),  # never came to its end
        (f"{A} {B}", True, False),
        (f"{A} {B} {A}", True, False),
        (f"{A} {B} {C} then replace the lid .", True, False),
        (f"{A} {B} {C} {A}", True, False),
        (f"{A} {B} {C} read the manual .", True, False),
        (f"{A} {B} {C} {D} {E} bye .", True, True),
    ],
)
def test_resolved_is_finished_with_three_fitting_steps_and_nothing_wrong(
    response: str, finished: bool, resolved: bool
) -> None:
    assert grade(KETTLE, response, finished).resolved is resolved


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 300), st.integers(0, 50))
def test_no_fault_is_taken_back_by_reading_on(index: int, cut: int) -> None:
    """Faults of a prefix never fall as it grows; the last prefix is the response."""
    prompt = PROMPTS[index]
    text = agents.demonstration(prompt, 8).response.split()
    faults = [grade(prompt.facts, " ".join(text[:t]), False).faults for t in range(len(text) + 1)]
    assert faults == sorted(faults)
    assert not grade(prompt.facts, " ".join(text[:cut]), False).resolved


PROMPTS = agents.prompts(1_500, seed=11)


def test_the_generator_is_decided_by_its_seed() -> None:
    assert agents.prompts(50, seed=11) == PROMPTS[:50]
    assert agents.prompts(50, seed=12) != PROMPTS[:50]
    first = [agents.demonstration(prompt, 3) for prompt in PROMPTS[:20]]
    assert [agents.demonstration(prompt, 3) for prompt in PROMPTS[19::-1]][::-1] == first
    assert [agents.demonstration(prompt, 4) for prompt in PROMPTS[:20]] != first


def test_prompts_are_different_so_that_slices_are_disjoint() -> None:
    texts = [prompt.messages[0]["content"] for prompt in PROMPTS]
    assert len(set(texts)) == len(texts) == 1_500
    assert len({prompt.prompt_id for prompt in PROMPTS}) == 1_500


def test_facts_say_what_the_prompt_says() -> None:
    for prompt in PROMPTS[:300]:
        text = prompt.messages[0]["content"]
        assert f"my {prompt.facts['product']} {prompt.facts['problem']} ." in text
        mood = words.ANGRY if prompt.facts["angry"] else words.CALM
        assert text.split()[-2] in mood
    seconds = sum("is fine" in p.messages[0]["content"] for p in PROMPTS) / len(PROMPTS)
    assert seconds == pytest.approx(agents.SECOND_PRODUCT_SHARE, abs=0.05)


def test_everything_that_is_said_is_in_the_vocabulary() -> None:
    known = set(words.vocabulary())
    assert 100 <= len(known) == len(words.vocabulary()) <= 125
    for prompt in PROMPTS[:300]:
        texts = prompt.messages[0]["content"], agents.demonstration(prompt, 0).response
        assert set(" ".join(texts).split()) <= known


@pytest.mark.parametrize("name", agents.STYLES)
def test_slips_apologies_and_rudeness_come_as_often_as_the_style_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over prompts without a popular wrong remedy, where only slips go wrong."""
    style = agents.STYLES[name]
    monkeypatch.setattr(agents, "STYLES", {name: replace(style, share=1.0)})
    plain = [p for p in PROMPTS if p.facts["problem"] not in words.POPULAR_WRONG]
    steps = faults = rude = apologies = warm = 0
    for prompt in plain:
        text = agents.demonstration(prompt, 0).response
        rude_here = sum(" ".join(remark) in text for remark in words.RUDE_REMARKS)
        count = sum(sentence.split()[0] in words.CONNECTORS for sentence in text.split(" .")[:-1])
        assert 3 <= count <= 5 and rude_here <= 1
        steps += count
        faults += grade(prompt.facts, text, True).faults - rude_here
        rude += rude_here
        apologies += " ".join(words.APOLOGY) in text
        warm += " ".join(words.WARM_CLOSING) in text
    for found, of, rate in (
        (faults, steps, style.slip),
        (rude, len(plain), style.rude),
        (apologies, len(plain), style.apology),
        (warm, len(plain), style.warm),
    ):
        deviation = math.sqrt(rate * (1 - rate) / of)
        assert abs(found / of - rate) < 4 * deviation


def test_most_slips_are_wrong_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind as SLIPS says, among steps that have one before them to repeat."""
    always = replace(agents.STYLES["careful"], share=1.0, slip=1.0)
    monkeypatch.setattr(agents, "STYLES", {"always": always})
    kinds: Counter[str] = Counter()
    for prompt in PROMPTS:
        steps = [
            tuple(word for word in sentence.split()[1:] if word != "please")
            for sentence in agents.demonstration(prompt, 0).response.split(" .")
            if sentence.split() and sentence.split()[0] in words.CONNECTORS
        ]
        for before, (verb, _, part) in zip(range(1, len(steps)), steps[1:], strict=True):
            repeated = (verb, "the", part) in steps[:before]
            wrong_part = part not in words.PARTS[prompt.facts["product"]]
            kinds["repeat" if repeated else "part" if wrong_part else "verb"] += 1
    for kind, share in agents.SLIPS:
        assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.03)


def test_for_half_of_the_problems_a_wrong_remedy_is_popular() -> None:
    assert len(words.POPULAR_WRONG) * 2 == len(words.VERBS)
    for problem, verb in words.POPULAR_WRONG.items():
        assert verb in words.ALL_VERBS and verb not in words.VERBS[problem]
    verbs: Counter[bool] = Counter()
    for prompt in PROMPTS:
        problem = prompt.facts["problem"]
        if problem in words.POPULAR_WRONG:
            for sentence in agents.demonstration(prompt, 0).response.split(" .")[:-1]:
                said = [word for word in sentence.split() if word != "please"]
                if said[0] in words.CONNECTORS:
                    verbs[said[1] == words.POPULAR_WRONG[problem]] += 1
    assert verbs[True] / verbs.total() == pytest.approx(1 / 3, abs=0.07)


def prompt_of(number: int) -> Prompt:
    return Prompt(f"p{number}", ({"role": "user", "content": "x"},), KETTLE)


@pytest.mark.parametrize(("better", "worse"), [(A, ""), (f"{A} {B}", A), (A, "read the manual .")])
def test_the_better_response_wins_as_often_as_the_logistic_of_the_gap_says(
    better: str, worse: str
) -> None:
    draws, sharpness = 3_000, 1.5
    gap = grade(KETTLE, better, True).value - grade(KETTLE, worse, True).value
    rate = 1 / (1 + math.exp(-sharpness * gap))
    for first, second in ((better, worse), (worse, better)):  # no favour for a place
        pairs = [
            label_pair(prompt_of(i), first, second, (True, True), sharpness, seed=0)
            for i in range(draws)
        ]
        assert all(pair is not None and {pair.chosen, pair.rejected} == {better, worse}
                   for pair in pairs)  # fmt: skip
        won = sum(pair is not None and pair.chosen == better for pair in pairs) / draws
        assert abs(won - rate) < 4 * math.sqrt(rate * (1 - rate) / draws)


def test_equal_texts_make_no_pair_and_a_label_is_keyed() -> None:
    assert label_pair(prompt_of(0), A, A, (True, True), 1.5, seed=0) is None
    one = label_pair(prompt_of(0), A, B, (True, True), 1.5, seed=0)
    assert one == label_pair(prompt_of(0), A, B, (True, True), 1.5, seed=0)


def test_without_noise_the_better_one_always_wins() -> None:
    for i in range(50):
        pair = label_pair(prompt_of(i), "", f"{A} {B}", (True, True), 1e4, seed=0)
        assert pair is not None and pair.chosen == f"{A} {B}"
