"""What all tests share: the environment of DeepSpeed's built op, one thread, tiny real models.

The models are ordinary checkpoints on disk, made once a session: random weights, large enough that
logits and scores differ from token to token.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

# Before any library that reads them at import: where DeepSpeed's op is built, and by which ninja.
os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(sys.prefix) / "torch_extensions")
os.environ["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import orchestrator  # noqa: F401 - before torch: how its threads wait

# isort: split
import psutil
import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("any machine", deadline=None)  # some are slow, or busy
settings.load_profile("any machine")
if not torch.cuda.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"
torch.set_num_threads(1)

from orchestrator.checkpoints.checkpoint import (  # noqa: E402
    load_reward_model,
    new_policy,
    reward_model_from_policy,
    save_checkpoint,
)
from orchestrator.conversations.tokenizers import byte_pair_tokenizer, word_tokenizer  # noqa: E402
from orchestrator.tasks.helpdesk import agents  # noqa: E402
from orchestrator.tasks.helpdesk.words import vocabulary  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
SPREAD = 0.3  # initializer range: with the usual 0.02 all logits of a model this small are alike
# vLLM's attention on CPUs has no heads of fewer than 32 numbers. At this width the full spread
# makes transformers' own float32 scores 1e-4 off those in float64.
WIDER = {**ARCHITECTURE, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}

# How near models of float64 weights come to each other, on any processor: norms and positions of
# transformers compute in float32 all the same, eager attention its softmax too, and in what order a
# processor sums depends on its instructions and on the company of a row. A fault is far larger.
FLOAT32_INSIDE = 1e-6


STARTS_RAY = ("test_pool.py", "test_score_options.py", "test_threads.py")


class OneRay(LoadScopeScheduling):  # type: ignore[misc]
    """Of several test processes, one runs all that starts a Ray cluster; files stay whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "ray" if "/integration/" in file or file.endswith(STARTS_RAY) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return OneRay(config, log)


