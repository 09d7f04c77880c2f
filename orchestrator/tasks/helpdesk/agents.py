"""The seeded generator of customers' prompts, and of demonstrations by agents of three styles.

An agent answers with an opening, three to five steps, sometimes a rude remark, and a closing. How
often it makes mistakes (another product's part, another problem's verb, a repeated step) depends on
its style.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from orchestrator.randomness import generator
from orchestrator.records import Demonstration, Prompt
from orchestrator.tasks.helpdesk import words
from orchestrator.tasks.helpdesk.extent import DIFFERENT_PROMPTS

Option = TypeVar("Option")

SECOND_PRODUCT_SHARE = 0.3
# Mostly wrong verbs: small ORMs learn to detect these, but rarely wrong parts or repeats.
SLIPS = (("part", 0.2), ("verb", 0.6), ("repeat", 0.2))
PLEASE_SHARE = 0.5  # the same for all styles, which differ in their mistakes


@dataclass(frozen=True)
class Style:
    """How an agent works. Every field but ``share`` is a probability per step or per response."""

    share: float
    slip: float
    # If the problem has one and the step has no slip: about a quarter of such problems' steps.
    popular_wrong: float
    apology: float
    warm: float
    rude: float


STYLES = {
    "careful": Style(share=0.40, slip=0.05, popular_wrong=0.10, apology=0.50, warm=0.80, rude=0.01),
    "hurried": Style(share=0.42, slip=0.22, popular_wrong=0.45, apology=0.20, warm=0.25, rude=0.05),
    "careless": Style(
        share=0.18, slip=0.38, popular_wrong=0.60, apology=0.10, warm=0.10, rude=0.25
    ),
}


def prompts(count: int, seed: int) -> list[Prompt]:
    """Return ``count`` different prompts, in an order that depends only on the seed.

    The splits are disjoint slices of this list.

    Raises:
        ValueError: the world has fewer different prompts.
    """
    if count > DIFFERENT_PROMPTS:
        raise ValueError(f"{count:,} prompts: the world has {DIFFERENT_PROMPTS:,} different ones")
    seen: dict[str, Prompt] = {}
    draw = 0
    while len(seen) < count:
        prompt = _prompt(generator(seed, "prompt", draw), f"helpdesk-{len(seen):06d}")
        seen.setdefault(prompt.messages[0]["content"], prompt)
        draw += 1
    return list(seen.values())


def demonstration(prompt: Prompt, seed: int) -> Demonstration:
    """Return an agent's answer to a prompt; the prompt's id seeds the agent and the answer."""
    rng = generator(seed, "demonstration", prompt.prompt_id)
    shares = [style.share for style in STYLES.values()]
    style = list(STYLES.values())[rng.choice(len(shares), p=shares)]
    sentences = [_opening(rng, style), *_steps(rng, style, prompt), _closing(rng, style)]
    if rng.random() < style.rude:
        index = int(rng.integers(1, len(sentences)))
        sentences.insert(index, _pick(rng, words.RUDE_REMARKS))
    return Demonstration(prompt, " ".join(" ".join(sentence) + " ." for sentence in sentences))


def _prompt(rng: np.random.Generator, prompt_id: str) -> Prompt:
    product, other = (str(p) for p in rng.choice(list(words.PARTS), size=2, replace=False))
    problem = _pick(rng, tuple(words.VERBS))
    angry = bool(rng.random() < 0.5)
    mood = _pick(rng, words.ANGRY if angry else words.CALM)
    number = " ".join(_pick(rng, words.DIGITS) for _ in range(3))
    complaint = [f"my {product} {problem} ."]
    if rng.random() < SECOND_PRODUCT_SHARE:
        complaint.insert(int(rng.integers(2)), f"my {other} is fine .")
    text = (
        f"{_pick(rng, words.NAMES)} writes : order {number} . {' '.join(complaint)} i am {mood} ."
    )
    facts = {"product": product, "problem": problem, "angry": angry}
    return Prompt(prompt_id, ({"role": "user", "content": text},), facts)


def _steps(rng: np.random.Generator, style: Style, prompt: Prompt) -> list[tuple[str, ...]]:
    product, problem = prompt.facts["product"], prompt.facts["problem"]
    done: list[tuple[str, str]] = []
    sentences = []
    for index in range(int(rng.integers(3, 6))):
        verb, part = _fitting_step(rng, product, problem, done)
        if rng.random() < style.slip:
            verb, part = _slip(rng, product, problem, verb, part, done)
        elif problem in words.POPULAR_WRONG and rng.random() < style.popular_wrong:
            verb = words.POPULAR_WRONG[problem]
        done.append((verb, part))
        connector = "first" if index == 0 else _pick(rng, words.CONNECTORS[1:])
        please = ("please",) if rng.random() < PLEASE_SHARE else ()
        sentences.append((connector, *please, verb, "the", part))
    return sentences


def _fitting_step(
    rng: np.random.Generator, product: str, problem: str, done: list[tuple[str, str]]
) -> tuple[str, str]:
    fitting = [(v, p) for v in words.VERBS[problem] for p in words.PARTS[product]]
    fresh = [step for step in fitting if step not in done]
    return fresh[int(rng.integers(len(fresh)))]


def _slip(
    rng: np.random.Generator,
    product: str,
    problem: str,
    verb: str,
    part: str,
    done: list[tuple[str, str]],
) -> tuple[str, str]:
    kinds = SLIPS if done else SLIPS[:2]  # nothing was said before that could be repeated
    shares = np.array([share for _, share in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))][0]
    if kind == "part":
        foreign = sorted(words.ALL_PARTS - set(words.PARTS[product]))
        return verb, _pick(rng, tuple(foreign))
    if kind == "verb":
        foreign = sorted(words.ALL_VERBS - set(words.VERBS[problem]))
        return _pick(rng, tuple(foreign)), part
    return done[int(rng.integers(len(done)))]


def _opening(rng: np.random.Generator, style: Style) -> tuple[str, ...]:
    return words.APOLOGY if rng.random() < style.apology else _pick(rng, words.PLAIN_OPENINGS)


def _closing(rng: np.random.Generator, style: Style) -> tuple[str, ...]:
    return words.WARM_CLOSING if rng.random() < style.warm else _pick(rng, words.PLAIN_CLOSINGS)


def _pick(rng: np.random.Generator, options: tuple[Option, ...]) -> Option:
    return options[int(rng.integers(len(options)))]
