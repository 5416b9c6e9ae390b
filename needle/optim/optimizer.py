"""The base of all optimizers: which parameters a step updates, and in what order.

A step works on raw arrays, so it records no graph for parameters or state. It writes into the parameters and the state
in place and never into a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from needle import check, kernels
from needle.autograd import Tensor
from needle.backend import depend, device_of, live, lone_types, no_gradient, recording, refuse, xp
from needle.backend.communicator import current_communicator
from needle.graph import check_one_device
from needle.kernels import Rule, Update
from needle.nn.utils import clip_grad_norm_, clip_grad_value_
from needle.optim.flat import Cohort, Numbers, Operands, State
from needle.optim.groups import (
    Group,
    Option,
    all_params,
    check_groups,
    check_params,
    finite,
    flag,
    is_same,
    own_group,
    own_list,
)
from needle.optim.state_dict import made, read, restored

__all__ = ["Optimizer"]


class Optimizer:
    """The base of all optimizers: `params`, `param_groups`, `step()`, `zero_grad()`, `reset_grad()` and clipping.

    `params` are different tensors of floating dtype, of any shapes, on any devices; or groups of them, as in torch:
    dicts such as `{"params": [w], "lr": 0.1}` with options of their own. `param_groups` lists the groups, each with all
    its options. An option as an attribute, such as `optimizer.lr`, reads the first group's, and sets all groups'.

    Parameters and options may be assigned between steps, by attribute or in a group (`group["lr"] = 0.1`), and take
    effect with the next step. An attribute is checked at once; what was put into a group is checked by the next step,
    before anything changes. A group may also hold a `name` and the notes of schedulers (`initial_lr`, `max_lr`,
    `min_lr`, `base_momentum`, `max_momentum`, `swa_lr`); other keys are refused.

    A parameter with `.grad` None is skipped. State belongs to a parameter: one that is skipped, or added later, finds
    its own.

    A subclass overrides `step`, or defines a rule. It declares each option by `name = Option(check)` (in
    `needle.optim.groups`) and passes the values to this constructor. `_new_state(group)` names the state arrays, which
    have shape and dtype of the parameter, with the number that fills each at first. `_advance(numbers, group)` brings
    the numbers that belong to a parameter up to this step, and `_settings(group, numbers)` computes from them and the
    options what the rule takes. Then the rule runs: `_update(theta, grad, state, scratch, group, settings)`.

    Raises TypeError if `params` is not an iterable of tensors of floating dtype, or of dicts, and ValueError if it is
    empty, names a tensor twice or holds a result of ops, if a group has a strange key, or if `lr` or `weight_decay` is
    negative or not finite.

    >>> weight, bias = Tensor([1.0, 2.0]), Tensor([3.0])
    >>> optimizer = Optimizer([{"params": [weight], "weight_decay": 0.1}, {"params": [bias]}], lr=0.5)
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.5, 0.1), (0.5, 0.0)]
    """

    options: ClassVar[dict[str, Callable[..., Any]]] = {}  # the check of each `Option`, by name
    lr = Option(finite)
    weight_decay = Option(finite)
    maximize = Option(flag)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.01,
        weight_decay: float = 0.0,
        maximize: bool = False,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        given = own_list(name, params)
        groups = [own_group(name, group) for group in given] if given and isinstance(given[0], dict) else []
        options = {"lr": lr, "weight_decay": weight_decay, "maximize": maximize, **options}
        if not options.keys() <= self.options.keys():
            raise TypeError(f"{name}: options must be among {', '.join(self.options)}, but got {', '.join(options)}")
        self.defaults = {option: self.options[option](name, option, value) for option, value in options.items()}
        self.param_groups = self._checked([self.defaults | group for group in groups or [{"params": given}]])
        self._known: list[Group] = []  # the groups when they were checked last: copies, and all that they held
        self._seen: list[Any] = []
        self._state = State()

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters; options that it does not have are those of the constructor.

        Raises what the constructor raises.
        """
        refuse(type(self).__name__, "a new group")
        group = self.defaults | own_group(type(self).__name__, param_group)
        self.param_groups.append(self._checked([*self.param_groups, group])[-1])

    def _checked(self, groups: Sequence[Any], known: Sequence[Group] = ()) -> list[Group]:
        """Copies of the groups with all values in their canonical forms; what stands in `known` is right already."""
        checked = check_groups(type(self).__name__, groups, self.options, known)
        for group in checked:
            self._check_together(group)
        return checked

    def _check_together(self, options: Mapping[str, Any]) -> None:
        """Refuse options that contradict each other."""

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all groups, in the order in which they were given."""
        groups = self.param_groups
        return groups[0]["params"] if len(groups) == 1 else all_params(groups)

    @params.setter
    def params(self, params: Iterable[Tensor]) -> None:
        name = type(self).__name__
        if len(self.param_groups) > 1:
            count = len(self.param_groups)
            raise ValueError(f'{name}: of several groups, the "params" of one must be set, but got a list for {count}')
        given = own_list(name, params)
        check_params(name, given)
        refuse(name, "an assignment to params")
        self.param_groups[0]["params"] = given

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises, before anything is changed, ValueError if a gradient does not have its parameter's shape or a parameter
        is read-only, TypeError if a gradient is on another device, and what the constructor raises for a group.
        """
        self._check_groups()
        updates = [(group, operands) for group in self.param_groups if (operands := _operands(group["params"]))]
        is_aliased = self._state.is_aliased([array for _, operands in updates for array, _ in operands.values()])
        for _, operands in updates:
            for parameter in operands:
                parameter.bump_version()
        for group, operands in updates:
            self._update_group(group, operands, is_aliased)
        communicator = current_communicator()
        if communicator.part is not None and not communicator.shares_gradients:  # see worker_batches
            communicator.stepped = min((x for _, part in updates for x in part), key=lambda x: x.size, default=None)

    def _check_groups(self) -> None:
        """Check the groups, if they hold another object than when they were checked last."""
        groups = self.param_groups
        if not is_same(_content(groups), self._seen):
            complete = [self.defaults | group if isinstance(group, dict) else group for group in groups]
            checked = self._checked(complete, self._known)
            for group, values in zip(groups, checked, strict=True):
                group.update(values)
            self._known = [{**group, "params": [*group["params"]]} for group in groups]
            self._seen = _content(groups)

    def _update_group(self, group: Group, operands: Operands, is_aliased: bool) -> None:
        """Update the parameters of a group that have a gradient."""
        fills, state = self._new_state(group), self._state
        rule = Rule(self._update, getattr(self._update, "kernel", None), (*fills,), group)
        cohorts = state.cohorts_of(operands)
        is_recorded = recording() is not None
        has_cells = is_recorded and self._depend_on(group, cohorts)
        for cohort in cohorts:
            part = cohort.part(operands)
            if is_aliased:  # parameters that share memory are updated one after the other
                pools, batches = [], [state.updates_of([parameter], part, fills) for parameter in part]
            else:
                pools = state.pools_of(cohort, part, fills, rule)
                updates = [pool.gather(part, is_recorded) for pool in pools]
                updates += state.updates_of(cohort.unpooled, part, fills) if cohort.unpooled else ()
                batches = alike(updates) if len(updates) > 1 else [updates]
            if not has_cells:
                self._advance(cohort.numbers, group)
                settings = self._settings(group, cohort.numbers)
            for position, batch in enumerate(batches):
                array = batch[0][0]
                if has_cells:
                    settings = self._cell(array, group, cohort.numbers, position == 0)
                kernels.update_each(array, batch, rule, settings)
            for pool in pools:
                pool.scatter(part, is_recorded)

    def _cell(self, array: Any, group: Group, numbers: Numbers, is_first: bool) -> Any:
        """The settings of a recorded step, in an array like `array` that each replay fills anew.

        The first one for a cohort counts the steps.
        """

        def compute() -> Any:
            if is_first:
                self._check_groups()
                self._advance(numbers, group)
            return self._settings(group, numbers)

        return live(device_of(array), compute, array.dtype)

    def _depend_on(self, group: Group, cohorts: Sequence[Cohort]) -> bool:
        """Let a recording hold as long as its step is like another: the same parameters, state and kind of options.

        False if the settings of the rule are unknown, and the step so refused.
        """
        if type(self)._settings is Optimizer._settings:
            refuse(type(self).__name__, "a rule whose settings are unknown")
            return False
        state, groups, params, kinds = self._state, [*self.param_groups], [*group["params"]], self._kinds(group)
        depend(
            lambda: (
                self._state is state
                and is_same(self.param_groups, groups)
                and is_same(group["params"], params)
                and self._kinds(group) == kinds
                and all(any(cohort is own for own in state.cohorts) for cohort in cohorts)
            )
        )
        return True

    def _kinds(self, group: Group) -> list[Any]:
        """What decides which arithmetic a rule does, apart from its numbers: flags, and which options are 0 or None."""
        values = [group.get(name) for name in self.options if name != "lr"]
        return [value if value is None or isinstance(value, bool) else value != 0 for value in values]

    def _new_state(self, group: Group) -> dict[str, float]:
        """The names of the state arrays, and the number that fills each at first."""
        return {}

    def _advance(self, numbers: Numbers, group: Group) -> None:
        """Bring the numbers of parameters with the same steps so far, {} at first, up to this one: count it."""
        numbers["step"] = numbers.get("step", 0) + 1

    def _new_numbers(self, group: Group) -> Numbers:
        """The numbers of a parameter after its first step."""
        numbers: Numbers = {}
        self._advance(numbers, group)
        return numbers

    def _settings(self, group: Group, numbers: Numbers) -> Any:
        """All that the rule computes with beside arrays: a tuple of floats that follow from options and `numbers`.

        By default `numbers` themselves; a step with these cannot be recorded.
        """
        return numbers

    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        """The rule: change `theta` and the arrays in `state` in place; `scratch` may be overwritten, `grad` may not.

        All arrays have one shape: elements of one parameter or of several, so the rule must treat each alone. Several
        threads may call it, each with other elements. While a step is recorded, `settings` are arrays (); the rule may
        then ask the group which of its options are set, as other settings are another recording.
        """
        raise NotImplementedError(f"{type(self).__name__}: the rule is not defined")

    def state_dict(self, copy: bool = True) -> dict[str, Any]:
        """The state as plain data, as in torch: `{"state": {0: {"step": 3, …}, …}, "param_groups": [{"lr": …}, …]}`.

        The parameters of all groups are counted from 0; "params" of a group holds their numbers. Arrays are NumPy's.
        They are copies; with `copy=False`, those of the CPU share the memory of the optimizer and change with it, which
        suits a state that is written to a file at once.

        Raises what a step raises for what was put into a group, and NotImplementedError for a subclass that overrides
        `step` and so keeps its state elsewhere: it must override this and `load_state_dict`, too.
        """
        check.instance("state_dict", "copy", copy, bool)
        refuse("state_dict", "a copy on the host")
        self._check_rule()
        self._check_groups()
        return made(self.param_groups, self._state, self._new_state, copy)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the options and state of a `state_dict()`: training goes on bit for bit as where it was made.

        The parameters are those of this optimizer; their order in its groups tells which is which. Keys may be text and
        tuples lists, as in JSON. A state of torch's fits if its arrays are NumPy's: buffers keep the layout of their
        parameter, so those of `Linear.weight` are to be transposed.

        Raises, before anything is changed, TypeError or ValueError if `state` does not have this form, and ValueError
        with all names, shapes and dtypes that do not fit; NotImplementedError as `state_dict`.
        """
        self._check_rule()
        refuse("load_state_dict", "a loaded state")
        saved = read(state)
        if len(saved) != len(self.param_groups):
            count = f"{len(saved)} for {len(self.param_groups)}"
            raise ValueError(f"load_state_dict: state and optimizer must have as many groups, but got {count}")
        for options, _ in saved:
            absent = [name for name in self.options if name not in options]
            if absent:
                raise ValueError(f"load_state_dict: each group must have {', '.join(absent)}, but got {[*options]}")
        own = zip(self.param_groups, saved, strict=True)
        groups = self._checked([{**options, "params": group["params"]} for group, (options, _) in own])
        self._state = restored(groups, [entries for _, entries in saved], self._new_state, self._new_numbers)
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.clear()
            group.update(loaded)

    def _check_rule(self) -> None:
        """Refuse to speak for the state of a subclass that has no rule."""
        if type(self)._update is Optimizer._update:
            name = type(self).__name__
            raise NotImplementedError(f"{name}: what overrides step must override state_dict, too")

    def reset_grad(self) -> None:
        """Set `.grad` of all parameters to None."""
        self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """`reset_grad` by torch's name; with `set_to_none=False`, gradients become zeros."""
        for parameter in self.params:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const(xp(grad).zeros_like(grad))

    def clip_grad_norm(self, max_norm: float = 0.25) -> Tensor:
        """`nn.utils.clip_grad_norm_` of all parameters: scale gradients to an L2 norm of at most `max_norm`.

        Raises what that raises, and ValueError if no parameter has a gradient.
        """
        norm = clip_grad_norm_(self.params, max_norm)
        if all(parameter.grad is None for parameter in self.params):
            raise ValueError("clip_grad_norm: at least one parameter must have a gradient, but got none")
        return norm

    def clip_grad_value(self, clip_value: float) -> None:
        """`nn.utils.clip_grad_value_` of all parameters: clip gradients to [-clip_value, clip_value]."""
        clip_grad_value_(self.params, clip_value)


