"""Every test has 8 virtual devices and compiles quickly; doctests have what users have."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Most numbers do not depend on how hard the compiler tries; the time of the tests does."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def compile_as_users_do(request, compile_quickly):
    """Not so where a test is marked: then what it compiles is what users run."""
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimised") is None)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
