"""Reading the files of VASP: real ones, and small ones of which every number is known."""

from __future__ import annotations

import gzip
import re
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.compute.extxyz import read_extxyz
from aiida_perovmlip.labellers.vasp.ml_ab import MlAbError, read_ml_ab
from aiida_perovmlip.labellers.vasp.reading import doubts_in
from aiida_perovmlip.labellers.vasp.run import RunError, level_of_run, read_run
from aiida_perovmlip.labellers.vasp.vasprun import Header, Species, Vasprun

KILOBAR = 1 / 1602.1766208


@pytest.fixture
def cubic(shared_data):
    return shared_data / 'fasni3_r2scan_vasp' / 'cubic.vasprun.xml.gz'


# ---------------------------------------------------------------------- vasprun.xml


def test_a_real_relaxation_agrees_with_the_labels_that_ase_read_from_it(cubic, shared_data):
    vasprun = Vasprun(cubic)
    steps = list(vasprun.steps())
    with gzip.open(shared_data / 'fasni3_r2scan_vasp' / 'FASnI3_cubic.extxyz.gz', 'rt') as handle:
        frames = list(read_extxyz(handle))
    assert vasprun.is_finished
    assert len(steps) == len(frames) == 422
    for step, frame in zip(steps, frames, strict=True):
        assert step.energy == frame.energy
        assert np.allclose(step.fractions @ step.cell, frame.positions, atol=1e-7)
        # ase sets the forces on atoms that were held to zero, which were computed all the same
        free = np.abs(frame.forces).max(axis=1) > 0
        assert np.allclose(step.forces[free], frame.forces[free], atol=1e-12)
        assert step.stress is None  # ISIF = 0
    assert free.sum() == 8
    assert np.abs(steps[0].forces[~free]).max() > 0.01


def test_the_head_of_a_real_run_is_understood(cubic):
    vasprun = Vasprun(cubic)
    next(vasprun.steps())
    header = vasprun.header
    assert header.version == '6.3.1'
    assert header.mesh == (4, 4, 4)
    assert header.n_kpoints == 36
    assert header.charge == 0
    assert header.value('encut') == 700.0
    assert header.value('nelm') == 200
    assert header.value('lasph') is True
    assert header.value('metagga') == 'R2SCAN'
    assert header.species[-1] == Species('Sn', 1, 4.0, 'PAW_PBE Sn 08Apr2002')


@pytest.mark.parametrize('cut', [0.3, 0.7, 0.999])
def test_a_run_that_was_cut_off_keeps_its_complete_steps(cubic, tmp_path, cut):
    text = gzip.decompress(cubic.read_bytes())
    (tmp_path / 'vasprun.xml').write_bytes(text[: int(cut * len(text))])
    vasprun = Vasprun(tmp_path / 'vasprun.xml')
    n_steps = len(list(vasprun.steps()))
    assert 0 < n_steps <= 422
    assert n_steps == text[: int(cut * len(text))].count(b'</calculation>')
    assert not vasprun.is_finished
    assert vasprun.damage == ''


def test_an_archive_that_was_cut_off_is_damaged(cubic, tmp_path):
    (tmp_path / 'vasprun.xml.gz').write_bytes(cubic.read_bytes()[:50_000])
    vasprun = Vasprun(tmp_path / 'vasprun.xml.gz')
    assert list(vasprun.steps())
    assert not vasprun.is_finished
    assert 'vasprun.xml.gz' in vasprun.damage


def test_reading_needs_no_more_memory_for_a_longer_run(cubic, tmp_path):
    head, _, rest = gzip.decompress(cubic.read_bytes()).partition(b' <calculation>')
    body, _, tail = rest.rpartition(b'</calculation>')

    def peak(repeats):
        with (tmp_path / 'long.xml').open('wb') as handle:
            handle.write(head)
            for _ in range(repeats):
                handle.write(b' <calculation>' + body + b'</calculation>')
            handle.write(tail)
        tracemalloc.start()
        count = sum(1 for _ in Vasprun(tmp_path / 'long.xml').steps())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 422 * repeats
        return most

    once = peak(1)
    assert peak(4) < 1.2 * once
    assert once < 5e6


def test_the_runs_of_other_versions_of_vasp_are_read(records):
    found = {path: Vasprun(path) for path in sorted(records.rglob('vasprun.xml'))}
    steps = {path: list(vasprun.steps()) for path, vasprun in found.items()}
    assert len(found) > 50
    unfinished = {str(path.relative_to(records).parent) for path, vasprun in found.items() if not vasprun.is_finished}
    assert unfinished == {
        'exit_codes/unfinished/out',
        'neb',
        'relax-truncated',
        'vasp_wc_ionic_unfinished/calc-000/out',
    }
    assert 'mismatched tag' in found[records / 'neb' / 'vasprun.xml'].damage
    assert all(step.is_complete for several in steps.values() for step in several)


