"""A small arithmetic grammar for derived quantities: parsed with `ast`, never run as code.

    expression = number | name | -expression | expression (+ | - | * | / | **) expression
               | (expression) | function(expression, ...)

The functions are `sqrt`, `log`, `log2`, `exp` (one argument) and `min`, `max` (two or more).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import math
import operator

from optuna_llmbo.errors import InputError


__all__ = ["Expression", "parse"]

_MAX_LENGTH = 200  # also bounds the depth of the tree, so that the walk cannot exhaust the stack

_ALLOWED = (
    "numbers, names, + - * / **, parentheses and the functions "
    "sqrt(a), log(a), log2(a), exp(a), min(a, b, ...), max(a, b, ...)"
)

# `math.pow` and not `**`: floats only, so that 9**9**9 overflows at once instead of building a
# huge integer, and a negative base with a fractional exponent is an error instead of a complex.
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}

_UNARY_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sqrt": math.sqrt,
    "log": math.log,
    "log2": math.log2,
    "exp": math.exp,
}

_EXTREMA: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}


@dataclass(frozen=True)
class Expression:
    """A checked arithmetic expression over named quantities.

    Two expressions are equal if their texts are.

    Attributes:
        text: the expression as written, at most 200 characters.
        names: the quantities it needs.

    Raises:
        InputError: if `text` is not in the grammar of this module.
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    _root: ast.expr = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        root = _syntax_tree(self.text)
        object.__setattr__(self, "_root", root)
        object.__setattr__(self, "names", frozenset(_check(root, self.text)))

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Value of the expression.

        Args:
            values: a number for each of `names`; others are ignored.

        Returns:
            A finite float, or nan where the value does not exist or does not fit: division by
            zero, the logarithm or root of a negative number, overflow, a value that is not finite.

        Raises:
            InputError: if `values` lacks one of `names`.
        """
        missing = sorted(self.names - values.keys())
        if missing:
            raise InputError(f"expression {self.text!r} needs a value for {missing}")
        try:
            numbers = {name: float(values[name]) for name in self.names}
            # Checked here, since min, max and 0 * x would let a nan or an infinity disappear.
            if not all(map(math.isfinite, numbers.values())):
                return math.nan
            value = _evaluate(self._root, numbers)
        except (ArithmeticError, ValueError):
            return math.nan
        return value if math.isfinite(value) else math.nan


def parse(text: str) -> Expression:
    """Parse an arithmetic expression such as `learning_rate * lora_alpha / rank`.

    Args:
        text: the expression, at most 200 characters.

    Returns:
        The checked expression.

    Raises:
        InputError: if `text` is not in the grammar; the message says what is allowed.
    """
    return Expression(text)


def _refusal(text: str, reason: str) -> InputError:
    return InputError(f"expression {text!r}: {reason}; allowed are {_ALLOWED}")


def _syntax_tree(text: str) -> ast.expr:
    if not isinstance(text, str):
        raise _refusal(text, f"expected a string, got {type(text).__name__}")
    if len(text) > _MAX_LENGTH:
        reason = f"{len(text)} characters, more than {_MAX_LENGTH}"
        raise _refusal(f"{text[:40]}...", reason)
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _refusal(text, "not an expression") from error


def _check(node: ast.expr, text: str) -> set[str]:
    """Names below `node`; raises `InputError` at the first node outside the grammar."""
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _check(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _check(left, text) | _check(right, text)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
            _check_call(function, len(arguments), text)
            return set().union(*(_check(argument, text) for argument in arguments))
        case _:
            raise _refusal(text, f"{type(node).__name__} {ast.unparse(node)!r} is not allowed")


def _check_call(function: str, n_arguments: int, text: str) -> None:
    if function in _UNARY_FUNCTIONS:
        if n_arguments != 1:
            raise _refusal(text, f"{function} takes 1 argument, got {n_arguments}")
    elif function in _EXTREMA:
        if n_arguments < 2:
            raise _refusal(text, f"{function} takes 2 or more arguments, got {n_arguments}")
    else:
        raise _refusal(text, f"unknown function {function!r}")


def _evaluate(node: ast.expr, numbers: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]  # `_check` let only numbers through
        case ast.Name(id=name):
            return numbers[name]
        case ast.UnaryOp(operand=operand):
            return -_evaluate(operand, numbers)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_evaluate(left, numbers), _evaluate(right, numbers))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            operands = [_evaluate(argument, numbers) for argument in arguments]
            if function in _UNARY_FUNCTIONS:
                return _UNARY_FUNCTIONS[function](operands[0])
            return _EXTREMA[function](operands)
    raise AssertionError(f"{ast.dump(node)} passed the check")
