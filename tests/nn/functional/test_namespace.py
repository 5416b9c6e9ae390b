"""The names of `needle.nn.functional` and `needle.init`: each file lists its own, the package lists them all."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

PACKAGES = ("needle.nn.functional", "needle.init")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_lists_the_names_of_its_files_once(name):
    package = import_module(name)
    names = []
    for info in pkgutil.iter_modules(package.__path__):
        listed = import_module(f"{name}.{info.name}").__all__
        assert listed == sorted(listed)
        names += listed
    assert sorted(package.__all__) == sorted(set(names))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_function_wins_over_the_file_of_its_name(name):
    package = import_module(name)
    for function in package.__all__:
        assert inspect.isfunction(getattr(package, function))
        if any(info.name == function for info in pkgutil.iter_modules(package.__path__)):
            assert getattr(import_module(f"{name}.{function}"), function) is getattr(package, function)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_function_is_documented_and_annotated(name):
    package = import_module(name)
    for function in map(package.__dict__.get, package.__all__):
        signature = inspect.signature(function)
        assert inspect.getdoc(function)
        if not function.__module__.startswith(name):
            continue  # an op
        annotations = [parameter.annotation for parameter in signature.parameters.values()]
        assert inspect.Parameter.empty not in [*annotations, signature.return_annotation], function.__name__
