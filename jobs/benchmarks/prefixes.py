"""Compare prefix scores in one pass with separate forward passes, and training epochs.

The training cases compare an epoch of full TLT with an ORM epoch on the same pairs. Pairs have
about 60 prompt and 200 response tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import torch
from transformers import PreTrainedModel

from jobs.benchmarks.measure import Measured, compare
from jobs.benchmarks.setting import PAD, Setting, forward_flops, random_model
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.examples import PairExample
from orchestrator.objectives.objective import LossContext
from orchestrator.randomness import generator
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import Ids, PackedRow, prefix_row

SUFFIX = (5, 6, 2)  # closing tokens of a prefix
SST_PREFIXES, SST_PAIRS, TLT_PAIRS, TRAINED_PAIRS = 5, 32, 4, 8
STEP_PAIRS = 2  # pairs of an optimizer step
Pair = tuple[Ids, Ids, Ids]  # prompt, chosen, rejected


@dataclass(frozen=True)
class Case:
    """A benchmark case; its ratio must be between ``floor`` and ``ceiling``."""

    pairs: int
    full: bool  # full TLT, or the five prefixes of SST
    closed: bool
    training: bool = False
    floor: float | None = None
    ceiling: float | None = None


CASES = {
    "sst5_open": Case(SST_PAIRS, full=False, closed=False, floor=3.0),
    "tlt_open": Case(TLT_PAIRS, full=True, closed=False, floor=60.0),
    "sst5_closed": Case(SST_PAIRS, full=False, closed=True, floor=2.5),
    "tlt_closed": Case(TLT_PAIRS, full=True, closed=True, floor=15.0),
    "train_tlt_open": Case(TRAINED_PAIRS, full=True, closed=False, training=True, ceiling=1.5),
    # The ceiling is 1.5 times the cost of its tokens in an ORM epoch.
    "train_tlt_closed": Case(TRAINED_PAIRS, full=True, closed=True, training=True),
}


def prefix_result(name: str, repeats: int, setting: Setting) -> dict[str, object]:
    """Return the times of both implementations, and the FLOP/s of this project's one."""
    case = CASES[name]
    both = (_trained, _trained_outcome) if case.training else (_packed, _separate)
    ours, other = (partial(run, name, setting) for run in both)
    measured: Measured = compare(
        ours, other, partial(_warm, name, setting), repeats, setting.device
    )
    ceiling = case.ceiling
    if case.training:
        ratio = measured.ours_s / measured.other_s
        ceiling = ceiling or 1.5 * _tokens(name, case, setting) / _tokens(name, None, setting)
    else:
        ratio = measured.other_s / measured.ours_s
    rows = [_row(pair, case) for pair in pairs_of(case.pairs, setting.vocabulary)]
    # A training step has one forward pass, and a backward pass that costs twice as much.
    flops = (3 if case.training else 1) * forward_flops(setting, rows)
    return {
        "name": name,
        **asdict(measured),
        "ratio": ratio,
        "floor": case.floor,
        "ceiling": ceiling,
        "flops": flops / measured.ours_s,
    }


def _warm(name: str, setting: Setting) -> None:
    """Load the model and the pairs, and run a small forward and backward pass."""
    model = random_model(setting)
    texts = [((3, 4), (5, 6), (7, 8))]
    with torch.set_grad_enabled(CASES[name].training):
        scores = packed_scores(model, [_row(pair, CASES[name]) for pair in texts], PAD)
        if CASES[name].training:
            scores.sum().backward()
            model.zero_grad()
    pairs_of(CASES[name].pairs, setting.vocabulary)


@torch.no_grad()
def _packed(name: str, setting: Setting) -> None:
    case, model = CASES[name], random_model(setting)
    pairs = pairs_of(case.pairs, setting.vocabulary)
    for start in range(0, len(pairs), setting.packed_pairs):
        rows = [_row(pair, case) for pair in pairs[start : start + setting.packed_pairs]]
        packed_scores(model, rows, PAD)


