"""Fuzzing of `load`: mutants of an ONNX file are converted, or rejected with a short ValueError."""

import jax
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is an extra")
interop = pytest.importorskip("jaxrnn.interop.onnx", reason="it needs onnx")
from .onnx_nodes import a_model  # noqa: E402  # it needs onnx

EXTREMES = [0, 1, 127, 128, 255, b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80" * 12]


INTEGERS = [-1, 0, 1, 2, 3, 6, 7, 8, 10, 11, 16, 2**31 - 1]
WORDS = [
    "",
    "X",
    "gru_W",
    "lstm_R",
    "lstm_P",
    "LSTM",
    "GRU",
    "RNN",
    "Loop",
    "Constant",
    "bidirectional",
    "reverse",
    "Elu",
]
WORDS += ["clip", "activations", "layout", "hidden_size", "input_forget", "value", "/etc/passwd", "ai.onnx", "x" * 999]


def tampered(rng, message):
    """Change one field within a message: replace, clear, repeat or copy a value."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = fields[rng.integers(len(fields))]
    whole = rng.integers(12) == 0
    if whole or (field.is_repeated and not len(value)):
        message.ClearField(field.name)
    elif field.is_repeated:
        at = int(rng.integers(len(value)))
        if field.type != field.TYPE_MESSAGE:
            value[at] = other_value(rng, field, value[at])
        elif rng.integers(4):
            tampered(rng, value[at])
        elif rng.integers(2):
            del value[at]
        else:
            value.add().CopyFrom(value[rng.integers(len(value))])
    elif field.type == field.TYPE_MESSAGE:
        tampered(rng, value)
    else:
        setattr(message, field.name, other_value(rng, field, value))


def other_value(rng, field, value):
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        word = WORDS[rng.integers(len(WORDS))]
        if field.type == field.TYPE_STRING:
            return word
        return [word.encode(), value[: rng.integers(len(value) + 1)], rng.bytes(len(value))][rng.integers(3)]
    if field.type == field.TYPE_ENUM:
        return int(rng.integers(3))
    return INTEGERS[rng.integers(len(INTEGERS))]


def mutant(rng, content, other):
    """Return a file with one to four changes: bytes, varints at their limits, parts removed, repeated or replaced."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(content) or 1))
        end = at + int(rng.integers(1, 40))
        match int(rng.integers(6)):
            case 0:
                content[at:end] = b""
            case 1:
                content[at:at] = content[at:end] * int(rng.integers(1, 9))
            case 2:
                content[at:end] = other[at:end]
            case 3:
                del content[at if rng.integers(4) == 0 else len(content) :]
            case _:
                value = EXTREMES[rng.integers(len(EXTREMES))] if rng.integers(2) else int(rng.integers(256))
                content[at : at + 1] = value if isinstance(value, bytes) else bytes([value])
    return bytes(content)


def changed(rng):
    """Return a model with one to three changed fields."""
    model = a_model()
    for _ in range(rng.integers(1, 4)):
        places = [model, *model.graph.node, *model.graph.initializer]
        tampered(rng, places[rng.integers(len(places))])
    return model.SerializeToString()


def survey(count, folder, seed=0):
    """Load `count` mutants; return the number converted, the number rejected, and the length of the longest message."""
    rng = np.random.default_rng(seed)
    content, other = a_model().SerializeToString(), a_model().SerializeToString()[::-1]
    path, converted, longest = folder / "model.onnx", 0, 0
    for _ in range(count):
        path.write_bytes(mutant(rng, content, other) if rng.integers(2) else changed(rng))
        try:
            layers = interop.load(path)
        except ValueError as error:
            longest = max(longest, len(str(error)))
        else:
            converted += 1
            for layer in layers.values():
                assert all(np.isfinite(a).all() for a in jax.tree.leaves((layer.params, layer.state)))
    return converted, count - converted, longest


def test_mutants_raise_no_other_error(tmp_path):
    converted, rejected, longest = survey(150, tmp_path)
    assert min(converted, rejected) > 10
    assert longest < 300
