"""`Upstash-Retry-Delay`: an arithmetic expression that says how many milliseconds to wait before a retry.

Python's parser reads it; what it may hold is listed here, and it is evaluated in floating point, so no power however
high takes long. The variable is `retried`: how many retries there have been, 0 before the first.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Sequence

from waypost.core import limits

_VARIABLE = "retried"
#: Python's numbers may be written in more ways, and Python has comments.
_FOREIGN = re.compile(r"[^0-9A-Za-z.+\-*/%(), \t]|0[xXoObB]")


class ExpressionError(Exception):
    """Why a text is no expression."""


def _round(x: float) -> float:
    """Halves away from zero, as most languages do; Python's own goes to even."""
    return math.copysign(_whole(math.floor, abs(x) + 0.5), x)


def _whole(rounding: Callable[[float], float], x: float) -> float:
    return rounding(x) if math.isfinite(x) else x


def _pow(x: float, y: float) -> float:
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf


def _of_all(choose: Callable[[Sequence[float]], float]) -> Callable[..., float]:
    """What is no number makes the whole none."""
    return lambda *values: math.nan if any(map(math.isnan, values)) else choose(values)


def _divide(x: float, y: float) -> float:
    return x / y if y else math.copysign(math.inf, x) if x else math.nan


#: By name: the function, and with how many arguments it is called (None: one or more).
_FUNCTIONS: dict[str, tuple[Callable[..., float], int | None]] = {
    "pow": (_pow, 2),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "abs": (abs, 1),
    "floor": (lambda x: _whole(math.floor, x), 1),
    "ceil": (lambda x: _whole(math.ceil, x), 1),
    "round": (_round, 1),
    "min": (_of_all(min), None),
    "max": (_of_all(max), None),
}
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda x, y: x + y,
    ast.Sub: lambda x, y: x - y,
    ast.Mult: lambda x, y: x * y,
    ast.Div: _divide,
    ast.Mod: math.fmod,
}


def check_expression(text: str) -> None:
    """Raises ExpressionError with a sentence for what can't be evaluated."""
    _check(_parsed(text), limits.EXPRESSION_DEPTH)


def evaluate(text: str, retried: int, most: int) -> int:
    """The value in whole milliseconds, from 0 to `most`. What is no number (0/0, the root of -1) counts as 0. Raises
    ExpressionError."""
    tree = _parsed(text)
    _check(tree, limits.EXPRESSION_DEPTH)
    value = _value(tree, float(retried))
    return 0 if math.isnan(value) or value <= 0 else most if value >= most else int(value)


def _parsed(text: str) -> ast.expr:
    if len(text) > limits.EXPRESSION_LENGTH:
        raise ExpressionError(f"it is longer than {limits.EXPRESSION_LENGTH} characters")
    if found := _FOREIGN.search(text):
        raise ExpressionError(f"it can't hold {found[0]!r}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError("it can't be read") from None


def _check(node: ast.expr, depth: int) -> None:
    if not depth:
        raise ExpressionError(f"it is nested deeper than {limits.EXPRESSION_DEPTH}")
    for part in _parts(node):
        # A sum of many terms is no deeper than one of two: its length bounds it.
        chained = isinstance(node, ast.BinOp) and part is node.left
        _check(part, depth if chained else depth - 1)


def _parts(node: ast.expr) -> Sequence[ast.expr]:
    """What the node is made of. Raises ExpressionError for what is not allowed."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return ()
        case ast.Name(id=name):
            if name != _VARIABLE:
                raise ExpressionError(f"{name!r} is unknown, the one variable is {_VARIABLE}")
            return ()
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return (operand,)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return (left, right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in _FUNCTIONS:
                raise ExpressionError(f"there is no function {name!r}, use one of {', '.join(_FUNCTIONS)}")
            wanted = _FUNCTIONS[name][1]
            if len(arguments) != wanted if wanted else not arguments:
                raise ExpressionError(f"{name} is called with {len(arguments)} arguments")
            return arguments
    raise ExpressionError(f"use numbers, {_VARIABLE}, + - * / % and {', '.join(_FUNCTIONS)}")


def _value(node: ast.expr, retried: float) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return _float(value)
        case ast.UnaryOp(op=operator, operand=operand):
            value = _value(operand, retried)
            return -value if isinstance(operator, ast.USub) else value
        case ast.BinOp(left=left, op=operator, right=right):
            return _applied(_OPERATORS[type(operator)], _value(left, retried), _value(right, retried))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _applied(_FUNCTIONS[name][0], *(_value(one, retried) for one in arguments))
    return retried


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _applied(function: Callable[..., float], *arguments: float) -> float:
    try:
        return float(function(*arguments))
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan
