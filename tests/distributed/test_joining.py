"""`join` in one process: what it does without a launcher, what it refuses, and how it divides a machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import types
import warnings
from unittest import mock

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.distributed import Alone, SharedGradients, current_communicator, join, launched, launchers, meeting, using
from needle.distributed.endings import _status_of
from needle.distributed.joining import THREADS, _begin_alike, _own_gpu, _Place, _share
from needle.distributed.meeting import ENDS
from tests.distributed.threads import in_shared_memory, run_ranks


@contextlib.contextmanager
def in_launch(variables, **modules):
    """As if a launcher had set these variables, with other modules of mpi4py."""
    known = {*launchers.VARIABLES, *launchers.VARIABLES.values(), launchers.RANK}
    rest = {name: value for name, value in os.environ.items() if name not in known}
    with mock.patch.dict(os.environ, rest | variables, clear=True), mock.patch.dict(sys.modules, modules):
        yield


def mpi(version, size=1, has_ended=False):
    """A stand-in for mpi4py whose library is initialized."""
    world = types.SimpleNamespace(Get_size=lambda: size, Get_rank=lambda: 0)
    module = types.SimpleNamespace(Get_library_version=lambda: version, Is_initialized=lambda: True, COMM_WORLD=world)
    module.Is_finalized = lambda: has_ended
    return types.SimpleNamespace(rc=types.SimpleNamespace(initialize=True), MPI=module)


class WithoutLibrary(types.ModuleType):
    """mpi4py where no MPI library can be loaded."""

    rc = types.SimpleNamespace(initialize=True)

    def __getattr__(self, name):
        raise RuntimeError("cannot load MPI library")


class OneEnds:
    """A communicator of MPI for two ranks, of which the other one ends its program."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 2

    def Isend(self, array, rank):
        return types.SimpleNamespace(Test=lambda: True)

    def Irecv(self, array, rank):
        array[0] = ENDS
        return types.SimpleNamespace(Test=lambda: True)


def after_an_end():
    with mock.patch.object(meeting, "_common", [OneEnds()]):
        meeting.meet(None, None)


def joining(variables, module):
    with in_launch(variables, mpi4py=module), join():
        pass


def within_ranks():
    with using(in_shared_memory(2)[1]), join():
        pass


MPICH, OPEN_MPI = "MPICH Version:      5.0.2\nMPICH Release date: …\0", "Open MPI v5.0.11, package: …\0"
ADVICE = "run the mpiexec of that library (`python -m needle.doctor` shows both)"

