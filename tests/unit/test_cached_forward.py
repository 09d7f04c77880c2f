"""Cached forwards against forwards over full sequences in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import FLOAT32_INSIDE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
)

from orchestrator.engines.kv_cache import cached_forward, prefix_index, row_storage
from orchestrator.engines.kv_cache.cached_forward import CachedForward
from orchestrator.rewards.packed import Ids

WORDS = 20
SIZES = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_labels": 1, "pad_token_id": 0,
    "initializer_range": 0.4, "head_dim": 4,
}  # fmt: skip
CONFIGS = (
    LlamaConfig(**SIZES),
    Gemma2Config(sliding_window=6, query_pre_attn_scalar=4, **SIZES),
    MistralConfig(sliding_window=5, **SIZES),
)


def model_of(number: int) -> PreTrainedModel:
    torch.manual_seed(number)
    model = AutoModelForSequenceClassification.from_config(
        CONFIGS[number], attn_implementation="sdpa"
    )
    return model.double().eval()


MODELS = [model_of(number) for number in range(len(CONFIGS))]


def forward_of(model: PreTrainedModel, memory_mib: float) -> CachedForward:
    def hidden(**inputs: object) -> Tensor:
        states: Tensor = model.base_model(**inputs).last_hidden_state
        return states

    return CachedForward(model, hidden, 0, memory_mib)


def alone(model: PreTrainedModel, sequence: Ids) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = model.base_model(input_ids=torch.tensor([sequence])).last_hidden_state
    return hidden[0, -1]


token = st.integers(1, WORDS - 1)
sequence_tokens = st.lists(token, min_size=1, max_size=12).map(tuple)
candidate = st.lists(token, min_size=1, max_size=3).map(tuple)
branch = st.tuples(candidate, st.sampled_from([(), (3,), (4, 5)]))


@pytest.fixture(autouse=True, scope="module")
def few_rows() -> Iterator[None]:
    """Rows grow often, and sequences of other lengths get forwards of their row.

    Rows are evicted while other children of the same parent continue.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached_forward, "MAX_PADDING_CPU", 4)
        patch.setattr(row_storage, "ROW_GRANULARITY", 2)
        yield


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cached_forwards_equal_full_forwards(data: st.DataObject) -> None:
    """Forks, crops, chosen and new branches, in any batch, with much memory or little."""
    model = MODELS[data.draw(st.integers(0, len(MODELS) - 1))]
    forward = forward_of(model, data.draw(st.sampled_from([0, 0.005, 0.01, 0.02, 0.04, 256])))
    sequences = data.draw(st.lists(sequence_tokens, min_size=1, max_size=4, unique=True))
    for _ in range(data.draw(st.integers(1, 5))):
        branches = [data.draw(st.lists(branch, max_size=3)) for _ in sequences]
        last = [data.draw(st.booleans()) for _ in sequences]
        outputs = forward.run(sequences, branches, last)
        for sequence, row_branches, wanted, output in zip(
            sequences, branches, last, outputs, strict=True
        ):
            assert (output.last is not None) == wanted
            if output.last is not None:
                torch.testing.assert_close(
                    output.last, alone(model, sequence), rtol=0, atol=FLOAT32_INSIDE
                )
            expected = [alone(model, sequence + a + b) for a, b in row_branches]
            if expected:
                torch.testing.assert_close(
                    output.branch_ends, torch.stack(expected), rtol=0, atol=FLOAT32_INSIDE
                )
        choices = [
            sequence + a
            for sequence, row_branches in zip(sequences, branches, strict=True)
            for a, _ in row_branches
        ]
        choices += [*sequences, *(sequence[:-1] for sequence in sequences if len(sequence) > 1)]
        choices += [(*sequence, 7, 8) for sequence in sequences]
        sequences = data.draw(
            st.lists(st.sampled_from(choices), min_size=1, max_size=5, unique=True)
        )