@torch.no_grad()
def _separate(name: str, setting: Setting) -> None:
    """Score each prefix as a separate sequence, batched by length, with padding on the right."""
    case, model = CASES[name], random_model(setting)
    closing = SUFFIX if case.closed else ()
    texts = sorted(
        (
            x + y[:t] + closing
            for x, *ys in pairs_of(case.pairs, setting.vocabulary)
            for y in ys
            for t in _cuts(y, case)
        ),
        key=len,
    )
    batch: list[Ids] = []
    for text in texts:
        if batch and len(text) * (len(batch) + 1) > setting.separate_tokens:
            _forward(model, batch)
            batch = []
        batch.append(text)
    _forward(model, batch)


def _forward(model: PreTrainedModel, texts: Sequence[Ids]) -> None:
    width = max(map(len, texts))
    device = model.device
    ids = torch.tensor([[*text, *[PAD] * (width - len(text))] for text in texts], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    mask = mask.to(device)
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    model.score(hidden[torch.arange(len(texts), device=device), mask.sum(1) - 1])


def _trained(name: str, setting: Setting) -> None:
    _epoch(CASES[name], setting, lambda pair: _example(pair, _cuts_of_pair(pair)))


def _trained_outcome(name: str, setting: Setting) -> None:
    _epoch(CASES[name], setting, lambda pair: _example(pair, [max(map(len, pair[1:]))]))


def _epoch(case: Case, setting: Setting, example: Callable[[Pair], PairExample]) -> None:
    """Run an epoch of AdamW steps over the pairs, as the training loop does."""
    model = random_model(setting)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pairs = pairs_of(case.pairs, setting.vocabulary)
    closing = SUFFIX if case.closed else ()
    for start in range(0, len(pairs), STEP_PAIRS):
        rows = [example(pair) for pair in pairs[start : start + STEP_PAIRS]]
        loss, _ = BradleyTerry.loss(LossContext(model, PAD, closing), rows)
        (loss / sum(row.size for row in rows)).backward()
        optimizer.step()
        optimizer.zero_grad()


def _tokens(name: str, case: Case | None, setting: Setting) -> int:
    """Return the tokens that an epoch computes: of the case's prefixes, or (None) of responses."""
    closing = SUFFIX if CASES[name].closed else ()
    pairs = pairs_of(TRAINED_PAIRS, setting.vocabulary)
    if case is None:
        rows = [prefix_row(x, ys, [[len(y)] for y in ys], closing) for x, *ys in pairs]
    else:
        rows = [_row(pair, case) for pair in pairs]
    return sum(row.tokens for row in rows)


def _row(pair: Pair, case: Case) -> PackedRow:
    prompt, *responses = pair
    cuts = [_cuts(response, case) for response in responses]
    return prefix_row(prompt, responses, cuts, SUFFIX if case.closed else ())


def _cuts(response: Ids, case: Case) -> Sequence[int]:
    if case.full:
        return range(1, len(response) + 1)
    return [len(response) * i // SST_PREFIXES for i in range(1, SST_PREFIXES + 1)]


def _cuts_of_pair(pair: Pair) -> Sequence[int]:
    return range(1, max(map(len, pair[1:])) + 1)


def _example(pair: Pair, cuts: Sequence[int]) -> PairExample:
    return PairExample(*pair, tuple(cuts), tuple(cuts), (1.0,) * len(cuts))


@lru_cache
def pairs_of(count: int, vocabulary: int) -> list[Pair]:
    """Return random pairs of about 60 prompt and 200 response tokens, the same at every call."""
    draw = generator(0, "bench")

    def text(low: int, high: int) -> Ids:
        ids = draw.integers(3, vocabulary, int(draw.integers(low, high + 1)))
        return tuple(ids.tolist())

    return [(text(55, 65), text(190, 210), text(190, 210)) for _ in range(count)]
