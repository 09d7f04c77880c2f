"""The space of a tuning: what the parser takes and refuses, and what is drawn."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.load import ConfigError, load_config
from orchestrator.tuning.space import Dimension, as_overrides, draw_trials, parse_space

RATE = "training.prm.learning_rate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight.max=choice(1.5,10,null)", Dimension("weight.max", "choice", (1.5, 10, None))),
        (f"{RATE}=loguniform(1e-4,1e-2)", Dimension(RATE, "loguniform", (1e-4, 1e-2))),
        ("a.b = uniform( -1 , 2.5 )", Dimension("a.b", "uniform", (-1, 2.5))),
        ("seed=randint(0,5)", Dimension("seed", "randint", (0, 5))),
        ("x=quniform(16,64,16)", Dimension("x", "quniform", (16, 64, 16))),
        ('x=choice(sst,"a, b",true)', Dimension("x", "choice", ("sst", "a, b", True))),
        ("x=choice(f(1),y)", Dimension("x", "choice", ("f(1)", "y"))),
    ],
)
def test_a_distribution_is_read_with_yaml_scalars(text: str, expected: Dimension) -> None:
    assert parse_space([text]) == [expected]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weight.max", "not a distribution"),
        ("weight.max=10", "not a distribution"),
        ("weight.max=normal(0,1)", "not a distribution"),
        ("=choice(1)", "not a distribution"),
        ("weight.max=choice(1", "not a distribution"),
        ("weight.max=choice(1) or more", "not a distribution"),
        ("weight.max=choice()", "the arguments are not YAML scalars"),
        ("weight.max=choice([1)", "the arguments are not YAML scalars"),
        ("weight.max=choice(1],[2)", "the arguments are not YAML scalars"),
        ("weight.max=choice([1,2],3)", "one or more YAML scalars"),
        ("weight.max=choice({a: 1})", "one or more YAML scalars"),
        ("weight.max=choice(.nan)", "numbers finite"),
        ("weight.max=uniform(1)", "two numbers, LOW < HIGH"),
        ("weight.max=uniform(2,2)", "two numbers, LOW < HIGH"),
        ("weight.max=uniform(a,b)", "two numbers, LOW < HIGH"),
        ("weight.max=uniform(0,.inf)", "two numbers, LOW < HIGH"),
        ("weight.max=uniform(false,true)", "two numbers, LOW < HIGH"),
        ("weight.max=loguniform(0,1)", "0 < LOW < HIGH"),
        ("seed=randint(0,1.5)", "two integers"),
        ("seed=randint(5,0)", "two integers"),
        ("seed=randint(0,9223372036854775809)", "-2^63 <= LOW < HIGH <= 2^63"),
        ("seed=randint(-9223372036854775809,0)", "-2^63 <= LOW < HIGH <= 2^63"),
        ("weight.max=uniform(-1.7e+308,1.7e+308)", "HIGH - LOW finite"),
        ("weight.max=quniform(0,1.0e+300,1.0e-300)", "both multiples of STEP"),
        ("seed=quniform(0,10)", "three numbers"),
        ("seed=quniform(0,10,0)", "three numbers"),
        ("seed=quniform(0,10,3)", "both multiples of STEP"),
    ],
)
def test_what_is_none_is_refused_with_what_is_valid(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_space([text])
    assert text in str(error.value) and told in str(error.value) and "valid: " in str(error.value)


def test_integers_are_drawn_from_the_full_range_of_64_bits() -> None:
    (trial,) = draw_trials(parse_space([f"seed=randint({-(2**63)},{2**63})"]), 1, seed=0)
    assert isinstance(trial["seed"], int)
    beyond_floats = parse_space([f"seed=randint({2**53},{2**53 + 1})"])
    assert draw_trials(beyond_floats, 1, seed=0) == [{"seed": 2**53}]


def test_a_field_is_named_once_and_something_is_searched() -> None:
    with pytest.raises(ConfigError, match="--space seed: named twice"):
        parse_space(["seed=choice(1,2)", "seed=randint(0,3)"])
    with pytest.raises(ConfigError, match="nothing is searched"):
        parse_space([])


def test_draws_lie_where_the_distribution_says() -> None:
    space = parse_space(
        [
            "a=choice(1.5,null,x)", "b=uniform(-1,2)", "c=loguniform(1e-4,1e-2)",
            "d=randint(0,5)", "e=quniform(16,64,16)", "f=quniform(0,1,0.1)",
        ]
    )  # fmt: skip
    trials = draw_trials(space, 3_000, seed=0)
    columns: dict[str, list[Any]] = {name: [trial[name] for trial in trials] for name in "abcdef"}
    assert set(columns["a"]) == {1.5, None, "x"}
    assert all(-1 <= value <= 2 for value in columns["b"])
    assert abs(sum(columns["b"]) / 3_000 - 0.5) < 0.1
    assert all(1e-4 <= value <= 1e-2 for value in columns["c"])
    assert 0.45 < sum(value < 1e-3 for value in columns["c"]) / 3_000 < 0.55, "even in the log"
    assert set(columns["d"]) == {0, 1, 2, 3, 4}
    assert set(columns["e"]) == {16, 32, 48, 64}
    assert all(isinstance(value, int) for value in columns["d"] + columns["e"])
    assert set(columns["f"]) == {round(i / 10, 1) for i in range(11)}


def test_draws_are_the_seeds_and_stay_when_more_is_drawn() -> None:
    few = draw_trials(parse_space(["a=uniform(0,1)"]), 4, seed=1)
    assert draw_trials(parse_space(["a=uniform(0,1)"]), 9, seed=1)[:4] == few
    more = draw_trials(parse_space(["b=randint(0,9)", "a=uniform(0,1)"]), 4, seed=1)
    assert [trial["a"] for trial in more] == [trial["a"] for trial in few]
    assert draw_trials(parse_space(["a=uniform(0,1)"]), 4, seed=2) != few


def test_no_two_trials_are_alike_and_a_small_space_gives_fewer() -> None:
    trials = draw_trials(parse_space(["a=choice(1,2,3)", "b=choice(x,y)"]), 50, seed=0)
    assert len(trials) == 6
    assert {(trial["a"], trial["b"]) for trial in trials} == {
        (a, b) for a in (1, 2, 3) for b in "xy"
    }


@given(st.floats(1e-8, 1e3), st.floats(1.001, 1e6), st.integers(0, 10**6))
def test_a_drawn_float_is_in_its_range_and_survives_the_config(
    low: float, factor: float, seed: int
) -> None:
    high = low * factor
    (trial,) = draw_trials([Dimension(RATE, "loguniform", (low, high))], 1, seed)
    rate = trial[RATE]
    assert isinstance(rate, float) and low <= rate <= high
    config = load_config(None, as_overrides(trial))
    assert config.training.prm.learning_rate == trial[RATE]


def test_every_kind_of_scalar_reaches_its_field() -> None:
    values = {
        "weight.max": None, "weight.normalize": True, "seed": 7, "partial.preset": "official",
        "training.prm.batch_size": 32, RATE: 1e-05,
    }  # fmt: skip
    config = load_config(None, as_overrides(values))
    assert config.weight.max is None and config.weight.normalize and config.seed == 7
    assert config.partial.preset == "official" and config.training.prm.batch_size == 32
    assert math.isclose(config.training.prm.learning_rate, 1e-05, rel_tol=0)
