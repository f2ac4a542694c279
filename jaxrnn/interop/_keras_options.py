"""Options of Keras' layers as fields of our cells: activations and dropout."""

from __future__ import annotations

from typing import Any

from .._core.activation import Activation, activation
from .._core.extras import extra
from .._layers.dropout import Dropout, VariationalDropout
from ._contract import activation_of

try:
    with extra("keras"):
        import keras as keras
except ModuleNotFoundError as error:
    if error.name not in ("tensorflow", "torch", "openvino"):
        raise
    raise ModuleNotFoundError(
        f"{error}: it is the backend that Keras is set to. Set KERAS_BACKEND=jax before Keras is imported.",
        name=error.name,
    ) from error


_SHARED = (
    *("tanh", "sigmoid", "relu", "relu6", "elu", "celu", "selu", "silu", "mish", "softplus", "softsign", "log_sigmoid"),
    *("hard_tanh", "hard_sigmoid", "hard_silu", "linear", "exponential"),
)
NAMED: dict[str, Activation] = {name: activation(name) for name in _SHARED}
_FIELDS = {"activation": "activation", "gate_activation": "recurrent_activation"}
DROPOUTS = (keras.layers.Dropout, keras.layers.SpatialDropout1D)


def activations_from(cell: Any) -> dict[str, Any]:
    """Return the activations of a cell of Keras, as fields of ours."""
    return {ours: _activation(cell, theirs) for ours, theirs in _FIELDS.items() if hasattr(cell, theirs)}


def activations_to(cell: Any) -> dict[str, str]:
    """Return the activations of a cell, as fields of Keras'; raise for one that Keras does not have."""
    named = lambda ours: activation_of(cell, NAMED, "Keras", field=ours)
    return {theirs: named(ours) for ours, theirs in _FIELDS.items() if hasattr(cell, ours)}


def _activation(cell: Any, field: str) -> Activation:
    """Return an activation of a cell of Keras as ours."""
    given = getattr(cell, field)
    for name, ours in NAMED.items():
        if given is keras.activations.get(name):
            return ours
    raise ValueError(
        f"{cell.name} has {field}={given}, where only {', '.join(NAMED)} can be converted. Move the weights to a "
        "layer with one of these, convert it, and give the cell your own function: dataclasses.replace(cell, ...)."
    )


def dropout_from(layer: Any) -> Dropout | VariationalDropout:
    """Return a layer of dropout as ours; raise unless its masks are independent for each row and each feature."""
    if type(layer) is keras.layers.SpatialDropout1D:
        return VariationalDropout(layer.rate)
    match layer.noise_shape:
        case None | (None, None, None):
            return Dropout(layer.rate)
        case (None, 1, features) if features != 1:
            return VariationalDropout(layer.rate)
    raise ValueError(
        f"{layer.name} has noise_shape={layer.noise_shape}, where only None and (None, 1, None), one mask for all "
        "steps, can be converted."
    )
