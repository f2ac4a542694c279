"""An interpreter of PTX, the instructions of NVIDIA's GPUs, for the subset in the kernels of `Fused`.

Warps run in random order, some instructions at a time, each operation on the 32 lanes at once. Stores are visible to
all threads immediately. A buffer has the address number << 40, from 1 on; the shared memory of a thread block has the
address 0, the local memory of a thread OWN << 40.
"""

import collections
import dataclasses
import operator
import random
import re
from typing import Any

import numpy as np

from .arithmetic import FLOATS, HALVES, INTEGERS, KINDS, NAN, RAW, SHIFTS, narrow
from .program import Operation, Program, parts

LANES, OWN = 32, 200


@dataclasses.dataclass(eq=False)
class Warp:
    """32 threads: their registers, as unsigned numbers or booleans, and the program counter of each."""

    block: tuple[int, int, int]
    number: int
    shared: np.ndarray
    registers: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    at: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(LANES, np.int64))
    own: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((LANES, 4096), np.uint8))
    waits: bool = False
    ended: bool = False


class Machine:
    """A grid of thread blocks.

    Args:
        program: the program of every thread.
        grid: blocks in x, y and z.
        threads: threads of a block.
        shared: bytes of shared memory of a block.
        params: the params of the kernel, one number each.
        buffers: the bytes of each buffer, by number.
        seed: seed of the order in which warps run.
    """

    def __init__(
        self, program: Program, grid: Any, threads: int, shared: int, params: Any, buffers: Any, seed: int = 0
    ):
        self.program, self.threads, self.params, self.buffers = program, threads, params, buffers
        self.random, self.done = random.Random(seed), 0
        self.arrived: Any = collections.defaultdict(list)
        self.warps = []
        for z, y, x in np.ndindex(grid[::-1]):
            memory = np.full(shared + 1024, 0xAB, np.uint8)
            self.warps += [Warp((x, y, z), number, memory) for number in range(threads // LANES)]

    def run(self, limit: int = 10**7) -> None:
        """Run until all warps have ended; raise RuntimeError on a deadlock, or after `limit` operations."""
        while live := [warp for warp in self.warps if not warp.ended]:
            ready = [warp for warp in live if not warp.waits]
            if not ready or self.done > limit:
                raise RuntimeError(f"these do not end: {[(warp.block, warp.number) for warp in live]}")
            for _ in range(len(ready)):
                warp = self.random.choice(ready)
                for _ in range(self.random.choice((3, 30, 300))):
                    if warp.waits or warp.ended:
                        break
                    self.step(warp)

    def step(self, warp: Warp) -> None:
        """Run the next operation of those threads of a warp that are furthest behind."""
        self.done += 1
        first = int(warp.at.min())
        here = warp.at == first
        operation = self.program.operations[first]
        active = here
        if operation.guard:
            holds = warp.registers[operation.guard[0]]
            active = here & (~holds if operation.guard[1] else holds)
        warp.at[here] = first + 1
        match operation.name[0]:
            case "bra":
                warp.at[active] = self.program.labels[operation.operands[0]]
            case "ret":
                warp.ended = bool(here.all())
            case "bar" if operation.name[1] == "sync":
                assert here.all(), "a barrier for some threads of a warp"
                group = self.arrived[warp.block, operation.operands[0]]
                group.append(warp)
                full = len(group) == self.threads // LANES
                for one in group:
                    one.waits = not full
                if full:
                    group.clear()
            case name:
                getattr(self, f"_{name}", self._compute)(warp, operation, active)

    def read(self, warp: Warp, operand: str, kind: Any = None) -> np.ndarray:
        """Return an operand of all lanes, as numbers of a kind; a predicate as it is."""
        if operand == "%tid.x":
            value = np.arange(LANES, dtype=np.uint32) + np.uint32(LANES * warp.number)
        elif operand.startswith("%ctaid."):
            value = np.full(LANES, warp.block["xyz".index(operand[-1])], np.uint32)
        elif operand.startswith("0f"):
            value = np.full(LANES, int(operand[2:], 16), np.uint32)
        elif re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", operand):
            value = np.full(LANES, int(operand, 0) % 2**64, np.uint64)
        elif operand.startswith("__"):
            value = np.full(LANES, OWN << 40 if "local" in operand else 0, np.uint64)
        else:
            value = warp.registers[operand]
        if kind is None or value.dtype == bool:
            return value
        return value.astype(RAW[np.dtype(kind).itemsize]).view(kind)

    def write(self, warp: Warp, register: str, value: Any, active: np.ndarray) -> None:
        """Set a register of the active lanes."""
        value = np.ascontiguousarray(value)
        value = value if value.dtype == bool else value.view(RAW[value.dtype.itemsize])
        before = warp.registers.get(register, value)
        warp.registers[register] = np.where(active, value, before.astype(value.dtype))

    def places(self, warp: Warp, operand: str, size: int, active: np.ndarray) -> Any:
        """Yield each active lane, and its bytes at [register + offset]."""
        base, _, offset = operand.strip("[] ").partition("+")
        addresses = self.read(warp, base.strip(), np.uint64) + np.uint64(int(offset or 0) % 2**64)
        for lane in np.nonzero(active)[0]:
            which, first = divmod(int(addresses[lane]), 1 << 40)
            memory = warp.shared if which == 0 else warp.own[lane] if which == OWN else self.buffers[which]
            if first % size or first + size > len(memory):
                raise IndexError(f"{operand} of block {warp.block}, lane {lane}: {first} of {len(memory)} bytes")
            yield lane, memory[first : first + size]

    def _ld(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        into = parts(operation.operands[0].strip("{}"))
        if operation.name[1].startswith("param"):
            number = int(re.search(r"param_(\d+)", operation.operands[1])[1])
            return self.write(warp, into[0], np.full(LANES, self.params[number], np.uint64), active)
        kind = KINDS[operation.name[-1]]
        loaded = np.zeros((LANES, len(into) * kind.itemsize), np.uint8)
        for lane, place in self.places(warp, operation.operands[1], loaded.shape[1], active):
            loaded[lane] = place
        for register, column in zip(into, loaded.view(RAW[kind.itemsize]).T, strict=True):
            self.write(warp, register, column, active)
        return None

    def _st(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        kind = RAW[KINDS[operation.name[-1]].itemsize]
        stored = np.stack([self.read(warp, r, kind) for r in parts(operation.operands[1].strip("{}"))], 1).view(
            np.uint8
        )
        for lane, place in self.places(warp, operation.operands[0], stored.shape[1], active):
            place[:] = stored[lane]

    def _red(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        more = self.read(warp, operation.operands[1], np.uint32)
        for lane, place in self.places(warp, operation.operands[0], 4, active):
            place.view(np.uint32)[0] += more[lane]

    def _fence(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        """No operation, since stores are visible immediately."""

    _prefetch = _fence

    def _cvta(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        self.write(warp, operation.operands[0], self.read(warp, operation.operands[1], np.uint64), active)

    def _mov(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        into, of = (parts(operand.strip("{}")) for operand in operation.operands)
        if operation.name[-1] == "pred":
            return self.write(warp, into[0], self.read(warp, of[0]).astype(bool), active)
        whole = KINDS[operation.name[-1]].itemsize
        number = np.stack([self.read(warp, o, RAW[whole // len(of)]) for o in of], 1)
        for register, part in zip(into, number.view(RAW[whole // len(into)]).T, strict=True):
            self.write(warp, register, part, active)
        return None

    def _elect(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        _, chosen = operation.operands[0].split("|")
        self.write(warp, chosen, np.arange(LANES) == np.argmax(active), active)

    def _shfl(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        assert operation.name[2] == "idx", operation.text
        value, of = (self.read(warp, o, np.uint32) for o in operation.operands[1:3])
        self.write(warp, operation.operands[0].split("|")[0], value[of % LANES], active)

    def _vote(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        assert operation.name[2] == "any", operation.text
        found = (self.read(warp, operation.operands[1]) & active).any()
        self.write(warp, operation.operands[0], np.full(LANES, found), active)

    def _setp(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        how, kind = operation.name[1], operation.name[-1]
        a, b = (self.read(warp, o, KINDS.get(kind, np.uint32)) for o in operation.operands[1:3])
        if kind in HALVES:
            a, b = (x.view(HALVES[kind]).reshape(LANES, 2).astype(np.float32) for x in (a, b))
        unordered = (a != a) | (b != b)
        if how in ("num", "nan"):
            found = unordered if how == "nan" else ~unordered
        else:
            known = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
            found = getattr(operator, known.get(how, how[:2]))(a, b)
            found = found | unordered if how.endswith("u") else found & ~unordered
        if len(operation.operands) > 3:
            found = getattr(operator, f"{operation.name[2]}_")(found, self.read(warp, operation.operands[3]))
        for register, holds in zip(operation.operands[0].split("|"), found.T.reshape(-1, LANES), strict=True):
            self.write(warp, register, holds, active)

    def _selp(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        kind = KINDS[operation.name[-1]]
        a, b = (self.read(warp, o, kind) for o in operation.operands[1:3])
        self.write(warp, operation.operands[0], np.where(self.read(warp, operation.operands[3]), a, b), active)

    def _cvt(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        *how, to, of = operation.name[1:]
        if to in HALVES:  # the second operand is the lower half
            halves = [narrow(self.read(warp, o, np.float32), HALVES[to]) for o in operation.operands[:0:-1]]
            return self.write(warp, operation.operands[0], np.stack(halves, 1).view(np.uint32)[:, 0], active)
        value = self.read(warp, operation.operands[1], KINDS[of])
        for name, rounded in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor}.items():
            value = rounded(value) if name in how else value
        if "sat" in how:
            value = np.clip(np.nan_to_num(value, nan=0.0), 0, 1)
        return self.write(warp, operation.operands[0], narrow(value, KINDS[to]), active)

    def _mma(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        """Multiply (16, k) by (k, 8): lane 4 g + c has rows g and g + 8 of A, column g of B, columns 2 c of the sum."""
        assert active.all(), "a product of some threads of a warp"
        into, *of = (parts(operand.strip("{}")) for operand in operation.operands)
        a, b, sums = (np.stack([self.read(warp, o, np.uint32) for o in parts]) for parts in of)
        g, c = np.divmod(np.arange(LANES), 4)
        kind = operation.name[-2]
        if kind == "tf32":
            a, b = ((x & 0xFFFFE000).view(np.float32)[..., None] for x in (a, b))
        else:
            a, b = (x.view(KINDS[kind]).reshape(*x.shape, 2) for x in (a, b))
        each = a.shape[-1]
        left, right = np.zeros((16, 8 * each)), np.zeros((8 * each, 8))
        for part in range(each):
            for i in range(4):
                left[g + 8 * (i % 2), (c + 4 * (i // 2)) * each + part] = a[i, :, part]
            for i in range(2):
                right[(c + 4 * i) * each + part, g] = b[i, :, part]
        product = left @ right
        for i, register in enumerate(into):
            more = product[g + 8 * (i // 2), 2 * c + i % 2]
            self.write(warp, register, (sums[i].view(np.float32) + more).astype(np.float32), active)

    def _compute(self, warp: Warp, operation: Operation, active: np.ndarray) -> None:
        """Run an operation on the operands of each lane."""
        name, last = operation.name[0], operation.name[-1]
        if last == "pred":
            values = [self.read(warp, o) for o in operation.operands[1:]]
            return self.write(warp, operation.operands[0], INTEGERS[name](*values), active)
        if last == "u16x2":
            values = [self.read(warp, o, np.uint32).view(np.uint16) for o in operation.operands[1:]]
            return self.write(warp, operation.operands[0], INTEGERS[name](*values).view(np.uint32), active)
        kind = KINDS[last]
        if kind.kind not in "iu":
            values = [self.read(warp, o, kind).astype(np.float64) for o in operation.operands[1:]]
            result = (FLOATS | NAN if "NaN" in operation.name else FLOATS)[name](*values)
            exact, result = result, narrow(np.asarray(result), kind)
            if "rm" in operation.name:
                result = np.where(result > exact, np.nextafter(result, kind.type(-np.inf)), result)
            return self.write(warp, operation.operands[0], result, active)
        values = [
            self.read(warp, o, np.uint32 if name in SHIFTS and i else kind)
            for i, o in enumerate(operation.operands[1:])
        ]
        if "wide" in operation.name:
            kind = np.dtype(f"{kind.kind}{2 * kind.itemsize}")
            values = [value.astype(kind) for value in values[:2]]
            values += [self.read(warp, o, kind) for o in operation.operands[3:]]
        return self.write(warp, operation.operands[0], np.asarray(INTEGERS[name](*values)).astype(kind), active)
