"""Files of checkpoints: odd forms of weights that are whole, pickles, headers on the hub."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from support import reward_kinds
from support.odd_checkpoints import WEIGHTS, language_model, pickled, with_config, with_tokens
from support.reward_kinds import bytes_with, rewrite
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model, save_checkpoint
from orchestrator.checkpoints.files import has_file
from orchestrator.checkpoints.loading import check_weights
from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
from orchestrator.scorers.spec import ScorerSpec


def rotary_buffers(folder: Path) -> str:
    """As Llama checkpoints of 2023."""
    checkpoint = language_model(folder)
    rewrite(folder, {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4)
                     for n in range(2)})  # fmt: skip
    return checkpoint


def causal_masks(folder: Path) -> str:
    """GPT-2 as on the hub: no prefix, masks as buffers, the head tied to the embedding."""
    tokenizer = bytes_with()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64,
                        eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    plain = {n.removeprefix("transformer."): v for n, v in load_file(folder / WEIGHTS).items()}
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8) for n in range(2)}
    masks |= {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    save_file({**plain, **masks}, folder / WEIGHTS, metadata={"format": "pt"})
    return str(folder)


def tied_twice(folder: Path) -> str:
    """The head is tied to the embedding, and saved all the same."""
    checkpoint = language_model(folder, tie_word_embeddings=True)
    rewrite(folder, {"lm_head.weight": load_file(folder / WEIGHTS)["model.embed_tokens.weight"]})
    return checkpoint


def padded_embedding(folder: Path) -> str:
    """More rows than tokens, as most models have for speed."""
    tokenizer = bytes_with()
    config = LlamaConfig(
        vocab_size=512, num_key_value_heads=2, eos_token_id=4, **reward_kinds.SIZES
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def image_token(folder: Path) -> str:
    """Gemma 3 of 1B: a special token past the rows that no text and no template has."""
    checkpoint = language_model(folder)
    with_tokens("<image_soft_token>", template=("<user>", "<user>"))(folder)
    return checkpoint


def half_precision(folder: Path) -> str:
    """bfloat16, as most are stored."""
    checkpoint = language_model(folder)
    weights = {n: v.bfloat16() for n, v in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return checkpoint


@pytest.mark.parametrize(
    "make",
    [rotary_buffers, causal_masks, tied_twice, padded_embedding, image_token, half_precision],
    ids=lambda make: make.__name__,
)
def test_policies_that_look_odd_and_are_whole(make: Callable[[Path], str], tmp_path: Path) -> None:
    checkpoint = make(tmp_path)
    check_policy(checkpoint)
    logits = load_policy(checkpoint)(torch.tensor([[5, 9, 40]])).logits
    assert torch.isfinite(logits).all()


def test_an_old_bert_with_leftovers_is_whole(tmp_path: Path) -> None:
    """Norms by TensorFlow's names, positions as a buffer, the head of its pre-training."""
    checkpoint = reward_kinds.bert(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma"): v for n, v in weights.items()}
    old = {n.replace("LayerNorm.bias", "LayerNorm.beta"): v for n, v in old.items()}
    old["bert.embeddings.position_ids"] = torch.arange(256)[None]
    old["cls.predictions.bias"] = torch.zeros(9)
    save_file(old, tmp_path / WEIGHTS, metadata={"format": "pt"})
    assert check_scorer(ScorerSpec(checkpoint)).name == "encoder"


def test_a_reward_model_may_keep_the_head_of_its_language_model(tmp_path: Path) -> None:
    checkpoint = reward_kinds.value_head(tmp_path)  # lm_head beside v_head
    assert check_scorer(ScorerSpec(checkpoint, "sequence")).name == "sequence"


def test_quantized_weights_of_a_known_method_are_left_to_their_loader(tmp_path: Path) -> None:
    """Only that loader knows their shapes."""
    from transformers import AutoModelForCausalLM

    checkpoint = language_model(tmp_path)
    with_config(quantization_config={"quant_method": "fp8"}, intermediate_size=96)(tmp_path)
    assert check_weights(AutoModelForCausalLM, checkpoint) is None
    check_policy(checkpoint, "vllm")


@pytest.mark.parametrize("shards", [False, True])
def test_the_command_that_converts_pickles_works_as_it_is_written(
    shards: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "a model's folder"
    checkpoint = reward_kinds.sequence(folder)
    expected = load_reward_model(checkpoint).state_dict()
    pickled(folder)
    if shards:
        weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
        (folder / "pytorch_model.bin").unlink()
        for number, name in enumerate(weights):
            torch.save({name: weights[name]}, folder / f"pytorch_model-{number:05}-of-00021.bin")
        (folder / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"pytorch_model\*\.bin may run code .*convert it once by: "
    ) as error:
        load_reward_model(checkpoint)
    command = str(error.value).split("convert it once by: ")[1]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=1_000)
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_reward_model(checkpoint).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


class RunsCode:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_a_pickle_that_runs_code_is_not_run_by_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    checkpoint = reward_kinds.sequence(folder)
    (folder / WEIGHTS).unlink()
    code = (
        f"import os, torch\nclass C:\n def __reduce__(self): return os.mkdir, ('{tmp_path}/ran',)\n"
    )
    code += f"torch.save({{'x': C()}}, '{folder}/pytorch_model.bin')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=1_000)
    with pytest.raises(ValueError, match="no weights as safetensors") as error:
        load_reward_model(checkpoint)
    command = str(error.value).split("convert it once by: ")[1]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=1_000)
    assert done.returncode != 0 and "weights_only" in done.stderr.lower().replace(" ", "_")
    assert not (tmp_path / "ran").exists() and not (folder / WEIGHTS).exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that files are read by; it says what was sent."""

    def __init__(self, folder: Path, sent: dict[str, int], *rest: object) -> None:
        self.folder, self.sent = folder, sent
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        if urlparse(self.path).path.startswith("/api/models/maker/model/tree/"):
            self.send_response(200)  # folders of further templates: none
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")
            return
        match = re.fullmatch(r"/maker/model/resolve/[^/]+/(.+)", urlparse(self.path).path)
        file = self.folder / match[1] if match else self.folder / "none"
        if not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if match else "RepoNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, code = file.read_bytes(), 200
        size = len(data)
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            data, code = data[int(asked[1]) : int(asked[2]) + 1], 206
        self.send_response(code)
        self.send_header("Content-Length", str(len(data) if with_body else size))
        self.send_header("ETag", f'"{abs(hash(file.name))}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if with_body:
            self.sent[file.name] = self.sent.get(file.name, 0) + len(data)
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    sent: dict[str, int] = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, folder, sent))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        thread.join()


def test_of_weights_on_the_hub_only_headers_are_fetched(tmp_path: Path) -> None:
    """By the hub's own client and protocol, from a server of this test."""
    folder = tmp_path / "model"
    reward_kinds.sequence(folder)
    size = (folder / WEIGHTS).stat().st_size
    rewrite(folder, {"model.embed_tokens.weight": torch.zeros(9_000, reward_kinds.WIDTH)})
    with_config(vocab_size=9_000)(folder)
    code = (
        "from orchestrator.scorers.checkpoint_checks import check_scorer;"
        "from orchestrator.scorers.spec import ScorerSpec;"
        "print(check_scorer(ScorerSpec('maker/model')).name)"
    )
    with hub(folder) as (address, sent):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=1_000,
            env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": address,
                 "HF_HUB_DISABLE_XET": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["sequence"]
    assert 0 < sent[WEIGHTS] < (folder / WEIGHTS).stat().st_size / 2, json.dumps(sent)
    assert size < (folder / WEIGHTS).stat().st_size
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_cached_model_is_read_if_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    """No server listens on the port: the client's error is no OSError."""
    folder = tmp_path / "models--maker--model"
    reward_kinds.process_head(folder / "snapshots" / ("0" * 40))  # of shards with an index
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    code = (
        "from orchestrator.checkpoints.adapters import adapter_of;"
        "from orchestrator.checkpoints.files import has_file, read_headers;"
        "from orchestrator.checkpoints.weights import Weights;"
        "assert adapter_of('maker/model') is None;"
        f"assert has_file('maker/model', '{WEIGHTS}.index.json');"
        f"assert not has_file('maker/model', '{WEIGHTS}');"
        "print(Weights.of('maker/model').shape('score.2.weight'));"
        f"read_headers('maker/model', '{WEIGHTS}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=1_000,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0",
             "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert done.stdout == f"(2, {reward_kinds.WIDTH})\n", done.stderr[-2000:]
    error = done.stderr.splitlines()[-1]
    message = f"maker/model: cannot read the safetensors header of {WEIGHTS}: "
    assert error.startswith(f"ValueError: {message}") and "refused" in error


def test_the_answer_of_the_hub_is_cached_and_a_failure_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[bool | Exception] = [Exception("no connection"), True, False]

    def file_exists(*_: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("orchestrator.checkpoints.files.HfApi.file_exists", file_exists)
    names = ["a.json", "a.json", "a.json", "b.json", "b.json"]
    found = [has_file("maker/of-this-test", name) for name in names]
    assert found == [False, True, True, False, False] and not answers


def test_a_saved_model_can_be_read_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    source, folder = reward_kinds.sequence(tmp_path / "source"), tmp_path / "model"
    model, tokenizer = load_reward_model(source), AutoTokenizer.from_pretrained(source)
    before = os.umask(0o027)
    try:
        save_checkpoint(model, tokenizer, folder)
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()}
    assert "model.safetensors" in modes and set(modes.values()) == {"0o640"}, modes
