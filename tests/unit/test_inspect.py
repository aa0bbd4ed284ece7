"""`litft inspect`: which token is what, what is counted, which rows are chosen, the page, and what is refused."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tokenizers
import torch
from tiny_rows import write_lines
from tiny_text import EOS, byte_tokenizer, with_markers, write_checkpoint

from litft import demo
from litft.cli import main
from litft.config.inspect import InspectConfig
from litft.config.io import load_yaml
from litft.config.prepare import PrepareFileConfig
from litft.data.batches import Batching, epoch_order, iter_micro_batches
from litft.data.encode import Encoding, Example
from litft.data.inspect import inspect, view_of
from litft.data.listing import iter_lines
from litft.data.overview import facts_of, ledger_of, mixture_of, shares_of
from litft.data.page import page_of
from litft.data.prepare import prepare
from litft.data.store import DTYPES, PreparedData, save_prepared
from litft.data.view import View
from litft.text.conversation import Conversation, Message, completion, dialogue, document
from litft.text.encoding import Style, encode_exchanges, text_of_end
from litft.text.frames import END, PROMPT, TARGET, TEMPLATE, Frames
from litft.text.styles import ALPACA, PLAIN, STYLES
from litft.text.token_texts import TokenReader
from litft.text.tokenizer import Tokenizer

CHATML = STYLES["chatml"]

# The answer to the last question alone gets a thought before it.
TURNS = """\
{%- for message in messages -%}
{{- '<|turn|>' + message.role[0] + ':' -}}
{%- if loop.last and message.role == 'assistant' -%}{{- '(so)' -}}{%- endif -%}
{{- message.content + '</s>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn|>a:' -}}{%- endif -%}"""

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be\tkind."},
    {"role": "user", "content": "Hi </s>"},
    {"role": "assistant", "content": "Hé"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So\nlong"},
]
SHORT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<script>alert('&')</script>"}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in an empty folder with a checkpoint that knows the marks of ChatML and of `TURNS`."""
    monkeypatch.chdir(tmp_path)
    made = with_markers(byte_tokenizer(), CHATML)
    made.add_special_tokens([tokenizers.AddedToken("<|turn|>", special=True)])
    return write_checkpoint(Path("checkpoints/acme/tiny"), tokenizer=made)


def prepared(folder: Path, rows: list[Any], **options: Any) -> Path:
    """Prepares rows of messages, none held out unless asked for."""
    path = write_lines(Path("rows.jsonl"), *({"messages": row} for row in rows))
    given = {"checkpoint_dir": folder, "data_file": path, "destination_path": Path("data/mine")}
    prepare("messages", PrepareFileConfig(**{**given, "test_split_fraction": 0.0, "prompt_style": "chatml", **options}))
    return Path("data/mine")


def text_of(view: View) -> str:
    return "".join(iter_lines(view, in_colour=False))


def rows_in(text: str) -> str:
    """Gives the part of the lines that shows rows."""
    return text.split("next token.\n")[1]


GOLDEN_CHATML = """
row 0, messages: 80 tokens, 12 with loss
  template     0   │«<s>»│«<|im_start|>»│s│y│s│t│e│m│↵│
  prompt       9   │B│e│⇥│k│i│n│d│.│
  template    17   │«<|im_end|>»│↵│«<|im_start|>»│u│s│e│r│↵│
  prompt      25   │H│i│ │<│/│s│>│
  template    32   │«<|im_end|>»│↵│«<|im_start|>»│a│s│s│i│s│t│a│n│t│↵│
  target      45 * │H│…│é│
  end         48 * │«<|im_end|>»│
  template    49   │↵│«<|im_start|>»│u│s│e│r│↵│
  prompt      56   │B│y│e│
  template    59   │«<|im_end|>»│↵│«<|im_start|>»│a│s│s│i│s│t│a│n│t│↵│
  target      72 * │S│o│↵│l│o│n│g│
  end         79 * │«<|im_end|>»│
"""


def test_a_named_style_token_by_token(folder: Path) -> None:
    shown = rows_in(text_of(view_of(InspectConfig(data_dir=prepared(folder, [TALK])))))
    assert shown == GOLDEN_CHATML


