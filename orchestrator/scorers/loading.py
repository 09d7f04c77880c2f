"""From a scorer's spec to the scorer, and to its tokenizer and prompt format."""

from orchestrator.choices import Dtype, Position
from orchestrator.conversations.chat import Chat
from orchestrator.scorers.aggregated import AggregatedScorer
from orchestrator.scorers.detect import scorer_kind
from orchestrator.scorers.formats import BLANK_LINE
from orchestrator.scorers.kind import LoadOptions, ScorerKind
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec


def chat_of(spec: ScorerSpec) -> Chat:
    """Return the tokenizer and the prompt format of a scorer, without its model.

    Raises:
        ValueError: as of ``scorer_kind``, or the tokenizer's files are damaged.
    """
    return scorer_kind(spec).chat(spec)


def load_scorer(
    spec: ScorerSpec,
    position: Position = "closed",
    policy_chat: Chat | None = None,
    device: str = "cpu",
    dtype: Dtype = "float32",
    *,
    full_responses: bool = False,
    cache_mib: int | None = None,
) -> Scorer:
    """Load a scorer's models. The arguments after ``spec`` are the fields of ``LoadOptions``.

    Raises:
        ValueError: the checkpoint is not of the spec's kind, or of no kind; or the engine does not
            compute this kind, position, dtype or head.
        ModuleNotFoundError: the engine is not installed.
    """
    kind = scorer_kind(spec)
    _check_engine(spec, kind, dtype)
    load_options = LoadOptions(position, policy_chat, device, dtype, full_responses, cache_mib)
    scorer = kind.load(spec, load_options)
    if spec.aggregation is None or kind.aggregates_steps:
        return scorer
    return AggregatedScorer(scorer, spec.aggregation, spec.step_delimiter or BLANK_LINE)


def _check_engine(spec: ScorerSpec, kind: ScorerKind, dtype: Dtype) -> None:
    """Raise ValueError if the engine does not compute a kind, or not in a dtype."""
    if spec.engine not in kind.engines:
        raise ValueError(
            f"{spec.checkpoint}: engine {spec.engine!r} does not score the kind {kind.name!r};"
            f" valid: engine {' or '.join(kind.engines)}"
        )
    valid = kind.dtypes if spec.engine == "transformers" else ("float32",)
    if dtype not in valid:
        raise ValueError(
            f"{spec.checkpoint}: dtype {dtype!r} is not supported for the kind {kind.name!r} on"
            f" engine {spec.engine}; valid: {', '.join(valid)}"
        )