def test_a_real_relaxation_of_cell_and_atoms_has_a_stress_of_the_sign_of_ase(records):
    """Compressed cells have a positive pressure, which is a negative stress, and relax to larger volumes."""
    steps = list(Vasprun(records / 'relax' / 'vasprun.xml').steps())
    volumes = [abs(np.linalg.det(step.cell)) for step in steps]
    pressures = [-step.stress[:3].mean() for step in steps]
    assert (volumes[-1] - volumes[0]) * pressures[0] >= 0
    assert abs(pressures[-1]) <= abs(pressures[0]) + 1e-6


def test_energies_are_free_energies(records):
    from ase.io import read

    path = records / 'vasp_wc_nelm' / 'calc-001' / 'out' / 'vasprun.xml'
    (step,) = Vasprun(path).steps()
    atoms = read(path)
    assert step.energy == pytest.approx(atoms.calc.results['free_energy'], abs=1e-8)
    assert abs(step.energy - atoms.calc.results['energy']) > 1e-4  # a metal, smeared
    assert np.allclose(step.forces, atoms.get_forces(apply_constraint=False))
    assert np.allclose(step.stress, atoms.get_stress(), rtol=1e-5)


# ---------------------------------------------------------------------- ML_AB


def test_each_number_of_a_training_set_arrives(learned_text):
    first, second = read_ml_ab(learned_text.splitlines(keepends=True))
    assert first.symbols == ['Pb', 'I', 'I', 'I']
    assert second.symbols == ['C', 'C', 'H', 'H', 'H']
    assert (first.energy, second.energy) == (-12.5, -30.25)
    assert np.array_equal(np.diag(first.cell), [6.3, 6.3, 6.4])
    assert first.positions[3].tolist() == [-0.02, 3.15, 3.2]
    assert first.forces[0].tolist() == [0.1, -0.02, 0.0]
    # XX YY ZZ and XY YZ ZX in kbar, positive where compressed; xx yy zz yz xz xy of the other sign here
    assert np.allclose(first.stress, -KILOBAR * np.array([1, 2, 3, 5, 6, 4]))
    assert first.pbc.all()


@pytest.mark.parametrize(
    ('old', 'new', 'line', 'words'),
    [
        ('  -12.5000000000000', '  ************', 93, "'Total energy (eV)' has '************' instead of 1 numbers"),
        ('     Pb      1\n', '     Px      1\n', 71, 'is not a chemical element'),
        ('     Pb      1\n', '     Pb\n', 71, "'Pb' is no element with a number of atoms"),
        ('     I       3', '     I       4', 69, 'the elements have 5 atoms in all, but there are 4'),
        ('          2\n****', '          3\n****', 165, 'it has 2 configurations, but its head says 3'),
        ('     XX YY ZZ\n', '     XX YY QQ\n', 102, 'the stress has the components'),
        ('   6.30000000000000       0.0', '   nan                    0.0', 80, 'instead of 3 numbers'),
        ('     Total energy (eV)', '     Some energy (eV)', 112, "has no 'Total energy (eV)'"),
        ('              4\n', '              four\n', 67, 'which is no number'),
        ('     The number of configurations', '     A number', 165, 'this is no ML_AB file'),
    ],
)
def test_a_malformed_training_set_is_refused_with_the_line(learned_text, old, new, line, words):
    assert old in learned_text
    with pytest.raises(MlAbError, match=r'ML_AB, line \d+') as caught:
        list(read_ml_ab(learned_text.replace(old, new, 1).splitlines()))
    assert words in str(caught.value)
    assert f'line {line}:' in str(caught.value)


@pytest.mark.parametrize('cut', range(200, 5200, 700))
def test_a_training_set_that_was_cut_off_is_refused(learned_text, cut):
    assert cut < len(learned_text)
    with pytest.raises(MlAbError, match='line'):
        list(read_ml_ab(learned_text[:cut].splitlines()))


def test_a_training_set_becomes_a_dataset_with_provenance(tmp_path, learned_text):
    from aiida_perovmlip.labellers.vasp.functions import import_ml_ab

    (tmp_path / 'ML_ABN').write_text(learned_text)
    file = orm.SinglefileData(tmp_path / 'ML_ABN').store()
    level = {'labeller': 'vasp', 'functional': 'SCAN'}
    dataset, node = import_ml_ab.run_get_node(file, orm.Dict(level))
    assert node.is_finished_ok
    assert [frame.energy for frame in dataset] == [-12.5, -30.25]
    assert {frame.source for frame in dataset} == {file.uuid}
    assert len({frame.trajectory for frame in dataset}) == 2
    assert dataset.level.functional == 'SCAN'


