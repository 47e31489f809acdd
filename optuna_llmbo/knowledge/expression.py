"""A small arithmetic grammar for derived quantities: parsed with `ast`, never run as code.

    expression = number | name | -expression | expression (+ | - | * | / | **) expression
               | (expression) | function(expression, ...)

The functions are `sqrt`, `log`, `log2`, `exp`, `round` (one argument; `round` is to the nearest
integer, halves to the even one) and `min`, `max` (two or more).
Expressions are computed in float64; anything not finite, at any step, makes the value nan.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import functools
import math

import numpy as np

from optuna_llmbo.errors import InputError


__all__ = ["Expression", "parse"]

_MAX_LENGTH = 200  # also bounds the depth of the tree, so that the walk cannot exhaust the stack

_ALLOWED = (
    "numbers, names, + - * / **, parentheses and the functions "
    "sqrt(a), log(a), log2(a), exp(a), round(a), min(a, b, ...), max(a, b, ...)"
)


def _power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Compute `base ** exponent`, with nan for nan ** 0 and 1 ** nan."""
    undefined = np.isnan(base) | np.isnan(exponent)
    return np.where(undefined, np.nan, np.power(base, exponent))


_OPERATORS: dict[type[ast.operator], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: _power,
}

_UNARY_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sqrt": np.sqrt,
    "log": np.log,
    "log2": np.log2,
    "exp": np.exp,
    "round": np.rint,
}

_EXTREMA: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "min": np.minimum,  # both propagate nan
    "max": np.maximum,
}


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

    @property
    def is_rounded(self) -> bool:
        """Whether its last step is `round`, so that every value is a whole number."""
        match self._root:
            case ast.Call(func=ast.Name(id="round")):
                return True
        return False

    def evaluate_columns(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Evaluate the expression element by element.

        Args:
            values: (m,) numbers for each of `names`; other entries are ignored.

        Returns:
            (m,) float64, each finite or nan: nan for division by zero, the logarithm or root of
            a negative number, overflow, or an input that is not finite.

        Raises:
            InputError: if `values` lacks one of `names`.
        """
        missing = sorted(self.names - values.keys())
        if missing:
            raise InputError(f"expression {self.text!r} needs a value for {missing}")
        columns = {name: np.asarray(values[name], dtype=np.float64) for name in self.names}
        shape = np.broadcast_shapes(*map(np.shape, values.values()))  # a constant has none
        with np.errstate(all="ignore"):
            return np.broadcast_to(_evaluate(self._root, columns), shape).copy()

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Evaluate the expression for one number per name, as `evaluate_columns` does."""
        try:
            needed = self.names & values.keys()
            numbers = {name: np.array(values[name], dtype=np.float64) for name in needed}
        except OverflowError:  # an integer too large for a float
            return math.nan
        return float(self.evaluate_columns(numbers))


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
    """Collect the names below `node`; InputError at the first node outside the grammar."""
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


def _evaluate(node: ast.expr, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Evaluate a checked tree; values are finite or nan at every step, so 1 / inf is nan."""
    match node:
        case ast.Constant(value=number):
            value = np.asarray(number, dtype=np.float64)
        case ast.Name(id=name):
            value = columns[name]
        case ast.UnaryOp(operand=operand):
            value = -_evaluate(operand, columns)
        case ast.BinOp(left=left, op=op, right=right):
            value = _OPERATORS[type(op)](_evaluate(left, columns), _evaluate(right, columns))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            operands = [_evaluate(argument, columns) for argument in arguments]
            if function in _UNARY_FUNCTIONS:
                value = _UNARY_FUNCTIONS[function](operands[0])
            else:
                value = functools.reduce(_EXTREMA[function], operands)
        case _:
            raise AssertionError(f"{ast.dump(node)} passed the check")
    return np.where(np.isfinite(value), value, np.nan)
