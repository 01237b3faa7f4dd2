"""Settings become CP2K input; what makes no sense is refused with a sentence that helps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.cp2k import Cp2k, elements
from aiida_perovmlip.labellers.cp2k.inputs import cell_text, sections_of, shift_of, xyz_text
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, level, mesh_of, n_electrons, refusal
from aiida_perovmlip.labellers.cp2k.trajectory import read_cells, read_steps

DATA = Path('/usr/share/cp2k')
REPAIRS = [repair.name for repair in Cp2k.repairs]


def settings_of(given, **changes):
    return read_settings(Cp2kSettings, {**given, **changes})


def dft_of(settings, frame, repair=None):
    return sections_of(settings, [frame], repair)['FORCE_EVAL']['DFT']


# ---------------------------------------------------------------------- what follows from the settings


def test_gamma_is_solved_by_ot_and_a_mesh_by_diagonalisation(fast, mesh, cspbi3):
    at_gamma, with_mesh = dft_of(settings_of(fast), cspbi3()), dft_of(settings_of(mesh), cspbi3())
    assert 'OT' in at_gamma['SCF']
    assert 'KPOINTS' not in at_gamma
    assert with_mesh['SCF']['MIXING']['METHOD'] == 'BROYDEN_MIXING'
    assert with_mesh['KPOINTS']['SCHEME'] == 'MONKHORST-PACK 2 2 2'
    assert 'OT' not in with_mesh['SCF']


def test_a_spacing_of_k_points_gives_small_cells_the_denser_mesh(fast, cspbi3):
    settings = settings_of(fast, kspacing=0.5)
    assert mesh_of(settings, cspbi3(6.3)) == (2, 2, 2)
    long = replace(cspbi3(6.3), cell=np.diag([6.3, 12.6, 25.0]))
    assert mesh_of(settings, long) == (2, 1, 1)
    assert level(settings).kpoints == 'spacing 0.5 1/Å'


def test_a_centred_mesh_holds_gamma(mesh, cspbi3):
    scheme = dft_of(settings_of(mesh, gamma_centred=True, kpoints=[2, 3, 4]), cspbi3())['KPOINTS']['SCHEME']
    words = scheme.split()
    for number, shift in zip(map(int, words[1:4]), map(float, words[4:]), strict=True):
        points = (2 * np.arange(1, number + 1) - number - 1) / (2 * number) + shift
        assert np.abs(points).min() < 1e-12


def test_each_frame_of_a_batch_starts_from_atoms(fast, cspbi3):
    sections = sections_of(settings_of(fast), [cspbi3(), cspbi3(6.6)])
    assert sections['FORCE_EVAL']['DFT']['QS']['EXTRAPOLATION'] == 'USE_GUESS'
    assert sections['GLOBAL']['RUN_TYPE'] == 'MD'
    assert sections['MOTION']['MD']['REFTRAJ']['LAST_SNAPSHOT'] == 2
    assert sections_of(settings_of(fast), [cspbi3()])['GLOBAL']['RUN_TYPE'] == 'ENERGY_FORCE'


def test_an_odd_number_of_electrons_is_a_doublet(fast, cspbi3):
    settings = settings_of(fast)
    assert n_electrons(settings, cspbi3()) == 34
    neutral, anion = dft_of(settings, cspbi3()), dft_of(settings, cspbi3(charge=-1))
    assert (neutral['MULTIPLICITY'], neutral['UKS'], neutral['CHARGE']) == (1, False, 0)
    assert (anion['MULTIPLICITY'], anion['UKS'], anion['CHARGE']) == (2, True, -1)
    assert dft_of(settings, cspbi3(spin=3))['UKS']


def test_coordinates_and_cells_are_written_to_the_last_digit(cspbi3):
    frames = [cspbi3(6.1), cspbi3(6.3, 1)]
    steps = list(read_steps(xyz_text(frames).splitlines(keepends=True)))
    cells = [cell for _, cell in read_cells(cell_text(frames).splitlines(keepends=True))]
    for frame, step, cell in zip(frames, steps, cells, strict=True):
        assert np.array_equal(step.rows, frame.positions)
        assert np.array_equal(cell, frame.cell)


def test_an_isolated_system_stands_in_the_middle_of_its_box(fast, water):
    frame = water(10.0)
    moved = frame.positions + shift_of(frame)
    assert (moved.max(axis=0) + moved.min(axis=0)) / 2 == pytest.approx([5, 5, 5])
    assert dft_of(settings_of(fast), frame)['POISSON'] == {'PERIODIC': 'NONE', 'POISSON_SOLVER': 'WAVELET'}
    oblong = replace(frame, cell=np.diag([10.0, 11.0, 12.0]))
    assert dft_of(settings_of(fast), oblong)['POISSON']['POISSON_SOLVER'] == 'MT'
    assert 'STRESS_TENSOR' not in sections_of(settings_of(fast), [frame])['FORCE_EVAL']


def test_sections_of_the_user_lie_on_top_and_change_the_level(fast, cspbi3):
    extra = {'FORCE_EVAL': {'DFT': {'MGRID': {'COMMENSURATE': True}, 'SCF': {'EPS_DIIS': 0.05}}}}
    settings = settings_of(fast, sections=extra)
    dft = dft_of(settings, cspbi3())
    assert dft['MGRID'] == {'CUTOFF': 150.0, 'REL_CUTOFF': 30.0, 'NGRIDS': 4, 'COMMENSURATE': True}
    assert level(settings).fingerprint != level(settings_of(fast)).fingerprint


def test_the_relaxation_stops_by_its_largest_force_alone(fast, cspbi3):
    criteria = sections_of(settings_of(fast, run='relax'), [cspbi3()])['MOTION']['GEO_OPT']
    assert criteria['MAX_FORCE'] == pytest.approx(0.02 / 51.4221, rel=1e-4)
    assert min(criteria[name] for name in ('MAX_DR', 'RMS_DR', 'RMS_FORCE')) >= 1.0


def test_the_time_limit_reaches_cp2k(fast, cspbi3):
    assert sections_of(settings_of(fast), [cspbi3()], walltime=90.7)['GLOBAL']['WALLTIME'] == 90
    assert 'WALLTIME' not in sections_of(settings_of(fast), [cspbi3()])['GLOBAL']


# ---------------------------------------------------------------------- repairs


@pytest.mark.parametrize('repair', REPAIRS)
@pytest.mark.parametrize('kpoints', [[1, 1, 1], [2, 2, 2]])
def test_a_repair_changes_nothing_but_how_the_cycle_is_converged(fast, cspbi3, repair, kpoints):
    settings = settings_of(fast, kpoints=kpoints, max_scf=3, outer_scf=0)
    plain, mended = (sections_of(settings, [cspbi3()], name) for name in (None, repair))
    for sections in (plain, mended):
        scf = sections['FORCE_EVAL']['DFT'].pop('SCF')
        assert (scf['EPS_SCF'], scf['SCF_GUESS']) == (1e-5, 'ATOMIC')
    assert plain == mended


@pytest.mark.parametrize('repair', REPAIRS)
@pytest.mark.parametrize('kpoints', [[1, 1, 1], [2, 2, 2]])
def test_a_repair_differs_from_the_others_and_has_cycles_enough(fast, cspbi3, repair, kpoints):
    settings = settings_of(fast, kpoints=kpoints, max_scf=3, outer_scf=0)
    ways = {name: dft_of(settings, cspbi3(), name)['SCF'] for name in (None, *REPAIRS)}
    assert all(ways[repair] != other for name, other in ways.items() if name != repair)
    assert ways[repair]['MAX_SCF'] * ways[repair].get('OUTER_SCF', {}).get('MAX_SCF', 1) >= 500


def test_the_other_minimiser_is_the_other_one(fast, cspbi3):
    for asked, other in (('DIIS', 'CG'), ('CG', 'DIIS')):
        settings = settings_of(fast, minimiser=asked)
        assert dft_of(settings, cspbi3(), 'other_minimiser')['SCF']['OT']['MINIMIZER'] == other


def test_smearing_keeps_the_multiplicity(fast, cspbi3):
    scf = dft_of(settings_of(fast), cspbi3(charge=-1), 'diagonalisation')['SCF']
    assert scf['SMEAR']['FIXED_MAGNETIC_MOMENT'] == 1.0
    assert 'FIXED_MAGNETIC_MOMENT' not in dft_of(settings_of(fast), cspbi3(), 'diagonalisation')['SCF']['SMEAR']


def test_an_unknown_repair_is_refused(fast, cspbi3):
    with pytest.raises(ValueError, match="no repair 'magic'"):
        sections_of(settings_of(fast), [cspbi3()], 'magic')


# ---------------------------------------------------------------------- the level of theory


@pytest.mark.parametrize(
    'changes',
    [
        {'functional': 'PBEsol'},
        {'dispersion': 'D3BJ'},
        {'basis': 'DZVP'},
        {'basis': 'DZVP', 'family': 'uzh'},
        {'basis_sets': {'Pb': 'DZVP-MOLOPT-SR-GTH-q4'}},
        {'pseudopotentials': {'Pb': 'GTH-PBE-q14'}},
        {'cutoff': 200.0},
        {'rel_cutoff': 50.0},
        {'n_grids': 5},
        {'eps_default': 1e-12},
        {'eps_scf': 1e-6},
        {'kpoints': [2, 2, 2]},
        {'kpoints': [2, 2, 2], 'gamma_centred': True},
        {'kspacing': 0.3},
        {'electronic_temperature': 300.0},
        {'sections': {'FORCE_EVAL': {'DFT': {'QS': {'METHOD': 'GAPW'}}}}},
    ],
)
def test_what_changes_the_numbers_changes_the_level(fast, changes):
    assert level(settings_of(fast, **changes)).fingerprint != level(settings_of(fast)).fingerprint


@pytest.mark.parametrize(
    'changes',
    [
        {'max_scf': 100},
        {'outer_scf': 1},
        {'minimiser': 'CG'},
        {'preconditioner': 'FULL_ALL'},
        {'solver': 'diagonalisation'},
        {'run': 'md', 'steps': 5},
        {'band_edges': True},
        {'smallest_cell': 3.0},
        {'kpoints': [1, 1, 1]},
    ],
)
def test_what_only_helps_or_asks_for_more_leaves_the_level_alone(fast, changes):
    assert level(settings_of(fast, **changes)).fingerprint == level(settings_of(fast)).fingerprint


def test_the_protocols_can_be_read_and_name_their_origin(cspbi3):
    labeller = Cp2k()
    protocols = labeller.protocols()
    assert {'fast', 'balanced', 'paper', 'scan-rvv10', 'r2scan', 'pbe-d3'} <= set(protocols)
    for protocol in protocols.values():
        settings = labeller.read(protocol.settings)
        assert protocol.about.endswith('.')
        assert protocol.origin
        assert labeller.refusal(replace(settings, smallest_cell=0.0), cspbi3()) is None


def test_the_paper_protocol_has_the_numbers_of_the_paper(cspbi3):
    settings = read_settings(Cp2kSettings, Cp2k().protocols()['paper'].settings)
    dft = dft_of(settings, cspbi3())
    assert dft['MGRID'] == {'CUTOFF': 500.0, 'REL_CUTOFF': 80.0, 'NGRIDS': 5}
    assert dft['BASIS_SET_FILE_NAME'] == ['BASIS_MOLOPT', 'BASIS_MOLOPT_UCL']
    assert dft['XC']['XC_FUNCTIONAL'] == {'_': 'PBE'}
    assert 'OT' in dft['SCF']
    assert settings.max_force == 0.02
    kinds = {kind['_']: kind['BASIS_SET'] for kind in sections_of(settings, [cspbi3()])['FORCE_EVAL']['SUBSYS']['KIND']}
    assert kinds['Pb'] == 'TZVP-MOLOPT-SR-GTH-q4'


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('given', 'what'),
    [
        ({'functional': 'SCAN', 'cutoff': 300.0}, 'SCAN does not converge on grids below 400 Ry'),
        ({'kpoints': [2, 2]}, 'three numbers'),
        ({'kpoints': [2, 2, 0]}, 'three numbers'),
        ({'kpoints': [2, 2, 2], 'kspacing': 0.3}, 'give one of them'),
        ({'kpoints': [2, 2, 2], 'solver': 'ot'}, 'neither k-points nor smearing'),
        ({'electronic_temperature': 300.0, 'solver': 'ot'}, 'neither k-points nor smearing'),
        ({'dispersion': 'D3', 'functional': 'SCAN'}, 'parametrised for PBE'),
        ({'dispersion': 'rVV10'}, 'parametrised for SCAN'),
        ({'family': 'uzh', 'basis': 'SZV'}, 'no SZV'),
        ({'pseudopotentials': {'Pb': 'GTH-PBE'}}, 'has to end on its electrons'),
        ({'sections': {'force_eval': {}}}, 'upper-case keys'),
        ({'sections': {'FORCE_EVAL': {'DFT': {'CHARGE': 1}}}}, 'is said by other means'),
        ({'sections': {'GLOBAL': {'RUN_TYPE': 'BAND'}}}, 'is said by other means'),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, what):
    with pytest.raises(SettingsError, match=what):
        read_settings(Cp2kSettings, given)


def test_gamma_alone_is_not_enough_for_a_small_cell(cspbi3):
    assert 'reach 6.30 Å' in refusal(Cp2kSettings(), cspbi3())
    assert refusal(Cp2kSettings(kpoints=[2, 2, 2]), cspbi3()) is None
    assert refusal(Cp2kSettings(smallest_cell=0.0), cspbi3()) is None


@pytest.mark.parametrize(
    ('charge', 'spin', 'what'),
    [
        (0, 2, 'cannot have the multiplicity 2; it has to be odd'),
        (1, 1, 'has to be even'),
        (34, None, 'leaves 0 electrons'),
    ],
)
def test_a_spin_that_cannot_be_is_refused(fast, cspbi3, charge, spin, what):
    assert what in refusal(settings_of(fast), cspbi3(charge=charge, spin=spin))


def test_an_element_without_basis_set_is_refused_unless_one_is_named(fast, cspbi3):
    frame = replace(cspbi3(), numbers=np.array([92, 82, 53, 53, 53], np.uint8))
    assert 'for U in the family' in refusal(settings_of(fast), frame)
    named = {'basis_sets': {'U': 'DZVP-MOLOPT-GTH-q14'}, 'pseudopotentials': {'U': 'GTH-PBE-q14'}}
    assert refusal(settings_of(fast, **named), frame) is None
    assert n_electrons(settings_of(fast, **named), frame) == 14 + 4 + 21


def test_boundaries_that_cp2k_cannot_treat_are_refused_with_advice(fast, water, cspbi3):
    settings = settings_of(fast)
    assert refusal(settings, water()) is None
    assert 'some directions only' in refusal(settings, replace(cspbi3(), pbc=np.array([True, True, False])))
    assert 'has no cell' in refusal(settings, replace(water(), cell=np.zeros((3, 3))))
    assert 'atoms.center(vacuum=5)' in refusal(settings, water(8.0))
    assert 'not rectangular' in refusal(settings, replace(water(), cell=10 * np.eye(3) + 0.1))
    chain = Frame(np.ones(6, np.uint8), np.outer(np.arange(6.0), [3, 0, 0]), np.diag([23.5, 12, 12]), np.zeros(3, bool))
    assert 'neither a cube' in refusal(settings, chain)


def test_frames_that_one_input_describes_share_a_job(fast, cspbi3, water):
    labeller, settings = Cp2k(), settings_of(fast, kspacing=0.5)
    kind = labeller.kind_of(settings, cspbi3())
    assert kind == labeller.kind_of(settings, cspbi3(6.6, 1))
    assert kind == labeller.kind_of(settings, cspbi3(charge=0, spin=1))
    assert hash(kind) is not None
    others = [
        cspbi3(charge=-1),
        cspbi3(spin=3),
        cspbi3(13.0),
        replace(cspbi3(), numbers=cspbi3().numbers[::-1]),
        water(),
    ]
    assert kind not in {labeller.kind_of(settings, other) for other in others}
    assert labeller.kind_of(settings, water(10.0)) != labeller.kind_of(settings, water(11.0))


def test_single_points_share_jobs_and_a_run_in_which_atoms_move_says_so(fast):
    labeller = Cp2k()
    assert labeller.batch_size(settings_of(fast), 100, 2) == labeller.largest_batch
    assert labeller.moves_atoms(settings_of(fast, run='relax'))


# ---------------------------------------------------------------------- the tables of elements


@pytest.mark.skipif(not DATA.is_dir(), reason=f'the data files of CP2K are not at {DATA}')
@pytest.mark.parametrize('family', ['molopt', 'uzh'])
@pytest.mark.parametrize('functional', ['PBE', 'SCAN'])
def test_every_basis_set_and_pseudopotential_of_the_tables_is_in_the_files_of_cp2k(family, functional):
    bases, potentials = defaultdict(set), defaultdict(set)
    for names, files in ((bases, elements.BASIS_FILES[family]), (potentials, [elements.POTENTIAL_FILES[family]])):
        for file in files:
            for line in (DATA / file).read_text().splitlines():
                words = line.partition('#')[0].split()
                if len(words) > 1:
                    names[words[0]].update(words[1:])
    n_found = 0
    for element in elements.VALENCE:
        potential = elements.potential_name(family, functional, element)
        assert potential is None or potential in potentials[element], element
        for size in ('SZV', 'DZVP', 'TZVP', 'TZV2P'):
            basis = elements.basis_name(family, size, functional, element)
            assert basis is None or basis in bases[element], (element, basis)
            n_found += basis is not None
    assert n_found > 200


@pytest.mark.parametrize('family', ['molopt', 'uzh'])
@pytest.mark.parametrize('basis', ['DZVP', 'TZVP', 'TZV2P'])
def test_halide_perovskites_and_their_molecules_are_covered(family, basis):
    for element in ('Cs', 'Pb', 'I', 'Br', 'Cl', 'Sn', 'C', 'N', 'H', 'Si', 'O', 'F', 'S', 'P', 'Rb', 'Ge'):
        assert elements.basis_name(family, basis, 'PBE', element), (element, basis)


def test_smearing_of_the_level_has_all_orbitals(fast, cspbi3):
    settings = settings_of(fast, electronic_temperature=300.0, band_edges=True, n_unoccupied=3)
    assert dft_of(settings, cspbi3())['SCF']['ADDED_MOS'] == -1
    assert dft_of(settings, cspbi3(charge=-1))['SCF']['ADDED_MOS'] == '-1 -1'
    fewer = replace(settings, extra_orbitals=7)
    assert dft_of(fewer, cspbi3())['SCF']['ADDED_MOS'] == 7
    assert level(fewer).fingerprint != level(settings).fingerprint
    assert level(settings_of(fast, extra_orbitals=7)).fingerprint == level(settings_of(fast)).fingerprint


def test_a_mesh_of_odd_numbers_holds_gamma_anyway(fast, cspbi3):
    plain, centred = (settings_of(fast, kpoints=[3, 1, 3], gamma_centred=value) for value in (False, True))
    assert level(plain).fingerprint == level(centred).fingerprint
    assert dft_of(plain, cspbi3()) == dft_of(centred, cspbi3())


@pytest.mark.parametrize(
    ('given', 'what'),
    [
        (
            {'FORCE_EVAL': {'DFT': {'XC': {'HF': [{'FRACTION': 0.1}, {'FRACTION': 0.2}]}}}},
            'sections cannot be repeated',
        ),
        ({'FORCE_EVAL': [{'DFT': {}}]}, 'sections cannot be repeated'),
        ({'FORCE_EVAL': {'DFT': {'SCF': ['EPS_SCF 1', 'MAX_SCF 2']}}}, 'FORCE_EVAL/DFT/SCF has to be a section'),
        ({'FORCE_EVAL': 'QS'}, 'FORCE_EVAL has to be a section'),
    ],
)
def test_lists_and_values_in_place_of_sections_are_refused(fast, given, what):
    with pytest.raises(SettingsError, match=what):
        settings_of(fast, sections=given)
    settings_of(fast, sections={'FORCE_EVAL': {'DFT': {'BASIS_SET_FILE_NAME': ['A', 'B']}}})