# ---------------------------------------------------------------------- runs from elsewhere


def test_a_run_from_elsewhere_gives_frames_and_the_level_that_it_had(cubic):
    run = read_run(cubic)
    frames = list(run.frames)
    assert len(frames) == 422
    assert run.skipped == []
    assert run.files == [cubic]
    assert len({frame.trajectory for frame in frames}) == 1
    assert (frames[0].charge, frames[0].spin) == (0, None)
    level = run.level
    assert (level.labeller, level.functional, level.cutoff) == ('vasp', 'r2SCAN', '700 eV')
    assert level.kpoints == '4x4x4, Gamma-centred'
    assert level.dispersion == ''
    assert 'PAW_PBE Sn 08Apr2002' in level.basis
    assert level.details == {
        'energy': 'free energy',
        'ediff_eV': 5e-6,
        'ismear': 0.0,
        'sigma_eV': 0.05,
        'prec': 'accurate',
        'lasph': True,
        'lreal': 'F',
    }
    for before, after in pairwise(frames):
        assert np.abs(after.positions - before.positions).max() < 1.0


def test_a_folder_is_read_by_the_file_in_it(records):
    run = read_run(records / 'mock_silicon_sp-8b7a03a5b507fbc991f37a5632835b5b' / 'out')
    (frame,) = run.frames
    assert frame.symbols == ['Si', 'Si']
    assert frame.trajectory == ''
    assert run.level.functional == 'PBEsol'
    assert run.level.spin == 'polarised'


def test_what_gives_no_label_is_told(records):
    run = read_run(records / 'exit_codes' / 'elec-unconverged' / 'out')
    assert list(run.frames) == []
    assert run.skipped == ['vasprun.xml, step 1: the SCF cycle took all of its 8 steps (NELM).']
    run = read_run(records / 'relax-truncated')
    assert len(list(run.frames)) == 18
    assert run.skipped == ['vasprun.xml: it ends early; steps behind that are lost.']


@pytest.mark.parametrize(
    ('place', 'words'),
    [
        ('exit_codes/unfinished/out', 'it ends before its first step was complete'),
        ('neb', 'mismatched tag'),
        ('potcar', 'there is no vasprun.xml'),
        ('mock_silicon_bands-773e5e26a1250bed6a7e0bac139f94eb/out', 'charge density was held fixed'),
    ],
)
def test_a_run_without_labels_is_refused(records, place, words):
    with pytest.raises(RunError, match=words):
        read_run(records / place)


@pytest.mark.parametrize(
    ('tags', 'functional', 'dispersion'),
    [
        ({'gga': 'PE'}, 'PBE', ''),
        ({'gga': '--'}, 'PBE', ''),
        ({'gga': 'ps', 'ivdw': 12}, 'PBEsol', 'D3BJ'),
        ({'metagga': 'SCAN', 'luse_vdw': True, 'bparam': 15.7, 'cparam': 0.0093}, 'SCAN', 'rVV10'),
        ({'metagga': 'R2SCAN', 'luse_vdw': True, 'bparam': 11.95, 'cparam': 0.0093}, 'r2SCAN', 'rVV10'),
        ({'gga': 'MK', 'luse_vdw': True}, 'GGA=MK', 'vdW-DF'),
        ({'gga': 'PE', 'lhfcalc': True, 'hfscreen': 0.2, 'aexx': 0.25}, 'HSE06', ''),
        ({'gga': 'PE', 'lhfcalc': True, 'hfscreen': 0.0, 'aexx': 0.25}, 'PBE0', ''),
        (
            {'gga': 'PE', 'lhfcalc': True, 'hfscreen': 0.1, 'aexx': 0.4},
            'PBE with 0.4 of exact exchange, screened by 0.1 1/Å',
            '',
        ),
    ],
)
def test_a_functional_is_known_by_its_tags(tags, functional, dispersion):
    used = {'enmax': 520.0, 'nelect': 4.0, 'ispin': 1, **tags}
    header = Header(used=used, elements=['Pb'], species=[Species('Pb', 1, 4.0, 'PAW_PBE Pb 08Apr2002')], mesh=(1, 1, 1))
    level = level_of_run(header)
    assert (level.functional, level.dispersion) == (functional, dispersion)


