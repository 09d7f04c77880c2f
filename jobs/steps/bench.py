"""The benchmark of reward models: one pass against separate forwards, TLT against an ORM epoch.

The model is a random Llama of 4.9M parameters; pairs have about 60 prompt and 200 response tokens.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from jobs.steps.measure import Measured, compare
from orchestrator.randomness import generator
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import Ids, PackedRow, prefix_row
from orchestrator.training.bradley_terry import pair_loss
from orchestrator.training.examples import PairExample

VOCABULARY, SUFFIX = 2048, (5, 6, 2)  # a closing of three tokens
SST_PREFIXES, SST_PAIRS, TLT_PAIRS, TRAINED_PAIRS = 5, 32, 4, 8
SEPARATE_TOKENS = 4096  # of a batch of separate forwards; larger ones were slower
PACKED_PAIRS = 16  # of a packed batch in scoring
STEP_PAIRS = 2  # of an optimizer step
PAD = 0
Pair = tuple[Ids, Ids, Ids]  # prompt, chosen, rejected


@dataclass(frozen=True)
class Case:
    """What is measured; ``floor`` and ``ceiling`` bound the ratio of a good result."""

    pairs: int
    full: bool  # full TLT, or SST's five prefixes
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
    # Its ceiling is 1.5 of what its own tokens cost in an ORM epoch.
    "train_tlt_closed": Case(TRAINED_PAIRS, full=True, closed=True, training=True),
}
NAMES = tuple(CASES)


def bench_rewards(names: Sequence[str], repeats: int, file: Path | None) -> None:
    """Measures, prints a table and a line of JSON, and writes it where ``file`` says."""
    console = Console(stderr=True)
    results = []
    for name in names:
        console.print(f"{name} ...", highlight=False)
        results.append(_result(name, repeats))
    found = {"device": _device(), "results": results}
    Console(width=120).print(_table(results))
    line = json.dumps(found)
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _result(name: str, repeats: int) -> dict[str, object]:
    case = CASES[name]
    ways = (_trained, _trained_outcome) if case.training else (_packed, _separate)
    ours, other = (partial(way, name) for way in ways)
    found: Measured = compare(ours, other, partial(_warm, name), repeats)
    ceiling = case.ceiling
    if case.training:
        ratio = found.ours_s / found.other_s
        ceiling = ceiling or 1.5 * _tokens(name, case) / _tokens(name, None)
    else:
        ratio = found.other_s / found.ours_s
    return {
        "name": name,
        **asdict(found),
        "ratio": ratio,
        "floor": case.floor,
        "ceiling": ceiling,
    }


def _warm(name: str) -> None:
    """Loads model and pairs and runs the smallest forward and backward."""
    model = _model()
    texts = [((3, 4), (5, 6), (7, 8))]
    with torch.set_grad_enabled(CASES[name].training):
        scores = packed_scores(model, [_row(pair, CASES[name]) for pair in texts], PAD)
        if CASES[name].training:
            scores.sum().backward()
            model.zero_grad()
    _pairs(CASES[name].pairs)


@torch.no_grad()
def _packed(name: str) -> None:
    case, model = CASES[name], _model()
    pairs = _pairs(case.pairs)
    for start in range(0, len(pairs), PACKED_PAIRS):
        rows = [_row(pair, case) for pair in pairs[start : start + PACKED_PAIRS]]
        packed_scores(model, rows, PAD)


@torch.no_grad()
def _separate(name: str) -> None:
    """Each prefix a text of its own, batched by length, padded on the right."""
    case, model = CASES[name], _model()
    closing = SUFFIX if case.closed else ()
    texts = sorted(
        (x + y[:t] + closing for x, *ys in _pairs(case.pairs) for y in ys for t in _cuts(y, case)),
        key=len,
    )
    batch: list[Ids] = []
    for text in texts:
        if batch and len(text) * (len(batch) + 1) > SEPARATE_TOKENS:
            _forward(model, batch)
            batch = []
        batch.append(text)
    _forward(model, batch)


def _forward(model: PreTrainedModel, texts: Sequence[Ids]) -> None:
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[PAD] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    model.score(hidden[torch.arange(len(texts)), mask.sum(1) - 1])


def _trained(name: str) -> None:
    _epoch(CASES[name], lambda pair: _example(pair, _cuts_of_pair(pair)))


def _trained_outcome(name: str) -> None:
    _epoch(CASES[name], lambda pair: _example(pair, [max(map(len, pair[1:]))]))


def _epoch(case: Case, example: Callable[[Pair], PairExample]) -> None:
    """An epoch of AdamW steps over the pairs, as the train loop takes them."""
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pairs = _pairs(case.pairs)
    closing = SUFFIX if case.closed else ()
    for start in range(0, len(pairs), STEP_PAIRS):
        rows = [example(pair) for pair in pairs[start : start + STEP_PAIRS]]
        loss, _ = pair_loss(model, rows, closing, PAD)
        (loss / sum(row.size for row in rows)).backward()
        optimizer.step()
        optimizer.zero_grad()


def _tokens(name: str, case: Case | None) -> int:
    """Tokens that an epoch computes: of the case's prefixes, or (None) of whole responses."""
    closing = SUFFIX if CASES[name].closed else ()
    whole = [prefix_row(x, ys, [[len(y)] for y in ys], closing) for x, *ys in _pairs(TRAINED_PAIRS)]
    rows = whole if case is None else [_row(pair, case) for pair in _pairs(case.pairs)]
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
def _pairs(count: int) -> list[Pair]:
    draw = generator(0, "bench")

    def text(low: int, high: int) -> Ids:
        ids = draw.integers(3, VOCABULARY, int(draw.integers(low, high + 1)))
        return tuple(ids.tolist())

    return [(text(55, 65), text(190, 210), text(190, 210)) for _ in range(count)]


@lru_cache
def _model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_labels=1,
        pad_token_id=PAD,
    )
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").eval()


def _device() -> str:
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _table(results: Sequence[dict[str, object]]) -> Table:
    table = Table(title="Reward models: ratio = other / ours in scoring, ours / ORM in training")
    headings = ("name", "ours_s", "other_s", "ratio", "floor", "ceiling",
                "ours_peak_mib", "other_peak_mib")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for result in results:
        cells = [result[heading] for heading in headings]
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c or "") for c in cells))
    return table
