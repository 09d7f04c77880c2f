"""Configs as no one should write them: the shipped files with wrong, odd and enormous values.

Seeded: a number gives the same file and overrides on every machine. What shows a fault here becomes
a case of a test of its own.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.load import ROOT, load_config, to_yaml

FILES = ("helpdesk", "smoke", "hh_small", "gsm8k_small", "smollm2_small")
RAW = "\x00raw:"  # before a text that stands in the file as it is
NESTED = 800
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 255, 10**6, 2**31 - 1, 2**31, 2**63, 10**18, -(10**9),
    10**30, 0.0, 0.5, 1.0, -0.5, 1e-9, 1e-300, 1e300, float("inf"), float("nan"),
    "", " ", "x", "yes", "off", "010", "1:30", "0x1F", "1_000", "1e400", "null", "é", "🙂",
    "\u202e",
    "a" * 300, "b" * 20_000, "a/b", "a/b/c", "../..", "~", "~nobody_at_all/x", "/dev/null",
    "/dev/zero",
    "/proc/x", "/", ".", "nope://x", "s3://bucket/x", "https://example.org/x.jsonl", "memory://x",
    "file:///proc/x", "x.jsonl", "/none/x.jsonl", "\n", ".", "\n\n", "orm", "prm_sst", "reference",
    "${seed}", "${nowhere}", "${oc.env:HOME}", "${oc.env:NOT_SET_AT_ALL}", "${", "${${seed}}",
    "${name}", "\\${x}", "bradley_terry", "dpo", "density_ratio", "whole", "tlt", "mask", "closed",
    "hh_rlhf", "helpdesk", "vllm", "float64", "official",
    f"{RAW}{'9' * 5000}", f"{RAW}0x{'f' * 5000}", f"{RAW}1.{'5' * 400}", f"{RAW}1e99999",
    f"{RAW}'\\ud800'", f'{RAW}"\\ud800"', f'{RAW}"\\0"', f"{RAW}!!python/object:os.system x",
    f"{RAW}!!binary aGFsbG8=", f"{RAW}*nowhere", f"{RAW}&a [*a]", f"{RAW}[", f"{RAW}}}", f"{RAW}\t",
    f"{RAW}{'[' * NESTED}{']' * NESTED}", f"{RAW}{'{a: ' * NESTED}1{'}' * NESTED}",
)  # fmt: skip
NAMES = ("x", "orm", "Ümlaut", "a b", "", "1", "math", "v" * 300, "workers", "__class__", "a.b")


@dataclass
class Fuzzed:
    """A config: the text of its file, and overrides."""

    text: str
    overrides: list[str] = field(default_factory=list)


def fuzzed(seed: int) -> Fuzzed:
    """The config of a number."""
    draw = random.Random(seed)
    found = Fuzzed("", [])
    plain = draw.choice((_whole, _own))(draw)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 6))):
        _mutate(draw, plain)
    found.text = _dumped(plain)
    if draw.random() < 0.3:
        place = draw.choice(_places(_whole(draw)))
        value = _written(_value(draw)) if draw.random() < 0.7 else _raw(draw)
        found.overrides.append(f"{'.'.join(map(str, place))}={value}")
    if draw.random() < 0.12:
        found.text = draw.choice(TEXTS)(draw, found.text)
    return found


def _own(draw: random.Random) -> Any:
    """What a shipped file says itself, with its base."""
    name = draw.choice(FILES)
    content = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    if "base" in content:
        content["base"] = str(ROOT / "configs" / content["base"])
    return content


def _whole(draw: random.Random) -> Any:
    """Every field that a config has, with its value."""
    overrides = draw.choice(
        (
            [],
            ["search.general={}", "search.step_beam={delimiter: .}"],
            ["variants.v={objective: dpo, aggregation: min, step_delimiter: .}"],
            ["data={task: hh_rlhf, pairs: pairs.jsonl}", "training.policy.warmup_steps=0"],
            ["data={task: gsm8k, demonstrations: pairs.jsonl, pairs: pairs.jsonl, test:"
             " pairs.jsonl}", "search.vote={}"],
        )
    )  # fmt: skip
    other_data = any(text.startswith("data=") for text in overrides)
    name = "helpdesk.yaml" if other_data else draw.choice(("helpdesk.yaml", "smoke.yaml"))
    file = ROOT / "configs" / name
    return yaml.safe_load(to_yaml(load_config(file, overrides)))


def _mutate(draw: random.Random, plain: Any) -> None:
    """Changes one field, or adds one."""
    places = _places(plain)
    if not places:
        return
    *above, last = draw.choice(places)
    section = plain
    for part in above:
        section = section[part]
    kind = draw.random()
    if kind < 0.45:
        section[last] = _like(draw, section[last])
    elif kind < 0.75:
        section[last] = _value(draw)
    elif kind < 0.85 and isinstance(section, dict):
        section[draw.choice(NAMES)] = _value(draw)
    elif kind < 0.9 and isinstance(section, dict):
        section[draw.choice(NAMES)] = section.pop(last)
    elif isinstance(section[last], int | float) and not isinstance(section[last], bool):
        section[last] *= draw.choice((-1, 0, 2, 10, 1000, 10**9, 0.3))
    elif isinstance(section[last], list):
        section[last] = section[last] * draw.choice((0, 2, 50))
    else:
        section[last] = draw.choice(([section[last]], {"x": section[last]}, str(section[last])))


def _like(draw: random.Random, value: Any) -> Any:
    """Another value of the same type: most of what stands in a file that someone meant."""
    if isinstance(value, bool):
        return draw.choice((True, False))
    if isinstance(value, int):
        return draw.choice((value + 1, value * 2, value - 1, 0, 1, 2, 4, 9, 100, 5_000, 10**7))
    if isinstance(value, float):
        return draw.choice((value / 2, value * 3, 0.0, 0.25, 1.0, 1e-6, 40, 1e6))
    if isinstance(value, str):
        return draw.choice([one for one in SCALARS if isinstance(one, str)])
    return draw.choice((None, value, {}, 3, "orm"))


def _value(draw: random.Random) -> Any:
    if draw.random() < 0.8:
        return draw.choice(SCALARS)
    made: tuple[Callable[[], Any], ...] = (
        list,
        dict,
        lambda: [draw.choice(SCALARS) for _ in range(draw.randint(1, 4))],
        lambda: {draw.choice(NAMES): draw.choice(SCALARS) for _ in range(draw.randint(1, 4))},
        lambda: [[[[1]]], {"a": {"b": {"c": []}}}],
        lambda: list(range(5_000)),
        lambda: {f"v{i}": {} for i in range(150)},
    )
    return draw.choice(made)()


def _places(plain: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all fields, sections too."""
    if not isinstance(plain, dict):
        return [above] if above else []
    own = [above] if above else []
    return own + [found for name, part in plain.items() for found in _places(part, (*above, name))]