def changed(cubic, tmp_path, *pairs):
    """Write the first two steps of a real run with other words in them, and return the file."""
    text = gzip.decompress(cubic.read_bytes()).decode()
    second = text.index('</calculation>', text.index('</calculation>') + 1)
    text = text[:second] + '</calculation>\n</modeling>\n'
    for pattern, new in pairs:
        text, count = re.subn(pattern, new, text)
        assert count
    (tmp_path / 'vasprun.xml').write_text(text)
    return tmp_path / 'vasprun.xml'


PHYSICS = {
    'SOC': [('LSORBIT', ' T  '), ('LNONCOLLINEAR', ' T  ')],
    'noncollinear': [('LNONCOLLINEAR', ' T  ')],
    'pressure': [('PSTRESS', ' 20.00000000')],
    'dipole': [('LDIPOL', ' T  '), ('IDIPOL', '  3')],
    'monopole': [('LMONO', ' T  ')],
    'field': [('EFIELD', ' 0.10000000')],
    'grid': [('ADDGRID', ' T  ')],
    'mixing': [('LMAXMIX', '  4')],
    'exchange': [('PRECFOCK', 'Fast')],
    'shift': [('usershift', ' 0.5 0.0 0.0 ')],
    'shift like Monkhorst and Pack': [('usershift', ' 0.5 0.5 0.5 ')],
    'damping': [('SYSTEM', 'x</i><i name="VDW_S8"> 0.7')],
    'augmentation': [('SYSTEM', 'x</i><i name="ENAUG"> 900.0')],
    'solvent': [('SYSTEM', 'x</i><i type="logical" name="LSOL"> T ')],
}


def test_no_two_kinds_of_physics_have_one_level(cubic, tmp_path):
    found = {'usual': read_run(changed(cubic, tmp_path)).level.fingerprint}
    for name, tags in PHYSICS.items():
        pairs = [(f'name="{tag}">[^<]*', f'name="{tag}">{value}') for tag, value in tags]
        found[name] = read_run(changed(cubic, tmp_path, *pairs)).level.fingerprint
    assert len(set(found.values())) == len(found), found


def test_spin_orbit_coupling_and_shifts_are_said_in_words(cubic, tmp_path):
    level = read_run(changed(cubic, tmp_path, ('name="LSORBIT">[^<]*', 'name="LSORBIT"> T '))).level
    assert level.spin == 'noncollinear with spin-orbit coupling'
    assert level.details['incar'] == {'lsorbit': True}
    level = read_run(changed(cubic, tmp_path, ('name="usershift">[^<]*', 'name="usershift"> 0.5 0 0 '))).level
    assert level.kpoints == '4x4x4, shifted by 0.5 0 0'


def test_a_list_of_points_is_known_by_its_points(cubic, tmp_path):
    no_mesh = (r'(?s)<generation.*?</generation>', '<generation param="listgenerated"/>')
    one = read_run(changed(cubic, tmp_path, no_mesh)).level.kpoints
    other = read_run(
        changed(cubic, tmp_path, no_mesh, (r'(name="kpointlist" >\s*<v>\s*)0\.0', r'\g<1>0.1'))
    ).level.kpoints
    assert one.startswith('36 points of a list (')
    assert one != other


def test_an_scf_cycle_that_was_stopped_by_hand_gives_no_label(cubic, tmp_path):
    whole = read_run(changed(cubic, tmp_path))
    assert len(list(whole.frames)) == 2
    text = changed(cubic, tmp_path).read_text()
    # all but the first three SCF steps of the second step are taken out
    start = text.index('<calculation>', text.index('</calculation>'))
    cut = [match.end() for match in re.finditer('</scstep>', text[start:])]
    (tmp_path / 'vasprun.xml').write_text(text[: start + cut[2]] + text[start + cut[-1] :])
    run = read_run(tmp_path)
    assert len(list(run.frames)) == 1
    assert 'step 2: the SCF cycle was stopped while the energy still changed by' in run.skipped[0]


def test_doubts_belong_to_the_step_in_which_they_are_printed():
    band, done = (
        ' |     Your highest band is occupied at some k-points! Unless you are  |\n',
        '   1 F= -.1E+03 E0= -.1E+03\n',
    )
    assert doubts_in([done, 'DAV:   1\n']) == {}
    assert set(doubts_in([done, band, done.replace('1 F', '2 F'), done])) == {2}
    assert set(doubts_in(['  1 T= 300. E= -1 F= -1\n', band])) == {1, 2}
    assert doubts_in([band])[1] == 'Your highest band is occupied at some k-points! Unless you are'
