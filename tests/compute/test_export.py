"""Potentials that are written for LAMMPS by the tools of their trainers."""

from __future__ import annotations

import pytest

from aiida_perovmlip.compute.architectures.allegro import Allegro
from aiida_perovmlip.compute.architectures.allegro.package import FILENAME as PACKAGE
from aiida_perovmlip.compute.architectures.export import export
from aiida_perovmlip.compute.architectures.mace import Mace
from aiida_perovmlip.compute.architectures.mace.network import FILENAME as NETWORK
from aiida_perovmlip.compute.contract import JobError, Status

TOOL = """
import sys
from pathlib import Path

if sys.argv[1] == 'fail':
    sys.exit('there is no such head')
if sys.argv[1] == 'write':
    Path('written.pt').write_text(' '.join(sys.argv[2:]))
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Return the name of a module that writes a file, or does not."""
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'tool_of_ours.py').write_text(TOOL)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'own'))
    return 'tool_of_ours'


def test_a_tool_is_run_in_its_folder_and_not_again_where_its_file_is_there(tool, tmp_path):
    path = export(tool, ['write', 'once'], tmp_path, 'written.pt', {'numpy': 'numpy'})
    assert path.read_text() == 'once'
    assert export(tool, ['write', 'twice'], tmp_path, 'written.pt', {}).read_text() == 'once'


@pytest.mark.parametrize(
    ('argument', 'words'),
    [('fail', r'\(exit status 1\).*there is no such head'), ('idle', r'could not write written\.pt \(exit status 0\)')],
)
def test_a_tool_that_leaves_no_file_is_told_by_what_it_said(tool, tmp_path, argument, words):
    with pytest.raises(JobError, match=words) as caught:
        export(tool, [argument], tmp_path, 'written.pt', {})
    assert caught.value.status is Status.FAILED


def test_without_the_package_a_sentence_says_which_python_is_needed(tool, tmp_path):
    with pytest.raises(JobError, match=r'has no of-nobody for that.*Take as `code` a Python that has it') as caught:
        export(tool, ['write'], tmp_path, 'written.pt', {'package_of_nobody': 'of-nobody'})
    assert caught.value.status is Status.MISSING_PACKAGE


@pytest.mark.parametrize(
    ('architecture', 'file', 'style', 'written', 'lines'),
    [
        (
            Mace(),
            NETWORK,
            'mliap',
            f'{NETWORK}-mliap_lammps.pt',
            (f'pair_style mliap unified {NETWORK}-mliap_lammps.pt 0', 'pair_coeff * * I Cs'),
        ),
        (
            Mace(),
            NETWORK,
            'mace',
            f'{NETWORK}-lammps.pt',
            ('pair_style mace no_domain_decomposition', f'pair_coeff * * {NETWORK}-lammps.pt I Cs'),
        ),
        (
            Allegro(),
            PACKAGE,
            'allegro',
            'allegro-pair_allegro.nequip.pt2',
            ('pair_style allegro', 'pair_coeff * * allegro-pair_allegro.nequip.pt2 I Cs'),
        ),
        (
            Allegro(),
            PACKAGE,
            'mliap',
            'allegro.nequip.lmp.pt',
            ('pair_style mliap unified allegro.nequip.lmp.pt 0', 'pair_coeff * * I Cs'),
        ),
    ],
)
def test_each_pair_style_is_told_the_file_and_the_elements_as_its_manual_says(
    tmp_path, architecture, file, style, written, lines
):
    assert style in architecture.lammps_styles
    potential, folder = tmp_path / 'potential', tmp_path / 'run'
    potential.mkdir()
    folder.mkdir()
    (potential / file).touch()
    with pytest.raises(JobError, match='has to be written in a form of its own'):
        architecture.lammps(style, potential, ['I', 'Cs'], folder)
    (folder / written).touch()
    form = architecture.lammps(style, potential, ['I', 'Cs'], folder)
    assert form.lines == lines
    assert form.energies == {}