def _dumped(plain: Any) -> str:
    """As YAML, in which what is marked stands as it is."""
    marked: list[str] = []

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replaced(part) for name, part in value.items()}
        if isinstance(value, list):
            return [replaced(part) for part in value]
        if isinstance(value, str) and value.startswith(RAW):
            marked.append(value.removeprefix(RAW))
            return f"rawrawraw{len(marked) - 1}raw"
        return value

    text = str(yaml.safe_dump(replaced(plain), allow_unicode=True, sort_keys=False, width=10**6))
    for i, raw in enumerate(marked):
        text = text.replace(f"rawrawraw{i}raw", raw)
    return text


def _written(value: Any) -> str:
    """On a command line, in flow style."""
    if isinstance(value, str) and value.startswith(RAW):
        return value.removeprefix(RAW)
    try:
        return json.dumps(value, ensure_ascii=False)
    except ValueError:
        return str(value)


def _raw(draw: random.Random) -> str:
    alphabet = "[]{}:,'\"\\#&*!|>%@`-?=.~ ax09${}\n\té🙂"
    return "".join(draw.choice(alphabet) for _ in range(draw.randint(0, 40)))


def _torn(draw: random.Random, text: str) -> str:
    return text[: draw.randrange(len(text) + 1)]


def _struck(draw: random.Random, text: str) -> str:
    place = draw.randrange(len(text) + 1)
    return text[:place] + _raw(draw) + text[place:]


def _twice(draw: random.Random, text: str) -> str:
    return text + text


def _as_text(draw: random.Random, text: str) -> str:
    return json.dumps(text)


def _unindented(draw: random.Random, text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


TEXTS = (_torn, _struck, _struck, _twice, _as_text, _unindented)


def written(folder: Path, seed: int) -> tuple[Path, list[str]]:
    """The config of a number as a file, and its overrides."""
    found = fuzzed(seed)
    file = folder / f"{seed}.yaml"
    file.write_bytes(found.text.encode("utf-8", "surrogatepass"))
    return file, found.overrides
