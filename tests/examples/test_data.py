"""The corpus, the readers and the tokens of the intent classifier."""

import csv
import io
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from examples.intent import data
from examples.intent.errors import UserError
from examples.intent.text import Vocabulary, tokenize

LINES = {
    "time": ["what time is it", "tell me the time", "time please", "现在几点了", "几点啦", "the time now"],
    "lights": ["turn on the lights", "lights on", "switch the lamp on", "开灯", "把灯打开", "light up the room"],
    "music": ["play some music", "play a song", "put on some jazz", "放首歌", "来点音乐", "play the next song"],
}


def write_tsv(path: Path, rows) -> Path:
    path.write_text("".join(f"{text}\t{label}\n" for label, texts in rows for text in texts), encoding="utf-8")
    return path


# The bundled corpus.


def normalize(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNMS")


def test_the_bundled_corpus_is_as_its_readme_says():
    corpus = data.load()
    splits = (corpus.train, corpus.valid, corpus.test)
    counts = Counter(e.label for split in splits for e in split)
    assert len(counts) >= 24
    assert min(counts.values()) >= 60
    texts = [normalize(e.text) for split in splits for e in split]
    assert len(texts) == len(set(texts))
    assert [e.label for e in corpus.test if e.text == "what time is it ?"] == ["get_time"]
    assert corpus.warnings == []


# Readers.

BAD = {
    "train.tsv:2: needs text<TAB>label": ("train.tsv", "hello\tgreet\nhello greet\n"),
    "train.tsv:1: the text is empty": ("train.tsv", " \u200b\tgreet\n"),
    "train.tsv:2: the label is empty": ("train.tsv", "hi\tgreet\nhello\t\n"),
    "train.tsv:2: not UTF-8": ("train.tsv", b"hello\tgreet\n\xff\tgreet\n"),
    "train.csv:1: needs a header that names": ("train.csv", "words,label\nhi,greet\n"),
    "train.csv:4: needs 2 fields": ("train.csv", 'text,label\n"two\nlines",greet\nhi\n'),
    "train.csv:2: invalid CSV": ("train.csv", 'text,label\n"hi"x,greet\n'),
    "train.jsonl:2: invalid JSON": ("train.jsonl", '{"text": "hi", "label": "greet"}\n{"text"\n'),
    'train.jsonl:1: needs {"text": ..., "label": ...}': ("train.jsonl", '{"text": "hi"}\n'),
    "train.jsonl:1: text and label must be strings": ("train.jsonl", '{"text": 3, "label": "greet"}\n'),
    "train has no examples": ("train.tsv", ""),
    "no train file; the folder has other.txt": ("other.txt", "hi"),
    "data_full.json:1: invalid JSON": ("data_full.json", "{"),
    "needs a list 'train' of": ("data_full.json", "{}"),
    "data_full.json: invalid JSON": ("data_full.json", "[" * 100_000),
    "train.jsonl:1: invalid JSON": ("train.jsonl", "[" * 100_000),
    "train.csv:1: not UTF-8: it has a NUL": ("train.csv", "text,label\nhi,greet\n".encode("utf-16-be")),
    "train.csv:1: ambiguous columns: label or intent": ("train.csv", "text,label,intent\nhi,1,greet\n"),
    "train.csv:3: repeats the header": ("train.csv", "text,label\nhi,greet\ntext,label\n"),
    "train.tsv:1: needs a header that names": ("train.tsv", "question\tcategory\nhi\tgreet\n"),
    "needs two intents or more; got greet alone": ("train.tsv", "hi\tgreet\n" * 9),
    "valid has no examples, since no intent has enough": ("train.tsv", "hi\tgreet\nbye\tleave\n"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_data_is_reported_with_file_and_line(tmp_path, message):
    name, content = BAD[message]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        data.load(tmp_path)
    assert message in str(error.value)


def test_a_missing_folder_and_an_unknown_label_are_reported(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        data.load(tmp_path / "nowhere")
    write_tsv(tmp_path / "train.tsv", LINES.items())
    (tmp_path / "test.tsv").write_text("hi\tgreet\nlights on\tlights\n")
    with pytest.raises(UserError, match=r"test\.tsv:1: unknown label 'greet'"):
        data.load(tmp_path)
    corpus = data.load(tmp_path, skip_bad_lines=True)
    assert [e.label for e in corpus.test] == ["lights"]
    assert any("skipped" in warning and "test.tsv:1" in warning for warning in corpus.warnings)


def as_csv(rows):
    out = io.StringIO()
    csv.writer(out).writerows([("text", "category"), *((text, label) for label, texts in rows for text in texts)])
    return out.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for label, texts in rows for text in texts)


@pytest.mark.parametrize(("name", "form"), [("own.csv", as_csv), ("own.jsonl", as_jsonl)])
def test_one_file_is_split_by_intent(tmp_path, name, form):
    (tmp_path / name).write_text(form(LINES.items()), encoding="utf-8")
    corpus = data.load(tmp_path / name)
    assert Counter(e.label for e in corpus.test) == dict.fromkeys(LINES, 1)
    assert Counter(e.label for e in corpus.valid) == dict.fromkeys(LINES, 1)
    texts = [e.text for part in (corpus.train, corpus.valid, corpus.test) for e in part]
    assert sorted(texts) == sorted(text for texts in LINES.values() for text in texts)
    assert data.load(tmp_path / name) == corpus


def table(delimiter, header, columns=(0, 1), end="\n"):
    """Return LINES as a table with a header. Column 0 is the text, 1 the label, 2 the index of pandas."""
    rows = [(text, label) for label, texts in LINES.items() for text in texts]
    cells = [header, *([(*row, str(i))[c] for c in columns] for i, row in enumerate(rows))]
    return "".join(delimiter.join(row) + end for row in cells)


TABLES = {
    "header.tsv": table("\t", ("text", "label")),
    "swapped.tsv": table("\t", ("Intent", "Utterance"), (1, 0)),
    "pandas.tsv": table("\t", ("", "text", "label"), (2, 0, 1)),
    "pandas.csv": table(",", ("", "text", "label"), (2, 0, 1)),
    "semicolon.tsv": table(";", ("text", "label")),
    "spreadsheet.csv": b"\xef\xbb\xbf" + (table(";", ("Text", "Label"), end="\r\n") + ";\r\n").encode(),
    "unicode.csv": table("\t", ("text", "label"), end="\r\n").encode("utf-16"),
    "blank.tsv": "\n\n" + table("\t", ("query", "class")),
    "mac.tsv": table("\t", ("text", "label"), end="\r"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_header_is_not_an_example(tmp_path, name):
    content = TABLES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    corpus = data.load(tmp_path / name)
    found = {(e.text, e.label) for part in (corpus.train, corpus.valid, corpus.test) for e in part}
    assert found == {(text, label) for label, texts in LINES.items() for text in texts}


def test_quotes_are_parsed_only_in_tables_with_a_header(tmp_path):
    (tmp_path / "train.tsv").write_text('text\tlabel\n"say ""hi"""\tgreet\n"say\nbye"\tleave\n')
    (tmp_path / "valid.tsv").write_text('"say ""hi"""\tgreet\nwhat class ?\tleave\n')
    (tmp_path / "test.tsv").write_text("class\tleave\nthe class\tgreet\n")
    corpus = data.load(tmp_path)
    assert [e.text for e in corpus.train] == ['say "hi"', "say bye"]
    assert [e.text for e in corpus.valid] == ['"say ""hi"""', "what class ?"]
    assert [e.text for e in corpus.test] == ["class", "the class"]


def test_problems_of_a_corpus_are_warnings(tmp_path):
    rows = [("frage", "klasse"), ("Play it", "play"), ("play IT", "Stop"), ("stop", "stop"), ("halt", "stop")]
    (tmp_path / "train.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    for split in ("valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("STOP\tstop\nhalt\tplay\nnew\tstop\n")
    clean = "\n".join(data.load(tmp_path).warnings).replace(str(tmp_path), "")
    for warning in (
        "1 text of train with conflicting labels, e.g. 'Play it': Stop (/train.tsv:3), play (/train.tsv:2)",
        "different intents with similar names: 'Stop' and 'stop'",
        "3 of 4 intents with a single example in train, e.g. 'klasse' (/train.tsv:1; is that a header?)",
        "2 of 4 intents with no example in test, e.g. 'Stop'",
        "2 of 3 valid texts also occur in train, 1 of them with another intent",
        "2 of 3 test texts also occur in train, 1 of them with another intent",
    ):
        assert warning in clean
    (tmp_path / "test.tsv").write_text("st op\tStO-p\n")
    with pytest.raises(UserError, match=r"unknown label 'StO-p': train has '[Ss]top'"):
        data.load(tmp_path)


def test_the_layouts_of_clinc150_and_snips(tmp_path):
    pairs = [[text, label] for label, texts in LINES.items() for text in texts]
    document = {"train": pairs, "val": pairs[:3], "test": pairs[3:6], "oos_test": [["why is the sky blue", "oos"]]}
    (tmp_path / "data_full.json").write_text(json.dumps(document))
    corpus = data.load(tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test), len(corpus.out_of_scope)) == (18, 3, 3, 1)
    for split in ("train", "valid", "test"):
        (tmp_path / "snips" / split).mkdir(parents=True)
        for file, column in (("seq.in", 0), ("label", 1)):
            (tmp_path / "snips" / split / file).write_text("".join(pair[column] + "\n" for pair in pairs))
    assert len(data.load(tmp_path / "snips").test) == 18


# Tokens.


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("what time is it ?", ["what", "time", "is", "it", "?"]),
        ("WHAT'S the Time", ["what", "'s", "the", "time"]),
        ("现在几点了？", ["现", "在", "几", "点", "了", "?"]),
        ("7:30am ﬁne", ["7", ":", "30", "am", "fine"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ok👍🏽❤️👩‍👩‍👧🇫🇷", ["ok", "👍🏽", "❤️", "👩‍👩‍👧", "🇫🇷"]),
        ("\ufeffa\u200b b\x00", ["a", "b"]),
        ("\ud800 \u200d", []),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


def test_unknown_words_have_stable_ngrams():
    vocabulary = Vocabulary.of(["what time is it"])
    known, unknown = (vocabulary.bag(word) for word in ("time", "times"))
    assert known[0] > 0
    assert unknown[0] == 0
    assert set(known[1:]) & set(unknown[1:]) - {0}
    assert max(unknown) < len(vocabulary)
    assert vocabulary.ids("").shape == (0, vocabulary.width)
    words = Vocabulary.of(["stop !", "50 % off", "???", "\U0001f44d", "3 + 4"]).words
    assert words == ("+", "3", "4", "50", "?", "off", "stop", "\U0001f44d")
    assert Vocabulary(()).bag("it")[:4] == [0, 46, 6373, 10740]
