"""Compile a kernel of Pallas' Mosaic backend without a GPU: `python compiler.py CUDA MODULE BUFFERS`.

CUDA is a folder with jax's plugin for CUDA and ptxas, MODULE the lowered kernel, BUFFERS the number of its buffers.
The PTX is printed, and the launch: grid, threads, shared memory, and for each param which buffer it is (from 1, << 40).
It runs in a separate process, since the plugin does not fit a program on a CPU; LD_LIBRARY_PATH has `driver.c`.
"""

import ctypes
import os
import pathlib
import re
import sys
import tempfile


def main(folder: str, path: str, count: str) -> None:
    cuda, module, c = pathlib.Path(folder), pathlib.Path(path).read_bytes(), ctypes.CDLL(None)
    c.setenv(b"MOSAIC_GPU_DUMP_PTX", b"1", 1)
    ctypes.CDLL(str(next(cuda.glob("jax_cuda*_plugin/libmosaic_gpu_runtime.so"))), ctypes.RTLD_GLOBAL)
    plugin = ctypes.CDLL(str(next(cuda.glob("jax_plugins/xla_cuda*/xla_cuda_plugin.so"))))
    plugin.MosaicGpuCompile.restype = ctypes.POINTER(ctypes.c_void_p)
    with tempfile.TemporaryFile() as printed:  # by the plugin, past Python
        out = os.dup(1)
        os.dup2(printed.fileno(), 1)
        compiled = plugin.MosaicGpuCompile(module, len(module))
        c.fflush(None)
        os.dup2(out, 1)
        printed.seek(0)
        text = printed.read().decode()
    print(text, flush=True)
    if not compiled:
        sys.exit("the kernel was not compiled")
    c.setenv(b"JAXRNN_PARAMS", str(len(set(re.findall(r"_param_\d+", text)))).encode(), 1)
    launch = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(compiled[1])
    launch(compiled[0], None, (ctypes.c_void_p * int(count))(*((1 + number) << 40 for number in range(int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
