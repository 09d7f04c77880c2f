"""Texts read on from a store of keys and values, against forwards over whole texts in float64."""

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

from orchestrator.engines.kv_cache import cached_forward as reading
from orchestrator.engines.kv_cache import prefix_index as names
from orchestrator.engines.kv_cache import rows
from orchestrator.engines.kv_cache.cached_forward import Reader
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


def reader_of(model: PreTrainedModel, memory_mib: float) -> Reader:
    def hidden(**inputs: object) -> Tensor:
        found: Tensor = model.base_model(**inputs).last_hidden_state
        return found

    return Reader(model, hidden, 0, memory_mib)


def alone(model: PreTrainedModel, text: Ids) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = model.base_model(input_ids=torch.tensor([text])).last_hidden_state
    return hidden[0, -1]


token = st.integers(1, WORDS - 1)
text = st.lists(token, min_size=1, max_size=12).map(tuple)
piece = st.lists(token, min_size=1, max_size=3).map(tuple)
tail = st.tuples(piece, st.sampled_from([(), (3,), (4, 5)]))


@pytest.fixture(autouse=True, scope="module")
def few_rows() -> Iterator[None]:
    """Rows are forgotten while others that stand behind the same root go on.

    Rows grow often, and texts of other lengths are read in forwards of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PADDING_ON_CPU", 4)
        patch.setattr(rows, "STEP", 2)
        yield


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_read_on_equals_a_forward_over_the_whole_text(data: st.DataObject) -> None:
    """Forks, crops, chosen and new tails, in any batch, with memory for all of it or for little."""
    model = MODELS[data.draw(st.integers(0, len(MODELS) - 1))]
    reader = reader_of(model, data.draw(st.sampled_from([0, 0.005, 0.01, 0.02, 0.04, 256])))
    texts = data.draw(st.lists(text, min_size=1, max_size=4, unique=True))
    for _ in range(data.draw(st.integers(1, 5))):
        tails = [data.draw(st.lists(tail, max_size=3)) for _ in texts]
        last = [data.draw(st.booleans()) for _ in texts]
        found = reader.read(texts, tails, last)
        for whole, own, wanted, read in zip(texts, tails, last, found, strict=True):
            assert (read.last is not None) == wanted
            if read.last is not None:
                torch.testing.assert_close(
                    read.last, alone(model, whole), rtol=0, atol=FLOAT32_INSIDE
                )
            expected = [alone(model, whole + a + b) for a, b in own]
            if expected:
                torch.testing.assert_close(
                    read.tails, torch.stack(expected), rtol=0, atol=FLOAT32_INSIDE
                )
        choices = [whole + a for whole, own in zip(texts, tails, strict=True) for a, _ in own]
        choices += [*texts, *(whole[:-1] for whole in texts if len(whole) > 1)]
        choices += [(*whole, 7, 8) for whole in texts]
        texts = data.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=5, unique=True))


def test_only_new_tokens_are_computed() -> None:
    reader = reader_of(MODELS[0], 256)

    def computed(texts: list[Ids], tails: list[list[tuple[Ids, Ids]]], last: bool) -> list[int]:
        return [read.computed for read in reader.read(texts, tails, [last] * len(texts))]

    first, second = (1, 2, 3, 4), (5, 6, 7)
    assert computed([first, second], [[((8,), ()), ((9,), (3,))], []], True) == [4 + 1 + 2, 3]
    # A tail that was chosen is known; the last token is read again where its output is wanted.
    assert computed([(*first, 8)], [[((10,), ())]], False) == [1]
    assert computed([(*first, 8)], [[]], True) == [1]
    # A fork of the same text, a text that goes on, one that goes back.
    assert computed([(*first, 9, 11)], [[]], False) == [1]
    assert computed([(*second, 12, 13)], [[]], True) == [2]
    assert computed([first[:2]], [[((7,), ())]], False) == [2 + 1], "no name of its own"


def test_beams_of_a_prompt_share_it() -> None:
    """The example of key_values.py: two candidates go on, then two from the first of them."""
    reader, prompt = reader_of(MODELS[0], 256), (1, 2, 3, 4)
    reader.read([prompt], [[((5,), ()), ((6,), ()), ((7,), ())]], [False])
    beams: list[Ids] = [(*prompt, 5), (*prompt, 6)]
    known = reader.store.known(beams)
    assert len(set(known.roots)) == 1 and known.shared == [4, 4] and known.lengths == [5, 5]
    assert len({*known.rows, *known.roots}) == 3
    reader.read(beams, [[((8,), ()), ((9,), ())], [((8,), ())]], [False] * 2)
    forks: list[Ids] = [(*beams[0], 8), (*beams[0], 9)]
    both = reader.store.known(forks)
    assert both.roots == known.roots and both.rows[0] == known.rows[0] and both.lengths == [6, 6]
    assert both.rows[1] not in (*known.rows, *known.roots)
    assert [keys.shape[:3] for keys, _ in reader.store.taken(both, 0)] == [(1, 2, 4), (2, 2, 2)]
    # A text alone goes on in place: no row of its own is made for it.
    (alone,) = reader.store.known([(*forks[1], 3)]).rows
    assert alone == both.rows[1]


def test_a_text_of_many_candidates_does_not_widen_the_others() -> None:
    """Two beams that became one text bring the candidates of both: a forward of its own."""
    widths: list[tuple[int, ...]] = []
    reader = reader_of(MODELS[0], 256)
    inner = reader._output

    def output(**inputs: Tensor) -> Tensor:
        widths.append(tuple(inputs["input_ids"].shape))
        return inner(**inputs)

    reader._output = output
    texts: list[Ids] = [(1, 2, i) for i in range(3, 8)]
    reader.read(texts, [[]] * 5, [False] * 5)
    few = [((8,), ()), ((9,), ())]
    reader.read(texts, [few] * 4 + [[*few, ((10,), ()), ((11,), ())]], [False] * 5)
    assert widths == [(5, 3), (4, 2), (1, 4)]


def test_what_has_no_memory_is_computed_again_and_rows_stay_few() -> None:
    reader = reader_of(MODELS[0], 0)
    texts: list[Ids] = [(1 + i % 9, 2, 3 + i % 7, 1 + i % 13) for i in range(63)]
    for one in dict.fromkeys(texts):
        (read,) = reader.read([one], [[]], [True])
        assert read.last is not None
        torch.testing.assert_close(read.last, alone(MODELS[0], one), rtol=0, atol=FLOAT32_INSIDE)
    assert reader.store.rows == 1


def test_rows_that_grow_take_no_more_memory_than_is_stated() -> None:
    """A token takes 256 bytes, so half a MiB holds 6 rows of 300, and many of 10."""
    reader = reader_of(MODELS[0], 1)
    prompts = [(*(1 + i * j % 17 for j in range(1, 9)), i % 19 + 1) for i in range(30)]
    for prompt in prompts:
        beams = [[((token,), ()) for token in (1, 2, 3)]]
        reader.read([prompt], beams, [False])
        reader.read([(*prompt, 1), (*prompt, 2)], [[], []], [False] * 2)
    assert reader.store.rows > 40
    whole = tuple(1 + (3 * j) % 17 for j in range(300))
    for text in (whole, prompts[-1], (*whole, 5), (*prompts[-1], 2)):
        (read,) = reader.read([text], [[]], [True])
        assert read.last is not None
        torch.testing.assert_close(read.last, alone(MODELS[0], text), rtol=0, atol=FLOAT32_INSIDE)
        assert reader.store.bytes <= 2**20
    # What was used last is still there, and beams are no wider for a prompt that is long.
    assert [read.computed for read in reader.read([(*whole, 5)], [[]], [False])] == [0]
    forks = [(*whole, 5, token) for token in (6, 7)]
    reader.read([(*whole, 5)], [[((6,), ()), ((7,), ())]], [False])
    known = reader.store.known(forks)
    assert [keys.shape[2] for keys, _ in reader.store.taken(known, 0)] == [301, 1]
    assert reader.store.bytes <= 2**20 and reader.store.rows > 32
    # Rows get short again; what is held is never among those that go, be it the oldest.
    reader.read(prompts, [[]] * len(prompts), [False] * len(prompts))
    assert reader.store.bytes <= 2**20
    oldest = [(*prompt, 7, 8) for prompt in prompts[:4]]
    reader.read([*oldest, whole], [[]] * 5, [False] * 5)
    found = reader.read(oldest, [[]] * 4, [True] * 4)
    for one, text in zip(found, oldest, strict=True):
        assert one.last is not None
        torch.testing.assert_close(one.last, alone(MODELS[0], text), rtol=0, atol=FLOAT32_INSIDE)
    assert reader.store.bytes <= 2**20


@pytest.mark.parametrize("after", range(0, 9))
def test_memory_that_runs_out_leaves_nothing_by_half(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While layers are first made, and while they grow: the next reads are right."""
    reader, left = reader_of(MODELS[0], 256), [after]
    remade = rows._remade

    def short(*arguments: Any) -> Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("no memory is left")
        return remade(*arguments)

    monkeypatch.setattr(rows, "_remade", short)
    texts: list[Ids] = [(1, 2, 3), tuple(range(1, 12)), (1, 2, 3, 4)]
    failures = 0
    for text in texts * 2:
        try:
            (read,) = reader.read([text], [[((5,), ()), ((6,), ())]], [True])
        except torch.OutOfMemoryError:
            failures += 1
            continue
        assert read.last is not None
        torch.testing.assert_close(read.last, alone(MODELS[0], text), rtol=0, atol=FLOAT32_INSIDE)
        expected = torch.stack([alone(MODELS[0], (*text, token)) for token in (5, 6)])
        torch.testing.assert_close(read.tails, expected, rtol=0, atol=FLOAT32_INSIDE)
    assert failures == (after > 0)