def test_only_new_tokens_are_computed() -> None:
    forward = forward_of(MODELS[0], 256)

    def computed(
        sequences: list[Ids], branches: list[list[tuple[Ids, Ids]]], last: bool
    ) -> list[int]:
        return [
            output.tokens_computed
            for output in forward.run(sequences, branches, [last] * len(sequences))
        ]

    first, second = (1, 2, 3, 4), (5, 6, 7)
    assert computed([first, second], [[((8,), ()), ((9,), (3,))], []], True) == [4 + 1 + 2, 3]
    # A chosen branch is cached; the last token is computed again where its output is wanted.
    assert computed([(*first, 8)], [[((10,), ())]], False) == [1]
    assert computed([(*first, 8)], [[]], True) == [1]
    # A fork of a sequence, a sequence that continues, a shorter prefix of one.
    assert computed([(*first, 9, 11)], [[]], False) == [1]
    assert computed([(*second, 12, 13)], [[]], True) == [2]
    assert computed([first[:2]], [[((7,), ())]], False) == [2 + 1], "not an indexed prefix"


def test_beams_of_a_prompt_share_it() -> None:
    """The example of prefix_cache.py: two branches continue, then two of the first one."""
    forward, prompt = forward_of(MODELS[0], 256), (1, 2, 3, 4)
    forward.run([prompt], [[((5,), ()), ((6,), ()), ((7,), ())]], [False])
    beams: list[Ids] = [(*prompt, 5), (*prompt, 6)]
    matches = forward.cache.match(beams)
    assert (
        len(set(matches.parents)) == 1
        and matches.parent_lengths == [4, 4]
        and matches.cached_lengths == [5, 5]
    )
    assert len({*matches.rows, *matches.parents}) == 3
    forward.run(beams, [[((8,), ()), ((9,), ())], [((8,), ())]], [False] * 2)
    forks: list[Ids] = [(*beams[0], 8), (*beams[0], 9)]
    forks_matches = forward.cache.match(forks)
    assert (
        forks_matches.parents == matches.parents
        and forks_matches.rows[0] == matches.rows[0]
        and forks_matches.cached_lengths == [6, 6]
    )
    assert forks_matches.rows[1] not in (*matches.rows, *matches.parents)
    assert [keys.shape[:3] for keys, _ in forward.cache.gather(forks_matches, 0)] == [
        (1, 2, 4),
        (2, 2, 2),
    ]
    # A single continuation is appended in place: it needs no new row.
    (alone,) = forward.cache.match([(*forks[1], 3)]).rows
    assert alone == forks_matches.rows[1]


def test_a_sequence_with_many_branches_does_not_widen_the_others() -> None:
    """Two beams that became one sequence have the branches of both: a forward of its row."""
    widths: list[tuple[int, ...]] = []
    forward = forward_of(MODELS[0], 256)
    inner = forward._forward_fn

    def counted(**inputs: Tensor) -> Tensor:
        widths.append(tuple(inputs["input_ids"].shape))
        return inner(**inputs)

    forward._forward_fn = counted
    sequences: list[Ids] = [(1, 2, i) for i in range(3, 8)]
    forward.run(sequences, [[]] * 5, [False] * 5)
    few = [((8,), ()), ((9,), ())]
    forward.run(sequences, [few] * 4 + [[*few, ((10,), ()), ((11,), ())]], [False] * 5)
    assert widths == [(5, 3), (4, 2), (1, 4)]


def test_evicted_rows_are_computed_again_and_rows_stay_few() -> None:
    forward = forward_of(MODELS[0], 0)
    sequences: list[Ids] = [(1 + i % 9, 2, 3 + i % 7, 1 + i % 13) for i in range(63)]
    for one in dict.fromkeys(sequences):
        (output,) = forward.run([one], [[]], [True])
        assert output.last is not None
        torch.testing.assert_close(output.last, alone(MODELS[0], one), rtol=0, atol=FLOAT32_INSIDE)
    assert forward.cache.rows == 1


