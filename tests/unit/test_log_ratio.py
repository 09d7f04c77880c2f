"""Log-probabilities of responses against a log_softmax over all logits of one row at a time."""

import pytest
import torch
from conftest import FLOAT32_INSIDE
from support.present import present
from torch import Tensor, nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
)

from orchestrator.checkpoints.checkpoint import load_policy
from orchestrator.rewards import log_ratio
from orchestrator.rewards.extensions import Extended, extended_log_probs
from orchestrator.rewards.log_ratio import (
    response_log_probs,
    token_and_end_log_probs,
    token_log_probs,
)

PAD, END = 0, 4
ROWS = [
    ((5, 6, 7), (8, 9, 10, 11, 4)),
    ((9,), (12,)),
    ((30, 31, 32, 33, 34, 35), (40, 0, 41)),  # the pad token in the middle is a token like any
    ((7, 8), ()),
]


def slow(model: nn.Module, prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
    """Log-probabilities of every token of the vocabulary (T + 1, V), in place of each token."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 :]
    return torch.log_softmax(logits, -1)


def gemma(window: int = 4_096) -> PreTrainedModel:
    """A model that caps its logits, low enough to matter; every other layer has a window."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, initializer_range=0.5,
        final_logit_softcapping=2.0, sliding_window=window, attn_implementation="eager",
    )  # fmt: skip
    return Gemma2ForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def llama(word_policy: str) -> PreTrainedModel:
    return load_policy(word_policy, torch.float64).eval()


@pytest.mark.parametrize("positions", [1, 3, 10**6], ids=lambda n: f"chunk{n}")
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_it_equals_the_log_softmax_of_all_logits(
    kind: str, positions: int, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama if kind == "llama" else gemma()
    monkeypatch.setattr(log_ratio, "LOGITS_PER_CHUNK", positions * model.config.vocab_size)
    alone = token_log_probs(model, ROWS, PAD)
    tokens, ends = token_and_end_log_probs(model, ROWS, END, PAD)
    assert alone.shape == tokens.shape == (4, 5) and ends.shape == (4, 6)
    assert alone.dtype == torch.float64
    for i, (prompt, response) in enumerate(ROWS):
        wanted, size = slow(model, prompt, response).detach(), len(response)
        picked = [float(wanted[t, token]) for t, token in enumerate(response)]
        for found in (alone, tokens):
            assert found[i, :size].tolist() == pytest.approx(picked, abs=FLOAT32_INSIDE)
            assert found[i, size:].tolist() == [0.0] * (5 - size)
        assert ends[i, : size + 1].tolist() == pytest.approx(
            wanted[:, END].tolist(), abs=FLOAT32_INSIDE
        )
        assert ends[i, size + 1 :].tolist() == [0.0] * (5 - size)
        assert response_log_probs(model, ROWS, PAD)[i] == pytest.approx(
            sum(picked), abs=len(picked) * FLOAT32_INSIDE
        )


def test_gradients_equal_those_of_the_whole_log_softmax(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_ratio, "LOGITS_PER_CHUNK", 2 * llama.config.vocab_size)
    weights = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)
    llama.zero_grad()
    (token_log_probs(llama, ROWS, PAD) * weights).sum().backward()
    found = [present(p.grad).clone() for p in llama.parameters()]
    llama.zero_grad()
    for i, (prompt, response) in enumerate(ROWS):
        wanted = slow(llama, prompt, response)
        picked = [wanted[t, token] * weights[i, t] for t, token in enumerate(response)]
        if picked:
            torch.stack(picked).sum().backward()
    for mine, parameter in zip(found, llama.parameters(), strict=True):
        assert torch.allclose(mine, present(parameter.grad), rtol=0, atol=FLOAT32_INSIDE)
    assert max(float(g.abs().max()) for g in found) > 0.01


