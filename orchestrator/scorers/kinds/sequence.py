"""The kind ``sequence``: causal reward models, whose score is read at one token."""

from typing import TYPE_CHECKING

from orchestrator.scorers.kind import LoadOptions, ScorerKind, register

if TYPE_CHECKING:
    from orchestrator.scorers.detect import CheckpointInfo
    from orchestrator.scorers.scorer import Scorer
    from orchestrator.scorers.spec import ScorerSpec


@register
class SequenceKind(ScorerKind):
    """A causal sequence classifier, or the logit of one token of a language model."""

    name = "sequence"
    summary = "a causal reward model, read at one token"
    order = 10
    head_types = ("classifier", "value head")
    recognized_head_types = ("classifier",)
    uses = frozenset(["score_label", "score_at", "score_token"])
    engines = ("transformers", "vllm")
    dtypes = ("float32", "float64", "bfloat16")
    branch_positions = ("closed",)
    keeps_cache = True
    is_trainable = True

    @classmethod
    def is_implied(cls, spec: "ScorerSpec") -> bool:
        """Return whether the spec has a score token, whose logit this kind reads."""
        return spec.score_token is not None

    @classmethod
    def fits(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        """Return whether it fits; a classifier with a step format is of another kind."""
        if spec.score_token is not None:
            return info.head_type == "language model"
        return super().fits(spec, info) and not (
            spec.step_format and info.head_type == "classifier"
        )

    @classmethod
    def check_spec(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> None:
        """Check the score token."""
        from orchestrator.checkpoints.weights import read_config

        if spec.score_token is None:
            return
        if info.head_type != "language model":
            raise ValueError(
                f"{spec.checkpoint}: score_token = {spec.score_token}: only a language model has a"
                " logit"
                f" of a token; it is {info.description}; valid: remove score_token"
            )
        size = read_config(spec.checkpoint).get("vocab_size")
        if isinstance(size, int) and not 0 <= spec.score_token < size:
            raise ValueError(
                f"{spec.checkpoint}: score_token = {spec.score_token}: no such token; valid: 0 to"
                f" {size - 1}"
            )

    def check_weights(self, spec: "ScorerSpec") -> None:
        """Check the weights of a reward model, or of the language model with the score token."""
        from orchestrator.checkpoints.checkpoint import check_reward_weights

        if spec.score_token is not None:
            super().check_weights(spec)
        else:
            check_reward_weights(spec.checkpoint, spec.score_label)

    def check_vllm(self, spec: "ScorerSpec") -> None:
        """Check that vLLM serves the model and reads its head."""
        from orchestrator.scorers.vllm_scorer import check_model

        if spec.score_token is not None:
            raise ValueError(
                f"{spec.checkpoint}: engine 'vllm' needs a reward head, and the score is the logit"
                f" of token {spec.score_token}; valid: engine transformers"
            )
        check_model(spec.checkpoint)

    def reads_logits(self, spec: "ScorerSpec") -> bool:
        """Return whether the score is the logit of a token."""
        return spec.score_token is not None

    def load(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        """Load the model on the engine of the spec."""
        if spec.engine == "vllm":
            return self._load_vllm(spec, load_options)
        from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
        from orchestrator.scorers.sequence import SequenceScorer

        return SequenceScorer(
            spec.checkpoint,
            load_options.position,
            load_options.policy_chat,
            load_options.device,
            spec.branch_memory_mib,
            load_options.cache_mib or MEMORY_MIB,
            load_options.dtype,
            spec.score_label,
            finished_position=spec.finished_position,
            score_at=spec.score_at,
            score_token=spec.score_token,
            fold_system=spec.fold_system,
        )

    def _load_vllm(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        from orchestrator.scorers.token_classify import TokenClassifyScorer
        from orchestrator.scorers.vllm_sequence import VllmSequenceScorer

        if spec.score_token is not None:
            self.check_vllm(spec)
        scorer = TokenClassifyScorer if load_options.full_responses else VllmSequenceScorer
        return scorer(
            spec.checkpoint,
            load_options.position,
            load_options.policy_chat,
            load_options.device,
            load_options.cache_mib,
            finished_position=spec.finished_position,
            score_at=spec.score_at,
            fold_system=spec.fold_system,
        )
