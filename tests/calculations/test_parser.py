"""What the parser makes of a broken job folder."""

from __future__ import annotations

import json

import pytest
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.label import LabelCalculation
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.dataset import DatasetData


def run_with(python_code, process, script, **inputs):
    """Run a job whose shell does something to the folder after the program ended."""
    builder = process.get_builder()
    builder.code = python_code
    for name, value in inputs.items():
        setattr(builder, name, value)
    builder.metadata.options.append_text = script
    return run_get_node(builder)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '{"status": "ok", "nonsense": 1}',
        '{"status": "splendid"}',
        '[]',
        '{"status": "failed", "error": "text"}',
    ],
)
def test_a_response_that_is_none_is_not_trusted(python_code, training, text):
    inputs = {'training': training, 'architecture': 'reference'}
    outputs, node = run_with(python_code, TrainCalculation, f"printf '%s' '{text}' > response.json", **inputs)
    assert node.exit_status == 311
    assert 'potential' not in outputs


@pytest.mark.parametrize('script', ['rm -r potential', 'rm curve.json && rm potential/*'])
def test_products_that_are_missing_are_noticed(python_code, training, script):
    inputs = {'training': training, 'architecture': 'reference'}
    outputs, node = run_with(python_code, TrainCalculation, script, **inputs)
    assert node.exit_status == 312
    assert 'potential' not in outputs
    assert 'results' in outputs


def test_a_broken_curve_is_noticed_and_costs_no_potential(python_code, training):
    inputs = {'training': training, 'architecture': 'reference'}
    outputs, node = run_with(python_code, TrainCalculation, 'echo broken > curve.json', **inputs)
    assert node.exit_status == 312
    assert 'potential' in outputs


def test_predictions_of_another_length_are_noticed(python_code, run_job, training, validation):
    outputs, _ = run_job(TrainCalculation, None, training=training, architecture='reference')
    shorten = (
        f"{python_code.filepath_executable} -c \"import numpy as np; p = 'predictions/energy.npy'; "
        'np.save(p, np.load(p)[1:])"'
    )
    inputs = {'potential': outputs['potential'], 'dataset': validation}
    _, node = run_with(python_code, EvaluateCalculation, shorten, **inputs)
    assert node.exit_status == 312
    assert 'number of predictions of energy' in node.exit_message


def test_a_label_of_another_structure_is_never_attached(python_code, make_frames):
    frames = DatasetData.from_frames(make_frames(2, labels=False)).store()
    swap = 'sed -i \'s/"frame": 0/"frame": 9/; s/"frame": 1/"frame": 0/; s/"frame": 9/"frame": 1/\' labels.jsonl'
    outputs, node = run_with(python_code, LabelCalculation, swap, frames=frames, labeller='unruly')
    assert node.exit_status == 312
    assert 'another structure' in node.exit_message
    assert 'dataset' not in outputs


def test_the_last_line_of_a_journal_may_be_cut_off(python_code, make_frames):
    frames = DatasetData.from_frames(make_frames(3, labels=False)).store()
    cut = 'truncate -s -20 labels.jsonl && rm response.json'
    outputs, node = run_with(python_code, LabelCalculation, cut, frames=frames, labeller='unruly')
    assert node.exit_status == 310
    assert len(outputs['dataset']) == 2
    assert json.dumps(outputs['results'].get_dict())


def test_a_corrupt_line_of_a_journal_costs_one_label_and_is_told(python_code, make_frames):
    frames = DatasetData.from_frames(make_frames(3, labels=False)).store()
    corrupt = "sed -i '2s/.*/{broken/' labels.jsonl"
    outputs, node = run_with(python_code, LabelCalculation, corrupt, frames=frames, labeller='unruly')
    assert node.is_finished_ok, node.exit_message
    assert len(outputs['dataset']) == 2
    results = outputs['results'].get_dict()
    assert (results['n_unreadable'], results['n_labelled'], results['remaining']) == (1, 2, [1])
    assert not node.base.caching.is_valid_cache


@pytest.mark.parametrize('line', ['[]', '{"frame": 99}', '{"frame": 1}', '{"frame": "x"}', '\\xff\\xfe'])
def test_what_is_no_line_of_a_journal_is_skipped(python_code, make_frames, line):
    frames = DatasetData.from_frames(make_frames(2, labels=False)).store()
    script = f"printf '%b\\n' '{line}' >> labels.jsonl"
    outputs, _ = run_with(python_code, LabelCalculation, script, frames=frames, labeller='unruly')
    assert len(outputs['dataset']) == 2
    assert outputs['results']['n_unreadable'] == 1


def test_a_log_may_hold_any_bytes(python_code, make_frames):
    frames = DatasetData.from_frames(make_frames(1, labels=False)).store()
    script = "rm response.json && printf 'caf\\351 \\377 was last\\n' >> job.log"
    _, node = run_with(python_code, LabelCalculation, script, frames=frames, labeller='unruly')
    assert node.exit_status == 310
    assert 'was last' in node.exit_message


def test_a_journal_that_is_missing_is_noticed(python_code, make_frames):
    frames = DatasetData.from_frames(make_frames(1, labels=False)).store()
    _, node = run_with(python_code, LabelCalculation, 'rm labels.jsonl', frames=frames, labeller='unruly')
    assert node.exit_status == 312
