"""How a prediction forms: the answer after each token, what each token adds, and which tokens a state still carries."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .classifier import Classifier
from .errors import UserError
from .lettering import legible, lettered
from .terminal import short
from .text import tokenize

LEADING = 5
MOST_TOKENS = 40
ROOMY = 14  # so many tokens leave room for numbers
COLOURS = ("#2f5d8a", "#d9822b", "#5b8c5a", "#a64d79", "#8a7f4b")
REST = "#d6d6d6"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A prediction, token by token.

    Args:
        tokens: T of them.
        labels: the names of the K intents.
        answers: (T, K), after each token.
        adds: (T,), by how much the answer's probability falls without each token.
        memory: (T, T), the norm of the Jacobian of h_t, what the layers put out, by x_s, the token's vector.
        none: whether the text is answered by none.
    """

    tokens: list[str]
    labels: tuple[str, ...]
    answers: np.ndarray
    adds: np.ndarray
    memory: np.ndarray
    none: bool

    @classmethod
    def of(cls, classifier: Classifier, text: str) -> Explanation:
        """Explain; raises UserError for a text of no token, or of more than can be drawn."""
        tokens = tokenize(text)
        if not 0 < len(tokens) <= MOST_TOKENS:
            raise UserError(f"an explanation has room for 1 to {MOST_TOKENS} tokens; got {len(tokens)}")
        logits = classifier.prefixes(text)
        answers, none = classifier.calibration.probabilities(logits), classifier.calibration.unknown(logits)
        best = answers[-1].argmax()
        adds = answers[-1, best] - classifier.without(text)[:, best]
        return cls(tokens, classifier.labels, answers, adds, classifier.memory(text), bool(none[-1]))

    def as_json(self) -> dict[str, Any]:
        """Give what JSON can hold: of each token what it adds, the likeliest intents after it, and a row of memory."""
        steps = []
        for token, answer, added, row in zip(self.tokens, self.answers, self.adds, self.memory, strict=True):
            best = {self.labels[i]: round(float(answer[i]), 4) for i in np.argsort(-answer)[:LEADING]}
            memory = [round(float(norm), 4) for norm in row]
            steps.append({"token": token, "adds": round(float(added), 4), "best": best, "memory": memory})
        return {"intent": None if self.none else self.best, "steps": steps}

    @property
    def best(self) -> str:
        """Return the likeliest intent."""
        return self.labels[self.answers[-1].argmax()]


def draw(explanation: Explanation, text: str, path: Path) -> Path:
    """Write the PNG."""
    answers, count = explanation.answers, len(explanation.tokens)
    family, shown = legible(
        [*explanation.tokens, *(short(label, 40) for label in explanation.labels), " ".join(text.split())]
    )
    names, labels, title = shown[:count], shown[count:-1], shown[-1]
    with lettered(family):
        letter = 0.11 if len(names) <= ROOMY else 0.08  # inches
        width = max(9.5, 2.5 + len(names) * max(0.62, letter * max(len(short(name)) for name in names)))
        figure = Figure(figsize=(width, 11), layout="constrained", dpi=130)
        (above, key), (middle, nothing), (below, scale) = figure.subplots(
            3, 2, height_ratios=(1, 0.4, 1.15), width_ratios=(1, 0.018 * 12 / width)
        )
        best = f"{'none, nearest: ' if explanation.none else ''}{labels[answers[-1].argmax()]}  {answers[-1].max():.1%}"
        figure.suptitle(f"“{short(title, 70)}”\n{best}", fontsize=15)
        key.legend(
            *_draw_answers(above, answers, labels, names), loc="center left", bbox_to_anchor=(-1, 0.5), frameon=False
        )
        _draw_adds(middle, explanation.adds, names)
        for axes in (key, nothing):
            axes.set_axis_off()
        figure.colorbar(_draw_memory(below, explanation.memory, names), cax=scale, label="norm of ∂hₜ / ∂xₛ")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def _draw_answers(axes: Any, answers: np.ndarray, labels: list[str], names: list[str]) -> tuple[list[Any], list[str]]:
    """Draw a stacked bar a token: the leading intents after the last one, and the rest in grey; return what to list."""
    leading = np.argsort(-answers[-1])[: min(LEADING, len(labels))]
    steps, bottom = np.arange(len(names)), np.zeros(len(names))
    bars = []
    for colour, label in zip(COLOURS, leading, strict=False):
        bars.append(axes.bar(steps, answers[:, label], 0.7, bottom, color=colour, edgecolor="white", lw=0.6))
        bottom += answers[:, label]
    bars.append(axes.bar(steps, np.clip(1 - bottom, 0, 1), 0.7, bottom, color=REST, edgecolor="white", lw=0.6))
    for step, answer in enumerate(answers):
        named = labels[answer.argmax()]
        axes.text(step, 1.02, f"{named if len(names) <= 8 else ''}\n{answer.max():.0%}", ha="center", fontsize=8)
    _name_ticks(axes.xaxis, [f"{short(name)}\no{_below(i)}" for i, name in enumerate(names, start=1)])
    axes.set(ylim=(0, 1.0), xlim=(-0.6, len(names) - 0.4), ylabel="probability")
    axes.set_title("The answer after each token (above the bar: the best so far)", pad=30, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return bars, [*(labels[label] for label in leading), "all others"]


def _draw_adds(axes: Any, adds: np.ndarray, names: list[str]) -> None:
    """Draw a bar a token: what the answer's probability loses without it."""
    axes.bar(range(len(names)), adds, 0.7, color=[COLOURS[0] if added >= 0 else COLOURS[1] for added in adds])
    axes.axhline(0, color="#9aa5b1", lw=0.8)
    _name_ticks(axes.xaxis, [short(name) for name in names])
    axes.set(xlim=(-0.6, len(names) - 0.4), ylabel="probability")
    axes.set_title("What the answer loses without each token", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_memory(axes: Any, memory: np.ndarray, names: list[str]) -> Any:
    """Draw the norms, a row a state, a column a token."""
    image = axes.imshow(memory, cmap="YlGnBu", vmin=0, aspect="auto")
    if len(names) <= ROOMY:
        for (t, s), norm in np.ndenumerate(memory):
            dark = norm > 0.55 * memory.max()
            axes.text(s, t, f"{norm:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "#303030")
    _name_ticks(axes.xaxis, [f"{short(name)}\nx{_below(i)}" for i, name in enumerate(names, start=1)])
    _name_ticks(axes.yaxis, [f"h{_below(i)}  {short(name)}" for i, name in enumerate(names, start=1)])
    axes.set(xlabel="token xₛ (right of the diagonal: heard by the backward direction)", ylabel="state hₜ")
    axes.set_title("What each state still carries of each token", fontsize=11)
    return image


def _name_ticks(axis: Any, names: list[str]) -> None:
    axis.set_ticks(range(len(names)), names, fontsize=10 if len(names) <= ROOMY else 8)
    axis.set_tick_params(length=0)


def _below(number: int) -> str:
    """Write a number as a subscript; tokens stand beside it, so it is no formula of matplotlib's."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
