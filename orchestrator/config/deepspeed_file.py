"""Check DeepSpeed's settings file before the training workers read it.

DeepSpeed ignores unknown settings and reports a wrong value only when the workers have started. The
fields are those of DeepSpeed 0.19 that apply to a training with one process group.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from orchestrator.config.errors import ConfigError, reason_of, shown, shown_name
from orchestrator.config.output_paths import is_file
from orchestrator.config.training import TrainingConfig
from orchestrator.fields.section import Section
from orchestrator.fields.types import Flag, NonNegativeInt, NotNegative, Number, Positive

ROOT = Path(__file__).resolve().parents[2]
LARGEST_FILE = 1_000_000  # bytes
# Settings that the training sets itself, and what decides them.
OURS = {
    "optimizer.params.lr": "the learning_rate of each training decides",
    "scheduler": "the learning rate falls linearly after the warmup_steps of each training",
    "train_batch_size": "the batch_size of each training decides",
    "train_micro_batch_size_per_gpu": "training.micro_batch_tokens decides",
    "gradient_accumulation_steps": "training.micro_batch_tokens decides",
    "fp16": "training.precision decides",
    "bf16": "training.precision decides",
    "torch_autocast": "training.precision decides",
}
AUTO = "auto"  # the same as no value: DeepSpeed decides
Size = Annotated[int, Field(ge=0, lt=2**63)]
Beta = Annotated[float, Field(ge=0, lt=1), Number]
Settings = dict[str, object]
# Optimizers of DeepSpeed, in any case, and of torch, case-sensitive.
DEEPSPEEDS = (
    "adagrad", "adam", "adamw", "lamb", "lion", "muadam", "muadamw", "muon", "musgd",
)  # fmt: skip
TORCHS = ("ASGD", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")


def _optimizer(name: str) -> str:
    if name.lower() not in DEEPSPEEDS and name not in TORCHS:
        raise ValueError(f"no such optimizer; valid: {', '.join((*DEEPSPEEDS, *TORCHS))}")
    return name


class OptimizerParams(Section):
    """Arguments of the optimizers that DeepSpeed and torch have."""

    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] | None = None
    eps: NotNegative | None = None
    weight_decay: NotNegative | None = None
    momentum: NotNegative | None = None
    dampening: NotNegative | None = None
    alpha: NotNegative | None = None
    rho: NotNegative | None = None
    lambd: NotNegative | None = None
    t0: NotNegative | None = None
    lr_decay: NotNegative | None = None
    momentum_decay: NotNegative | None = None
    initial_accumulator_value: NotNegative | None = None
    max_coeff: Positive | None = None
    min_coeff: Positive | None = None
    ns_steps: NonNegativeInt | None = None
    muon_lr: Positive | None = None
    adam_lr: Positive | None = None
    torch_adam: Flag | None = None
    adam_w_mode: Flag | None = None
    amsgrad: Flag | None = None
    bias_correction: Flag | None = None
    centered: Flag | None = None
    decoupled_weight_decay: Flag | None = None
    nesterov: Flag | None = None
    maximize: Flag | None = None
    foreach: Flag | None = None
    fused: Flag | None = None
    fp32_optimizer_states: Flag | None = None


class OptimizerFile(Section):
    """The optimizer."""

    type: Annotated[str, AfterValidator(_optimizer)]
    params: OptimizerParams = OptimizerParams()
    legacy_fusion: Flag | None = None


class OffloadParam(Section):
    """Where parameters are offloaded to (ZeRO-3)."""

    device: Literal["none", "cpu", "nvme"] | None = None
    nvme_path: str | None = None
    buffer_count: Size | None = None
    buffer_size: Size | None = None
    max_in_cpu: Size | None = None
    pin_memory: Flag | None = None


class OffloadOptimizer(Section):
    """Where the optimizer's state is offloaded to."""

    device: Literal["none", "cpu", "nvme"] | None = None
    nvme_path: str | None = None
    buffer_count: Size | None = None
    pin_memory: Flag | None = None
    pipeline_read: Flag | None = None
    pipeline_write: Flag | None = None
    fast_init: Flag | None = None
    ratio: NotNegative | None = None
    super_offload: Flag | None = None
    cpuadam_cores_perc: NotNegative | None = None


class ZeroFile(Section):
    """The settings of ZeRO."""

    stage: Annotated[int, Field(ge=0, le=3)] | None = None
    contiguous_gradients: Flag | None = None
    reduce_scatter: Flag | None = None
    reduce_bucket_size: Size | None = None
    use_multi_rank_bucket_allreduce: Flag | None = None
    allgather_partitions: Flag | None = None
    allgather_bucket_size: Size | None = None
    overlap_comm: Flag | None = None
    compute_grad_norm: Flag | None = None
    load_from_fp32_weights: Flag | None = None
    elastic_checkpoint: Flag | None = None
    offload_param: OffloadParam | None = None
    offload_optimizer: OffloadOptimizer | None = None
    zenflow: Settings | None = None
    sub_group_size: Size | None = None
    stage3_prefetch_bucket_size: Size | None = None
    stage3_param_persistence_threshold: Size | None = None
    stage3_model_persistence_threshold: Size | None = None
    stage3_max_live_parameters: Size | None = None
    stage3_max_reuse_distance: Size | None = None
    stage3_gather_16bit_weights_on_model_save: Flag | None = None
    stage3_module_granularity_threshold: Size | None = None
    stage3_use_all_reduce_for_fetch_params: Flag | None = None
    stage3_allgather_sequential: Flag | None = None
    ignore_unused_parameters: Flag | None = None
    legacy_stage1: Flag | None = None
    round_robin_gradients: Flag | None = None
    parameter_alignment: Flag | None = None
    zero_hpz_partition_size: Size | None = None
    zero_quantized_weights: Flag | None = None
    zero_quantized_nontrainable_weights: Flag | None = None
    zero_quantized_gradients: Flag | None = None
    memory_efficient_linear: Flag | None = None
    pipeline_loading_checkpoint: Flag | None = None
    override_module_apply: Flag | None = None
    log_trace_cache_warnings: Flag | None = None
    enable_sanity_checks: Flag | None = None
    save_muon_momentum_buffer_in_memory: Flag | None = None
    leaf_module: Settings | None = None


