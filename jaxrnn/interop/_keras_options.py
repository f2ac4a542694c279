"""The options of Keras's layers as fields of jaxrnn's cells: activations and dropout."""

from __future__ import annotations

from typing import Any

from .._core.activation import Activation
from .._core.activation import activation as to_activation
from .._core.extras import extra
from .._layers.dropout import Dropout, VariationalDropout
from ._contract import Leaf, activation_name

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
ACTIVATIONS_BY_NAME: dict[str, Activation] = {name: to_activation(name) for name in _SHARED}
_KERAS_FIELDS = {"activation": "activation", "gate_activation": "recurrent_activation"}
DROPOUTS = (keras.layers.Dropout, keras.layers.SpatialDropout1D)


def activations_from(cell: keras.Layer) -> dict[str, Any]:
    """Return the activations of a cell of Keras by the names of fields of jaxrnn's cells.

    Raises:
        ValueError: for an activation that jaxrnn does not have.
    """
    return {field: _activation(cell, name) for field, name in _KERAS_FIELDS.items() if hasattr(cell, name)}


def activations_to(cell: Leaf) -> dict[str, str]:
    """Return the activations of a cell by the names of Keras's options.

    Raises:
        ValueError: for an activation that Keras does not have.
    """
    return {
        name: activation_name(cell, ACTIVATIONS_BY_NAME, "Keras", field=field)
        for field, name in _KERAS_FIELDS.items()
        if hasattr(cell, field)
    }


def _activation(cell: keras.Layer, option: str) -> Activation:
    """Return an activation of a cell of Keras as one of jaxrnn."""
    function = getattr(cell, option)
    for name, activation in ACTIVATIONS_BY_NAME.items():
        if function is keras.activations.get(name):
            return activation
    raise ValueError(
        f"{cell.name} has {option}={function}, where only {', '.join(ACTIVATIONS_BY_NAME)} can be converted. Move the "
        "weights to a layer with one of these, convert it, and pass your function to the cell: "
        "dataclasses.replace(cell, ...)."
    )


def dropout_from(layer: keras.Layer) -> Dropout | VariationalDropout:
    """Convert a dropout layer.

    Raises:
        ValueError: unless its masks are independent for each row and each feature.
    """
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