def decayed(theta: Any, grad: Any, scratch: Any, decay: float, group: Group) -> Any:
    """grad + decay·θ, with -grad for `maximize`: written to `scratch`, or `grad` itself."""
    if group["weight_decay"] and not group.get("decoupled_weight_decay"):
        xp(theta).multiply(theta, decay, scratch)
        return (xp(theta).subtract if group["maximize"] else xp(theta).add)(scratch, grad, scratch)
    return xp(theta).negative(grad, scratch) if group["maximize"] else grad


def decays(group: Group) -> tuple[float, float]:
    """Two settings: what of θ a decoupled weight decay keeps, and what of θ another adds to the gradient."""
    if group["decoupled_weight_decay"]:
        return 1 - group["lr"] * group["weight_decay"], 0.0
    return 1.0, group["weight_decay"]


def by_kernel(name: str) -> Callable[[Any], Any]:
    """Decorate a rule that some devices compute by a kernel of that name, on all parameters at once."""

    def named(rule: Any) -> Any:
        rule.kernel = name
        return rule

    return named


def alike(updates: Sequence[Update]) -> list[list[Update]]:
    """The updates in lists of the same device and dtype."""
    alike: dict[Any, list[Update]] = {}
    for update in updates:
        alike.setdefault((device_of(update[0]), update[0].dtype), []).append(update)
    return [*alike.values()]


def _content(groups: list[Group]) -> list[Any]:
    """The values of all groups, and each parameter; what is no group, or no list, stands for itself."""
    content: list[Any] = []
    for group in groups:
        if isinstance(group, dict):
            content += group.values()
            content += params if isinstance(params := group.get("params"), list) else ()
        else:
            content.append(group)
    return content


def _operands(params: list[Tensor]) -> Operands:
    """The arrays of each parameter that has a gradient, and of its gradient."""
    operands: Operands = {}
    for parameter in params:
        if parameter.grad is not None:
            array, grad = parameter.array, parameter.grad.array
            if type(array) is not type(grad) or type(array) not in lone_types:
                check_one_device("step", (parameter, parameter.grad))
            if grad.shape != array.shape:
                raise ValueError(f"step: a gradient must have its tensor's shape {array.shape}, but got {grad.shape}")
            operands[parameter] = array, grad
        else:
            no_gradient(parameter)
    return operands
