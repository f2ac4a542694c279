"""The plot of a prediction: after each token, without each token, and how the states depend on each token."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .classifier import Classifier
from .errors import UserError
from .fonts import escape_missing_glyphs, font_context
from .terminal import truncate
from .text import tokenize

TOP_INTENTS = 5
MAX_TOKENS = 40
MAX_ANNOTATED_TOKENS = 14  # more tokens leave no room for numbers
COLORS = ("#2f5d8a", "#d9822b", "#5b8c5a", "#a64d79", "#8a7f4b")
OTHER_COLOR = "#d6d6d6"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A prediction, token by token.

    Args:
        tokens: the T tokens of the text.
        labels: the names of the K intents.
        prefixes: (T, K), the probabilities after each token.
        contributions: (T,), the decrease of the predicted probability if the token is left out.
        jacobian_norms: (T, T), the norm of the Jacobian of h_t, the output of the layers, with respect to x_s.
        rejected: whether the prediction is none.
    """

    tokens: list[str]
    labels: tuple[str, ...]
    prefixes: np.ndarray
    contributions: np.ndarray
    jacobian_norms: np.ndarray
    rejected: bool

    @classmethod
    def of(cls, classifier: Classifier, text: str) -> Explanation:
        """Explain a text. Raise UserError if it has no token, or too many to plot."""
        tokens = tokenize(text)
        if not 0 < len(tokens) <= MAX_TOKENS:
            raise UserError(f"an explanation needs 1 to {MAX_TOKENS} tokens; got {len(tokens)}")
        logits = classifier.prefix_logits(text)
        prefixes, rejected = classifier.calibration.probabilities(logits), classifier.calibration.rejects(logits)
        best = prefixes[-1].argmax()
        contributions = prefixes[-1, best] - classifier.leave_one_out(text)[:, best]
        norms = classifier.jacobian_norms(text)
        return cls(tokens, classifier.labels, prefixes, contributions, norms, bool(rejected[-1]))

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as JSON values, one object per token."""
        steps = []
        rows = zip(self.tokens, self.prefixes, self.contributions, self.jacobian_norms, strict=True)
        for token, probabilities, contribution, norms in rows:
            order = np.argsort(-probabilities)[:TOP_INTENTS]
            step = {"token": token, "contribution": round(float(contribution), 4)}
            step["best"] = {self.labels[i]: round(float(probabilities[i]), 4) for i in order}
            step["jacobian_norms"] = [round(float(norm), 4) for norm in norms]
            steps.append(step)
        return {"intent": None if self.rejected else self.best, "steps": steps}

    @property
    def best(self) -> str:
        """Return the most probable intent."""
        return self.labels[self.prefixes[-1].argmax()]


def draw(explanation: Explanation, text: str, path: Path) -> Path:
    """Plot an explanation and write it as a PNG."""
    last, count = explanation.prefixes[-1], len(explanation.tokens)
    family, shown = escape_missing_glyphs(
        [*explanation.tokens, *(truncate(label, 40) for label in explanation.labels), " ".join(text.split())]
    )
    names, labels, title = shown[:count], shown[count:-1], shown[-1]
    with font_context(family):
        letter = 0.11 if len(names) <= MAX_ANNOTATED_TOKENS else 0.08  # inches
        width = max(9.5, 2.5 + len(names) * max(0.62, letter * max(len(truncate(name)) for name in names)))
        figure = Figure(figsize=(width, 11), layout="constrained", dpi=130)
        (top, legend), (middle, empty), (bottom, scale) = figure.subplots(
            3, 2, height_ratios=(1, 0.4, 1.15), width_ratios=(1, 0.018 * 12 / width)
        )
        rejected = "none, most probable: " if explanation.rejected else ""
        figure.suptitle(f"“{truncate(title, 70)}”\n{rejected}{labels[last.argmax()]}  {last.max():.1%}", fontsize=15)
        bars = _draw_prefixes(top, explanation.prefixes, labels, names)
        legend.legend(*bars, loc="center left", bbox_to_anchor=(-1, 0.5), frameon=False)
        _draw_contributions(middle, explanation.contributions, names)
        for axes in (legend, empty):
            axes.set_axis_off()
        image = _draw_jacobian_norms(bottom, explanation.jacobian_norms, names)
        figure.colorbar(image, cax=scale, label="norm of ∂hₜ / ∂xₛ")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def _draw_prefixes(axes: Any, prefixes: np.ndarray, labels: list[str], names: list[str]) -> tuple[list[Any], list[str]]:
    """Draw a stacked bar per token: the top intents of the last token, and the others in grey.

    Returns:
        The handles and the labels of the legend.
    """
    top = np.argsort(-prefixes[-1])[: min(TOP_INTENTS, len(labels))]
    steps, bottom = np.arange(len(names)), np.zeros(len(names))
    bars = []
    for color, label in zip(COLORS, top, strict=False):
        bars.append(axes.bar(steps, prefixes[:, label], 0.7, bottom, color=color, edgecolor="white", lw=0.6))
        bottom += prefixes[:, label]
    others = np.clip(1 - bottom, 0, 1)
    bars.append(axes.bar(steps, others, 0.7, bottom, color=OTHER_COLOR, edgecolor="white", lw=0.6))
    for step, probabilities in enumerate(prefixes):
        best = labels[probabilities.argmax()] if len(names) <= 8 else ""
        axes.text(step, 1.02, f"{best}\n{probabilities.max():.0%}", ha="center", fontsize=8)
    _name_ticks(axes.xaxis, [f"{truncate(name)}\no{_subscript(i)}" for i, name in enumerate(names, start=1)])
    axes.set(ylim=(0, 1.0), xlim=(-0.6, len(names) - 0.4), ylabel="probability")
    axes.set_title("Prediction after each token (above the bar: the most probable intent)", pad=30, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return bars, [*(labels[label] for label in top), "all others"]


def _draw_contributions(axes: Any, contributions: np.ndarray, names: list[str]) -> None:
    """Draw a bar per token: the decrease of the predicted probability without it."""
    colors = [COLORS[0] if contribution >= 0 else COLORS[1] for contribution in contributions]
    axes.bar(range(len(names)), contributions, 0.7, color=colors)
    axes.axhline(0, color="#9aa5b1", lw=0.8)
    _name_ticks(axes.xaxis, [truncate(name) for name in names])
    axes.set(xlim=(-0.6, len(names) - 0.4), ylabel="probability")
    axes.set_title("Decrease of the predicted probability without each token", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_jacobian_norms(axes: Any, norms: np.ndarray, names: list[str]) -> Any:
    """Draw the norms: a row per state, a column per token."""
    image = axes.imshow(norms, cmap="YlGnBu", vmin=0, aspect="auto")
    if len(names) <= MAX_ANNOTATED_TOKENS:
        for (t, s), norm in np.ndenumerate(norms):
            dark = norm > 0.55 * norms.max()
            axes.text(s, t, f"{norm:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "#303030")
    _name_ticks(axes.xaxis, [f"{truncate(name)}\nx{_subscript(i)}" for i, name in enumerate(names, start=1)])
    _name_ticks(axes.yaxis, [f"h{_subscript(i)}  {truncate(name)}" for i, name in enumerate(names, start=1)])
    axes.set(xlabel="token xₛ (right of the diagonal: through the backward direction)", ylabel="state hₜ")
    axes.set_title("Sensitivity of each state to each token", fontsize=11)
    return image


def _name_ticks(axis: Any, names: list[str]) -> None:
    axis.set_ticks(range(len(names)), names, fontsize=10 if len(names) <= MAX_ANNOTATED_TOKENS else 8)
    axis.set_tick_params(length=0)


def _subscript(number: int) -> str:
    """Return a number in Unicode subscript digits; math text is disabled."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
