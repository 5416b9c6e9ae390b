"""NDArray: an array together with its device, the form in which the course's API shows data."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from needle.backend_ndarray.device import BackendDevice, device_for, device_of, to_host


class Owner(Protocol):
    """What stands behind an NDArray and must hear of writes into it."""

    def mark_changed(self) -> None: ...


class NDArray:
    """An n-dimensional array and its device.

    `NDArray(other, device=None)` copies; `NDArray.wrap(array)` shares the memory of a raw array. `array` is the raw
    NumPy or CuPy array. Indexing gives views; writing through any view tells the tensor that owns the memory (a write
    into `array` itself does not). Seen as a NumPy array it is read-only.

    >>> array = NDArray([[1, 2, 3], [4, 5, 6]])
    >>> array[:, 1:].fill(0)
    >>> array
    NDArray([[1 0 0]
             [4 0 0]], device=cpu())
    >>> array.strides
    (3, 1)
    """

    __slots__ = ("_owner", "array")
    array: Any
    _owner: Owner | None

    def __init__(self, other: Any, device: BackendDevice | None = None) -> None:
        data = other.array if isinstance(other, NDArray) else other
        if device is None:
            device = other.device if isinstance(other, NDArray) else device_for(data)
        self.array = device.array(data)
        self._owner = None

    @classmethod
    def wrap(cls, array: Any, owner: Owner | None = None) -> NDArray:
        """An NDArray on the memory of a raw array."""
        self = cls.__new__(cls)
        self.array = array
        self._owner = owner
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """The step of each axis in elements (not bytes)."""
        return tuple(step // self.array.itemsize for step in self.array.strides)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)

    @property
    def size(self) -> int:
        return int(self.array.size)

    @property
    def device(self) -> BackendDevice:
        return device_of(self.array)

    @property
    def flat(self) -> NDArray:
        """A 1-d view on the same memory, which must be row-major."""
        if not self.array.flags.c_contiguous:
            raise ValueError(f"flat: memory must be row-major, but got shape {self.shape} with strides {self.strides}")
        return NDArray.wrap(self.array.reshape(-1), self._owner)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy on the host, row-major."""
        return np.array(self.device.to_host(self.array), order="C")

    def to(self, device: BackendDevice) -> NDArray:
        """This array on another device; on its own device, itself."""
        return self if device == self.device else NDArray(self, device)

    def astype(self, dtype: Any) -> NDArray:
        """A copy of that dtype."""
        return NDArray.wrap(self.array.astype(dtype))

    def fill(self, value: float) -> None:
        """Set every element to `value`, in place."""
        self[...] = value

    def __getitem__(self, index: Any) -> Any:
        """A view; a single element comes as a NumPy scalar (on the GPU as a 0-d view)."""
        view = self.array[index]
        return NDArray.wrap(view, self._owner) if type(view) is type(self.array) else view

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._owner is not None:
            self._owner.mark_changed()
        if isinstance(value, NDArray):
            value = value.array.reshape(self.array[index].shape)
        self.array[index] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        host = np.array(to_host(self.array), dtype=dtype, copy=copy)
        if copy is not True and np.may_share_memory(host, to_host(self.array)):
            host = host.view()
            host.flags.writeable = False  # a write behind needle's back would give a wrong gradient in silence
        return host

    def __float__(self) -> float:
        return float(to_host(self.array).item())

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        values = str(to_host(self.array)).replace("\n", "\n        ")
        return f"NDArray({values}, device={self.device})"
