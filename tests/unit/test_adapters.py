"""LoRA adapters as PEFT writes them: merged into their base they compute what PEFT does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support import reward_kinds
from support.odd_checkpoints import WEIGHTS, cut, language_model, with_config
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from orchestrator.checkpoints import adapters
from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.checkpoint import (
    context_of,
    load_policy,
    load_reward_model,
    reward_model_from_policy,
    save_checkpoint,
)
from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.checkpoints.weights import Weights
from orchestrator.conversations.chat import load_chat
from orchestrator.decoding.decoder import Decoder
from orchestrator.engines.vllm.process import check_served
from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.stages.identity import fingerprint

CHAT = [{"role": "user", "content": "what is 2 and 3 ?"}]
ANSWER = "that is 5 ."
AUTOS = {
    "SEQ_CLS": AutoModelForSequenceClassification, "TOKEN_CLS": AutoModelForTokenClassification,
    "CAUSAL_LM": AutoModelForCausalLM,
}  # fmt: skip


def write_adapter(base: str, folder: Path, task: str | None = "SEQ_CLS", **fields: object) -> str:
    """An adapter of random weights, as PEFT saves it; it has no tokenizer."""
    auto = AUTOS[task or "SEQ_CLS"]
    labels = {} if auto is AutoModelForCausalLM else {"num_labels": fields.pop("labels", 1)}
    torch.manual_seed(3)
    model = auto.from_pretrained(base, **labels)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], **fields}
    adapted = get_peft_model(model, LoraConfig(task_type=task, **settings))
    for name, value in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(value, std=0.3)
    adapted.save_pretrained(folder)
    return str(folder)


def by_peft(auto: type, base: str, adapter: str, **labels: int) -> PreTrainedModel:
    """The model as PEFT computes it, not merged."""
    return PeftModel.from_pretrained(auto.from_pretrained(base, **labels), adapter).eval()  # type: ignore[attr-defined]


@pytest.fixture
def base(tmp_path: Path) -> str:
    return language_model(tmp_path / "base")


def say_in_config(folder: str, **fields: object) -> None:
    file = Path(folder) / adapters.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@torch.no_grad()
@pytest.mark.parametrize("labels", [1, 3])
def test_a_reward_adapter_scores_as_peft_computes(labels: int, base: str, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", labels=labels)
    spec = ScorerSpec(adapter, score_label=labels - 1 or None)
    assert check_scorer(spec).name == "sequence"
    scorer = load_scorer(spec)
    prompt, response = scorer.chat.prompt_ids(CHAT), scorer.chat.response_ids(ANSWER)
    ids = prompt + response + scorer.closing("closed")
    model = by_peft(AutoModelForSequenceClassification, base, adapter, num_labels=labels)
    model.config.pad_token_id = 0
    expected = float(model(torch.tensor([ids])).logits[0, labels - 1])
    found = scorer.prefix_scores([prompt], [response], [[len(response)]])[0][0]
    assert found == pytest.approx(expected, abs=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    assert not any("lora" in name for name, _ in scorer.model.named_modules())  # type: ignore[attr-defined]
    assert type(scorer.model).__name__ == type(plain).__name__  # type: ignore[attr-defined]


@torch.no_grad()
def test_a_reward_adapter_on_a_base_with_a_head_keeps_that_head(tmp_path: Path) -> None:
    base = reward_kinds.sequence(tmp_path / "base")
    adapter = write_adapter(base, tmp_path / "adapter", None)
    assert check_scorer(ScorerSpec(adapter)).name == "sequence"
    model = load_reward_model(adapter)
    assert torch.equal(model.score.weight, load_reward_model(base).score.weight)
    expected = by_peft(AutoModelForSequenceClassification, base, adapter, num_labels=1)
    ids = torch.tensor([[5, 9, 40, 7]])
    hidden = model.base_model(ids).last_hidden_state[0, -1]
    expected.config.pad_token_id = 0
    assert float(model.score(hidden)) == pytest.approx(float(expected(ids).logits), abs=1e-5)


@torch.no_grad()
def test_a_policy_adapter_writes_as_peft_computes(base: str, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", "CAUSAL_LM")
    check_policy(adapter)
    chat = load_chat(adapter)
    prompt = chat.prompt_ids(CHAT)
    model = by_peft(AutoModelForCausalLM, base, adapter)
    ours = load_policy(adapter)(torch.tensor([prompt])).logits
    assert torch.allclose(ours, model(torch.tensor([prompt])).logits, atol=1e-5)
    assert not torch.allclose(ours, load_policy(base)(torch.tensor([prompt])).logits, atol=0.1)
    (answer,) = Decoder(adapter).decode([CHAT], "greedy", max_new_tokens=8)
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
    assert list(answer.token_ids) == expected[0, len(prompt) :].tolist()[: len(answer.token_ids)]
    start = reward_model_from_policy(adapter, seed=0)
    hidden = model.base_model.model.model(torch.tensor([prompt])).last_hidden_state
    assert torch.allclose(
        start.base_model(torch.tensor([prompt])).last_hidden_state, hidden, atol=1e-5
    )


def test_a_head_that_an_older_peft_saved_without_saying_so_is_read(
    base: str, tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    expected = load_reward_model(adapter).state_dict()
    say_in_config(adapter, modules_to_save=None)
    found = load_reward_model(adapter).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@torch.no_grad()
def test_adapters_of_an_encoder_and_of_token_classes(tmp_path: Path) -> None:
    bert = reward_kinds.bert(tmp_path / "bert")
    encoder = write_adapter(bert, tmp_path / "encoder", target_modules=["query", "value"])
    assert check_scorer(ScorerSpec(encoder)).name == "encoder"
    scorer = load_scorer(ScorerSpec(encoder))
    expected = by_peft(AutoModelForSequenceClassification, bert, encoder, num_labels=1)
    prompt, y = scorer.chat.prompt_ids(CHAT), scorer.chat.response_ids(ANSWER)
    whole = (*y, *scorer.closing("closed"))
    inputs = {"input_ids": torch.tensor([prompt + whole]),
              "token_type_ids": torch.tensor([[0] * len(prompt) + [1] * len(whole)])}  # fmt: skip
    found = scorer.prefix_scores([prompt], [y], [[len(y)]])[0][0]
    assert found == pytest.approx(float(expected(**inputs).logits), abs=1e-5)

    base = language_model(tmp_path / "base")
    steps = write_adapter(base, tmp_path / "steps", "TOKEN_CLS", labels=2)
    assert check_scorer(ScorerSpec(steps)).name == "step_tag"
    tagger = load_scorer(ScorerSpec(steps))
    prompt, y = tagger.chat.prompt_ids(CHAT), tagger.chat.response_ids(ANSWER)
    model = by_peft(AutoModelForTokenClassification, base, steps, num_labels=2)
    logits = model(torch.tensor([prompt + y + tagger.closing("open")])).logits[0, -1]
    found = tagger.prefix_scores([prompt], [y], [[len(y)]])[0][0]
    assert found == pytest.approx(float(logits.softmax(-1)[1]), abs=1e-5)


def test_what_is_asked_of_files_is_answered_for_the_merged_model(base: str, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    assert context_of(adapter) == context_of(base) == 256
    head = reward_kinds.WIDTH
    expected = matrix_parameters(base, language_head=False) + head
    assert matrix_parameters(adapter, language_head=False) == expected
    assert Weights.of(adapter).shape("score.weight") == (1, head)
    chat = load_chat(base)
    assert load_chat(adapter).prompt_ids(CHAT) == chat.prompt_ids(CHAT)
    chat.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
    own = write_adapter(base, tmp_path / "with_a_tokenizer")
    chat.tokenizer.save_pretrained(own)
    assert load_chat(own).tokenizer.chat_template == chat.tokenizer.chat_template


@torch.no_grad()
def test_what_is_trained_on_from_an_adapter_is_saved_as_a_whole_model(
    base: str, tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    model = load_reward_model(adapter)
    save_checkpoint(model, load_chat(adapter).tokenizer, tmp_path / "saved")
    assert not (tmp_path / "saved" / adapters.CONFIG).exists()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").state_dict()
    assert plain.keys() == model.state_dict().keys()
    assert all(torch.equal(plain[name], value) for name, value in model.state_dict().items())


def test_a_stage_is_identified_by_adapter_and_base(base: str, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    before = fingerprint(adapter)
    assert fingerprint(adapter) == before
    weights = load_file(Path(base) / WEIGHTS)
    weights["model.norm.weight"] += 1
    save_file(weights, Path(base) / WEIGHTS, metadata={"format": "pt"})
    other_base = fingerprint(adapter)
    write_adapter(base, tmp_path / "adapter", r=8)
    assert len({before, other_base, fingerprint(adapter)}) == 3


def test_a_base_is_found_from_the_adapters_folder_upwards(base: str, tmp_path: Path) -> None:
    """A path that was relative to where it was trained, whatever folder a process works in."""
    adapter = write_adapter(base, tmp_path / "runs" / "1" / "adapter")
    for name in ("../../../base", "base"):
        say_in_config(adapter, base_model_name_or_path=name)
        found = adapter_of(adapter)
        assert found is not None and found.base == base


def test_a_base_on_the_hub_is_read_from_its_cache(base: str, tmp_path: Path) -> None:
    commit, folder = "0" * 40, tmp_path / "cache" / "models--maker--base"
    shutil.copytree(base, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    adapter = write_adapter(base, tmp_path / "adapter")
    say_in_config(adapter, base_model_name_or_path="maker/base")
    shutil.rmtree(base)
    code = (
        "import sys; from orchestrator.scorers.checkpoint_checks import check_scorer;"
        "from orchestrator.scorers.spec import ScorerSpec;"
        "from orchestrator.checkpoints.checkpoint import load_reward_model;"
        "print(check_scorer(ScorerSpec(sys.argv[1])).name,"
        " load_reward_model(sys.argv[1]).num_labels)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, adapter],
        cwd=ROOT, capture_output=True, text=True, timeout=1_000,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["sequence", "1"]


def test_vllm_is_refused_an_adapter(base: str, tmp_path: Path) -> None:
    adapter = write_adapter(base, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"engine 'vllm' loads full models, .*valid: engine tran"):
        check_served(adapter)
    check_served(base)


def test_a_reward_adapter_without_its_head_is_refused(base: str, tmp_path: Path) -> None:
    """OpenRLHF PR 1342, ms-swift 6099: loaded, it would score with a random head."""
    adapter = write_adapter(base, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / adapters.WEIGHTS)
    kept = {name: value for name, value in tensors.items() if "score" not in name}
    save_file(kept, tmp_path / "adapter" / adapters.WEIGHTS, metadata={"format": "pt"})
    reason = r"no reward head .* in the adapter or in its base .*: the reward head would be random"
    with pytest.raises(ValueError, match=reason):
        check_scorer(ScorerSpec(adapter))
    with pytest.raises(ValueError, match=reason):
        load_reward_model(adapter)
    with pytest.raises(ValueError, match="an adapter for a LlamaForSequenceClassification: no rew"):
        check_policy(adapter)
    with_head = reward_kinds.sequence(
        tmp_path / "with_head"
    )  # which is not the one of the training
    say_in_config(adapter, base_model_name_or_path=with_head)
    with pytest.raises(ValueError, match=r"missing in the adapter: base_model.model.score.weight"):
        check_scorer(ScorerSpec(adapter))
    headless = write_adapter(base, tmp_path / "headless", None)
    with pytest.raises(ValueError, match=reason):
        check_scorer(ScorerSpec(headless))


def test_adapters_that_are_not_what_they_seem_are_refused(base: str, tmp_path: Path) -> None:
    def refused(pattern: str, change: object, **config: object) -> None:
        adapter = write_adapter(base, tmp_path / "adapter")
        say_in_config(adapter, **config)
        if callable(change):
            change(Path(adapter))
        with pytest.raises(ValueError, match=f"{adapter}: {pattern}"):
            check_scorer(ScorerSpec(adapter))
        shutil.rmtree(adapter)

    def tensors(change: object) -> object:
        def rewrite(folder: Path) -> None:
            held = load_file(folder / adapters.WEIGHTS)
            change(held)  # type: ignore[operator]
            save_file(held, folder / adapters.WEIGHTS, metadata={"format": "pt"})

        return rewrite

    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    other = reward_kinds.sequence(tmp_path / "other")
    with_config(num_hidden_layers=1)(Path(other))
    refused(r"adapter_config.json: peft_type = 'IA3'; valid: LORA", None, peft_type="IA3")
    refused("adapter_config.json: base_model_name_or_path = None: not the name of a base", None,
            base_model_name_or_path=None)  # fmt: skip
    refused("adapter_config.json: base_model_name_or_path = '/no/base': no such folder; valid: a f",
            None, base_model_name_or_path="/no/base")  # fmt: skip
    refused("adapter_config.json: revision = 'abc' of the base maker/base: only the newest", None,
            base_model_name_or_path="maker/base", revision="abc")  # fmt: skip
    second = write_adapter(base, tmp_path / "second")
    refused(f"its base {second} is an adapter itself", None, base_model_name_or_path=second)
    refused(r"it has both a model \(model.safetensors\) and an adapter",
            lambda folder: shutil.copy(Path(base) / WEIGHTS, folder))  # fmt: skip
    refused("adapter_config.json is not JSON", cut(adapters.CONFIG))
    refused(
        "cannot read the safetensors header of adapter_model.safetensors: ", cut(adapters.WEIGHTS)
    )
    refused(r"no weights as safetensors \(adapter_model.safetensors\)",
            lambda folder: (folder / adapters.WEIGHTS).unlink())  # fmt: skip
    refused(f"its weights .*: missing in the adapter: {first}", tensors(lambda t: t.pop(first)))
    refused(f"its weights .*: of another shape in the adapter: {first} 4x9 instead of 4x32",
            tensors(lambda t: t.update({first: torch.zeros(4, 9)})))  # fmt: skip
    unknown = "base_model.model.x.lora_A.weight"
    refused(f"its weights .*: in the adapter, but not in the base: {unknown}",
            tensors(lambda t: t.update({unknown: torch.zeros(4)})))  # fmt: skip
    refused("its weights .*: not in the model of config.json: model.layers.1.*; in the",
            None, base_model_name_or_path=other)  # fmt: skip
    refused("not an adapter of .*", None, target_modules=["nowhere"])


def test_an_adapter_of_a_quantized_base_without_one_of_its_tensors_is_refused(
    base: str, tmp_path: Path
) -> None:
    """PEFT would leave the missing tensor random."""
    adapter = write_adapter(base, tmp_path / "adapter", "CAUSAL_LM")
    with_config(quantization_config={"quant_method": "fp8"})(Path(base))
    check_policy(adapter)
    tensors = load_file(tmp_path / "adapter" / adapters.WEIGHTS)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors.pop(first)
    save_file(tensors, tmp_path / "adapter" / adapters.WEIGHTS, metadata={"format": "pt"})
    for check in (check_policy, load_policy):
        with pytest.raises(ValueError, match=f"missing in the adapter: {first}"):
            check(adapter)


def test_an_adapter_saved_with_more_embeddings_than_its_base_is_refused(
    base: str, tmp_path: Path
) -> None:
    adapter = write_adapter(base, tmp_path / "adapter", modules_to_save=["score", "embed_tokens"])
    check_scorer(ScorerSpec(adapter))
    held = load_file(tmp_path / "adapter" / adapters.WEIGHTS)
    name = "base_model.model.model.embed_tokens.weight"
    held[name] = torch.cat([held[name], held[name][:3]])
    save_file(held, tmp_path / "adapter" / adapters.WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"embed_tokens.weight 292x32 instead of 289x32"):
        check_scorer(ScorerSpec(adapter))
