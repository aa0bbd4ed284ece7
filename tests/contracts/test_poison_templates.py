"""Chat templates that are made to do harm end in one sentence, soon, and with little memory.

A template is a program that comes with a model. Those here try to leave the sandbox, to loop for ever, or to make
something so large that the process ends; none of them may. The bounds are lowered here, so that the test is quick:
one test keeps them as they are.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from templates import CHATML, THINKING, TOOLS, marked_folder

from litft.errors import ConfigError
from litft.text import sandbox, work
from litft.text.conversation import dialogue
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

GROWING = "{%% set ns = namespace(s='aaaaaaaa') %%}{%% for i in range(100) %%}%s{%% endfor %%}"
LISTS = "{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}"
LINES = "{% set a = ['a'] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}"
EQUAL = "{% set a, b = ['a'], ['a'] %}" + "{% set a, b = [a, a], [b, b] %}" * 60 + "{{ a == b }}"
TUPLES = (
    "{% set ns = namespace(t=()) %}{% for a in range(99999) %}{% for b in range(3) %}"
    "{% set ns.t = {'a': ns.t}.items() | list | first %}{% endfor %}{% endfor %}{{ {ns.t: 1} }}"
)
SLOW = (
    "{% set a = 'a' * 500000 %}{% for i in range(99999) %}{% for j in range(99) %}"
    "{% if 'ab' in a %}{% endif %}{% endfor %}{% endfor %}"
)

# What would be large or long -> the template.
TOO_MUCH = {
    "loops": "{% set s = 'a' * 9000 %}" + "{% for a in s %}" * 3 + "{% endfor %}" * 3,
    "filtered loops": "{% set s = 'a' * 600000 %}{% for a in s %}"
    + "{% for b in s if false %}{% endfor %}" * 9
    + "{% endfor %}",
    "calls": "{% macro m(n) %}{% if n %}{% set a = m(n - 1) %}{% set b = m(n - 1) %}{% endif %}{% endmacro %}"
    "{% set a = m(60) %}",
    "uncounted": SLOW,
    "text * number": "{{ 'a' * 10**10 }}",
    "number * list": "{{ (10**10 * [1]) | length }}",
    "power": "{{ 9**(9**9) }}",
    "text + text": GROWING % "{% set ns.s = ns.s + ns.s %}",
    "text ~ text": GROWING % "{% set ns.s = ns.s ~ ns.s %}",
    "blocks": GROWING % "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}",
    "slices": "{% set s = 'a' * 600000 %}" + "{% set a = s[1:] %}" * 600,
    "a list written out": "{% set s = 'a' * 9000 %}{{ [s] * 90000 }}",
    "lists of lists": LISTS,
    "lists line by line": LINES,
    "lists compared": EQUAL,
    "maps": "{% set a = dict() %}{% set b = dict() %}"
    + "{% set a = dict(x=a, y=a) %}{% set b = dict(x=b, y=b) %}" * 60
    + "{{ a == b }}",
    "tuples that are hashed": TUPLES,
    "center": "{{ 'a' | center(10**10) }}",
    "center, compiled": "{{ 'a' | center(10000000000) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ '1'.zfill(10**10) }}",
    "expandtabs": "{{ ('\\t' * 9000).expandtabs(90000) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "width": "{{ '%10000000000d' % 1 }}",
    "width of nine digits": "{{ '%999999999d' % 1 }}",
    "width that is given": "{{ '%*d' % (10**9, 1) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "format method": "{{ '{:999999999}'.format(1) }}",
    "format within format": "{{ '{:{}}'.format(1, 10**9) }}",
    "join": "{{ ('a' * 90000).join(['a'] * 9000) }}",
    "join filter": "{{ (['a' * 9000] * 90000) | join }}",
    "join between": "{{ (['a'] * 9000) | join('a' * 90000) }}",
    "join lazily": "{{ range(3000) | select | join('a' * 150000) }}",
    "replace": "{{ ('a' * 9000).replace('a', 'b' * 90000) }}",
    "replace filter": "{{ ('a' * 9000) | replace('', 'b' * 90000) }}",
    "indent": "{{ ('\\n' * 9000) | indent(90000, true, true) }}",
    "wordwrap": "{{ ('a ' * 9000) | wordwrap(1, true, 'b' * 90000) }}",
    "tojson": "{{ [[1]] | tojson(indent=10**10) }}",
    "tojson of many": "{{ ([[1]] * 90000) | tojson(indent=90000) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice filter": "{{ [1] | slice(10**10) | list }}",
    "round": "{{ 5 | round(-10**10) }}",
    "sort": "{% set l = range(99999) | list %}{% for i in range(99999) %}{% set x = l | sort %}{% endfor %}",
    "date": "{{ strftime_now('%Y' * 90000) }}",
    "source": "a" * 2**18,
}
REFUSED = {
    "range": ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion depth"),
    "block in itself": ("{% block a %}{{ self.a() }}{% endblock %}", "recursion depth"),
    "loop in itself": ("{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "recursion depth"),
    "lipsum": ("{{ lipsum(10**9) }}", "undefined"),
    "urlize": ("{{ 'a' | urlize }}", "urlize"),
    "digits": ("{{ " + "9" * 5000 + " }}", "4300 digits"),
    "brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
    "lists written out": ("{{ " + "[" * 150 + "1" + "]" * 150 + " }}", "nested too deeply"),
    "negations": ("{{ " + "not " * 20000 + "1 }}", "nested too deeply"),
    "conditions": ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "nested too deeply"),
    "sums": ("{{ " + "+".join(["a"] * 20000) + " }}", "nested too deeply"),
    "filters": ("{{ a" + "|trim" * 20000 + " }}", "nested too deeply"),
    "include": ("{% include '/etc/passwd' %}", "no loader"),
    "import": ("{% import 'os' as os %}", "no loader"),
    "globals": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "namespace": ("{{ namespace().__init__ }}{{ namespace().a.b }}", "no attribute"),
    "words without end": ("{{ raise_exception('x' * 9000) }}", "xxx"),
}
SECRET = "__class__"
LEAKS = [
    "{{ ''|attr('__class__') }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ self._TemplateReference__context }}",
    "{{ namespace(a=1) }}",
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(marked_folder(tmp_path / "c"))


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the bounds."""
    monkeypatch.setattr(work, "WORK", work.WORK // 100)
    monkeypatch.setattr(work, "SECONDS", 0.3)


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_would_never_end_or_fill_the_memory(tokenizer: Tokenizer, name: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(ConfigError, match=r"^The chat template mine\.jinja .*; do not use it\.$") as caught:
        ChatTemplate.of("mine.jinja", TOO_MUCH[name] + CHATML, tokenizer)
    assert time.thread_time() - started < 15 and len(str(caught.value)) < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; bytes on macOS, where it is less


def test_lists_are_not_added_up_one_by_one(tokenizer: Tokenizer) -> None:
    """Each sum would copy all before it: a terabyte, at the bounds as they are."""
    source = "{{ ([[1]] * 900000) | sum(start=[]) | length }}"
    with pytest.raises(ConfigError, match="adds up lists one by one"):
        ChatTemplate.of("mine.jinja", source + CHATML, tokenizer)


def test_what_is_too_deep_is_not_weighed() -> None:
    """To hash a tuple of some ten thousand within each other ends the process."""
    deep: tuple[object, ...] = ()
    for _ in range(work.DEEPEST + 1):
        deep = (deep,)
    with work.within_bounds(0), pytest.raises(work.TooMuchError, match="nests values more than 100 deep"):
        work.weigh(deep)


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_is_refused_as_it_stands(tokenizer: Tokenizer, name: str) -> None:
    source, words = REFUSED[name]
    with pytest.raises(ConfigError, match=r"^mine\.jinja ") as caught:
        ChatTemplate.of("mine.jinja", source + CHATML, tokenizer)
    assert words in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("source", LEAKS)
def test_a_template_that_is_told_nothing(source: str) -> None:
    said = sandbox.render(source, 0)
    assert SECRET not in said and "<class" not in said and "object at" not in said, said


def test_the_bounds_as_they_are(tokenizer: Tokenizer) -> None:
    """Some seconds of work, on a machine of today; on a slow one the clock ends it."""
    started = time.thread_time()
    with pytest.raises(ConfigError, match=r"it may never end|takes more than 10 seconds"):
        ChatTemplate.of("mine.jinja", TOO_MUCH["loops"] + CHATML, tokenizer)
    assert time.thread_time() - started < 2 * work.SECONDS


@pytest.mark.usefixtures("lowered")
def test_a_conversation_that_makes_a_template_run_away(tokenizer: Tokenizer) -> None:
    """It behaves where it is tried, and not on a row: the command ends there, and not after each row."""
    source = "{% if messages|length > 4 %}" + TOO_MUCH["loops"] + "{% endif %}" + CHATML
    style = ChatTemplate.of("mine.jinja", source, tokenizer)
    assert style.exchanges(dialogue("a", "b"))
    with pytest.raises(ConfigError, match="it may never end"):
        style.exchanges(dialogue(*"abcdef"))


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("source", [CHATML, THINKING, TOOLS])
def test_a_long_conversation_is_no_attack(tokenizer: Tokenizer, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the work is enough for a hundred turns, and for a text of a megabyte."""
    monkeypatch.setattr(work, "SECONDS", 10.0)  # the clock of a slow machine is another matter
    style = ChatTemplate.of("mine.jinja", source, tokenizer)
    assert len(style.exchanges(dialogue(*["a b c d"] * 100))) == 50
    (told,) = style.exchanges(dialogue("a" * 2**20, "b"))
    assert "".join(piece.text for piece in told.answer).endswith("b")
