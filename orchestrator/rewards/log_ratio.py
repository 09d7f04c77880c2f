"""Log-probabilities of responses under a causal language model: what implicit rewards are made of.

r = beta * sum_t log pi_theta(y_t | x, y_<t) / pi_ref(y_t | x, y_<t) ("Free process rewards without
process labels"): the partial sum up to a step is that prefix's value q. Here is one model's side of
the ratio. The head, whose logits are the largest thing of such a pass, is computed at positions
that predict a response's token only, and there in chunks. Pure torch: no tokenizer, no files.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from orchestrator.rewards.batching import batches_by_length

Ids = tuple[int, ...]
Text = tuple[Ids, Ids]  # prompt and response, closing tokens included where they count

# Logits of one chunk of positions: 128 MiB in float32, 256 positions of the largest vocabularies.
LOGITS_PER_CHUNK = 2**25
# Fields with which some architectures scale or cap their logits in ways that are not computed here.
_OTHER_LOGITS = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_logit_soft_cap")
_NOTHING = -1  # in place of a token that is not there


def token_log_probs(model: PreTrainedModel, rows: Sequence[Text], pad_id: int) -> Tensor:
    """Log pi(y_t | x, y_<t) in nats, (N, T) of the N rows, T the longest response.

    float32, of a float64 model float64; zero past a response's end, so that a sum over T is the
    whole response's. Differentiable; rows are one forward, the caller bounds their tokens.

    Raises:
        ValueError: a prompt is empty (nothing predicts the first token), or the architecture
            changes its logits in a way that is not known here.
    """
    return _log_probs(model, rows, (), pad_id)[:, :-1, 0]


def token_and_end_log_probs(
    model: PreTrainedModel, rows: Sequence[Text], end_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """As ``token_log_probs`` (N, T), and log pi(end | x, y_<t) (N, T + 1) for t = 0..T.

    Both from one forward; zero where t is past a response's end.
    """
    found = _log_probs(model, rows, (end_id,), pad_id)
    return found[:, :-1, 0], found[..., 1]


@torch.no_grad()
def response_log_probs(model: PreTrainedModel, rows: Sequence[Text], pad_id: int) -> list[float]:
    """Log pi(y | x) of whole responses in nats, batched by length; result i belongs to row i."""
    found = [0.0] * len(rows)
    for batch in batches_by_length([len(x) + len(y) for x, y in rows]):
        values = token_log_probs(model, [rows[i] for i in batch], pad_id).double().sum(1)
        for i, value in zip(batch, values.tolist(), strict=True):
            found[i] = value
    return found


def _log_probs(model: PreTrainedModel, rows: Sequence[Text], others: Ids, pad_id: int) -> Tensor:
    """(N, T + 1, 1 + A): of the response's next token, and of the A ``others`` in its place.

    Behind the whole response there is no next token: zero there.
    """
    if not all(prompt for prompt, _ in rows):
        raise ValueError("a prompt is empty: nothing predicts the response's first token")
    device = next(model.parameters()).device
    places: list[tuple[int, ...]] = []
    targets: list[tuple[int, ...]] = []
    for i, (prompt, response) in enumerate(rows):
        asked = [*response, _NOTHING] if others else response
        places += [(i, t, len(prompt) + t - 1) for t in range(len(asked))]
        targets += [(token, *others) for token in asked]
    row, step, place = _int64(places, 3, device).unbind(1)
    states = _hidden(model, rows, pad_id, device)[row, place]  # (M, D)
    values = log_probs_at(model, states, _int64(targets, 1 + len(others), device))
    longest = max(len(response) for _, response in rows)
    found = values.new_zeros((len(rows), longest + 1, 1 + len(others)))
    return found.index_put((row, step), values)


def _int64(lists: Sequence[Sequence[int]], columns: int, device: torch.device) -> Tensor:
    return torch.tensor(lists, dtype=torch.int64, device=device).reshape(-1, columns)


def _hidden(
    model: PreTrainedModel, rows: Sequence[Text], pad_id: int, device: torch.device
) -> Tensor:
    """Last hidden states (N, P + T, D) of the backbone, rows padded on the right."""
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
    """Log-probabilities (M, A) in nats of the tokens ``targets`` (M, A) at hidden states (M, D)."""
    head = model.get_output_embeddings()
    size = max(LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size, 1)
    cap = logit_cap(model)
    logits_of = head.forward

    def chunked(states: Tensor) -> Tensor:
        found = []
        for some, wanted in zip(states.split(size), targets.split(size), strict=True):
            if torch.is_grad_enabled() and some.requires_grad:
                # Computed again for the gradient: the logits of only one chunk are ever held.
                found.append(checkpoint(_chunk, logits_of, some, wanted, cap, use_reentrant=False))
            else:
                found.append(_chunk(logits_of, some, wanted, cap))
        return torch.cat(found)

    with _forward_of(head, chunked):
        log_probs: Tensor = head(states)
    return log_probs


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets one call of a module do something else with its weights.

    All chunks go through one call: ZeRO-3 gathers sharded weights at a module's call, all workers
    together, and the workers' numbers of chunks differ.
    """
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _chunk(
    logits_of: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, cap: float | None
) -> Tensor:
    logits = logits_of(states)  # (m, V)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    values = logits.gather(1, targets.clamp(min=0)) - logits.logsumexp(1, keepdim=True)
    return values.masked_fill(targets == _NOTHING, 0.0)


def logit_cap(model: PreTrainedModel) -> float | None:
    """At what an architecture softly caps its logits, as Gemma 2 does; None where it does not.

    Raises:
        ValueError: it changes them in another way, which is not known here.
    """
    config = model.config.get_text_config()
    odd = [name for name in _OTHER_LOGITS if getattr(config, name, None) not in (None, 1.0)]
    if odd:
        raise ValueError(
            f"{type(model).__name__} changes its logits by {odd}: no log-probabilities of such"
            " models are computed here; known is final_logit_softcapping"
        )
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    return cap
