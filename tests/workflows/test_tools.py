"""Commands that run on stored potentials and datasets."""

from __future__ import annotations

import stat
import sys

import pytest
from aiida import orm

from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.tools import TOOLS, ToolError, run_tool

pytest.importorskip('aiida_shell')


@pytest.fixture
def potential(tmp_path):
    """Return a potential of one file."""
    (tmp_path / 'content').mkdir()
    (tmp_path / 'content' / 'reference.json').write_text('{"weights": [1, 2, 3]}')
    kind = {'architecture': 'reference', 'elements': ['Cs'], 'cutoff': 5.0}
    return PotentialData(tmp_path / 'content', **kind).store()


@pytest.fixture
def environment(tmp_path, make_code):
    """Return a function that puts a program beside a Python, and the code of this Python."""
    folder = tmp_path / 'environment' / 'bin'
    folder.mkdir(parents=True)
    (folder / 'python').symlink_to(sys.executable)

    def put(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return code

    code = make_code(f'python-{tmp_path.name.replace("_", "-")}', folder / 'python')
    return put


def test_a_command_reads_the_file_of_a_potential_and_leads_back_to_it(potential, localhost):
    outputs, node = run_tool('wc', ['-c', '{potential}'], potential=potential)
    assert node.is_finished_ok, node.exit_message
    assert outputs['stdout'].get_content().split() == ['22', 'reference.json']
    assert node.inputs.nodes.potential.creator.inputs.potential.uuid == potential.uuid


def test_a_potential_of_several_files_is_a_folder(tmp_path, localhost):
    for name in ('one.txt', 'two.txt'):
        (tmp_path / name).write_text(name)
    kind = {'architecture': 'reference', 'elements': ['Cs'], 'cutoff': 5.0}
    outputs, _ = run_tool('ls', '{potential}', potential=PotentialData(tmp_path, **kind).store())
    assert outputs['stdout'].get_content().split() == ['one.txt', 'two.txt']


def test_a_dataset_is_written_in_the_dialect_that_is_asked_for(make_dataset, localhost):
    dataset = make_dataset(2).store()
    found = {}
    for dialect in ('mace', 'gpumd'):
        outputs, node = run_tool('head', ['-n', '2', '{dataset}'], dataset=dataset, dialect=dialect)
        found[dialect] = outputs['stdout'].get_content()
        assert node.inputs.nodes.dataset.creator.inputs.dataset.uuid == dataset.uuid
    assert all(text.startswith('40\n') for text in found.values())
    assert 'REF_energy=' in found['mace']
    assert 'virial' in found['gpumd']
    with pytest.raises(ValueError, match='no dialect `vasp`'):
        run_tool('head', ['{dataset}'], dataset=dataset, dialect='vasp')


def test_files_that_a_program_leaves_are_nodes(environment, potential):
    code = environment('copy-it', 'echo "a warning" >&2; cp "$1" "$1.copy"')
    name = 'reference.json.copy'
    outputs, node = run_tool('copy-it', ['{potential}'], potential=potential, outputs=[name], code=code)
    assert node.is_finished_ok
    assert outputs['reference_json_copy'].get_content() == '{"weights": [1, 2, 3]}'
    assert 'a warning' in outputs['stdout'].get_content()


def test_a_program_is_one_code_however_often_it_runs(environment, potential):
    code = environment('nothing', 'true')
    first, second = (run_tool('nothing', code=code)[1].inputs.code for _ in range(2))
    assert first.uuid == second.uuid
    assert str(first.filepath_executable).endswith('environment/bin/nothing')


def test_an_absent_output_is_a_failure_although_the_command_had_no_complaint(environment):
    code = environment('forgets', 'echo all fine')
    with pytest.raises(ToolError, match=r'returned 0 but did not leave all of out\.pt.*all fine'):
        run_tool('forgets', outputs=['out.pt'], code=code)


def test_a_command_that_fails_quotes_its_last_line(environment):
    code = environment('fails', 'echo cannot do that >&2; exit 7')
    with pytest.raises(ToolError, match=r'returned 7.*cannot do that'):
        run_tool('fails', code=code)
    with pytest.raises(ToolError, match=r'returned 7.*cannot do that'):
        run_tool('fails', outputs=['out.pt'], code=code)


def test_a_program_that_the_environment_does_not_hold_is_refused(environment):
    code = environment('other', 'true')
    with pytest.raises(ToolError, match=r'no program .*/bin/mace_select_head on'):
        run_tool('mace_select_head', code=code)


def test_outputs_whose_absence_nobody_would_notice_are_refused():
    with pytest.raises(ToolError, match=r'`\*\.pt` has to be the name of one file'):
        run_tool('true', outputs=['*.pt'])


@pytest.mark.parametrize(
    ('argument', 'sentence'), [('{dataset}', 'names `dataset`'), ('{', 'double a brace'), ('{}', 'names ``')]
)
def test_arguments_that_name_what_was_not_given_are_refused(potential, argument, sentence):
    with pytest.raises(ToolError, match=sentence):
        run_tool('cat', [argument], potential=potential)


def test_a_tool_of_another_architecture_is_refused(potential):
    with pytest.raises(ToolError, match='for a potential of mace; this is one of reference'):
        run_tool('mace-lammps', potential=potential)
    with pytest.raises(ToolError, match='for a potential of allegro; none was given'):
        run_tool('allegro-compile')


def stand_in(tmp_path, name='mace.model', architecture='mace'):
    folder = tmp_path / 'stand-in'
    folder.mkdir()
    (folder / name).write_text('weights')
    return PotentialData(folder, architecture=architecture, elements=['Cs'], cutoff=5.0).store()


def test_a_known_tool_knows_its_arguments_and_outputs(environment, tmp_path):
    """What is written is what was passed, which is what the programs of mace-torch take."""
    code = environment('mace_create_lammps_model', 'echo "$@" > "$1-lammps.pt"')
    environment('mace_select_head', 'echo "$@" > "$5"')
    potential = stand_in(tmp_path)
    outputs, _ = run_tool('mace-lammps', potential=potential, code=code)
    assert outputs['mace_model_lammps_pt'].get_content() == 'mace.model --format=libtorch\n'
    outputs, _ = run_tool('mace-select-head', potential=potential, code=code, options={'head': 'pbe'})
    assert outputs['selected_model'].get_content() == 'mace.model -n pbe -o selected.model\n'


def test_an_option_that_a_tool_needs_is_asked_for(tmp_path):
    with pytest.raises(ToolError, match="needs the option 'head'"):
        run_tool('mace-select-head', potential=stand_in(tmp_path))


def test_a_potential_without_the_file_that_a_tool_takes_is_refused(tmp_path):
    potential = stand_in(tmp_path, 'weights.pt')
    with pytest.raises(ToolError, match=r'ends in \.model; this potential has weights\.pt'):
        run_tool('mace-lammps', potential=potential)


@pytest.mark.usefixtures('without_codes')
def test_a_missing_code_says_how_to_make_one(tmp_path):
    with pytest.raises(ToolError, match='aiida-perovmlip setup --with allegro'):
        run_tool('allegro-lammps', potential=stand_in(tmp_path, 'allegro.nequip.zip', 'allegro'))


def test_without_aiida_shell_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'aiida_shell', None)
    with pytest.raises(ToolError, match=r'pip install "aiida-perovmlip\[shell\]"'):
        run_tool('true')