ERRORS = [
    (lambda: join(0).__enter__(), ValueError, "join: timeout must lie in (0, inf], but got 0"),
    (after_an_end, RuntimeError, "join: all ranks must join again, but rank 1 has ended"),
    (within_ranks, RuntimeError, "join: ranks cannot join others, but rank 1 of 2 calls"),
    (lambda: joining({"PMI_SIZE": "2"}, None), ImportError,
     re.compile(r"join: needs the package mpi4py, which `pip install 'needle-dl\[mpi\]'` installs, and an MPI library, "
                "but got: .*mpi4py.*")),
    (lambda: joining({"PMI_SIZE": "2"}, WithoutLibrary("mpi4py")), RuntimeError,
     ("join: an MPI library must be installed that mpi4py can load, for example by `pip install mpich`, but got: "
      "cannot load MPI library")),
    (lambda: joining({"OMPI_COMM_WORLD_SIZE": "2"}, mpi(MPICH)), RuntimeError,
     (f"join: mpiexec must belong to mpi4py's MPI library, MPICH Version:      5.0.2, but is Open MPI's; {ADVICE}")),
    (lambda: joining({"PMI_SIZE": "2"}, mpi(OPEN_MPI)), RuntimeError,
     ("join: the launcher must belong to mpi4py's MPI library, Open MPI v5.0.11, package: …, which knows of one "
      f"process; but the launcher has started 2 processes (PMI_SIZE=2); {ADVICE}, or `srun --mpi=` with a type that it "
      "has")),
    (lambda: joining({"PMIX_RANK": "1"}, mpi(OPEN_MPI)), RuntimeError,
     re.compile(r"join: .*; but the launcher has started 2 processes or more \(PMIX_RANK=1\); .*")),
    (lambda: joining({"PMI_SIZE": "2"}, mpi(MPICH, has_ended=True)), RuntimeError,
     "join: MPI must not have ended, but the program has called MPI.Finalize()"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text if isinstance(text, re.Pattern) else re.escape(text), str(caught.value))


def test_without_a_launcher_there_is_one_rank_and_no_mpi():
    with in_launch({}, mpi4py=None), join() as communicator:  # an import of mpi4py would fail
        assert isinstance(communicator, Alone)
        assert current_communicator() is communicator


def test_mpi4py_does_not_warn_of_what_join_refuses():
    module = mpi(OPEN_MPI)
    module.MPI.Is_initialized, module.MPI.THREAD_SERIALIZED, module.MPI.Finalize = (lambda: False), 2, (lambda: None)
    module.MPI.Init_thread = lambda level: warnings.warn("suspicious MPI execution environment", stacklevel=2)
    with pytest.raises(RuntimeError, match="the launcher must belong"):  # not the warning, which is an error in tests
        joining({"PMI_SIZE": "2"}, module)


@pytest.mark.parametrize("variables", [{"PMI_SIZE": "1"}, {"PMIX_RANK": "0"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_launcher_may_start_one_rank(variables):
    library, interrupts = mpi(OPEN_MPI), signal.getsignal(signal.SIGINT)
    with in_launch(variables, mpi4py=library), join() as communicator:
        assert communicator.size == 1
        assert signal.getsignal(signal.SIGINT) == interrupts
    assert library.rc.initialize  # as it was


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # a batch script, which has launched nothing
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, (2, 4, "SLURM_STEP_NUM_TASKS")),
        ({"PMI_SIZE": "3", "PMI_RANK": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 3, "PMI_SIZE")),  # mpiexec in a job
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"}, (1, 2, "OMPI_COMM_WORLD_SIZE")),
        ({"PMIX_RANK": "1"}, (1, 2, "PMIX_RANK")),
        ({"PMI_SIZE": "2", "PMI_FD": "987654", "NEEDLE_RANK": "0 None"}, None),  # started by a rank
        ({"PMI_SIZE": "2", "PMI_FD": "987654"}, (0, 2, "PMI_SIZE")),
        ({"PMI_SIZE": "2", "PMI_FD": "987654", "NEEDLE_RANK": f"{os.getpid()} None"}, (0, 2, "PMI_SIZE")),
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "job", "NEEDLE_RANK": "0 job"}, None),
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "other", "NEEDLE_RANK": "0 job"}, (1, 2, "PMIX_RANK")),  # of its mpiexec
        ({"PMI_SIZE": "many", "MV2_COMM_WORLD_SIZE": "2"}, (0, 2, "MV2_COMM_WORLD_SIZE")),
        ({}, None),
    ],
)
def test_what_launchers_tell(variables, expected):
    with in_launch(variables):
        assert launched() == expected


def fit():
    model = nn.Linear(2, 2)
    batch = np.ones((4, 2), "float32"), np.zeros(4, int)
    training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), [[*map(ndl.Tensor, batch)]], epochs=1)


def loop():
    weight = ndl.Tensor([1.0], requires_grad=True)
    gradients = SharedGradients([weight])
    for _ in range(2):
        gradients.backward((weight * 2).sum())


TWO = {"PMI_SIZE": "2", "PMI_RANK": "0"}
TOLD = (
    "{}: a launcher has started 2 processes (PMI_SIZE=2), of which each trains a network of its own: put the program "
    "into `with needle.distributed.join():`, or, if that is meant, into `with using(Alone()):`"
)


