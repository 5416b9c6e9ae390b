"""The recorder of the CPU: it runs each NumPy call, and notes it with its operands and the memory of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias
from weakref import ref

import numpy as np

from needle.backend.blas import drop_limit, hold_limit, worker_count
from needle.backend.parallel import parallel_for
from needle.backend.plan.arena import Arena
from needle.backend.plan.calls import (
    Calls,
    Filling,
    ask,
    ask_all,
    draw_into,
    run_calls,
    run_or_call,
    run_within,
    set_state,
    store,
    store_all,
)
from needle.backend.plan.forms import (
    address_of,
    arrays_in,
    asking_function,
    has_arrays,
    has_mask,
    is_compact,
    is_default,
    is_row_major,
    numpy_state,
    owner_of,
    part_of,
)
from needle.backend.plan.traced import Traced, bare
from needle.backend.polling import polling
from needle.backend.recording import CannotRecord, Numbers, Recorder, aside

__all__ = ["Tracer"]

Array: TypeAlias = Any

UNSIZED = {"argwhere", "bincount", "compress", "extract", "flatnonzero", "nonzero", "unique"}
BY_NAME = {np.maximum, np.minimum}  # they want their result by name
LIKE = {"empty_like", "full_like", "ones_like", "zeros_like"}
OF_FORM = {"can_cast", "may_share_memory", "min_scalar_type", "ndim", "result_type", "shape", "shares_memory", "size"}
WRITING = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}


class Tracer(Recorder):
    """Notes the calls on traced arrays. Memory that existed before is used as it is; new arrays get blocks.

    What it refuses is done nevertheless, as all calls are, so that the function runs to its end: see `failure`.
    """

    traces = True

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.arena = Arena()
        self.calls: Calls = []
        self.leases: dict[int, Any] = {}  # by id, references to the arrays that hold a block
        self.seen: dict[int, tuple[Array, Traced]] = {}  # by id, arrays that existed before, and how they are traced
        self.written: dict[int, Array] = {}  # by id, the owners of memory that existed before and is written to
        self.early: dict[int, Array] = {}  # those of them that are written to before the last question
        self.filled: list[tuple[Array, Callable[[], object]]] = []  # arrays of `again`, and what to call if one is lost
        self.overwritten: set[int] = set()  # positions of those that may hold something else later
        self.draws = self.early_draws = 0  # how often numbers are drawn, and how often before the last question
        self.failure: CannotRecord | None = None  # why there can be no recording
        self.filling = Filling()
        self.state = numpy_state()  # NumPy's, as the noted calls have it
        self.depth = 0  # of loops

    def refuse(self, op: str, cause: str) -> None:
        self.failure = self.failure or CannotRecord(op, cause)

    # ---- memory ------------------------------------------------------------------------------------------------------

    def kept(self, array: Array) -> Array:
        if not isinstance(array, np.ndarray) or isinstance(array, Traced):
            return array
        known = self.seen.get(id(array))
        if known is None:
            known = self.seen[id(array)] = array, array.view(Traced)
        return known[1]

    def live(self, device: Any, compute: Callable[[], Numbers], dtype: Any) -> Array:
        array = super().live(device, compute, dtype)
        self.note([], self.filling, self.plain(array), compute)
        return array

    def released(self, array: Array) -> Array:
        return self.plain(array)

    def new_cell(self, numbers: Numbers, dtype: Any) -> Array:
        return self.kept(np.array(numbers, dtype))

    def fresh(self, array: Array) -> Traced:
        """A traced array in a block, with the values and the memory order of a new array, or of a number."""
        array = np.asarray(array)
        if array.dtype.hasobject:
            self.refuse("array", f"elements of dtype {array.dtype}")
        strides = array.strides if is_compact(array) else np.empty_like(array).strides
        block = self.arena.take(array.nbytes)
        traced: Traced = np.ndarray.__new__(Traced, array.shape, array.dtype, block, 0, strides)
        bare(traced)[...] = array
        self._lease(traced, block)
        return traced

    def _lease(self, traced: Traced, block: Array) -> None:
        """Free the block once nobody has the array, nor a view of it."""
        key, leases, arena = id(traced), self.leases, self.arena

        def free(_: Any) -> None:
            del leases[key]
            arena.give(block)

        leases[key] = ref(traced, free)

    def plain(self, value: Any) -> Any:
        """An argument as it is noted: plain arrays, which hold no lease, in the place of traced ones."""
        if isinstance(value, Traced):
            root = value if value.lease is None else value.lease
            block = root.base
            if value.size and not np.may_share_memory(bare(value), bare(root)):
                self.refuse("array", "an array that an unknown call has made")
            elif id(block) in self.arena.blocks:
                return np.ndarray(value.shape, value.dtype, block, address_of(value) - address_of(block), value.strides)
            return value.view(np.ndarray)
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.plain, value))
        if isinstance(value, dict):
            return {name: self.plain(entry) for name, entry in value.items()}
        return value

    def view(self, plain: Array, sources: Any) -> Traced | None:
        """A traced view for a plain one, if it is one of an array in `sources`."""
        for source in arrays_in(sources):
            if np.may_share_memory(plain, bare(source)):
                return self.view_of(plain, source)
        return None

    def view_of(self, plain: Array, source: Array) -> Traced:
        """A plain view of a source as a traced one, which holds its memory."""
        if not isinstance(source, Traced):
            return self._view(plain)
        root = source if source.lease is None else source.lease
        block = root.base
        if id(block) not in self.arena.blocks:
            return self._view(plain)
        offset = address_of(plain) - address_of(block)
        traced: Traced = np.ndarray.__new__(Traced, plain.shape, plain.dtype, block, offset, plain.strides)
        traced.lease = root
        traced.flags.writeable = plain.flags.writeable
        return traced

    @staticmethod
    def _view(plain: Array) -> Traced:
        traced: Traced = plain.view(Traced)
        return traced

    # ---- calls -------------------------------------------------------------------------------------------------------

    def note(self, writes: Iterable[Array], function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Note a call that has been made, and the arrays that it writes to."""
        state = numpy_state()
        if state != self.state:
            self.calls.append(partial(set_state, *state))
            self.state = state
        self.calls.append(partial(function, *args, **kwargs))
        for array in writes:
            self.overwritten |= {i for i, (other, _) in enumerate(self.filled) if np.may_share_memory(array, other)}
            owner = owner_of(array)
            if id(owner) not in self.arena.owners:
                self.written[id(owner)] = owner

    def store(self, result: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
        """Note a call without an argument for its result; returns a traced copy of that."""
        traced = self.fresh(result)
        target = self.plain(traced)
        self.note([target], store, target, function, *args, **kwargs)
        return traced

    def ufunc(self, ufunc: Any, method: str, inputs: Any, out: Any, options: Any) -> Any:
        """Call a method of a ufunc."""
        inputs = self.plain(inputs)
        options = {name: self.plain(value) for name, value in options.items() if not is_default(name, value)}
        call = ufunc if method == "__call__" else getattr(ufunc, method)
        if method == "at":
            call(*inputs)
            self.note(inputs[:1], call, *inputs)
            return None
        if out is not None and all(target is not None for target in out):
            targets = self.plain(out)
            call(*inputs, out=targets, **options)
            results = out
        else:
            computed = call(*inputs, **options)
            results = tuple(map(self.fresh, computed if isinstance(computed, tuple) else (computed,)))
            targets = self.plain(results)
        if method == "__call__" and ufunc not in BY_NAME:
            self.note(targets, call, *inputs, *targets, **options)
        else:
            self.note(targets, call, *inputs, out=targets, **options)
        return results[0] if len(results) == 1 else results

    def function(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of NumPy's that is no ufunc."""
        name = function.__name__
        if name in LIKE:
            return getattr(self.device.xp, name)(*args, **kwargs)
        if name in UNSIZED or (name == "where" and len(args) == 1):
            self.refuse(name, "a result whose shape depends on values")
        plain_args, plain_kwargs = self.plain(args), self.plain(kwargs)
        result = function(*plain_args, **plain_kwargs)
        if name in OF_FORM:
            return result
        if name in WRITING or plain_kwargs.get("out") is not None:
            target = plain_args[0] if name in WRITING else plain_kwargs["out"]
            self.note([target], function, *plain_args, **plain_kwargs)
            return None if name in WRITING else kwargs["out"]
        if name == "concatenate":
            traced = self.fresh(result)
            target = self.plain(traced)
            self.note([target], function, *plain_args, **plain_kwargs, out=target)
            return traced
        return self._results(result, args, partial(function, *plain_args, **plain_kwargs), name)

    def _results(self, result: Any, sources: Any, call: Callable[[], Any], name: str) -> Any:
        """Traced arrays for what a call has returned: views, or copies in blocks."""
        if isinstance(result, (tuple, list)) and all(isinstance(entry, np.ndarray) for entry in result):
            views = [self.view(entry, sources) for entry in result]
            if all(view is not None for view in views):
                return type(result)(views) if type(result) in (tuple, list) else views
            traced = [self.fresh(entry) for entry in result]
            targets = self.plain(traced)
            self.note(targets, store_all, targets, call, name)
            return type(result)(traced) if type(result) in (tuple, list) else type(result)(*traced)
        if not isinstance(result, (np.ndarray, np.generic)):
            self.refuse(name, "a value read on the host")
            return result
        if isinstance(result, np.ndarray):
            view = self.view(result, sources)
            if view is not None:
                return view
        return self.store(result, call)

    def method(self, name: str, array: Traced, args: Any, kwargs: Any) -> Any:
        """Call a method that returns an array."""
        plain, args, kwargs = self.plain(array), self.plain(args), self.plain(kwargs)
        result = getattr(plain, name)(*args, **kwargs)
        if result is plain:
            return array
        if kwargs.get("out") is not None:
            self.refuse(name, "the argument out")
            return kwargs["out"]
        if isinstance(result, np.ndarray) and (view := self.view(result, [array])) is not None:
            return view
        if name in ("astype", "copy") or (name in ("flatten", "ravel", "reshape") and result.flags.c_contiguous):
            traced = self.fresh(result)
            target = self.plain(traced)
            shaped = target if target.shape == plain.shape else target.reshape(plain.shape)
            if name in ("astype", "copy") or is_row_major(args, kwargs):
                self.note([target], np.copyto, shaped, plain, casting="unsafe")
                return traced
        return self.store(result, getattr(plain, name), *args, **kwargs)

    def change(self, name: str, array: Traced, args: Any, kwargs: Any) -> None:
        """Call a method that changes its array."""
        plain, args, kwargs = self.plain(array), self.plain(args), self.plain(kwargs)
        getattr(plain, name)(*args, **kwargs)
        self.note([plain], getattr(plain, name), *args, **kwargs)

    def getitem(self, array: Traced, index: Any) -> Any:
        plain, index = self.plain(array), self.plain(index)
        if not has_arrays(index):
            return self.view_of(part_of(plain, index), array)
        result = plain[index]
        if has_mask(index):
            self.refuse("getitem", "a result whose shape depends on values")
        return self.store(result, plain.__getitem__, index)

    def setitem(self, array: Traced, index: Any, value: Any) -> None:
        plain, index, value = self.plain(array), self.plain(index), self.plain(value)
        plain[index] = value
        if not has_arrays(index):
            plain, index = part_of(plain, index), ...
        self.note([plain], plain.__setitem__, index, value)

    def truth(self, array: Traced) -> bool:
        """The truth of one element, as each replay must find it."""
        plain = self.plain(array)
        answer = bool(plain)
        self.note([], ask, plain, answer, asking_function())
        self._may_end()
        return answer

    def asked(self, array: Array) -> Array:
        plain = self.plain(array)
        answers = plain.copy()
        self.note([], ask_all, plain, answers.tobytes(), asking_function())
        self._may_end()
        return answers

    def _may_end(self) -> None:
        """A replay may end here, and be taken back."""
        self.early, self.early_draws = {**self.written}, self.draws
        for i in self.overwritten:
            self.filled[i][1]()

    def again(self, call: Callable[..., Any], args: tuple[Any, ...], lost: Callable[[], object]) -> Any:
        if self.depth:  # parts of a loop may run on other threads
            return call(*args)
        if not all(isinstance(array, Traced) for array in arrays_in(args)):
            self.refuse("Communicator", "an exchange of arrays of the host")
        plain = self.plain(args)
        with aside():
            result = call(*plain)
        if isinstance(result, list):
            self._may_end()  # other ranks may have arrays of other lengths then
            return self._results(result, args, partial(call, *plain), call.__name__)
        arrays = [*arrays_in(plain)]
        self.note(arrays, call, *plain)
        for array in arrays:
            if id(owner_of(array)) in self.written:  # where a replay is taken back, what was there before is put back
                self.overwritten.add(len(self.filled))
            self.filled.append((array, lost))
        return result

    def drawn(self, draw: Callable[[], Array]) -> Array:
        result = draw()
        traced = self.fresh(result)
        target = self.plain(traced)
        self.note([target], draw_into, target, draw)
        self.draws += 1
        return traced

    def with_choices(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        outer, state, early, draws = self.calls, self.state, self.early, self.early_draws
        self.calls = []
        results = function(*args)
        if self.state != state:
            self.calls.append(partial(set_state, *state))
        calls, self.calls, self.state = self.calls, outer, state
        self.early, self.early_draws = early, draws
        targets = self.plain([*results])
        self.note([], run_or_call, calls, function, self.plain(args), targets)
        return results

    def within(self, context: Callable[[], AbstractContextManager[Any]], function: Callable[[], Any]) -> Any:
        outer, self.calls = self.calls, []
        result = super().within(context, function)
        calls, self.calls = self.calls, outer
        self.note([], run_within, context, calls)
        return result

    # ---- loops -------------------------------------------------------------------------------------------------------

    def loop(self, body: Callable[[Any], None], chunks: Sequence[Any], uses_blas: bool, shared: bool) -> None:
        """A loop whose parts may run side by side, as `parallel_for` runs them."""
        shared = shared and len(chunks) > 1 and not self.depth
        if (worker_count() if uses_blas or shared else 1) == 1:
            for chunk in chunks:
                body(chunk)
                polling.poll()
            return
        groups = [[chunk] for chunk in chunks] if shared else [chunks]
        outer, state, parts = self.calls, self.state, []
        self.depth += 1
        if uses_blas:
            hold_limit(self)
        try:
            for group in groups:
                self.calls, self.state = [], state
                if shared:
                    self.arena.begin_part()
                for chunk in group:
                    body(chunk)
                if shared:
                    self.arena.end_part()
                if self.state != state:
                    self.calls.append(partial(set_state, *state))
                parts.append(self.calls)
        finally:
            if uses_blas and self.depth == 1:
                drop_limit(self)
            self.depth -= 1
            self.calls, self.state = outer, state
        if shared:
            self.arena.end_loop()
        self.note([], parallel_for, run_calls, parts, uses_blas, shared)
