"""What makes AiiDA run a process again although its inputs are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching

from aiida_perovmlip.calculations import base
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions import dataset as dataset_functions
from aiida_perovmlip.calculations.functions import structures
from aiida_perovmlip.calculations.label import LabelCalculation
from aiida_perovmlip.calculations.train import TrainCalculation, TrainMaceCalculation
from aiida_perovmlip.data.dataset import DatasetData

RECIPE = {'families': [{'formula': 'CsPbI3', 'count': 1}]}


@pytest.fixture
def label_job(python_code: Any, make_frames: Any) -> Callable[[type], Any]:
    """Return a function that makes a label job, ready to run."""

    def make(process: type = LabelCalculation) -> Any:
        frames = DatasetData.from_frames(make_frames(1, labels=False)).store()
        inputs = {'code': python_code, 'frames': frames, 'labeller': orm.Str('emt')}
        return instantiate_process(get_manager().get_runner(), process, **inputs)

    return make


@pytest.mark.parametrize(
    'module', ['compute.summary', 'data.dataset', 'calculations.base', 'calculations.label', 'parsers.response']
)
def test_an_edit_of_what_makes_the_outputs_changes_the_version(label_job, monkeypatch, tmp_path, module):
    before = label_job().CACHE_VERSION
    host_sources = base.host_sources

    def edited(modules):
        found = host_sources(modules)
        copy = tmp_path / 'edited.py'
        copy.write_text(found[f'aiida_perovmlip.{module}'].read_text() + '\n# edited\n')
        return {**found, f'aiida_perovmlip.{module}': copy}

    assert before == label_job().CACHE_VERSION
    monkeypatch.setattr(base, 'host_sources', edited)
    assert before != label_job().CACHE_VERSION


def test_an_edit_of_a_subclass_from_elsewhere_changes_the_version(label_job, monkeypatch, tmp_path):
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'job_beside.py').write_text('FACTOR = 1\n')
    (tmp_path / 'job_from_elsewhere.py').write_text(
        'from aiida_perovmlip.calculations.label import LabelCalculation\nimport job_beside\n'
        'class MyLabel(LabelCalculation):\n    pass\n'
    )
    process = importlib.import_module('job_from_elsewhere').MyLabel
    before = label_job(process).CACHE_VERSION
    (tmp_path / 'job_beside.py').write_text('FACTOR = 2000\n')
    assert before != label_job(process).CACHE_VERSION


@pytest.mark.parametrize('process', [LabelCalculation, TrainCalculation, TrainMaceCalculation, EvaluateCalculation])
def test_no_job_names_its_modules_by_hand(process):
    assert not hasattr(process, 'host_modules')


def test_edited_code_behind_a_calcfunction_is_run(monkeypatch):
    first = structures.build_frames(orm.Dict(RECIPE), orm.Int(0))
    frames_from_recipe = structures.frames_from_recipe

    def edited(recipe, seed):
        for atoms in frames_from_recipe(recipe, seed):
            atoms.positions[0] += 0.5
            yield atoms

    monkeypatch.setattr(structures, 'frames_from_recipe', edited)
    with enable_caching():
        second, node = structures.build_frames.run_get_node(orm.Dict(RECIPE), orm.Int(0))
    assert not node.base.caching.is_created_from_cache
    assert not np.array_equal(first[0].positions, second[0].positions)


def test_a_calcfunction_that_ran_again_gives_an_equal_dataset():
    first = structures.build_frames(orm.Dict(RECIPE), orm.Int(0))
    second = structures.build_frames(orm.Dict(RECIPE), orm.Int(0))
    assert first.base.caching.compute_hash() == second.base.caching.compute_hash()


def test_every_calcfunction_of_ours_always_runs():
    found = [
        function
        for module in (dataset_functions, structures)
        for function in vars(module).values()
        if getattr(function, 'is_process_function', False)
    ]
    assert len(found) >= 6
    assert not any(function.is_valid_cache(None) for function in found)