@pytest.mark.parametrize(("train", "name"), [(fit, "fit"), (loop, "SharedGradients")])
def test_training_apart_warns_once(train, name, monkeypatch):
    monkeypatch.setattr(launchers, "_warned", [])
    with in_launch({}), join():
        pass
    with in_launch(TWO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in (train, fit, loop):
            each()
    (told,) = caught
    assert told.category is RuntimeWarning
    assert str(told.message) == TOLD.format(name)
    assert told.filename == __file__


@pytest.mark.parametrize("variables", [{}, TWO | {"PMI_RANK": "1"}, {"PMI_SIZE": "1"}, {"PMIX_RANK": "0"}])
def test_of_those_who_may_train_apart_nobody_warns(variables, monkeypatch):
    """One process, all but the first, and those who say so; a warning is an error in tests."""
    for train in (fit, loop):
        monkeypatch.setattr(launchers, "_warned", [])
        with in_launch(variables):
            train()
        monkeypatch.setattr(launchers, "_warned", [])
        with in_launch(TWO), using(Alone()):
            train()


def place(cores, quota=None):
    return _Place("machine", frozenset(cores), quota, None)


@pytest.mark.parametrize(
    ("places", "shares"),
    [
        ([place(range(8))] * 2, [4, 4]),
        ([place(range(8))] * 3, [2, 2, 2]),
        ([place(range(6))] * 3, [2, 2, 2]),  # though six thirds are less than 2 in floats
        ([place(range(2))] * 4, [1, 1, 1, 1]),
        ([place(range(4)), place(range(4, 6))], [4, 2]),  # the launcher has bound them
        ([place(range(4)), place(range(2, 6))], [3, 3]),  # of two cores half each
        ([place(range(64), quota=6)] * 2, [3, 3]),
    ],
)
def test_ranks_that_share_cores_divide_them(places, shares):
    assert [_share(here, places) for here in places] == shares


def test_control_groups_count_where_they_pay_for_fewer_cores(monkeypatch):
    joining, cores = sys.modules["needle.distributed.joining"], _Place.here().cores
    for quota, counted in ((len(cores), None), (len(cores) - 1, len(cores) - 1)):
        monkeypatch.setattr(joining, "usable_cores", lambda quota=quota: quota)
        assert _Place.here().quota == counted


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(3), 3),
        (SystemExit(-1), 255),
        (SystemExit(256), 1),  # which a shell would take for 0
        (SystemExit("why"), 1),
        (KeyboardInterrupt(), 130),
        (LookupError(), 1),
    ],
)
def test_a_rank_ends_with_the_status_of_its_error(error, status):
    assert _status_of(error) == status


def test_ranks_take_threads_and_gpus_by_machine(monkeypatch):
    """Three ranks, of which the second has a machine of its own, and so all of its GPUs; threads that are set stay."""
    joining, numbers = sys.modules["needle.distributed.joining"], []
    machines = [_Place(name, frozenset(range(6)), None, "5,6") for name in ("a", "b", "a")]
    monkeypatch.setattr(_Place, "here", lambda: machines[current_communicator().rank])
    monkeypatch.setattr(joining, "_own_gpu", lambda *asked: numbers.append(asked))
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    for count, threads in ((8, [3, 6, 3]), (1, [1, 1, 1])):
        monkeypatch.setattr(joining, "worker_count", lambda count=count: count)
        assert run_ranks(3, _begin_alike) == threads
    assert sorted(numbers) == [(0, "5,6")] * 2 + [(1, "5,6")] * 2
    monkeypatch.setenv(THREADS[-1], "2")
    assert run_ranks(3, _begin_alike) == [None] * 3


def test_ranks_of_a_machine_take_one_gpu_each(tmp_path):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert [_own_gpu(i, None, tmp_path) for i in range(3)] == ["0", "1", "0"]
    assert [_own_gpu(i, "5,GPU-7f", tmp_path) for i in range(2)] == ["5", "GPU-7f"]
    assert _own_gpu(1, "3", tmp_path) == "3"  # the launcher has chosen
    assert _own_gpu(0, "", tmp_path) is None
    assert _own_gpu(0, None, tmp_path / "none") is None