@pytest.mark.parametrize('name', TOOLS)
def test_the_table_of_tools_is_sound(name):
    tool = TOOLS[name]
    assert tool.summary.endswith('.')
    assert any('{potential}' in argument for argument in tool.arguments)
    written = ' '.join(tool.arguments)
    assert all(output.startswith('{potential}-') or output in written for output in tool.outputs)


@pytest.mark.slow
def test_a_real_mace_potential_is_written_for_lammps(plugin_code, make_dataset):
    from aiida.engine import run_get_node

    from aiida_perovmlip.calculations.train import TrainMaceCalculation

    tiny = {'hidden_irreps': '4x0e', 'max_ell': 1, 'correlation': 1, 'readout_irreps': '4x0e', 'radial_mlp': [8]}
    builder = TrainMaceCalculation.get_builder()
    builder.code = plugin_code('mace')
    builder.training, builder.validation = make_dataset(4, seed=10).store(), make_dataset(2, seed=11).store()
    builder.settings = {**tiny, 'epochs': 1, 'batch_size': 2}
    trained, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    outputs, _ = run_tool('mace-lammps', potential=trained['potential'], code=plugin_code('mace'))
    written = outputs['mace_model_lammps_pt']
    assert isinstance(written, orm.SinglefileData)
    with written.open(mode='rb') as handle:
        assert handle.read(4) == b'PK\x03\x04'  # what torch.jit.save writes is a zip
