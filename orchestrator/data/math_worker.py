r"""The process that runs math-verify; it reads and writes one JSON object per line.

Parsing and comparing a model's output may take any time and memory ("9^{9^{9^9}}"), and
math-verify's own time-outs are signals, which only a main thread may set. Here each task has a
limit of CPU time, at which the kernel ends this process; memory is limited too. ``math_answers.py``
starts this file, which imports nothing else of this project.

A task is {"gold": text, "answer": text} or {"answer": text}; an answer {"right": bool},
{"canonical": text}, {"missing": true} or {"error": text}.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from hashlib import blake2b
from typing import TextIO, TypeAlias

import sympy
from math_verify import parse, verify
from sympy.logic.boolalg import Boolean

SECONDS = 3.0  # CPU time per task; a typical task takes 1 % of it
MEMORY = 2 * 2**30  # bytes of address space; the libraries take 10 %
DIGITS = 25  # significant digits of equal values
_WORKING_DIGITS = 2 * DIGITS
_LARGEST_DENOMINATOR = 10**6  # limit for the conversion of a value to a fraction
Parsed: TypeAlias = "sympy.Basic | sympy.MatrixBase | str"  # what math-verify parses
_POINTS = 3  # number of points at which expressions with variables are compared


def main() -> None:
    """Process tasks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects output of libraries
    _parsed("$1$")  # loads the grammar
    _send(answers, {"ready": True})
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            answer = _answered(**json.loads(line))
        except Exception as error:
            # Only its type: formatting its message may not terminate.
            answer = {"error": f"math-verify raised {type(error).__name__}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, answer)


def _answered(answer: str, gold: str | None = None) -> dict[str, str | bool]:
    parsed = _parsed(answer)
    if not parsed:
        return {"missing": True}
    if gold is None:
        return {"canonical": _canonical(parsed[0])}
    reference = _parsed(gold)
    if not reference:
        return {"error": "the reference answer cannot be parsed"}
    equal = verify(
        reference, parsed, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
    )
    return {"right": bool(equal) or _same_value(reference[0], parsed[0])}


def _same_value(gold: Parsed, answer: Parsed) -> bool:
    """Compare canonical texts: math-verify treats errors in its steps as "not equal"."""
    try:
        return _canonical(gold) == _canonical(answer)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        # sympy raises many types for expressions without a value (TypeError, ValueError,
        # NotImplementedError, AttributeError, ...). Any of them means: not the same value.
        return False


def _parsed(text: str) -> list[Parsed]:
    """Return the expression and its text; only the text if it does not parse."""
    return list(parse(text, parsing_timeout=None, raise_on_error=True))


def _canonical(value: Parsed) -> str:
    """Return a text that equal values share."""
    if isinstance(value, str):
        return "text " + "".join(value.split())
    if isinstance(value, sympy.MatrixBase):
        return f"matrix {value.shape} {_listed(value)}"
    if isinstance(value, Boolean) and not isinstance(value, sympy.Symbol):
        return _of_relation(value)
    if isinstance(value, sympy.FiniteSet):
        return "{" + ", ".join(sorted(map(_canonical, value.args))) + "}"
    if isinstance(value, sympy.Interval):
        begin, end = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"interval {begin}{_canonical(value.start)}, {_canonical(value.end)}{end}"
    if isinstance(value, sympy.Tuple):
        return f"({_listed(value)})"
    if isinstance(value, sympy.Expr):
        return _of_expression(value)
    if isinstance(value, sympy.Set) and value.args:
        return f"{type(value).__name__} " + ", ".join(sorted(map(_canonical, value.args)))
    return str(sympy.srepr(value))


def _listed(values: Iterable[sympy.Basic]) -> str:
    return ", ".join(map(_canonical, values))


def _of_relation(relation: Boolean) -> str:
    """Return a canonical text of a relation.

    Of ``x = ...`` the right side; of another equation left minus right, up to a rational factor; of
    another relation in one variable its solution set; otherwise its sympy structure.
    """
    if isinstance(relation, sympy.Eq):
        left, right = relation.args
        if isinstance(left, sympy.Symbol):
            return _canonical(right)
        return f"zero {_of_expression(_normalized(left - right))}"
    if len(relation.free_symbols) == 1:
        return _canonical(relation.as_set())
    return str(sympy.srepr(relation))


def _normalized(expression: sympy.Expr) -> sympy.Expr:
    """Divide an expression by the rational coefficient of its leading term.

    Equations that differ by a rational factor become equal.
    """
    terms = sympy.expand(_exact(expression).doit()).as_ordered_terms()
    return sympy.expand(expression / terms[0].as_coeff_Mul()[0])


def _of_expression(expression: sympy.Expr) -> str:
    """Return a fraction, or the value; with variables the values at fixed points."""
    expression = _exact(expression).doit()
    if expression.is_Rational:
        return f"{expression.p:x}/{expression.q:x}"  # hexadecimal: decimal digits are slow
    names = sorted(expression.free_symbols, key=str)
    points = [{name: _coordinate(str(name), i) for name in names} for i in range(_POINTS)]
    values = [_value(expression.subs(point)) for point in points[: None if names else 1]]
    return " ".join(sorted(set(values), key=values.index))


def _exact(expression: sympy.Expr) -> sympy.Expr:
    """Convert decimals to fractions and percentages to numbers."""
    plain = expression.replace(sympy.UnevaluatedExpr, lambda inner: inner)
    return plain.xreplace({x: sympy.Rational(str(x)) for x in plain.atoms(sympy.Float)})


def _coordinate(name: str, point: int) -> sympy.Expr:
    """Return a variable's value at a point: in [1, 2), negated at every second point."""
    draw = int.from_bytes(blake2b(f"{name} {point}".encode(), digest_size=4).digest())
    return (1 + sympy.Rational(draw, 2**32)) * (-1) ** point


def _value(number: sympy.Expr) -> str:
    """Return the digits of a number, or of its real and imaginary part."""
    parts = [_digits(part) for part in sympy.N(number, _WORKING_DIGITS).as_real_imag()]
    return parts[0] if parts[1] == "0/1" else " + i ".join(parts)


def _digits(part: sympy.Expr) -> str:
    """Return a real number as a fraction of small denominator, else its first digits."""
    if not part.is_Float and not part.is_Rational:
        return str(sympy.srepr(part))  # infinite, or a function without a value
    exact = sympy.Rational(part)
    if abs(exact) < sympy.Rational(1, 10**DIGITS):
        return "0/1"
    near = exact.limit_denominator(_LARGEST_DENOMINATOR)
    if abs(exact - near) < abs(exact) / 10**DIGITS:
        return f"{near.p:x}/{near.q:x}"
    return str(sympy.N(exact, DIGITS))


def _send(answers: TextIO, answer: dict[str, str | bool]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