def test_growing_rows_stay_within_the_memory() -> None:
    """A token takes 256 bytes, so half a MiB holds 6 rows of 300, and many of 10."""
    forward = forward_of(MODELS[0], 1)
    prompts = [(*(1 + i * j % 17 for j in range(1, 9)), i % 19 + 1) for i in range(30)]
    for prompt in prompts:
        beams = [[((token,), ()) for token in (1, 2, 3)]]
        forward.run([prompt], beams, [False])
        forward.run([(*prompt, 1), (*prompt, 2)], [[], []], [False] * 2)
    assert forward.cache.rows > 40
    long = tuple(1 + (3 * j) % 17 for j in range(300))
    for sequence in (long, prompts[-1], (*long, 5), (*prompts[-1], 2)):
        (output,) = forward.run([sequence], [[]], [True])
        assert output.last is not None
        torch.testing.assert_close(
            output.last, alone(MODELS[0], sequence), rtol=0, atol=FLOAT32_INSIDE
        )
        assert forward.cache.nbytes <= 2**20
    # The last used row is cached, and beams are no wider for a long prompt.
    (output,) = forward.run([(*long, 5)], [[]], [False])
    assert output.tokens_computed == 0
    forks = [(*long, 5, token) for token in (6, 7)]
    forward.run([(*long, 5)], [[((6,), ()), ((7,), ())]], [False])
    matches = forward.cache.match(forks)
    assert [keys.shape[2] for keys, _ in forward.cache.gather(matches, 0)] == [301, 1]
    assert forward.cache.nbytes <= 2**20 and forward.cache.rows > 32
    # Rows become short again; pinned rows are never evicted, even the oldest.
    forward.run(prompts, [[]] * len(prompts), [False] * len(prompts))
    assert forward.cache.nbytes <= 2**20
    oldest = [(*prompt, 7, 8) for prompt in prompts[:4]]
    forward.run([*oldest, long], [[]] * 5, [False] * 5)
    outputs = forward.run(oldest, [[]] * 4, [True] * 4)
    for one, sequence in zip(outputs, oldest, strict=True):
        assert one.last is not None
        torch.testing.assert_close(
            one.last, alone(MODELS[0], sequence), rtol=0, atol=FLOAT32_INSIDE
        )
    assert forward.cache.nbytes <= 2**20


@pytest.mark.parametrize("after", range(0, 9))
def test_out_of_memory_leaves_no_incomplete_rows(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While layers are first allocated, and while they grow: the next outputs are right."""
    forward, left = forward_of(MODELS[0], 256), [after]
    reallocated = row_storage._reallocated

    def short(*arguments: Any) -> Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("no memory is left")
        return reallocated(*arguments)

    monkeypatch.setattr(row_storage, "_reallocated", short)
    sequences: list[Ids] = [(1, 2, 3), tuple(range(1, 12)), (1, 2, 3, 4)]
    failures = 0
    for sequence in sequences * 2:
        try:
            (output,) = forward.run([sequence], [[((5,), ()), ((6,), ())]], [True])
        except torch.OutOfMemoryError:
            failures += 1
            continue
        assert output.last is not None
        torch.testing.assert_close(
            output.last, alone(MODELS[0], sequence), rtol=0, atol=FLOAT32_INSIDE
        )
        expected = torch.stack([alone(MODELS[0], (*sequence, token)) for token in (5, 6)])
        torch.testing.assert_close(output.branch_ends, expected, rtol=0, atol=FLOAT32_INSIDE)
    assert failures == (after > 0)


def test_a_sequence_of_many_steps_has_few_indexed_prefixes() -> None:
    """Forks from its last steps and from its prompt match; the index is bounded."""
    forward, prompt = forward_of(MODELS[0], 256), (1, 2, 3)
    sequence: Ids = prompt
    for step in range(60):
        (output,) = forward.run([sequence], [[((4 + step % 9,), ())]], [False])
        assert output.tokens_computed == (3 + 1 if step == 0 else 1)
        sequence = (*sequence, 4 + step % 9)
    assert len(forward.cache._index) <= prefix_index.MAX_PREFIXES_PER_ROW
    assert [output.tokens_computed for output in forward.run([(*prompt, 9)], [[]], [False])] == [1]
    assert [
        output.tokens_computed for output in forward.run([(*sequence[:-3], 9)], [[]], [False])
    ] == [1]


def test_nan_does_not_spread_to_other_sequences() -> None:
    """A sequence in a parent row alone sees nothing of the children of other parents."""
    forward = forward_of(MODELS[0], 256)
    forward.run([(1, 2), (3, 4)], [[((5,), ()), ((6,), ())], []], [False] * 2)
    beams: list[Ids] = [(1, 2, 5), (1, 2, 6)]
    forward.run(beams, [[], []], [False] * 2)
    with torch.inference_mode():
        for keys, values in forward.cache._children.storage.layers:
            keys[1:], values[1:] = torch.nan, torch.nan
    outputs = forward.run([*beams, (3, 4)], [[((7,), ())]] * 3, [False] * 3)
    assert torch.isnan(outputs[0].branch_ends).all()
    expected = alone(MODELS[0], (3, 4, 7))
    torch.testing.assert_close(outputs[2].branch_ends[0], expected, rtol=0, atol=FLOAT32_INSIDE)