# What takes seconds for each test, by file: left out by `make test-fast`.
MEDIUM_FILES = (
    "test_threads.py", "test_odd_checkpoints.py", "test_token_classify.py", "test_vllm_engines.py",
    "test_whole_conversations.py", "test_math_answers.py", "test_quick_answers.py",
    "test_measure.py", "test_against_trl.py", "test_training_loop.py", "test_sharded_training.py",
    "test_public_models.py", "test_bench.py", "test_pool.py", "test_precision.py",
    "test_search_oracle.py", "test_search_states.py", "test_score_consistency.py",
    "test_search_margins.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as medium what starts processes, computes with many models, or draws many cases."""
    for item in items:
        folder, file = item.path.parent.name, item.path.name
        if folder in ("integration", "property") or file in MEDIUM_FILES:
            item.add_marker(pytest.mark.medium)


def _policy(tokenizer, folder: Path, seed: int) -> str:  # type: ignore[no-untyped-def]
    model = new_policy(tokenizer, {**ARCHITECTURE, "initializer_range": SPREAD}, seed)  # type: ignore[dict-item]
    save_checkpoint(model, tokenizer, folder)
    return str(folder)


def _reward(policy: str, tokenizer, folder: Path, seed: int) -> str:  # type: ignore[no-untyped-def]
    model = reward_model_from_policy(policy, seed)
    torch.nn.init.normal_(model.score.weight)
    save_checkpoint(model, tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def word_policy(checkpoints: Path) -> str:
    """A Llama policy over the help desk's words."""
    return _policy(word_tokenizer(vocabulary()), checkpoints / "word_policy", seed=1)


@pytest.fixture(scope="session")
def word_reward(word_policy: str, checkpoints: Path) -> str:
    """A Llama reward model over the help desk's words."""
    return _reward(word_policy, word_tokenizer(vocabulary()), checkpoints / "word_reward", seed=2)


@pytest.fixture(scope="session")
def wide_policy(checkpoints: Path) -> str:
    """A Llama policy over the help desk's words that vLLM can serve on a CPU."""
    tokenizer = word_tokenizer(vocabulary())
    model = new_policy(tokenizer, {**WIDER, "initializer_range": SPREAD / 3}, seed=1)  # type: ignore[dict-item]
    save_checkpoint(model, tokenizer, checkpoints / "wide_policy")
    return str(checkpoints / "wide_policy")


@pytest.fixture(scope="session")
def wide_reward(wide_policy: str, checkpoints: Path) -> str:
    """A Llama reward model over the help desk's words that vLLM can serve on a CPU."""
    return _reward(wide_policy, word_tokenizer(vocabulary()), checkpoints / "wide_reward", seed=2)


@pytest.fixture(scope="session")
def vllm() -> None:
    """Skips where vLLM is not installed, or for cards alone: plain pip's build, and no card."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: there was no wheel for this machine")
    builds = [found.version for found in distributions(name="vllm")]
    if builds and not torch.cuda.is_available() and not any("+cpu" in one for one in builds):
        pytest.skip("the installed vLLM is built for cards, and there is none")


def sample_folder(name: str) -> str:
    """The unpacked folder of a sample model; skips where it is not there."""
    from orchestrator.checkpoints.sample_models import HOW_TO_GET, SAMPLES, SampleNotInstalled

    try:
        folder = SAMPLES[name].folder
    except SampleNotInstalled as missing:
        pytest.skip(str(missing))
    if not folder.is_dir():
        pytest.skip(f"{SAMPLES[name].model} is not unpacked; `{HOW_TO_GET}` does it")
    return str(folder)


@pytest.fixture(scope="session")
def smollm2() -> str:
    """SmolLM2-135M-Instruct, a real policy."""
    return sample_folder("smollm2")


@pytest.fixture(scope="session")
def minilm() -> str:
    """all-MiniLM-L6-v2, a real sentence encoder."""
    return sample_folder("minilm")


KEPT = ("resource_tracker", "multiprocessing.forkserver")


def engines() -> set[psutil.Process]:
    """Processes started by this one, without those that multiprocessing itself keeps."""
    return {
        process
        for process in psutil.Process().children(recursive=True)
        if not any(kept in word for kept in KEPT for word in process.cmdline())
    }


@pytest.fixture(scope="session")
def byte_reward(checkpoints: Path) -> str:
    """A Llama reward model over a byte-level BPE trained on the help desk's text."""
    rows = [agents.demonstration(prompt, 0) for prompt in agents.prompts(40, 0)]
    texts = [text for row in rows for text in (row.prompt.messages[0]["content"], row.response)]
    tokenizer = byte_pair_tokenizer(texts, 400)
    policy = _policy(tokenizer, checkpoints / "byte_policy", seed=3)
    return _reward(policy, tokenizer, checkpoints / "byte_reward", seed=4)


@pytest.fixture
def broken_reward(word_reward: str, checkpoints: Path) -> str:
    """A reward model one of whose weights is NaN."""
    folder = checkpoints / "broken_reward"
    if not folder.exists():
        model = load_reward_model(word_reward)
        with torch.no_grad():
            model.score.weight[0, 0] = float("nan")
        save_checkpoint(model, word_tokenizer(vocabulary()), folder)
    return str(folder)


NAN_WORD = "angry"  # of the help desk's words


@pytest.fixture(scope="session")
def nan_reward(word_reward: str, checkpoints: Path) -> str:
    """A reward model that scores NaN where NAN_WORD is read, and else as ``word_reward``."""
    folder, tokenizer = checkpoints / "nan_reward", word_tokenizer(vocabulary())
    model = load_reward_model(word_reward)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(NAN_WORD)] = torch.nan
    save_checkpoint(model, tokenizer, folder)
    return str(folder)


SMOKE_SECONDS = 1_100  # for the smallest sweep, which takes 90 alone on two cores


def smoke_command(folder: Path, *overrides: str) -> list[str]:
    """The main job on the smallest config, its output in ``folder``."""
    job, config = ROOT / "jobs" / "full_sweep.py", ROOT / "configs" / "smoke.yaml"
    return [
        sys.executable, str(job), "--config", str(config), f"output_dir={folder}", *overrides,
    ]  # fmt: skip


def own_cluster() -> dict[str, str]:
    """The environment of a sweep that starts its own Ray and opens its own MLflow store."""
    shared = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if name not in shared}


@contextmanager
def own_ray() -> Iterator[None]:
    """A Ray of two CPUs in this process, its workers set up as the jobs do it."""
    import ray

    from jobs.sweep.cluster import environment, start_local

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        start_local(2, dashboard=False)
        yield
        ray.shutdown()


def run_smoke(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        smoke_command(folder),
        cwd=folder.parent, env=own_cluster(), capture_output=True, text=True, timeout=SMOKE_SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of one undisturbed run of the smallest sweep, and what it printed."""
    folder = tmp_path_factory.mktemp("smoke") / "out"
    done = run_smoke(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder, done.stdout