GOLDEN_TURNS = """
row 0, messages: 52 tokens, 16 with loss
  template     0   │«<|turn|>»│s│:│
  prompt       3   │B│e│⇥│k│i│n│d│.│
  template    11   │«</s>»│«<|turn|>»│u│:│
  prompt      15   │H│i│ │<│/│s│>│
  template    22   │«</s>»│«<|turn|>»│a│:│
  target      26 * │H│…│é│
  end         29 * │«</s>»│
  template    30   │«<|turn|>»│u│:│
  prompt      33   │B│y│e│
  template    36   │«</s>»│«<|turn|>»│a│:│
  target      40 * │(│s│o│)│S│o│↵│l│o│n│g│
  end         51 * │«</s>»│
"""


def test_a_chat_template_token_by_token(folder: Path) -> None:
    Path("turns.jinja").write_text(TURNS)
    data_dir = prepared(folder, [TALK], prompt_style="turns.jinja")
    assert rows_in(text_of(view_of(InspectConfig(data_dir=data_dir)))) == GOLDEN_TURNS


# --- which token is what ---


def named(tokenizer: Tokenizer, style: Style, example: Example) -> tuple[list[str], int | None]:
    """Gives the kind of each token of a row, and where the frame was lost."""
    return Frames(tokenizer, style).name(TokenReader(tokenizer).read(example.input_ids), example.mask)


def wanted(tokenizer: Tokenizer, style: Style, conversation: Conversation) -> list[str]:
    """Gives the kinds as the style itself says them, by the pieces of its exchanges."""
    exchanges, kinds, before = style.exchanges(conversation), [], ""
    for exchange, (prompt, answer) in zip(exchanges, encode_exchanges(tokenizer, [exchanges])[0], strict=True):
        owners = [piece.message for piece in exchange.prompt for _ in piece.text]
        spans = tokenizer.spans(exchange.prompt, "" if exchange.bos else before)
        of_prompt = [TEMPLATE if owners[begin] is None else PROMPT for begin, _ in spans]
        kinds += [TEMPLATE] * (len(prompt) - len(spans)) + of_prompt + [TARGET] * (len(answer) - 1) + [END]
        before = text_of_end(tokenizer, exchange)
    return kinds


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_the_frame_of_every_style_is_told_from_what_people_wrote(tmp_path: Path, style: Style) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path, tokenizer=with_markers(byte_tokenizer(), style)))
    for talk in (
        dialogue("Name two.", "2, 3"),
        dialogue("Once", "a é", "Twice", " b ", "Thrice", "c", system="Short."),
    ):
        example = Encoding(tokenizer, style).example(talk)
        kinds, unknown = named(tokenizer, style, example)
        texts = [token.text for token in TokenReader(tokenizer).read(example.input_ids)]
        both = zip(kinds, wanted(tokenizer, style, talk), texts, strict=True)
        # Spaces alone between a system text and a question could be either's.
        wrong = [each for each in both if each[0] != each[1] and (each[:2] != (PROMPT, TEMPLATE) or each[2].strip())]
        assert unknown is None and wrong == []
        if style is not PLAIN:  # which has no frame: without a mask nobody can tell
            everything = Encoding(tokenizer, style, train_on="all").example(talk)
            assert named(tokenizer, style, everything) == (kinds, None)


