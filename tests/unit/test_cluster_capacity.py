"""Whether a Ray cluster has the CPUs and GPUs of the actors of a file job."""

import pytest

from jobs.batch.cluster_capacity import ACTOR_CPUS, check_resources
from jobs.batch.options import FileJobOptions
from orchestrator.config.load import ConfigError


@pytest.mark.parametrize(
    ("actors", "device", "resources", "cpus", "others", "message"),
    [
        (2, "cuda", {"CPU": 8.0}, ACTOR_CPUS, 0,
         "--device = 'cuda': the Ray cluster has no GPU; valid: cpu"),
        (1, "cpu", {"CPU": 2.0}, 4, 0,
         "--actors = 1: the cluster has 2 CPUs, too few for one actor (4 CPUs each); valid: fewer"
         " --threads, or a larger cluster"),
        (2, "cpu", {"CPU": 0.3}, ACTOR_CPUS, 3,
         "--actors = 2: the cluster has 0.3 CPUs, too few for one actor and 3 further processes"
         " (0.1 CPUs each); valid: a larger cluster"),
        (9, "cpu", {"CPU": 2.0}, 0.5, 1,
         "--actors = 9: the cluster has room for 3 on cpu; valid: at most 3"),
        (2, "cuda", {"CPU": 8.0, "GPU": 1.0}, ACTOR_CPUS, 0,
         "--actors = 2: the cluster has room for 1 on cuda; valid: at most 1"),
    ],
)  # fmt: skip
def test_too_few_resources_are_an_error_of_the_option_that_needs_them(
    actors: int, device: str, resources: dict[str, float], cpus: float, others: int, message: str
) -> None:
    options = FileJobOptions(reward=None, actors=actors, device=device)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        check_resources(options, resources, cpus, others)
    assert str(error.value) == message


def test_actors_that_just_fit_are_accepted() -> None:
    options = FileJobOptions(reward=None, actors=3)
    check_resources(options, {"CPU": 2.0}, 0.5, 1)
    check_resources(FileJobOptions(reward=None, device="cuda"), {"CPU": 1.0, "GPU": 1.0}, 1.0, 0)
