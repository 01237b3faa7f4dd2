"""Energies of phases of copper by pair potentials against the effective-medium theory that they were trained on."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.report.barriers import write_phases
from aiida_perovmlip.workflows.label import LabelWorkChain
from aiida_perovmlip.workflows.phase_validation import PhaseValidationWorkChain

PHASES = {
    'fcc': bulk('Cu', cubic=True) * (2, 2, 2),
    'hcp': bulk('Cu', 'hcp', a=2.56, c=4.18) * (3, 3, 2),
    'bcc': bulk('Cu', 'bcc', a=2.87, cubic=True) * (3, 3, 3),
}


def structures(**groups):
    return DatasetData.from_frames(
        [Frame.from_atoms(PHASES[name], group=group) for name, group in {**{n: n for n in PHASES}, **groups}.items()]
    )


@pytest.fixture
def validate(python_code, copper_potential):
    def run(frames, zero='fcc', labeller='emt', potentials=None, **settings):
        reference = LabelWorkChain.get_builder()
        reference.labeller, reference.codes, reference.settings = labeller, {'here': python_code}, settings
        builder = PhaseValidationWorkChain.get_builder_from_protocol(
            potentials or {'pairs': copper_potential()}, python_code, frames, zero, reference=reference
        )
        return run_get_node(builder)

    return run


def test_energies_of_phases_are_compared_per_formula_unit(validate, tmp_path):
    outputs, node = validate(structures())
    assert node.is_finished_ok, node.exit_message
    comparison = outputs['comparison'].get_dict()
    assert comparison['formula_units'] == {name: len(atoms) for name, atoms in PHASES.items()}
    energies = {}
    for name, atoms in PHASES.items():
        atoms = atoms.copy()
        atoms.calc = EMT()
        energies[name] = atoms.get_potential_energy() / len(atoms)
    for name in PHASES:
        assert comparison['reference'][name] == pytest.approx(energies[name] - energies['fcc'], abs=1e-9)
    pairs = comparison['potentials']['pairs']
    assert pairs['errors']['bcc'] == pytest.approx(pairs['energies']['bcc'] - comparison['reference']['bcc'])
    assert pairs['mae'] == pytest.approx(sum(map(abs, pairs['errors'].values())) / 2)
    assert pairs['forces_rmse'] < 1e-6  # all forces vanish by symmetry, in both
    assert len(outputs['labels']) == 3
    text = write_phases(node, tmp_path / 'phases.svg').read_text()
    assert [each for each in ('pairs', 'reference', 'fcc', 'bcc', 'meV per formula unit') if each not in text] == []


def test_a_structure_without_a_label_is_named_and_its_phase_left_out(validate):
    outputs, node = validate(structures(bcc='raise'), labeller='unruly')
    assert node.exit_status == 581
    assert 'the structures 2 have no label' in node.exit_message
    comparison = outputs['comparison'].get_dict()
    assert set(comparison['reference']) == {'fcc', 'hcp'}
    assert set(comparison['potentials']['pairs']['energies']) == {'fcc', 'hcp', 'raise'}
    assert set(comparison['potentials']['pairs']['errors']) == {'hcp'}


def test_what_cannot_be_compared_is_refused(validate, copper_potential):
    with pytest.raises(ValueError, match='there is no phase `cubic`; the groups of the structures are'):
        validate(structures(), zero='cubic')
    mixed = [Frame.from_atoms(bulk('Cu'), group='fcc'), Frame.from_atoms(bulk('CuAu', 'rocksalt', a=4.0), group='rs')]
    with pytest.raises(ValueError, match='the structures are of several substances'):
        validate(DatasetData.from_frames(mixed))
    with pytest.raises(ValueError, match='the reference moves the atoms'):
        validate(structures(), labeller='cp2k', run='relax')
    with pytest.raises(ValueError, match='a potential may not be called `structures`'):
        validate(structures(), potentials={'structures': copper_potential()})


@pytest.mark.browser
def test_the_page_of_a_validation_shows_energies_and_structures(validate, check_page):
    _, node = validate(structures())
    page = check_page(node, 'phases', 'lineage')
    assert 'Energies per formula unit' in page
