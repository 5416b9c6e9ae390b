"""One recording of a step: the tensors that lead into it and out of it, and what must hold for a replay."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from weakref import ref

from needle.autograd import Tensor
from needle.backend import CannotRecord, Device, Eager, Missed, Recorder, Recording, noting, to_host
from needle.backend.communicator import current_communicator, using
from needle.capture.arguments import is_row, replaced, tapping, tensors_in
from needle.capture.exchanges import Exchanges, ExchangesDiffer
from needle.graph import Value, tapped
from needle.version_counter import VersionCounter

__all__ = ["MustBeEager", "Recorded"]

Array: TypeAlias = Any

MOST_MISSES = 8
PLAIN = (type(None), bool, int, float, complex, str, bytes)  # what a step may return beside tensors


class MustBeEager(Exception):
    """The step cannot be captured: why, and its result if it has run."""

    def __init__(self, error: CannotRecord, result: Any = None, is_done: bool = False) -> None:
        super().__init__(f"{error}{error.place}")
        self.result, self.is_done = result, is_done


class Recorded:
    """A recording of a step for arguments of one kind."""

    recorder: Recorder | None = None
    recording: Recording

    def __init__(self, device: Device, tensors: Sequence[Tensor]) -> None:
        self.device = device
        self.communicator = current_communicator()
        self.exchanges = Exchanges(self.communicator)
        self.inputs = [static(device, tensor, tensor.requires_grad) for tensor in tensors]  # take values of arguments
        self.lent: list[tuple[Tensor, Tensor, Array, VersionCounter]] = []  # arguments, and where they lie else
        self.read: dict[int, tuple[Value, Array, bool, Any]] = {}  # by id, values from before: with array, gradient
        self.own: set[int] = set()  # the ids of values that the step has made
        self.made: list[ref[Value]] = []  # those, and values from before that got another array
        self.conditions: list[tuple[Value, Array, bool]] = []
        self.grads: list[tuple[Value, Any]] = []  # values from before, and their gradients if the step has set them
        self.added: list[tuple[Value, Array]] = []  # values from before whose gradient was read, and its array
        self.first: dict[int, tuple[Value, bool]] = {}  # values that got a gradient, and whether they had none before
        self.bare: list[Value] = []  # values from before that must have no gradient: the step may add to it
        self.counters: dict[int, VersionCounter] = {}  # by id, those of memory that each replay changes
        self.known: set[int] = set()  # the ids of all values that it depends on
        self.result: Any = None
        self.constant = dict(enumerate(tensor.array for tensor in tensors))  # arguments that have not changed so far
        self.is_checked = False
        self.replays = self.misses = 0

    # ---- recording ---------------------------------------------------------------------------------------------------

    def record(self, step: Callable[..., Any], args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """Record the step, which runs once; returns its result."""
        failure, python_random = None, random.getstate()
        with tapping:
            try:
                self._lend(given)
                with tapped(self._take, self._put, self._set_grad):
                    self.recording = self.device.record(lambda: self._run(step, args, kwargs))
            except CannotRecord as error:
                failure = error
            finally:
                self._release()
                is_replaced = self._give_back()
        if failure is None:
            self.is_checked = self.recording.is_exact
            self._finish(is_replaced)
            if random.getstate() != python_random:
                self._fail("numbers drawn by Python's random")
            return self._results()
        if failure.is_done:
            self._pass_writes()
        else:
            with Eager(self.device, failure.numbers).under_way():
                self.result = step(*args, **kwargs)
        raise MustBeEager(failure, self.result, True)

    def _run(self, step: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.recorder = noting.recorder
        self.result = self._eager(step, args, kwargs)

    def _eager(self, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run the step, with known exchanges if there are other ranks."""
        with using(self.exchanges if self.exchanges.size > 1 else self.communicator):
            return step(*args, **kwargs)

    def _lend(self, given: Sequence[Tensor]) -> None:
        """Let the arguments lie where replays read them: the step may know them by other names, too."""
        pairs = {id(tensor): (kept, tensor) for kept, tensor in zip(self.inputs, given, strict=True)}
        for kept, tensor in pairs.values():
            self.lent.append((tensor, kept, tensor.array, tensor.version_counter()))
            tensor.array = tensor.spec = kept.array
            tensor.counter = kept.version_counter()

    def _give_back(self) -> bool:
        """Let the arguments lie where they did; whether the step has given one another array."""
        is_replaced = False
        for tensor, kept, array, counter in self.lent:
            if tensor.array is kept.array:
                tensor.array = tensor.spec = array
                tensor.counter = counter
            else:
                is_replaced = True
        return is_replaced

    def _take(self, value: Value, array: Array) -> Array:
        """An array that is taken out of a value, as the recorder must see it."""
        recorder = noting.recorder
        if recorder is None or recorder is not self.recorder:
            return array
        key = id(value)
        if key not in self.own and key not in self.read:
            self.read[key] = value, array, value.requires_grad, value.grad
        return tuple(map(recorder.kept, array)) if isinstance(array, tuple) else recorder.kept(array)

    def _put(self, value: Value, array: Array) -> None:
        """A value gets an array: it is one of the step's own, unless it was read before."""
        if noting.recorder is not None and noting.recorder is self.recorder:
            self.made.append(ref(value))
            if id(value) not in self.read:
                self.own.add(id(value))

    def _set_grad(self, value: Value, grad: Any) -> None:
        """A value gets a gradient, or None in its place."""
        key = id(value)
        if noting.recorder is not None and noting.recorder is self.recorder and key not in self.own:
            self.first.setdefault(key, (value, grad is not None and value.grad is None))

    def _release(self) -> None:
        """Give the values that the step has made, and that are still there, arrays for use outside of the recorder."""
        for value in [made() for made in self.made]:
            if value is not None and self.recorder is not None:
                array, released = value.array, self.recorder.released
                value.array = tuple(map(released, array)) if isinstance(array, tuple) else released(array)
                value.spec = value.array
        self.made, self.own = [], set()

    def _finish(self, is_replaced: bool) -> None:
        """Note what a replay changes, and what it depends on."""
        recorder = self.recording.recorder
        kept_for = {id(tensor): kept for tensor, kept, _, _ in self.lent}
        for tensor, kept, _, _ in self.lent:
            kept.grad, kept.requires_grad = tensor.grad, tensor.requires_grad
            if id(tensor) in self.read:
                grad = self.read.pop(id(tensor))[3]
                self.read[id(kept)] = kept, kept.array, kept.requires_grad, grad
        self.result = replaced(self.result, lambda tensor: kept_for.get(id(tensor), tensor))
        for value, array, requires_grad, grad in self.read.values():
            self.conditions.append((value, array, requires_grad))
            if grad is not None and id(grad) in self.read:
                self.added.append((value, self.read[id(grad)][1]))
        first = [(kept_for.get(id(value), value), had_none) for value, had_none in self.first.values()]
        self.grads = [(value, value.grad) for value, _ in first]
        self.bare = [value for value, had_none in first if had_none]
        self.bare += [value for value in recorder.bare if id(value) not in self.first]
        self.read, self.first = {}, {}
        grads = {id(counter): counter for counter in (g.version_counter() for _, g in self.grads if g is not None)}
        self.counters = recorder.changed | grads
        self.known = {id(value) for value, _, _ in self.conditions}
        if self._pass_writes() or is_replaced:
            self._fail("a step that writes into its arguments")
        if not self.holds():
            self._fail("a tensor, a module, an optimizer or gradients that wait, which the step itself changes")
        if strange := strange_in(self.result):
            self._fail(f"a result of type {strange}")

    def _pass_writes(self) -> bool:
        """Write to the arguments what the step has written where they lay; whether it has written to their memory."""
        changed = self.recorder.changed if self.recorder is not None else {}
        written = False
        for tensor, kept, array, counter in self.lent:
            if id(kept.version_counter()) in changed and tensor.array is array:
                tensor.bump_version()
                array[...] = kept.array
                written = True
            written = written or id(counter) in changed
        self.lent = []
        return written

    def _fail(self, cause: str) -> None:
        raise MustBeEager(CannotRecord("capture", cause), self._results(), True)

    # ---- replays -----------------------------------------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether all that the recorded work depends on is as it was."""
        communicator = current_communicator()
        if communicator is not self.communicator and communicator.size > 1:
            return False
        if self.exchanges.under_way:  # an error has ended a replay: what it has started may still write
            return False
        for value, array, requires_grad in self.conditions:
            if value.array is not array or value.requires_grad is not requires_grad:
                return False
        if Value.hooks_exist and any(getattr(value, "hooks", None) for value, _, _ in self.conditions):
            return False
        holds: bool = self.recording.recorder.holds()
        return holds

    def __call__(self, step: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> Any:
        """Replay the recorded work for other arguments of the same kind."""
        if any(id(tensor) in self.known or id(tensor.version_counter()) in self.counters for tensor in tensors):
            return step(*args, **kwargs)  # the step knows an argument by another name, too
        for kept, tensor in zip(self.inputs, tensors, strict=True):
            kept.grad = tensor.grad
        if not self._take_gradients():
            return step(*args, **kwargs)
        self._take_arguments(tensors)
        if not self.is_checked:
            return self._check(step, args, kwargs, tensors)
        self.exchanges.begin()
        try:
            self.recording.replay()
        except Missed as missed:
            self.exchanges.repeat(is_known=False)
            for value, array in self.added:  # the replay may have written to where they lay
                value.grad = Tensor.make_const(array.copy())
            with Eager(self.device, missed.numbers).under_way():
                result = self._eager(step, args, kwargs)
            self.exchanges.end()
            self._count(missed, result)
            return result
        self.replays += 1
        VersionCounter.bump_all(self.counters.values())
        for value, grad in self.grads:
            value.grad = grad
        self._pass_gradients(tensors)
        return self._results()

    def _count(self, missed: Missed, result: Any) -> None:
        """Count a call that values have led elsewhere, with its result; of too many the step runs eagerly for good."""
        self.misses += 1
        if self.misses >= MOST_MISSES and self.misses > self.replays:
            error = CannotRecord(missed.asker, "values that lead to other work in most calls")
            raise MustBeEager(error, result, True)

    def _take_arguments(self, tensors: Sequence[Tensor]) -> None:
        """Copy the arguments to where the step reads them.

        Those that were the same in all calls so far may have been taken for constants: once they change, the next
        replay is checked.
        """
        for position in [*self.constant]:
            kept, new = self.inputs[position].array, tensors[position].array
            if new is not self.constant[position] and not self.recording.is_exact:
                if (to_host(kept) == to_host(new)).all():
                    self.constant[position] = new
                else:
                    del self.constant[position]
                    self.is_checked = False
        for kept, tensor in zip(self.inputs, tensors, strict=True):
            kept.array[...] = tensor.array

    def _take_gradients(self) -> bool:
        """Bring gradients that the step adds to where it reads them; False if there are others than it needs."""
        if any(value.grad is not None for value in self.bare):
            return False
        for value, array in self.added:
            grad = value.grad
            if grad is None or grad.array.shape != array.shape or grad.array.dtype != array.dtype:
                return False
            if grad.array is not array:
                array[...] = grad.array
        return True

    def _pass_gradients(self, given: Sequence[Tensor]) -> None:
        """Give the arguments the gradients that the step has set for the tensors in their place."""
        for kept, tensor in zip(self.inputs, given, strict=True):
            tensor.grad, tensor.requires_grad = kept.grad, kept.requires_grad

    def _results(self) -> Any:
        """The results on memory of their own: the next replay overwrites what they were computed in."""
        return replaced(self.result, lambda tensor: static(self.device, tensor, requires_grad=False))

    # ---- the first replay --------------------------------------------------------------------------------------------

    def _check(self, step: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> Any:
        """Run the step eagerly, and compare what it does with what a replay does from the same state."""
        result: Any = None

        def run() -> list[Array]:
            nonlocal result
            self.exchanges.begin(compares=True)
            result = self._eager(step, args, kwargs)
            self.exchanges.repeat(is_known=True)
            return arrays_of(result, self._grads(tensors))

        try:
            equal = self.recording.compare(run, lambda: arrays_of(self.result, [grad for _, grad in self.grads]))
            self.exchanges.end()
        except ExchangesDiffer:
            equal = False
        except Missed as missed:
            self._count(missed, result)
            return result
        finally:
            self.exchanges.begin()
        if not equal or form_of(result) != form_of(self.result):
            raise MustBeEager(CannotRecord("capture", "a step whose replay differs from an eager run"), result, True)
        self.is_checked = True
        return result

    def _grads(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The gradients that are set after an eager step, beside those in `grads`."""
        given = {id(kept): tensor for kept, tensor in zip(self.inputs, tensors, strict=True)}
        return [given.get(id(value), value).grad for value, _ in self.grads]


def static(device: Device, tensor: Tensor, requires_grad: bool) -> Tensor:
    """A leaf with the values of a tensor, in memory of the same order."""
    array = device.xp.empty_like(tensor.array)
    array[...] = tensor.array
    return Tensor.make_leaf(array, requires_grad)


def arrays_of(result: Any, grads: Sequence[Any]) -> list[Array]:
    """The arrays of the tensors in a result, then those of gradients."""
    return [tensor.array for tensor in tensors_in(result)] + [None if grad is None else grad.array for grad in grads]


def form_of(result: Any) -> Any:
    """A result without its tensors."""
    return replaced(result, lambda tensor: (tensor.shape, tensor.dtype))


def strange_in(result: Any) -> str | None:
    """The type of something in a result that is no tensor and no plain value, if there is one."""
    if is_row(result):
        return next(filter(None, map(strange_in, result)), None)
    if type(result) is dict:
        return strange_in([*result.values()])
    return None if isinstance(result, (Tensor, *PLAIN)) else type(result).__name__
