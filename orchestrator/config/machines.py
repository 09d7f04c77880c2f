"""Config sections of the machines: tracking server, processes of the cluster, disk."""

from typing import Annotated

from pydantic import Field

from orchestrator.fields.section import Section
from orchestrator.fields.types import Count, NonNegativeInt, NotNegative, Positive, Text

MLFLOW_NAME = 200  # characters of an experiment, to which a stage is added


class TrackingConfig(Section):
    """Where MLflow keeps the runs."""

    uri: Text | None = None
    """MLflow tracking URI. A server or database must answer within 8 seconds before the run starts.
    null: `$MLFLOW_TRACKING_URI`; if it is not set, the SQLite file `mlflow.db` in the folder above
    the output folder, which all sweeps beside each other share."""
    experiment: Annotated[Text, Field(max_length=MLFLOW_NAME)] | None = None
    """Name of the MLflow experiment; null: the name of the task."""


class ClusterConfig(Section):
    """Processes and their resources.

    CPUs are logical: shares that each process requests from Ray. The defaults are small, so that
    all processes and data tasks fit on two CPUs. A plan that needs more than the cluster has is
    refused.
    """

    train_worker_cpus: Positive = 0.4
    """Logical CPUs of each training worker."""
    actor_cpus: Positive = 0.1
    """Logical CPUs of each policy, reward, search and reference actor."""
    data_task_cpus: Positive = 0.2
    """Logical CPUs of each Ray Data task."""
    actor_gpus: NotNegative = 0
    """GPUs of each actor; a fraction shares a GPU, 0 computes on the CPU."""
    train_worker_gpus: NotNegative = 0
    """GPUs of each training worker, which then uses NCCL; a fraction shares a GPU, 0 trains on the
    CPU."""
    policy_actors: Count = 2
    """Policy actors; a batch is divided among them. On a CPU, two processes of one thread are
    faster than one process of two."""
    reward_actors: Count = 2
    """Reward actors; a batch is divided among them."""
    search_actors: NonNegativeInt = 2
    """Search actors, each with both models; 0: the pools of policy and reward actors run every
    search, and one samples while the other scores."""
    reference_actors: Count = 1
    """Actors that score partial pairs with the reference reward model."""
    policy_cache_mib: Count | None = None
    """Memory for the policy's keys and values in each actor (MiB). In the transformers engine, one
    cache of this size holds prefixes (half of it is for prompts) and a second one of the same size
    holds candidates; a batch that needs more exceeds the limit. For vLLM it is the whole cache.
    null: 256 for transformers, for vLLM 1,024 on a CPU and 8,192 on a GPU."""
    reward_cache_mib: Count | None = None
    """The same for the reward model."""
    threads: Count | None = None
    """Torch threads that the actors of a pool share; null: the number of cores."""


class StorageConfig(Section):
    """Which files are kept, and the disk space that must stay free."""

    checkpoints_kept: Count = 3
    """Checkpoints that a stage keeps, one for each of its keys; the oldest are deleted."""
    free_gib: NotNegative = 1.0
    """Disk space that must stay free (GiB). It is checked before each stage, with the size of the
    checkpoint that the stage writes."""
