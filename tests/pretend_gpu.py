"""A GPU that is not there: tensors that say cuda:0 and compute on the CPU.

To C++ they are on the meta device, because a build without CUDA has no guard for cuda; to Python
``device`` is cuda:0. Whatever a GPU would make the host wait for is counted, by the line of this
project that asked for it; tensors of two devices in one operation are an error, as on a GPU.
``pretended()`` replaces what only a GPU's driver could answer, for the rest of the process: it
belongs into a process of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

SOURCE = f"{Path(__file__).parents[1] / 'trainables'}/"
CUDA = torch.device("cuda:0")
COPIES = ("copy_", "_to_copy")
# Operations whose result, or whose size, the host must know before it goes on.
READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_")
MEMORY = 2**34  # bytes that it says it has


class MixedDevicesError(RuntimeError):
    """An operation on tensors of the host and of the GPU."""


class Waits:
    """What the host has waited for, by the line that asked."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.blocking_copies: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()  # from pinned memory: nobody waits

    def clear(self) -> None:
        for counter in (self.reads, self.blocking_copies, self.copies):
            counter.clear()


WAITS = Waits()


class OnGPU(Tensor):
    """A tensor of the GPU; ``inner`` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("meta"),
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        WAITS.reads[f"tolist {_asked_by()}"] += 1
        return self.inner.tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGPU({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees what is made on the device from nothing, or brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.prim.device.default:
        return CUDA
    name = func._schema.name.split("::")[1]
    tensors = list(_tensors((args, kwargs)))
    on_gpu = any(isinstance(tensor, OnGPU) for tensor in tensors)
    if on_gpu:
        _check_and_count(name, args, tensors)
    wanted = kwargs.get("device")
    target = _is_gpu(wanted) if wanted is not None else on_gpu
    if name in COPIES:
        source = args[1] if name == "copy_" else args[0]
        target = isinstance(args[0], OnGPU) if name == "copy_" else target
        _count_copy(source, target, bool(kwargs.get("non_blocking")) or True in args[2:])
    if wanted is not None and _is_gpu(wanted):
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = _mapped(_inner, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    known = {id(t.inner): t for t in tensors if isinstance(t, OnGPU)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:
            return known[id(value)]
        return OnGPU(value) if target else value

    return _mapped(wrapped, out)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those among the arguments of an operation: tuples, lists and dicts, torch's own are slow."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_mapped(change, part) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(change, part) for key, part in value.items()}
    return change(value)


def _check_and_count(name: str, args: Any, tensors: list[Tensor]) -> None:
    others = [t for t in tensors if not isinstance(t, OnGPU) and t.dim() > 0]
    if name in READS:
        WAITS.reads[f"{name} {_asked_by()}"] += 1
    if name in INDEXING:
        if any(t.dtype == torch.bool for t in _tensors(args[1])):
            WAITS.reads[f"{name} by a mask {_asked_by()}"] += 1
        for _ in others:  # brought over by the operation itself
            WAITS.blocking_copies[f"{name} {_asked_by()}"] += 1
    elif others and name not in COPIES:
        raise MixedDevicesError(f"{name} on tensors of cpu and cuda:0: {_asked_by()}")


def _count_copy(source: Any, to_gpu: bool, non_blocking: bool) -> None:
    from_gpu = isinstance(source, OnGPU)
    if from_gpu and not to_gpu:
        WAITS.reads[f"to the host {_asked_by()}"] += 1
    elif to_gpu and not from_gpu and isinstance(source, Tensor):
        free = non_blocking and getattr(source, "pinned", False)
        counter = WAITS.copies if free else WAITS.blocking_copies
        counter[f"to the device {_asked_by()}"] += 1


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGPU) else value


def _is_gpu(device: Any) -> bool:
    return torch.device(device).type in ("cuda", "meta")


def _asked_by() -> str:
    """The innermost function of this project, the tests apart."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(SOURCE):
            return f"{path.removeprefix(SOURCE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _pinned(tensor: Tensor, *device: Any) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


_move_module = nn.Module.to
_make_tensor = torch.tensor
_generator = torch.Generator


def _module_to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    device = next((a for a in args if isinstance(a, (str, torch.device))), kwargs.get("device"))
    if device is None or not _is_gpu(device):
        return _move_module(module, *args, **kwargs)
    moved: dict[int, Tensor] = {}  # tied weights stay tied
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None and not isinstance(tensor.data, OnGPU):
                    if id(tensor) not in moved:
                        inner = OnGPU(tensor.detach())
                        moved[id(tensor)] = (
                            nn.Parameter(inner, requires_grad=tensor.requires_grad)
                            if isinstance(tensor, nn.Parameter)
                            else inner
                        )
                    own[name] = moved[id(tensor)]  # type: ignore[assignment]
    return module


def _tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    made = _make_tensor(data, **kwargs)
    return made if device is None else made.to(torch.device(device))


def _replaced(owner: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


@contextmanager
def pretended() -> Iterator[Waits]:
    """From here on this process has a GPU; inside the block tensors can be made on it."""
    torch._C._ensureCUDADeviceGuardSet()
    _replaced(
        torch.cuda,
        _lazy_init=lambda: None,
        is_available=lambda: True,
        get_rng_state=lambda device="cuda": torch.get_rng_state(),
        set_rng_state=lambda state, device="cuda": torch.set_rng_state(state),
        mem_get_info=lambda device=None: (MEMORY, MEMORY),
        memory_reserved=lambda device=None: 0,
        memory_allocated=lambda device=None: 0,
        max_memory_allocated=lambda device=None: 2**20,
        empty_cache=lambda: None,
        device_count=lambda: 1,
    )
    _replaced(
        torch,
        tensor=_tensor,
        Generator=lambda device="cpu": _generator(),
    )
    _replaced(nn.Module, to=_module_to)
    _replaced(Tensor, pin_memory=_pinned)
    with _Factories():
        yield WAITS
