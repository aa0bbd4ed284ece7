"""Jinja kept within bounds: a chat template is a program, and comes with a model from anybody. Knows no conversations.

Jinja's own sandbox keeps a template from what it was not given. Here its work is counted too, while it is done and
before an operation that would take much at once: steps of loops, calls, characters. A template that loops for ever, or
would write gigabytes, ends in an error, on every system and without a process of its own.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from litft.text.work import (
    CALL,
    STEP,
    TooMuchError,
    cost_of_binop,
    cost_of_call,
    cost_of_filter,
    counted,
    length,
    spend,
    weigh,
    weighed,
    within_bounds,
)

# Some templates write the day's date. Data must not change from day to day, so ours stands still.
# Source: the date that Llama 3.1's template writes where it is given none.
TODAY = datetime.datetime(2024, 7, 26)

# Unicode's noncharacters, which no text holds: around what a template says is generated.
BEGIN, END = "\ufdd0", "\ufdd1"

LONGEST_SOURCE = 2**17  # characters; the longest published templates have a quarter of that
LONGEST_DATE = 200  # characters of a form of the date

# What no chat template needs, and what may take very long on a long text.
NOT_GIVEN = {"filters": ("urlize", "striptags"), "globals": ("lipsum",)}


def render(source: str, characters: int, **given: Any) -> str:
    """Gives what a template makes of what it is given.

    Args:
        source: the template.
        characters: how many are given; by them it may do more.
        given: its variables, of plain types.

    Raises:
        TooMuchError: it is longer than any, or does too much.
        TemplateSyntaxError: it is no template.
        Exception: what a template may raise, as `FAULTS` lists it.
    """
    if len(source) > LONGEST_SOURCE:
        raise TooMuchError(f"has {len(source):,} characters; the most are {LONGEST_SOURCE:,}")
    with within_bounds(characters):
        return _compile(source).render(**given)


FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


@lru_cache(maxsize=8)
def _compile(source: str) -> Template:
    """Compiles a template, with all that counts its work put into it."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    try:
        tree = _Counting().visit(environment.parse(source))
        tree.set_environment(environment)
        code = environment.compile(tree)
    except TemplateSyntaxError:
        raise
    except (RecursionError, MemoryError, SyntaxError) as error:  # of Python's own compiler, too
        raise TemplateSyntaxError("it is nested too deeply", 1) from error
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox in which a template calls nothing but what it is given, and each operation counts."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        """Takes Jinja's options."""
        super().__init__(finalize=weighed, **options)
        for name in NOT_GIVEN["filters"]:
            del self.filters[name]
        for name in NOT_GIVEN["globals"]:
            del self.globals[name]
        self.filters["tojson"] = _to_json
        self.filters = {name: _bounded(name, each) for name, each in self.filters.items()}
        self.globals |= {"raise_exception": _raise, "strftime_now": _today, "namespace": _Namespace}

    @property
    def step(self) -> bool:
        """Counts a step of a loop: the template's code looks at it in each."""
        spend(STEP)
        return True

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Joins what a template, a macro or a block writes."""
        return "".join(counted(pieces))

    def joined(self, *values: object) -> str:
        """Does what `~` does."""
        weigh(values)
        return "".join(map(str, values))

    def weighed(self, value: object) -> object:
        """Gives a list, a tuple or a map that was just made, if it is neither too large nor too deep."""
        return weighed(value)

    def cut(self, value: Any, *places: int | None) -> Any:
        """Does what `value[start:stop:step]` does."""
        spend(STEP + length(value))
        return value[slice(*places)]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes, where the result is not too large."""
        spend(CALL + cost_of_binop(operator, left, right))
        return self.binop_table[operator](left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **named: Any) -> Any:
        """Calls a macro, a method or a function, where the result is not too large."""
        spend(CALL)
        method = getattr(called, "__wrapped__", called)  # of `str.format` Jinja gives a wrapped one
        owner = None if isinstance(called, Namespace) else getattr(method, "__self__", None)
        if isinstance(owner, (str, bytes, int, float, Mapping, Sequence, type)):
            spend(cost_of_call(method.__name__, owner, args, named))
        elif called is dict:
            weigh((args, [value for name, value in named.items() if not name.startswith("_")]))
        return super().call(context, called, *args, **named)


class _Namespace(Namespace):
    """What keeps values from one step of a loop to the next, and so could nest them without end."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, weighed(value))

    def __repr__(self) -> str:
        return "<namespace>"


class _Counting(NodeTransformer):
    """Puts into a template's tree what counts where Jinja itself asks nobody."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - as jinja2 calls it
        """Counts each step, and each that the loop's own condition passes over."""
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_own("step", node)))
        if node.test is not None:
            node.test = nodes.And(_own("step", node), node.test, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Counts the characters of `~`."""
        self.generic_visit(node)
        return _call("joined", node, list(node.nodes))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Counts the characters of `text[a:b]`."""
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        places = [each or nodes.Const(None) for each in (node.arg.start, node.arg.stop, node.arg.step)]
        return _call("cut", node, [node.node, *places])

    def _visit_made(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:
        """Counts what a list, a tuple or a map holds, unless it is all written out."""
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or all(isinstance(each, nodes.Const) for each in _parts(node)):
            return node
        return _call("weighed", node, [node])

    visit_List = visit_Tuple = visit_Dict = _visit_made  # noqa: N815


def _parts(node: nodes.List | nodes.Tuple | nodes.Dict) -> Iterator[nodes.Expr]:
    """Gives what stands in a list, a tuple or a map."""
    for each in node.items:
        yield from (each.key, each.value) if isinstance(each, nodes.Pair) else (each,)


def _own(name: str, node: nodes.Node) -> nodes.Expr:
    """Gives the tree of a look at something of our environment, in the place of a node."""
    return nodes.EnvironmentAttribute(name, lineno=node.lineno)


def _call(name: str, node: nodes.Node, args: list[nodes.Expr]) -> nodes.Expr:
    """Gives the tree of a call of something of our environment."""
    return nodes.Call(_own(name, node), args, [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """The tag `generation`, which says what of a template's text the model writes.

    Source: `AssistantTracker` of transformers, by whose name the tag is known.
    """

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Turns the tag and what stands in it into a call of `_mark`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return f"{BEGIN}{caller()}{END}"


def _bounded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a filter that counts what it handles, and what it gives piece by piece."""

    @functools.wraps(made)
    def run(*args: Any, **named: Any) -> Any:
        own = args[hasattr(made, "jinja_pass_arg") :]  # before them stands what Jinja itself gives
        spend(CALL + cost_of_filter(name, own, named))
        found = made(*args, **named)
        return counted(found) if isinstance(found, Iterator) else found

    return run


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Writes JSON; Jinja's own filter escapes characters for a web page."""
    pair = tuple(separators) if separators else None
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)  # type: ignore[arg-type]


def _raise(message: str) -> NoReturn:
    """What templates call to refuse a conversation."""
    raise TemplateError(message)


def _today(form: str) -> str:
    """Gives the date in a form such as `%d %b %Y`."""
    if len(form) > LONGEST_DATE:
        raise TooMuchError(f"asks for the date in a form of {len(form):,} characters")
    return TODAY.strftime(form)
