"""Fields and arguments of more cells are checked; their parts compare, hash, copy and pickle."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    GRUD,
    LEM,
    LTC,
    RHN,
    CfC,
    ConvGRU,
    ConvLSTM,
    CoRNN,
    Dale,
    Diagonal,
    EchoState,
    FastGRNN,
    FixedTimeConstant,
    Heads,
    LeakyRNN,
    LearnedTimeConstant,
    Reservoir,
)
from jaxrnn.model import ridge_readout

key = jax.random.key(0)
BAD = {
    "no highway layers": (lambda: RHN(4, depth=0), "RHN.depth must be an int of 1 or more; got 0"),
    "time step 0": (lambda: LEM(4, step_size=0), "LEM.step_size must be above 0; got 0"),
    "negative frequency": (lambda: CoRNN(4, frequency=-1), "CoRNN.frequency must be above 0; got -1"),
    "no damping": (lambda: CoRNN(4, damping=0), "CoRNN.damping must be above 0; got 0"),
    "oscillators of a diagonal": (
        lambda: CoRNN(4, recurrence=Diagonal()),
        r"has its own recurrence.*got Diagonal\(\). Omit",
    ),
    "logit": (lambda: FastGRNN(4, zeta="a"), "FastGRNN.zeta must be one finite number; got 'a'"),
    "negative time constant": (lambda: FixedTimeConstant(tau=-1), "FixedTimeConstant.tau must be above 0; got -1"),
    "step longer than tau": (lambda: FixedTimeConstant(1, 2), "needs dt <= tau; got tau=1.0, dt=2.0. Lower dt"),
    "step as long as tau": (lambda: LearnedTimeConstant(2, 2), "needs tau above dt; got tau=2.0, dt=2.0"),
    "a number as the time constant": (lambda: LeakyRNN(4, time_constant=0.1), r"such as FixedTimeConstant.*got 0\.1"),
    "negative noise": (lambda: LeakyRNN(4, sigma=-1), "LeakyRNN.sigma must be at least 0; got -1"),
    "excitatory units": (
        lambda: Dale(1.5),
        "Dale.excitatory is the fraction of excitatory units, from 0 to 1; got 1.5",
    ),
    "dt of a CfC": (lambda: CfC(4, dt=-1), "CfC.dt must be above 0; got -1"),
    "negative dt": (
        lambda: CfC(4).project(CfC(4).init(key, 2), (np.ones((3, 2)), -np.ones((3, 1)))),
        r"dt is the time since the step before, at least 0; got -1\.0.*np.diff",
    ),
    "shape of dt": (
        lambda: LTC(4).step(LTC(4).init(key, 2), jnp.zeros((3, 4)), (jnp.ones((3, 2)), jnp.ones(3))),
        r"one dt for every row and step, \(3, 1\) for x \(3, 2\); got \(3,\).*dt\[..., None\]",
    ),
    "no dt": (lambda: CfC(4).project(CfC(4).init(key, 2), {"x": 1}), r"CfC takes an array x.*or a pair \(x, dt\)"),
    "unfolds": (lambda: LTC(4, unfolds=0), "LTC.unfolds must be an int of 1 or more; got 0"),
    "tau of an LTC": (lambda: LTC(4, tau=0), "LTC.tau must be above 0; got 0"),
    "inputs of a GRU-D": (
        lambda: GRUD(4).step(GRUD(4).init(key, 2), None, jnp.ones((3, 2))),
        r"GRUD takes GRUDInputs\(x, mask, dt\); got a JAX array",
    ),
    "means of a GRU-D": (lambda: GRUD(4).initial_state(None), "its params, for the means; got None"),
    "spectral radius": (lambda: Reservoir(spectral_radius=0), "Reservoir.spectral_radius must be above 0; got 0"),
    "density": (lambda: Reservoir(density=1.5), "density is a fraction, above 0 and at most 1; got 1.5"),
    "no recurrent weights": (
        lambda: EchoState(4),
        r"density=0.1\) leaves no recurrent weights for 4 units.*0\.4, rounded to 0. Use density=0.25 or more",
    ),
    "leak": (lambda: EchoState(40, leak=1.5), "EchoState.leak must be above 0 and at most 1; got 1.5"),
    "reservoir and heads": (lambda: EchoState(40, recurrence=Heads(2)), r"EchoState takes recurrence=Dense\(\)"),
    "even kernel": (lambda: ConvLSTM(4, image=(2, 2), kernel=4), "ConvLSTM.kernel must be odd.*got 4. Use 3 or 5"),
    "image": (lambda: ConvGRU(4, image=28), r"ConvGRU.image must be a pair \(height, width\).*got 28"),
    "image of floats": (lambda: ConvGRU(4, image=(2, 2.5)), "ConvGRU.image must be an int of 1 or more; got 2.5"),
    "pixels": (
        lambda: ConvLSTM(4, image=(2, 3)).init(key, 16),
        r"2 x 3 pixels.*got in_dim=16, not 6 for every channel. Correct image",
    ),
    "pixels of a step": (
        lambda: ConvGRU(4, image=(2, 2)).step(ConvGRU(4, image=(2, 2)).init(key, 8), jnp.zeros(16), jnp.ones(5)),
        r"images flattened to 8 features.*got \(5,\). Use x.reshape",
    ),
    "kernels and heads": (lambda: ConvLSTM(4, image=(2, 2), recurrence=Heads(2)), r"ConvLSTM takes recurrence=Dense"),
    "targets": (
        lambda: ridge_readout(jnp.ones((5, 3)), jnp.ones(5)),
        r"must agree in all but the last axis; got \(5, 3\) and \(5,\).*targets\[..., None\]",
    ),
    "negative penalty": (
        lambda: ridge_readout(jnp.ones((5, 3)), jnp.ones((5, 1)), regularization=-1),
        "regularization must be at least 0; got -1",
    ),
    "singular": (
        lambda: ridge_readout(jnp.ones((5, 3)), jnp.ones((5, 1)), regularization=0),
        "regularization=0 needs 3 independent features; the steps that count have 0.*above 0, such as 1e-6",
    ),
    "not finite": (
        lambda: ridge_readout(jnp.full((5, 3), jnp.nan), jnp.ones((5, 1))),
        "regularization=1e-06 is lost.*or hs or targets are not finite",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_the_error_names_the_fix(what):
    call, match = BAD[what]
    with pytest.raises(ValueError, match=match):
        call()


VALUES = (Dale(0.7), Reservoir(0.5), FixedTimeConstant(5, 1), LearnedTimeConstant(5, 1), CoRNN(4))
VALUES += (ConvLSTM(3, image=(np.int64(2), 2)), ConvGRU(3, image=(2, 2)), LeakyRNN(4, recurrence=Dale()), GRUD(4))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_compare_hash_copy_and_pickle(value):
    for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert other == value
        assert hash(other) == hash(value)
        assert repr(other) == repr(value)