class DeepSpeedFile(Section):
    """The settings file, without the settings that the config decides."""

    optimizer: OptimizerFile
    gradient_clipping: NotNegative | None = None
    zero_optimization: ZeroFile | None = None
    zero_allow_untested_optimizer: Flag | None = None
    zero_force_ds_cpu_optimizer: Flag | None = None
    managed_gradient_accumulation: Flag | None = None
    communication_data_type: Literal["fp16", "fp32", "bfp16"] | None = None
    prescale_gradients: Flag | None = None
    gradient_predivide_factor: Positive | None = None
    gradient_allreduce_op: Literal["mean", "sum"] | None = None
    disable_allgather: Flag | None = None
    disable_python_gc: Flag | None = None
    dataloader_drop_last: Flag | None = None
    steps_per_print: Size | None = None
    wall_clock_breakdown: Flag | None = None
    memory_breakdown: Flag | None = None
    dump_state: Flag | None = None
    log_level: str | None = None
    activation_checkpointing: Settings | None = None
    aio: Settings | None = None
    checkpoint: Settings | None = None
    comms_logger: Settings | None = None
    compile: Settings | None = None
    data_types: Settings | None = None
    flops_profiler: Settings | None = None
    timers: Settings | None = None
    tensorboard: Settings | None = None
    wandb: Settings | None = None
    csv_monitor: Settings | None = None
    comet: Settings | None = None


def check_deepspeed(training: TrainingConfig) -> None:
    """Check the file that ``training.deepspeed`` names.

    Raises:
        ConfigError: it does not exist, is not a JSON object, has a setting that DeepSpeed does not
            have or that the config decides, or needs another ZeRO stage.
    """
    named = f"training.deepspeed = {shown(training.deepspeed)}"
    content = _content(named, training.deepspeed)
    _check_ours(named, content)
    zero = content.get("zero_optimization")
    _check_stage(training, named, zero if isinstance(zero, dict) else {})
    _check_fields(named, content)


def _content(named: str, path: str) -> dict[str, object]:
    file = Path(path) if is_file(path) else ROOT / path
    if not is_file(file):
        raise ConfigError(f"{named}: no such file; valid: a JSON file")
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{named}: too large; valid: a JSON file of at most 1 MB")
        content = json.loads(file.expanduser().read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{named}: cannot be read: {reason_of(error)}; valid: a JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{named}: not JSON: {reason_of(error)}; valid: a JSON file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{named}: not a JSON object; valid: a JSON object of settings")
    return content


def _check_ours(named: str, content: dict[str, object]) -> None:
    for field, ours in OURS.items():
        value: object = content
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            raise ConfigError(
                f"{named}: its {field} = {shown(value)} has no effect: {ours};"
                f" valid: a file without {field}"
            )


def _check_fields(named: str, content: dict[str, object]) -> None:
    try:
        DeepSpeedFile.model_validate(_without_auto(content))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"{named}: its {shown_name(field)} = {shown(problem['input'])} is not a setting of"
                f" DeepSpeed; valid: {', '.join(_valid(problem['loc'][:-1]))}"
            ) from None
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if problem["type"] == "missing":
            raise ConfigError(
                f"{named}: its {field}: missing, but required; valid: as in"
                " configs/deepspeed/default.json"
            ) from None
        raise ConfigError(f"{named}: its {field} = {shown(problem['input'])}: {message}") from None


def _valid(location: tuple[int | str, ...]) -> list[str]:
    """Return the valid settings of a section."""
    sections: dict[tuple[int | str, ...], type[Section]] = {
        (): DeepSpeedFile,
        ("optimizer",): OptimizerFile,
        ("optimizer", "params"): OptimizerParams,
        ("zero_optimization",): ZeroFile,
        ("zero_optimization", "offload_param"): OffloadParam,
        ("zero_optimization", "offload_optimizer"): OffloadOptimizer,
    }
    return list(sections[location].model_fields)


def _without_auto(content: dict[str, object]) -> dict[str, object]:
    zero = content.get("zero_optimization")
    if not isinstance(zero, dict):
        return content
    kept = {name: value for name, value in zero.items() if value != AUTO}
    return {**content, "zero_optimization": kept}


def _check_stage(training: TrainingConfig, named: str, zero: dict[str, object]) -> None:
    stage = training.zero_stage
    for part, least in {"offload_param": 3, "offload_optimizer": 1}.items():
        if part in zero and stage < least:
            raise ConfigError(
                f"training.zero_stage = {stage}: {training.deepspeed} has {part}, which needs stage"
                f" {least}; valid: at least {least}, or another training.deepspeed"
            )
    if zero.get("stage", stage) not in (stage, AUTO):
        raise ConfigError(
            f"{named}: its zero_optimization.stage = {zero['stage']!r} has no effect:"
            f" training.zero_stage = {stage} decides; valid: the same in both, or a file without it"
        )