def test_loss_and_kind_are_two_things(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    silent = Conversation((Message("user", "a"), Message("assistant", "b", learn=False), *dialogue("c", "d").messages))
    for encoding in (Encoding(tokenizer, CHATML), Encoding(tokenizer, CHATML, train_on="last")):
        talk = silent if encoding.train_on == "completions" else dialogue("a", "b", "c", "d")
        kinds, _ = named(tokenizer, CHATML, encoding.example(talk))
        assert (kinds.count("answer"), kinds.count(TARGET), kinds.count(END)) == (1, 1, 2)
    users = Encoding(tokenizer, CHATML, train_on="user,assistant").example(dialogue("a", "b"))
    kinds, _ = named(tokenizer, CHATML, users)
    assert [kind for kind, learned in zip(kinds, users.mask, strict=True) if learned] == [PROMPT, TARGET, END]


def test_an_input_stands_between_frames(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    talk = completion("a", "b", "c")
    assert named(tokenizer, ALPACA, Encoding(tokenizer, ALPACA).example(talk)) == (
        wanted(tokenizer, ALPACA, talk),
        None,
    )


def test_what_no_frame_fits_is_said(folder: Path) -> None:
    data_dir = prepared(folder, [SHORT])
    data = PreparedData.load(data_dir / "train.pt")
    tensors = {name: getattr(data, name) for name in DTYPES}
    save_prepared(Path("new.pt"), **tensors, meta={**data.meta, "prompt_style": ALPACA.to_dict()})
    Path("new.pt").replace(data_dir / "train.pt")
    [row] = view_of(InspectConfig(data_dir=data_dir)).rows
    lost = "the frame of the prompt style was not found from position 0 on: all of it counts as prompt"
    assert row.notes[-1] == lost and f"  note: {lost}" in text_of_row(row)
    assert set(row.kinds) == {TEMPLATE, PROMPT, TARGET}


def test_a_text_that_nobody_asked_for_has_no_frame(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    kinds, _ = named(tokenizer, CHATML, Encoding(tokenizer, CHATML).example(document("ab")))
    assert kinds == [TEMPLATE, TARGET, TARGET, END]
    Path("texts.jsonl").write_text('{"text": "ab"}')
    given = {"checkpoint_dir": folder, "data_file": Path("texts.jsonl"), "destination_path": Path("data/texts")}
    prepare("text", PrepareFileConfig(**given))
    [row] = view_of(InspectConfig(data_dir=Path("data/texts"))).rows
    assert row.notes == [] and row.kinds == kinds


def test_a_row_that_was_cut_says_so(folder: Path) -> None:
    long = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "long " * 30}]
    data_dir = prepared(folder, [long, SHORT], max_seq_length=90, too_long="truncate_response")
    notes = [row.notes for row in view_of(InspectConfig(data_dir=data_dir)).rows]
    assert notes == [["cut, or never ended: its last token is none at which generation stops"], []]


def test_characters_over_several_tokens_and_unseen_ones(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    [ids] = tokenizer.encode_batch(["a漢\x1b\u202e\ufffdb"])
    tokens = TokenReader(tokenizer).read([*ids, EOS, ids[1]])
    assert "".join(token.text for token in tokens if not token.is_special) == "a漢\x1b\u202e\ufffdb\ufffd"
    assert [token.is_open for token in tokens[:4]] == [False, True, True, False]
    [row] = view_of(InspectConfig(data_dir=prepared(folder, [dialogue_of("q", "\x1b[31m\u202e")]))).rows
    assert "\\x1b│[│3│1│m│…│…│\\u202e" in text_of_row(row)


def dialogue_of(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def text_of_row(row: Any) -> str:
    view = View("", [], [], [("1", 1)], None, "", [row])
    return text_of(view)


# --- what is counted ---


def test_the_ledger_stands_as_the_manifest_has_it(folder: Path) -> None:
    view = view_of(InspectConfig(data_dir=prepared(folder, [TALK, SHORT, SHORT])))
    ledger = view.tables[0]
    assert ledger.head == ("", "messages")
    assert ("rows read", "3") in ledger.rows and ("rows duplicate", "1") in ledger.rows
    assert ("stop token fraction", "100.0%") in ledger.rows
    assert "messages: answers found by: frame: 3" in ledger.notes
    assert ("prompt style", "chatml") in view.facts and ("too long", "truncate_prompt") in view.facts
    assert sum(count for _, count in view.lengths) == 2
    assert "  rows duplicate" in text_of(view)


def test_the_ledgers_of_a_mix_lie_deeper() -> None:
    manifest = {
        "parts": [{"data_dir": "data/a", "rows": 3, "rows_taken": 2, "rows_different": 2, "target_tokens_taken": 9}],
        "sources": {
            "data/a": {"alpaca": {"rows_read": 1200}},
            "data/b": {"lima": {"rows_read": 7, "rows_cut_prompt": 1}},
        },
    }
    ledger = ledger_of(manifest)
    assert ledger.head == ("", "data/a/alpaca", "data/b/lima") and ledger.rows[0] == ("rows read", "1,200", "7")
    assert ledger.rows[1] == ("rows cut prompt", "-", "1") and "do not say which 1" in ledger.notes[-1]
    [shares] = shares_of(manifest)
    assert shares.head == ("", "data/a") and ("rows taken", "2") in shares.rows
    assert "There is none" in ledger_of({}).notes[0] and shares_of({}) == []


def test_the_mixture_is_counted_in_the_rows(tmp_path: Path) -> None:
    save_prepared(
        tmp_path / "train.pt",
        input_ids=torch.arange(10),
        target_mask=torch.tensor([0, 1, 0, 1, 1, 0, 1, 1, 1, 1]).bool(),
        offsets=torch.tensor([0, 2, 5, 10]),
        source=torch.tensor([1, 0, 1]),
        meta={"source_names": ["a", "b"]},
    )
    assert mixture_of([PreparedData.load(tmp_path / "train.pt")]).rows == [
        ("train.pt a", "1", "33.3%", "3", "2", "28.6%"),
        ("train.pt b", "2", "66.7%", "7", "5", "71.4%"),
    ]


def test_a_step_is_the_loops(folder: Path) -> None:
    data_dir = prepared(folder, [dialogue_of("q" * size, "ab") for size in range(1, 20)])
    data = PreparedData.load(data_dir / "train.pt")
    batches = {"global_batch_size": 8, "micro_batch_size": 4, "seed": 5}
    view = view_of(InspectConfig(data_dir=data_dir, step=4, **batches))  # type: ignore[arg-type]
    rows = epoch_order(19, 5, 1)[8:16].tolist()
    expected = list(iter_micro_batches(data, rows, Batching(4, int(data.meta["max_seq_length"]), packed=True)))
    assert view.step is not None
    assert [batch.width for batch in view.step.batches] == [each.input_ids.shape[1] for each in expected]
    assert f"{sum(batch.padding_tokens for batch in expected)} positions of padding" in view.step.summary
    assert [[row for row, _ in batch.rows] for batch in view.step.batches] == [list(batch.rows) for batch in expected]
    row, stretches = view.step.batches[0].rows[0]
    assert sum(each.length for each in stretches if each.is_learned) == int(data.row(row)[1].sum())
    in_order = view_of(InspectConfig(data_dir=data_dir, shuffle=False, global_batch_size=2))
    assert in_order.step is not None and {row for row, _ in in_order.step.batches[0].rows} == {0, 1}
    padded = view_of(InspectConfig(data_dir=data_dir, pack="padded", step=4, **batches))  # type: ignore[arg-type]
    assert padded.step is not None and [len(batch.rows) for batch in padded.step.batches] == [4, 4]


def test_the_last_step_of_lengths_ends_at_the_longest(folder: Path) -> None:
    data_dir = prepared(folder, [dialogue_of("q", "a" * 470), dialogue_of("q", "a")])
    view = view_of(InspectConfig(data_dir=data_dir))
    longest = max(len(row.tokens) for row in view.rows)
    assert longest % 20 and view.lengths[-1][0].endswith(f"-{longest}") and view.lengths[-1][1] == 1


def test_the_page_begins_with_the_shortest_rows(folder: Path) -> None:
    view = view_of(InspectConfig(data_dir=prepared(folder, [dialogue_of("q" * 200, "a")])))
    bars = page_of(view).split('<ul class="bars">')[1].split("</ul>")[0]
    assert len(view.lengths) > 1 and bars.count("<li>") == 1


def test_a_step_beyond_one_epoch_names_the_epoch(folder: Path) -> None:
    data_dir = prepared(folder, [dialogue_of(f"q {size}", "a") for size in range(5)])
    view = view_of(InspectConfig(data_dir=data_dir, step=5000, global_batch_size=2))
    assert view.step is not None
    assert view.step.summary.startswith("step 5,000, counted from 0, in epoch 1,667 of 3 steps each: 1 rows")


def scored(folder: Path, scores: list[float], how: dict[str, str]) -> Path:
    """Prepares a row for each score, and gives it to them."""
    shutil.rmtree("data", ignore_errors=True)
    data_dir = prepared(folder, [dialogue_of(f"q {number}", "a") for number in range(len(scores))])
    data = PreparedData.load(data_dir / "train.pt")
    tensors = {name: getattr(data, name) for name in DTYPES}
    save_prepared(Path("new.pt"), **tensors, meta={**data.meta, "score": how}, score=torch.tensor(scores))
    Path("new.pt").replace(data_dir / "train.pt")
    return data_dir


def test_scores_are_shown(folder: Path) -> None:
    data_dir = scored(folder, [4.0, 1.0, torch.nan, 3.0, 2.0], {"kind": "judge", "meaning": "what it is worth"})
    view = view_of(InspectConfig(data_dir=data_dir))
    assert ("score", "judge: what it is worth") in view.facts
    assert ("scores", "min 1.000, quartiles 1.750 2.500 3.250, max 4.000; 1 rows without") in view.facts
    for shown in (text_of(view), page_of(view)):
        assert "with loss, score 4.000\n" in shown.replace("</h3>", "") and "with loss, no score" in shown
        assert "judge: what it is worth" in shown
    none = view_of(InspectConfig(data_dir=scored(folder, [torch.nan], {"kind": "column worth"})))
    assert none.facts[-2:] == [("score", "column worth"), ("scores", "1 rows without")]


def test_changes_of_rows_are_among_the_settings(folder: Path) -> None:
    data_dir = prepared(folder, [SHORT])
    manifest = load_yaml(data_dir / "manifest.yaml")
    data = PreparedData.load(data_dir / "train.pt")
    names = [name for name, _ in facts_of(data, manifest)]
    assert not {"option orders", "paraphrases", "score", "scores"} & set(names)
    facts = facts_of(
        data, {**manifest, "option_orders": 2, "paraphrases": ["Please {instruction}", "Now: {instruction}"]}
    )
    assert ("option orders", "2") in facts and ("paraphrases", "Please {instruction} | Now: {instruction}") in facts


# --- which rows, and with which tokenizer ---


def numbers(data_dir: Path, **options: Any) -> list[int]:
    return [row.number for row in view_of(InspectConfig(data_dir=data_dir, **options)).rows]


def test_rows_are_chosen(folder: Path) -> None:
    data_dir = prepared(folder, [dialogue_of(f"number {size}", "x" * size) for size in (3, 9, 1, 7, 5)])
    assert numbers(data_dir) == [0, 1, 2] and numbers(data_dir, limit=0) == []
    assert numbers(data_dir, example=(4, 0)) == [4, 0]
    assert numbers(data_dir, longest=2) == [1, 3]
    assert numbers(data_dir, grep="number [3-5]") == [0, 4]
    assert numbers(data_dir, grep="number [13]", longest=1) == [0]
    assert view_of(InspectConfig(data_dir=data_dir, grep="number", limit=1)).chosen == (
        'the first 1 of 5 rows that match "number"'
    )


def test_the_tokenizer_is_found_or_done_without(folder: Path) -> None:
    data_dir = prepared(folder, [SHORT])
    assert numbers(data_dir) == [0]  # among checkpoints/
    shutil.move("checkpoints", "elsewhere")
    said: list[str] = []
    view = view_of(InspectConfig(data_dir=data_dir), said.append)
    assert view.rows == [] and view.tables and said[0] == view.chosen
    assert "The rows are not shown" in view.chosen and "--checkpoint_dir FOLDER/tiny" in view.chosen
    assert numbers(data_dir, checkpoint_dir=Path("elsewhere/acme/tiny")) == [0]
    write_checkpoint(Path("checkpoints/other/tiny"))  # of the same name, but another tokenizer
    assert numbers(data_dir) == []


def test_the_tokenizer_is_found_where_the_model_was(folder: Path, tmp_path: Path) -> None:
    shutil.move("checkpoints", "elsewhere")
    place = Path("elsewhere/acme/tiny")
    for typed in (place, tmp_path / place):
        data_dir = prepared(typed, [SHORT], overwrite=True)
        manifest = (data_dir / "manifest.yaml").read_text()
        assert f"checkpoint_dir: {place}\n" in manifest and str(tmp_path) not in manifest
        assert numbers(data_dir) == [0]
    with TemporaryDirectory() as other:  # a path that tells of a machine is not written down
        shutil.move(place, Path(other) / "tiny")
        data_dir = prepared(Path(other) / "tiny", [SHORT], overwrite=True)
        assert other not in (data_dir / "manifest.yaml").read_text()
        assert numbers(data_dir) == []


def test_the_tokenizer_beside_the_data_comes_first(folder: Path) -> None:
    data_dir = prepared(folder, [SHORT])
    shutil.move(folder, data_dir / "tokenizer")
    other = write_checkpoint(Path("checkpoints/acme/other"), tokenizer=byte_tokenizer(("first",)))
    assert numbers(data_dir) == numbers(data_dir, checkpoint_dir=other) == [0]


def test_the_rows_that_were_held_out(folder: Path) -> None:
    data_dir = prepared(folder, [dialogue_of(f"q {size}", "a") for size in range(4)], test_split_fraction=0.25)
    view = view_of(InspectConfig(data_dir=data_dir, split="test"))
    assert view.step is None and len(view.rows) == 1 and view.title == "data/mine/test.pt"
    assert "One step" not in text_of(view) + page_of(view)


def test_rows_of_lit_gpt(folder: Path) -> None:
    ids = torch.tensor([0, 40, 41, 42, EOS])
    Path("lit").mkdir()
    torch.save([{"input_ids": ids, "labels": torch.tensor([-1, -1, -1, 42, EOS])}], "lit/train.pt")
    view = view_of(InspectConfig(data_dir=Path("lit"), checkpoint_dir=Path("acme/tiny")))
    assert view.rows[0].kinds == [TEMPLATE, PROMPT, PROMPT, TARGET, END] and view.rows[0].notes == []
    assert view.facts[0][0] == "written by" and "There is none" in text_of(view)
    assert view_of(InspectConfig(data_dir=Path("lit"))).rows == []


# --- where it goes ---


def test_colours_change_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = InspectConfig(data_dir=prepared(folder, [TALK]))
    plain = "".join(inspect(config))
    assert "\x1b" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = "".join(inspect(config))
    assert "\x1b[32;1m" in coloured and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert "".join(inspect(config)) == plain


class Outline(HTMLParser):
    """Reads a page: its tags in their order, those that are open, its links and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "input", "wbr"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_stands_alone_and_escapes(folder: Path) -> None:
    data_dir = prepared(folder, [TALK, SHORT])
    said: list[str] = []
    assert list(inspect(InspectConfig(data_dir=data_dir, html=Path("page.html")), said.append)) == []
    assert said == ["page.html: the first 2 of 2 rows"]
    text = Path("page.html").read_text(encoding="utf-8")
    page = Outline()
    page.feed(text)
    assert page.open == [] and not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.links and all(link.startswith("#") and f'id="{link[1:]}"' in text for link in page.links)
    assert not re.search(r"url\(|@import|https?:|//", text)
    assert "&lt;" in text and "<script" not in text and "alert('" not in text
    kinds = set(re.findall(r'<i class="(\w+)" style', text)) - {"read"}
    assert "others" in kinds and all(f".track i.{kind} {{" in text for kind in kinds)  # each looks like itself
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text and '<html lang="en">' in text
    for kind in ("template", "prompt", "target", "end"):  # in words, not by colour alone
        assert f"<b>{kind}</b>" in text
    assert "45-47, loss" in page.said and "rows read" in page.said and "micro-batch 0" in page.said


def test_a_page_replaces_a_page_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = str(prepared(folder, [SHORT]))
    words = ["inspect", data_dir, "--html", "page.html"]
    assert main(words) == 0 and main(words) == 0
    Path("page.html").write_text("<p>mine</p>")
    capsys.readouterr()
    assert main(words) == 2
    assert "no page of litft inspect" in capsys.readouterr().err and Path("page.html").read_text() == "<p>mine</p>"


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["data/mime"], ["data/mime", 'Did you mean "data/mine"']),
    (["data/mine/train.pt"], ["is a file", "name its folder, data/mine"]),
    (["data/mine", "--example", "2"], ["--example 2", "data/mine/train.pt has 2 rows", "from 0 to 1"]),
    (["data/mine", "--example", "one"], ["--example", '"one"', "[2]"]),
    (["data/mine", "--example", "0", "--longest", "1"], ["--example names rows"]),
    (["data/mine", "--grep", "("], ['grep is "("', "no regular expression"]),
    (["data/mine", "--grep", "zebra"], ["No row of data/mine/train.pt", '"zebra"', "(?i)"]),
    (["data/mine", "--longest", "0"], ["longest is 0", "at least 1"]),
    (["data/mine", "--longest", "many"], ["--longest", '"many"', "a whole number"]),
    (["data/mine", "--split", "test"], ["no test.pt", "--split"]),
    (["data/mine", "--split", "val"], ['"val"', "train or test"]),
    (["data/mine", "--html", "data"], ["data, which is a folder", "data/data.html"]),
    (["data/mine", "--html", "none/page.html"], ["no folder none"]),
    (["data/mine", "--step", "-1"], ["step is -1"]),
    (["data/mine", "--micro_batch_size", "3"], ["micro_batch_size is 3", "multiple"]),
    (["data/mine", "--max_seq_length", "9"], ["at most 9 tokens", "max_seq_length"]),
    (["data/mine", "--checkpoint_dir", "acme/tinny"], ['"acme/tinny"', 'Did you mean "acme/tiny"']),
    (["data/mine", "--checkpoint_dir", "acme/other"], ["was prepared with the tokenizer of tiny", "acme/other"]),
    (["data/mine", "--greb", "a"], ["--greb", 'Did you mean "--grep"']),
    (["data/mine", "data/more"], ['"data/more"', "belongs to no flag"]),
    ([], ["DATA_DIR must be given: litft inspect DATA_DIR;"]),
]


@pytest.mark.parametrize(("words", "contents"), MISTAKES, ids=lambda value: " ".join(value)[-40:])
def test_a_mistake_is_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], contents: list[str]
) -> None:
    prepared(folder, [TALK, SHORT])
    write_checkpoint(Path("checkpoints/acme/other"), tokenizer=byte_tokenizer(("first",)))
    capsys.readouterr()
    assert main(["inspect", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("litft: ") and shown.err.count("\n") == 1
    for content in contents:
        assert content in shown.err


def test_rows_need_a_tokenizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = str(prepared(folder, [SHORT]))
    shutil.rmtree("checkpoints")
    assert main(["inspect", data_dir, "--longest", "1"]) == 2
    assert "--checkpoint_dir" in capsys.readouterr().err
    assert main(["inspect", data_dir]) == 0
    assert "rows read" in capsys.readouterr().out


def test_the_frame_is_found_in_the_tokens_of_the_demos_model() -> None:
    tokenizer = Tokenizer(Path(demo.__file__).parent / "model")  # its decoder drops a space that single tokens keep
    asked = Conversation((Message("user", "Give the plural.", "parrot"), Message("assistant", "parrots")))
    [[(prompt, answer)]] = encode_exchanges(tokenizer, [ALPACA.exchanges(asked)])
    ids, mask = [*prompt, *answer], [False] * len(prompt) + [True] * len(answer)
    kinds, unknown = Frames(tokenizer, ALPACA).name(TokenReader(tokenizer).read(ids), mask)
    assert unknown is None and kinds.count(TARGET) == 1 and kinds[-1] == END
    assert set(kinds[:10]) == {TEMPLATE} and kinds.count(PROMPT) == 5
