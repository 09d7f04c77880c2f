"""Log-probabilities of responses under a causal language model, for implicit rewards.

r = beta * sum_t log pi_theta(y_t | x, y_<t) / pi_ref(y_t | x, y_<t) ("Free process rewards without
process labels"): the partial sum up to a step is that prefix's value q. This module computes one
model's side of the ratio. The logits take the most memory of such a forward, so the head is applied
only at positions that predict a token of the response, and in chunks. No tokenizer, no files.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from orchestrator.rewards.batching import batches_by_length

Ids = tuple[int, ...]
Row = tuple[Ids, Ids]  # prompt and response, with the closing tokens if these count

# Logits of one chunk of positions: 128 MiB in float32, 256 positions of the largest vocabularies.
LOGITS_PER_CHUNK = 2**25
# Config fields by which some architectures transform their logits in unsupported ways.
_UNSUPPORTED_LOGITS = (
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_logit_soft_cap",
)
_NO_TOKEN = -1  # target of a position without a next token


def token_log_probs(model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> Tensor:
    """Return log pi(y_t | x, y_<t) in nats, (N, T) for N rows, T the longest response.

    float32, or float64 for a float64 model. Zero after the end of a response, so that the sum over
    T is that of the response. Differentiable. One forward: the caller bounds its tokens.

    Raises:
        ValueError: a prompt is empty (nothing predicts the first token), or the architecture
            transforms its logits in an unsupported way.
    """
    return _log_probs(model, rows, (), pad_id)[:, :-1, 0]


def token_and_end_log_probs(
    model: PreTrainedModel, rows: Sequence[Row], end_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Return ``token_log_probs`` (N, T), and log pi(end | x, y_<t) (N, T + 1) for t = 0..T.

    Both from one forward. Zero where t is after the end of a response.
    """
    values = _log_probs(model, rows, (end_id,), pad_id)
    return values[:, :-1, 0], values[..., 1]


@torch.no_grad()
def response_log_probs(model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> list[float]:
    """Return log pi(y | x) of responses in nats; result i is of row i. Batches by length."""
    results = [0.0] * len(rows)
    for batch in batches_by_length([len(x) + len(y) for x, y in rows]):
        values = token_log_probs(model, [rows[i] for i in batch], pad_id).double().sum(1)
        for i, value in zip(batch, values.tolist(), strict=True):
            results[i] = value
    return results


def _log_probs(model: PreTrainedModel, rows: Sequence[Row], others: Ids, pad_id: int) -> Tensor:
    """Return log-probabilities (N, T + 1, 1 + A) of the next token and of the A tokens ``others``.

    After the full response there is no next token: its value is zero there.
    """
    if not all(prompt for prompt, _ in rows):
        raise ValueError("a prompt is empty: nothing predicts the response's first token")
    device = next(model.parameters()).device
    positions: list[tuple[int, ...]] = []
    targets: list[tuple[int, ...]] = []
    for i, (prompt, response) in enumerate(rows):
        next_tokens = [*response, _NO_TOKEN] if others else response
        positions += [(i, t, len(prompt) + t - 1) for t in range(len(next_tokens))]
        targets += [(token, *others) for token in next_tokens]
    row, step, column = _int64(positions, 3, device).unbind(1)
    states = _hidden(model, rows, pad_id, device)[row, column]  # (M, D)
    values = log_probs_at(model, states, _int64(targets, 1 + len(others), device))
    longest = max(len(response) for _, response in rows)
    by_row = values.new_zeros((len(rows), longest + 1, 1 + len(others)))
    return by_row.index_put((row, step), values)


def _int64(lists: Sequence[Sequence[int]], columns: int, device: torch.device) -> Tensor:
    return torch.tensor(lists, dtype=torch.int64, device=device).reshape(-1, columns)


def _hidden(
    model: PreTrainedModel, rows: Sequence[Row], pad_id: int, device: torch.device
) -> Tensor:
    """Return last hidden states (N, P + T, D) of the backbone, rows padded on the right."""
    width = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        ids[i, :end], mask[i, :end] = torch.tensor(prompt + response), 1
    out = model.base_model(
        input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


def log_probs_at(model: PreTrainedModel, states: Tensor, targets: Tensor) -> Tensor:
    """Return log-probabilities (M, A) in nats of tokens ``targets`` (M, A) at states (M, D)."""
    head = model.get_output_embeddings()
    size = max(LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size, 1)
    cap = logit_cap(model)
    logits_of = head.forward

    def chunked(states: Tensor) -> Tensor:
        chunks = []
        for chunk, chunk_targets in zip(states.split(size), targets.split(size), strict=True):
            if torch.is_grad_enabled() and chunk.requires_grad:
                # Recomputed in the backward pass: only one chunk's logits exist at a time.
                chunks.append(
                    checkpoint(_chunk, logits_of, chunk, chunk_targets, cap, use_reentrant=False)
                )
            else:
                chunks.append(_chunk(logits_of, chunk, chunk_targets, cap))
        return torch.cat(chunks)

    with _forward_of(head, chunked):
        log_probs: Tensor = head(states)
    return log_probs


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace a module's forward in the block.

    All chunks run in one call of the module: under ZeRO-3 all workers gather sharded weights
    together at each call, and their numbers of chunks differ.
    """
    original = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if original is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = original


def _chunk(
    logits_of: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, cap: float | None
) -> Tensor:
    logits = logits_of(states)  # (m, V)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    values = logits.gather(1, targets.clamp(min=0)) - logits.logsumexp(1, keepdim=True)
    return values.masked_fill(targets == _NO_TOKEN, 0.0)


def logit_cap(model: PreTrainedModel) -> float | None:
    """Return the soft cap of an architecture's logits, as in Gemma 2; None if it has none.

    Raises:
        ValueError: it transforms them in another way, which is not supported.
    """
    config = model.config.get_text_config()
    unsupported = [
        name for name in _UNSUPPORTED_LOGITS if getattr(config, name, None) not in (None, 1.0)
    ]
    if unsupported:
        raise ValueError(
            f"{type(model).__name__} transforms its logits by {unsupported}: log-probabilities of"
            " such models are not supported; supported is final_logit_softcapping"
        )
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    return cap