def test_a_text_of_many_steps_has_few_names() -> None:
    """Forks from its last steps and from its prompt are found; the memory of names is bounded."""
    reader, prompt = reader_of(MODELS[0], 256), (1, 2, 3)
    text: Ids = prompt
    for step in range(60):
        (read,) = reader.read([text], [[((4 + step % 9,), ())]], [False])
        assert read.computed == (3 + 1 if step == 0 else 1)
        text = (*text, 4 + step % 9)
    assert len(reader.store._names) <= names.MOST
    assert [read.computed for read in reader.read([(*prompt, 9)], [[]], [False])] == [1]
    assert [read.computed for read in reader.read([(*text[:-3], 9)], [[]], [False])] == [1]


def test_what_is_nan_stays_where_it_is() -> None:
    """A text that stands in its root alone sees nothing of the rows behind other roots."""
    reader = reader_of(MODELS[0], 256)
    reader.read([(1, 2), (3, 4)], [[((5,), ()), ((6,), ())], []], [False] * 2)
    beams: list[Ids] = [(1, 2, 5), (1, 2, 6)]
    reader.read(beams, [[], []], [False] * 2)
    with torch.inference_mode():
        for keys, values in reader.store._behind.stored.layers:
            keys[1:], values[1:] = torch.nan, torch.nan
    found = reader.read([*beams, (3, 4)], [[((7,), ())]] * 3, [False] * 3)
    assert torch.isnan(found[0].tails).all()
    expected = alone(MODELS[0], (3, 4, 7))
    torch.testing.assert_close(found[2].tails[0], expected, rtol=0, atol=FLOAT32_INSIDE)
