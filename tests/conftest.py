"""8 virtual devices and quick compilation for every test."""

import gc

import jax
import pytest

gc.set_threshold(50_000, 20, 100)  # the imported packages are millions of objects, which few collections look at
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Disable most compiler optimizations: they take most of the time of the tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def compile_as_users_do(request, compile_quickly):
    """Enable them for a test with the marker `optimised`."""
    jax.config.update("jax_disable_most_optimizations", request.node.get_closest_marker("optimised") is None)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
