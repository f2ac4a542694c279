"""Pictures of what `jaxrnn.dynamics` computes. Each function draws on Matplotlib axes, its own or those given, and
returns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .._core.extras import extra
from ._fixed_points import Found
from ._geometry import Flow, PrincipalComponents
from ._jacobians import Spectrum
from ._lyapunov import Lyapunov

with extra("dynamics"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

STABLE, UNSTABLE, SLOW, LINE = "#1b7837", "#c0392b", "#e08e0b", "#8fa3b5"


def eigenvalues(found: Spectrum, axes: Axes | None = None) -> Axes:
    """Draw eigenvalues (*batch, n) in the complex plane, with the unit circle."""
    axes = axes or plt.figure().subplots()
    angle = np.linspace(0, 2 * np.pi, 361)
    axes.plot(np.cos(angle), np.sin(angle), color=LINE, lw=1)
    values = found.eigenvalues.ravel()
    axes.scatter(values.real, values.imag, s=12, c=np.where(np.abs(values) < 1, STABLE, UNSTABLE), zorder=2)
    axes.set(aspect="equal", xlabel="real part", ylabel="imaginary part")
    return axes


def fixed_points(
    found: Found, plane: PrincipalComponents, trajectories: ArrayLike | None = None, axes: Axes | None = None
) -> Axes:
    """Draw fixed points in a plane: stable ones as circles, others as an x, slow ones as diamonds.

    Args:
        found: what `jaxrnn.dynamics.fixed_points` returns.
        plane: two principal components; with three and 3-D axes the picture is one of space.
        trajectories: vectors (T, B, n), a line each.
        axes: where to draw.
    """
    space = {"projection": "3d"} if len(plane.axes) == 3 else {}
    axes = axes or plt.figure().subplots(subplot_kw=space)
    if trajectories is not None:
        for line in np.moveaxis(np.asarray(plane.project(jnp.asarray(trajectories))), 1, 0):
            axes.plot(*line.T, color=LINE, lw=0.6, alpha=0.6, zorder=1)
    stable, fixed = found.fixed.spectrum.stable, np.asarray(plane.project(jnp.asarray(found.fixed.points)))
    kinds = [("stable", fixed[stable], STABLE, "o"), ("unstable", fixed[~stable], UNSTABLE, "X")]
    kinds += [("slow", np.asarray(plane.project(jnp.asarray(found.slow.points))), SLOW, "D")]
    for name, points, color, marker in kinds:
        if len(points):
            axes.plot(*points.T, marker, color=color, ms=8, mec="white", mew=0.6, label=name, zorder=3)
    axes.set(**dict(zip(("xlabel", "ylabel", "zlabel"), _names(plane), strict=False)))
    axes.legend(frameon=False)
    return axes


def flow_field(flow: Flow, axes: Axes | None = None) -> Axes:
    """Draw the flow on a plane as stream lines over the logarithm of the speed."""
    axes = axes or plt.figure().subplots()
    (x, y), (u, v) = np.moveaxis(np.asarray(flow.coordinates), -1, 0), np.moveaxis(np.asarray(flow.velocity), -1, 0)
    image = axes.pcolormesh(x, y, np.log10(np.asarray(flow.speed) + 1e-12), cmap="Blues_r", shading="gouraud")
    axes.streamplot(x[0], y[:, 0], u, v, color="white", linewidth=0.8, arrowsize=0.8)
    axes.figure.colorbar(image, ax=axes, label="log10 |F(h) - h|")
    axes.set(xlabel="component 1", ylabel="component 2")
    return axes


def lyapunov(found: Lyapunov, axes: Axes | None = None) -> Axes:
    """Draw the Lyapunov exponents by their rank."""
    axes = axes or plt.figure().subplots()
    axes.axhline(0, color=LINE, lw=1)
    axes.plot(np.arange(1, len(found.exponents) + 1), np.asarray(found.exponents), "o-", ms=3, color=STABLE)
    axes.set(xlabel="rank", ylabel="exponent (nats a step)")
    return axes


def gradient_by_lag(norms: Mapping[str, ArrayLike], axes: Axes | None = None) -> Axes:
    """Draw norms of gradients by lag, a line for each name, on a logarithmic axis."""
    axes = axes or plt.figure().subplots()
    axes.axhline(1, color=LINE, lw=1)
    for name, line in norms.items():
        axes.semilogy(np.asarray(line), label=name)
    axes.set(xlabel="lag l (steps)", ylabel="|∂h_T / ∂h_{T-l}|")
    axes.legend(frameon=False)
    return axes


def _names(plane: Any) -> list[str]:
    return [f"component {i + 1} ({share:.0%})" for i, share in enumerate(np.asarray(plane.ratios))]