def test_the_head_sees_response_positions_only_and_its_logits_are_not_kept(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = llama.config.vocab_size
    monkeypatch.setattr(log_ratio, "LOGITS_PER_CHUNK", 4 * vocabulary)
    chunks: list[int] = []
    chunk = log_ratio._chunk

    def counted(logits_of: object, states: Tensor, *others: object) -> Tensor:
        chunks.append(len(states))
        return chunk(logits_of, states, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(log_ratio, "_chunk", counted)
    calls: list[torch.Size] = []
    head = llama.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    kept: list[torch.Size] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = token_log_probs(llama, ROWS, PAD).sum()
    assert chunks == [4, 4, 1]  # 5 + 1 + 3 positions
    assert kept and not [shape for shape in kept if shape[-1:] == (vocabulary,)]
    loss.backward()
    assert sorted(chunks[3:]) == [1, 4, 4]  # once more for the gradient
    # However many chunks, the head is called once: what ZeRO-3 gathers at a call, all workers must.
    assert calls == [(9, 1)]
    assert "forward" not in head.__dict__
    hook.remove()


def test_under_bfloat16_autocast_values_are_float32_and_gradients_numbers(word_policy: str) -> None:
    model = load_policy(word_policy)
    exact = token_log_probs(model, ROWS, PAD)
    with torch.autocast("cpu", torch.bfloat16):
        rough = token_log_probs(model, ROWS, PAD)
    assert exact.dtype == rough.dtype == torch.float32
    rough.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    # bfloat16 keeps 8 bits of a logit; these logits are below 16.
    assert torch.allclose(rough, exact, atol=0.2) and not torch.equal(rough, exact)


def test_padding_and_company_change_nothing(llama: PreTrainedModel) -> None:
    together = token_log_probs(llama, ROWS, PAD)
    for pad in (PAD, END):
        for i, row in enumerate(ROWS):
            alone = token_log_probs(llama, [row], pad)[0]
            assert alone.tolist() == pytest.approx(
                together[i, : len(row[1])].tolist(), abs=FLOAT32_INSIDE
            )


def test_whole_responses_do_not_depend_on_how_they_are_batched(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = response_log_probs(llama, ROWS, PAD)
    widths: list[int] = []
    hook = llama.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 10)
    assert response_log_probs(llama, ROWS, PAD) == pytest.approx(whole, abs=FLOAT32_INSIDE)
    assert widths == [2 * 2, 8, 9]  # tokens: two rows of 2, one of 8, one of 9
    hook.remove()


def test_an_empty_prompt_and_unknown_logits_are_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="a prompt is empty"):
        token_log_probs(llama, [((), (5, 6))], PAD)
    config = CohereConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, logit_scale=0.0625,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"CohereForCausalLM .*logit_scale"):
        token_log_probs(CohereForCausalLM(config), ROWS, PAD)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_extensions_of_a_prefix_have_the_log_probabilities_of_whole_texts(
    kind: str, llama: PreTrainedModel
) -> None:
    """Also where a window is shorter than the text; rows of their own sizes, and empty ones."""
    model = llama if kind == "llama" else gemma(window=3)
    rows = [
        Extended((5, 6, 7), (8, 9), ((10,), (), (11, 12, 13), (10, 4, 0, 14, 15))),
        Extended((9,), (), ((12,),)),
        Extended((30, 31, 32, 33, 34, 35), (40, 0, 41, 42), ((0, 9), ())),
        Extended((7, 8), (9,), ()),
    ]
    for some in (rows, rows[3:], [Extended((7, 8), (9, 10), ((),))]):
        found = extended_log_probs(model, some, END, PAD)
        for row, own in zip(some, found, strict=True):
            for extension, values in zip(row.extensions, own, strict=True):
                y = row.prefix_ids + extension
                logits = slow(model, row.prompt_ids, y).detach()
                wanted = [float(logits[t, token]) for t, token in enumerate((*y, END))]
                assert values == pytest.approx(wanted, abs=FLOAT32_INSIDE)
    with pytest.raises(ValueError, match="a prompt is empty"):
        extended_log_probs(model, [Extended((), (8,), ((9,),))], END, PAD)
