"""The platform of all tests and doctests, and the names in scope of doctests."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from tests import quick

os.environ.setdefault("KERAS_BACKEND", "jax")
jax.config.update("jax_platforms", jax.config.jax_platforms or "cpu")


quick.everywhere()


@pytest.fixture(autouse=True)
def compile_doctests_quickly(request):
    """Disable most compiler optimizations for doctests, which compile more than they compute."""
    if isinstance(request.node, pytest.DoctestItem):
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


@pytest.fixture(autouse=True)
def public_names(doctest_namespace):
    """Add the public names to the namespace of doctests."""
    doctest_namespace.update({name: getattr(jaxrnn, name) for name in dir(jaxrnn) if not name.startswith("_")})
    doctest_namespace.update(dataclasses=dataclasses, jax=jax, jnp=jnp, np=np)
