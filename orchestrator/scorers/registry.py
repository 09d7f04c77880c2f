"""From what a config says of a scorer to the scorer."""

from orchestrator.choices import Dtype, Position, ScorerKind
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.scorers.aggregated import AggregatedScorer
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.encoder import EncoderScorer
from orchestrator.scorers.log_ratio import LogRatioScorer
from orchestrator.scorers.scorer import Scorer, ScorerSpec
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.step_formats import step_chat
from orchestrator.scorers.step_tag import StepTagScorer
from orchestrator.scorers.steps import BLANK_LINE
from orchestrator.scorers.token_classify import TokenClassifyScorer
from orchestrator.scorers.vllm_sequence import VllmSequenceScorer


def chat_of(spec: ScorerSpec) -> Chat:
    """The tokenizer and the prompt's format of a scorer, without its model.

    The kind is detected where the spec does not say it.

    Raises:
        ValueError: as of ``kind_of``.
    """
    if kind_of(spec) == "step_tag":
        return step_chat(spec)
    return load_chat(spec.checkpoint, spec.fold_system, spec.score_at)


def load_scorer(
    spec: ScorerSpec,
    position: Position = "closed",
    policy_chat: Chat | None = None,
    device: str = "cpu",
    dtype: Dtype = "float32",
    *,
    whole_texts: bool = False,
    cache_mib: int | None = None,
) -> Scorer:
    """Loads a scorer's models; the other arguments are those of ``Scorer``.

    ``dtype`` is the weights'; another than float32 is for the kind ``sequence`` alone.
    ``whole_texts``: it is for prefixes of responses that are known whole, as those of a file. vLLM
    then scores all open prefixes of a response in one pass, and closed ones not at all.
    ``cache_mib`` is for keys and values of the kind ``sequence``; None is the engine's default.

    Raises:
        ValueError: the checkpoint is no reward model of the given kind, or of any; or the
            engine does not compute this kind, position, dtype or head.
        ModuleNotFoundError: the engine is not installed.
    """
    kind = kind_of(spec)
    _check_engine(spec, kind, dtype)
    delimiter = spec.step_delimiter or BLANK_LINE
    if kind == "log_ratio":
        assert spec.base is not None  # kind_of has seen to it
        return LogRatioScorer(
            spec.checkpoint,
            spec.base,
            spec.beta,
            position,
            policy_chat,
            device,
            aggregation=spec.aggregation,
            step_delimiter=delimiter,
            fold_system=spec.fold_system,
        )
    if kind == "step_tag":
        return StepTagScorer(
            spec.checkpoint,
            position,
            policy_chat,
            device,
            aggregation=spec.aggregation or "last",
            step_delimiter=spec.step_delimiter,
            step_tag=spec.step_tag,
            branch_memory_mib=spec.branch_memory_mib,
            step_format=spec.step_format,
            fold_system=spec.fold_system,
        )
    scorer: Scorer
    if kind == "encoder":
        scorer = EncoderScorer(
            spec.checkpoint, position, policy_chat, device, spec.score_label,
            finished=spec.finished, fold_system=spec.fold_system,
        )  # fmt: skip
    elif spec.engine == "vllm":
        engine = TokenClassifyScorer if whole_texts else VllmSequenceScorer
        scorer = engine(
            spec.checkpoint, position, policy_chat, device, cache_mib,
            finished=spec.finished, score_at=spec.score_at, fold_system=spec.fold_system,
        )  # fmt: skip
    else:
        scorer = SequenceScorer(
            spec.checkpoint, position, policy_chat, device, spec.branch_memory_mib,
            cache_mib or MEMORY_MIB, dtype, spec.score_label,
            finished=spec.finished, score_at=spec.score_at, score_token=spec.score_token,
            fold_system=spec.fold_system,
        )  # fmt: skip
    return AggregatedScorer(scorer, spec.aggregation, delimiter) if spec.aggregation else scorer


def _check_engine(spec: ScorerSpec, kind: ScorerKind, dtype: Dtype) -> None:
    """Raises ValueError where the engine does not compute a kind, or not in a dtype."""
    if dtype != "float32" and (kind != "sequence" or spec.engine == "vllm"):
        raise ValueError(
            f"{spec.checkpoint}: dtype {dtype!r} is for the kind 'sequence' on engine transformers,"
            f" and this is {kind!r} on {spec.engine}; use float32"
        )
    if spec.engine == "vllm" and spec.score_token is not None:
        raise ValueError(
            f"{spec.checkpoint}: engine 'vllm' reads reward heads, and the score is the logit of"
            f" token {spec.score_token}; use engine: transformers"
        )
    if spec.engine == "vllm" and kind != "sequence":
        raise ValueError(
            f"{spec.checkpoint}: engine 'vllm' scores the kind 'sequence', and this is {kind!r};"
            " use engine: transformers"
        )
