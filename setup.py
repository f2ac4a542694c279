"""Build the native library, `jaxrnn/_kernels/cpu/_kernels.so`, with its kernels compiled for each instruction set.

Without a compiler, or where it fails, jaxrnn is installed without the library. Two settings that pyproject.toml cannot
express: the folder `examples` is installed as the package `jaxrnn_examples`, and the long description is the README
without its relative links.
"""

import concurrent.futures
import importlib.util
import pathlib
import platform
import re

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = pathlib.Path("jaxrnn/_kernels/cpu")
FLAGS = "-std=c++17 -O3 -w -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math"
AVX512 = "-mavx512f -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512"
TILES = "-DJAXRNN_TILES -mavx512bf16 " + AVX512  # the matmuls of AMX are written as assembly
ISAS = (TILES, AVX512, "-mavx2 -mfma", "") if platform.machine() in ("x86_64", "AMD64") else ("",)


def headers() -> str:
    """Return the folder of XLA's headers, without importing jaxlib."""
    found = importlib.util.find_spec("jaxlib")
    if found is None or not found.submodule_search_locations:
        raise CompileError("jaxlib, which has the headers of XLA, is not installed")
    return str(pathlib.Path(found.submodule_search_locations[0]) / "include")


class Build(build_ext):
    """A `build_ext` that compiles the kernels once for each instruction set, in parallel, and links the results."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return a file name without the version of Python, on which the library does not depend."""
        return str(pathlib.Path(*fullname.split("."))) + ".so"

    def build_extension(self, extension: Extension) -> None:
        """Build the library."""
        work = pathlib.Path(self.build_temp)
        jobs = [(NATIVE / "kernel.cc", work / str(i), isa.split()) for i, isa in enumerate(ISAS)]
        jobs += [(NATIVE / "memory.cc", work / str(i), isa.split()) for i, isa in enumerate(ISAS) if isa != TILES]
        jobs += [(NATIVE / name, work, []) for name in ("library.cc", "ffi.cc", "memory_ffi.cc")]
        include = [headers()]

        def compile_one(job: tuple[pathlib.Path, pathlib.Path, list[str]]) -> list[str]:
            source, folder, flags = job
            flags = [*FLAGS.split(), *flags]
            return self.compiler.compile([str(source)], str(folder), include_dirs=include, extra_postargs=flags)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            objects = [path for paths in pool.map(compile_one, jobs) for path in paths]
        path = self.get_ext_fullpath(extension.name)
        self.compiler.link_shared_object(objects, path, extra_postargs=["-s"], target_lang="c++")


class Wheel(bdist_wheel):
    """A `bdist_wheel` for every version of Python: the library does not use its C API."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag py3-none-PLATFORM."""
        return "py3", "none", super().get_tag()[2]


def description() -> str:
    """Return the README with each relative link replaced by its path."""
    text = pathlib.Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)", lambda link: _named(*link.groups()), text)


def _named(text: str, path: str) -> str:
    return f"`{path}`" if text == path else f"{text} (`{path}`)"


sources = [str(NATIVE / name) for name in ("kernel.cc", "memory.cc", "library.cc", "ffi.cc", "memory_ffi.cc")]
library = Extension(
    "jaxrnn._kernels.cpu._kernels", sources, depends=[str(p) for p in NATIVE.glob("*.h")], optional=True
)
examples = [f"jaxrnn_{name}" for name in find_packages(include=["examples*"])]
setup(
    packages=[*find_packages(include=["jaxrnn*"]), *examples],
    package_dir={"jaxrnn_examples": "examples"},
    ext_modules=[library],
    cmdclass={"build_ext": Build, "bdist_wheel": Wheel},
    long_description=description(),
    long_description_content_type="text/markdown",
)
