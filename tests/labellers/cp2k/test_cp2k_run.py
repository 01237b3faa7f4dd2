"""A run of CP2K that was done elsewhere gives the frames that converged, and says of the others why not."""

from __future__ import annotations

import gzip
import re
import shutil

import numpy as np
import pytest

from aiida_perovmlip.labellers.cp2k.input_file import lookup, read_input
from aiida_perovmlip.labellers.cp2k.run import RunError, read_run


@pytest.fixture
def folder_of(recorded, tmp_path):
    """Return a function that lays the files of a recorded run out as CP2K leaves them."""

    def lay(name, **texts):
        record = recorded(name)
        (tmp_path / 'run.out').write_text(texts.get('text', record.text))
        for ending in ('-pos-1.xyz', '-1.cell'):
            if record.path(ending).is_file():
                shutil.copy(record.path(ending), tmp_path / f'aiida{ending}')
        return tmp_path

    return lay


@pytest.mark.parametrize(('name', 'count'), [('ot', 1), ('batch', 3), ('dynamics', 4), ('relaxation', 2), ('anion', 1)])
def test_it_has_the_labels_that_a_job_of_ours_would_have(recorded, folder_of, name, count):
    record = recorded(name)
    run = read_run(folder_of(name))
    frames = list(run.frames)
    expected = [frame for outcome in record.judge().outcomes for frame in outcome.frames]
    assert len(frames) == len(expected) == count
    for read, labelled in zip(frames, expected, strict=True):
        assert read.energy == labelled.energy
        assert read.positions == pytest.approx(labelled.positions, abs=1e-6)
        assert read.cell == pytest.approx(labelled.cell, abs=1e-6)
        assert np.array_equal(read.forces, labelled.forces)
        assert read.stress == pytest.approx(labelled.stress)
        assert (read.charge, read.pbc.all()) == (labelled.charge or 0, True)
    assert run.level.labeller == 'cp2k'
    assert (run.level.functional, run.level.cutoff) == ('PBE', '150 Ry')
    assert run.level.kpoints == ('2x2x2' if 'kpoints' in record.settings else 'Gamma')
    assert run.files[0].name == 'run.out'


def test_what_did_not_converge_is_reported_and_no_frame(folder_of):
    run = read_run(folder_of('unconverged'))
    assert list(run.frames) == []
    assert len(run.skipped) == 1
    assert 'snapshot 0' in run.skipped[0]
    assert 'did not converge (3 steps)' in run.skipped[0]


def test_what_ran_out_of_time_is_reported(folder_of):
    run = read_run(folder_of('batch_out_of_time'))
    assert len(list(run.frames)) == 1
    assert 'the time ran out' in run.skipped[0]


def test_compressed_outputs_are_read_and_damaged_ones_up_to_where_they_break(recorded, tmp_path):
    whole = gzip.compress(recorded('dynamics').text.encode())
    shutil.copy(recorded('dynamics').path('-pos-1.xyz'), tmp_path / 'aiida-pos-1.xyz')
    path = tmp_path / 'md.log.gz'
    path.write_bytes(whole)
    assert len(list(read_run(path).frames)) == 4
    path.write_bytes(whole[: len(whole) * 3 // 4])
    run = read_run(path)
    assert 0 < len(list(run.frames)) < 4
    assert any('damaged' in sentence for sentence in run.skipped)


def test_steps_without_positions_are_reported(recorded, tmp_path):
    (tmp_path / 'md.out').write_text(recorded('dynamics').text)
    run = read_run(tmp_path)
    assert len(list(run.frames)) == 1  # the first is printed in the text
    assert all('its positions are in no file' in sentence for sentence in run.skipped)


def test_positions_that_are_not_printed_are_taken_from_the_input_beside(recorded, tmp_path):
    text = recorded('ot').text
    start, end = text.index(' MODULE QUICKSTEP'), text.index(' SCF PARAMETERS')
    (tmp_path / 'sp.out').write_text(text[:start] + text[end:])
    run = read_run(tmp_path)
    assert list(run.frames) == []
    assert 'does not print positions' in run.skipped[0]
    (frame,) = recorded('ot').frames
    rows = ''.join(
        f'{symbol} {" ".join(map(repr, row))}\n'
        for symbol, row in zip(frame.symbols, frame.positions.tolist(), strict=True)
    )
    (tmp_path / 'sp.inp').write_text(
        '&FORCE_EVAL\n&SUBSYS ! comment\n&CELL\nABC 6.3 6.3 6.3\n&END CELL\n&COORD\n'
        f'{rows}&END\n&END\n&END FORCE_EVAL\n'
    )
    run = read_run(tmp_path)
    (read,) = run.frames
    assert np.array_equal(read.positions, frame.positions)
    assert [path.name for path in run.files] == ['sp.out', 'sp.inp']


def test_a_folder_has_to_hold_one_output(recorded, tmp_path):
    with pytest.raises(RunError, match='there has to be one output'):
        read_run(tmp_path)
    for name in ('a.out', 'b.log'):
        (tmp_path / name).write_text(recorded('ot').text)
    with pytest.raises(RunError, match=r'a\.out, b\.log'):
        read_run(tmp_path)
    assert len(list(read_run(tmp_path / 'a.out').frames)) == 1
    (tmp_path / 'c.out').write_text('Hello\n')
    with pytest.raises(RunError, match='no output of CP2K'):
        read_run(tmp_path / 'c.out')


def test_an_output_that_ends_before_its_first_cycle_is_refused_with_what_it_said(recorded, tmp_path):
    (tmp_path / 'a.out').write_text(recorded('no_basis').text)
    with pytest.raises(RunError, match='The requested basis set <NOSUCH-GTH-q4>'):
        read_run(tmp_path)


def test_a_published_run_of_another_version_is_read_with_its_input(shared_data):
    path = shared_data / 'cp2k_mapbi3_water' / 'Cluster_222_MAPbI3.cp2k.log.gz'
    if not path.is_file():
        pytest.skip(f'there is no {path}')
    run = read_run(path)
    assert list(run.frames) == []
    assert run.skipped == [
        'snapshot 0 (-15653.381126 eV): the output does not print positions, and ./relaxed_MAPbI3.xyz is not beside it.'
    ]
    assert (run.level.functional, run.level.dispersion, run.level.cutoff) == ('PBE', 'D3', '280 Ry')
    assert run.level.spin == 'unrestricted'
    assert 'SZV-MOLOPT-SR-GTH' in run.level.basis
    assert [file.name for file in run.files] == [path.name, 'Cluster_222_MAPbI3.inp']


def test_an_input_with_a_preprocessor_is_left_alone():
    assert read_input(['@SET A 1\n', '&GLOBAL\n', '&END\n']) is None
    assert read_input(['&GLOBAL\n', 'PROJECT ${NAME}\n', '&END\n']) is None
    assert read_input(['&GLOBAL\n']) is None


def test_repeated_sections_and_keywords_are_lists():
    text = '&A p\n KEY 1 # first\n key 2\n &B x\n &END\n &B y\n  C 3\n &END B\n&END A\n'
    sections = read_input(text.splitlines(keepends=True))
    assert lookup(sections, 'A/KEY') == ['1', '2']
    assert lookup(sections, 'A/_') == 'p'
    assert [entry['_'] for entry in lookup(sections, 'A/B')] == ['x', 'y']
    assert lookup(sections, 'A/NOTHING/AT/ALL') is None


def as_run(path, text, **beside):
    """Write an output, and files beside it, and read it."""
    (path / 'run.out').write_text(text)
    for name, content in beside.items():
        (path / f'run.{name}').write_text(content)
    return read_run(path)


def test_a_relaxed_cell_belongs_to_its_own_step(folder_of):
    run = read_run(folder_of('cell_relaxation'))
    volumes = [np.linalg.det(frame.cell) for frame in run.frames]
    assert volumes == pytest.approx([250.047, 250.372581, 251.895063], abs=1e-4)  # as printed for each step
    assert run.skipped == []


def test_steps_whose_cell_is_unknown_are_reported(folder_of):
    folder = folder_of('cell_relaxation')
    cells = (folder / 'aiida-1.cell').read_text().splitlines(keepends=True)
    (folder / 'aiida-1.cell').write_text(''.join(cells[:-1]))
    run = read_run(folder)
    assert len(list(run.frames)) == 2
    assert 'its cell is in no file' in run.skipped[0]
    (folder / 'aiida-1.cell').unlink()
    assert len(list(read_run(folder).frames)) == 1


def test_a_simulation_that_may_change_the_cell_needs_cells(recorded, folder_of):
    line = next(line for line in recorded('dynamics').text.splitlines() if 'Ensemble type' in line)
    for ensemble, count in (('NVT  ', 4), ('NPT_F', 1), (None, 1)):
        text = recorded('dynamics').text.replace(line, line.replace('  NVT', ensemble) if ensemble else '')
        folder = folder_of('dynamics', text=text)
        (folder / 'aiida-1.cell').unlink()
        assert len(list(read_run(folder).frames)) == count


def test_steps_of_another_run_in_the_trajectory_are_passed_over(recorded, folder_of):
    folder = folder_of('dynamics')
    path = folder / 'aiida-pos-1.xyz'
    energy = re.compile(r'E = +-(\d+)')
    path.write_text(energy.sub(r'E = -1\1', path.read_text()) + path.read_text())
    (folder / 'aiida-1.cell').unlink()
    run = read_run(folder)
    assert [frame.energy for frame in run.frames] == [each.energy for each in recorded('dynamics').read()[0]]


def low(recorded):
    """Return an output that does not print positions, and the input that it had."""
    text = recorded('ot').text
    start, end = text.index(' MODULE QUICKSTEP'), text.index(' SCF PARAMETERS')
    (frame,) = recorded('ot').frames
    rows = ''.join(
        f'{symbol} {" ".join(map(repr, row))}\n'
        for symbol, row in zip(frame.symbols, frame.positions.tolist(), strict=True)
    )
    written = f'&FORCE_EVAL\n&SUBSYS\n&CELL\nABC 6.3 6.3 6.3\n&END CELL\n&COORD\n{rows}&END\n&END\n&END\n'
    return text[:start] + text[end:], written


@pytest.mark.parametrize(
    ('old', 'new', 'what'),
    [
        ('&COORD\n', '&COORD\nSCALED\n', 'SCALED'),
        ('&COORD\n', '&COORD\nUNIT bohr\n', 'a UNIT'),
        ('&SUBSYS\n', '&SUBSYS\n&TOPOLOGY\nMULTIPLE_UNIT_CELL 1 1 1\n&END\n', 'MULTIPLE_UNIT_CELL'),
        ('&CELL\n', '&CELL\nCELL_FILE_NAME a.xyz\n', 'CELL_FILE_NAME'),
        ('&FORCE_EVAL\n', '&EXT_RESTART\nRESTART_FILE_NAME a\n&END\n&FORCE_EVAL\n', 'restarted'),
    ],
)
def test_an_input_whose_positions_may_not_be_those_computed_is_not_believed(recorded, tmp_path, old, new, what):
    text, written = low(recorded)
    assert len(list(as_run(tmp_path, text, inp=written).frames)) == 1
    run = as_run(tmp_path, text, inp=written.replace(old, new, 1))
    assert list(run.frames) == []
    assert what in run.skipped[0]


def test_a_restart_that_the_output_tells_is_not_overlooked(recorded, tmp_path):
    text, written = low(recorded)
    run = as_run(tmp_path, f' *          RESTART INFORMATION          *\n{text}', inp=written)
    assert list(run.frames) == []
    assert 'restarted' in run.skipped[0]


@pytest.mark.parametrize('name', ['BAND', 'VIBRATIONAL_ANALYSIS', 'MC'])
def test_only_runs_whose_numbers_are_of_what_is_printed_are_imported(recorded, tmp_path, name):
    with pytest.raises(RunError, match=f'its run type is {name}'):
        as_run(tmp_path, recorded('ot').text.replace('  ENERGY_FORCE', f'  {name}'))


def test_ghost_atoms_are_refused(recorded, tmp_path):
    mark = '     The atoms of this atomic kind are GHOST atoms!\n'
    text = recorded('ot').text
    place = text.index('\n', text.index('Atomic kind: I')) + 1
    with pytest.raises(RunError, match=r'ghost atoms \(I\)'):
        as_run(tmp_path, text[:place] + mark + text[place:])


SCALED = '3865-3868, (1996)sx=0.750sc=1.000{spin unpolarized}'
PECULIAR = {
    'scaled exchange': SCALED,
    'exact exchange': f'{SCALED}\n  HFX_INFO| FRACTION:                                   0.2500000000',
    'another fraction': f'{SCALED}\n  HFX_INFO| FRACTION:                                   0.1500000000',
    'DFT+U': '3865-3868, (1996){spin unpolarized}\n DFT+U| Method                              MULLIKEN',
    'a field': '3865-3868, (1996){spin unpolarized}\n PERIODIC_EFIELD| Intensity [a.u.]:     1.000000E-03',
}


def test_what_changes_the_numbers_changes_the_level_of_a_run(recorded, tmp_path):
    text = recorded('ot').text
    assert '3865-3868, (1996){spin unpolarized}' in text
    levels = [as_run(tmp_path, text).level]
    levels += [
        as_run(tmp_path, text.replace('3865-3868, (1996){spin unpolarized}', new)).level for new in PECULIAR.values()
    ]
    levels += [as_run(tmp_path, text.replace('DFT| Charge', f'{line}\n DFT| Charge')).level for line in LINES]
    assert len({level.fingerprint for level in levels}) == len(levels)
    finer = as_run(tmp_path, re.sub(r'(eps_rho_gspace: +)1.0E-10', r'\g<1>1.0E-12', text)).level
    assert finer.fingerprint not in {level.fingerprint for level in levels}
    assert levels[1].details['scaling'] == 'x=0.75 c=1'


POINTS = (
    ' BRILLOUIN| K-point scheme                                               General\n'
    ' BRILLOUIN| List of Kpoints [2 Pi/Bohr]                                        2\n'
    ' BRILLOUIN| Number           Weight            X              Y              Z\n'
    ' BRILLOUIN|     1           0.50000        0.00000        0.00000        0.00000\n'
    ' BRILLOUIN|     2           0.50000        0.00000        0.00000        0.50000\n'
)
LINES = (
    POINTS,
    POINTS.replace('0.00000        0.50000\n', '0.00000        0.25000\n'),
    ' DFT| Self-interaction correction (SIC)                                       AD',
)


def test_a_shifted_mesh_is_told_from_the_usual_one(recorded, tmp_path):
    text = recorded('kpoints').text
    assert as_run(tmp_path, text).level.kpoints == '2x2x2, Gamma-centred'
    assert as_run(tmp_path, text.replace('0.2500    0.2500    0.2500', '0.2500    0.2500    0.0000')).level.kpoints == (
        '2x2x2, shift 0.25 0.25 0'
    )
    assert as_run(tmp_path, text.replace('MacDonald', 'Monkhorst-Pack')).level.kpoints == '2x2x2'


INPUT = '&FORCE_EVAL\n&DFT\nCHARGE 0\n&QS\nEPS_DEFAULT 1e-10\n&END\n&SCF\nMAX_SCF 20\n&END\n&END\n&END\n'


@pytest.mark.parametrize(
    ('old', 'new', 'same'),
    [
        ('MAX_SCF 20', 'MAX_SCF 30', True),
        ('CHARGE 0', 'CHARGE 1', True),
        ('1e-10', '1.0D-10', True),
        ('&QS\nEPS_DEFAULT', '&qs\n eps_default', True),
        ('&QS', 'WFN_RESTART_FILE_NAME a\n&QS', True),
        ('1e-10', '1e-12', False),
        ('&QS', '&EFIELD\nINTENSITY 1e-3\n&END\n&QS', False),
        ('&QS', '&SCCS\n&END\n&QS', False),
        ('&DFT', '&QMMM\n&END\n&DFT', False),
        ('&DFT', '&SUBSYS\n&KIND Pb\n&DFT_PLUS_U\nU_MINUS_J 0.1\n&END\n&END\n&END\n&DFT', False),
        ('MAX_SCF 20', 'MAX_SCF 20\n&SMEAR ON\n&END', False),
    ],
)
def test_the_input_beside_counts_as_far_as_it_is_physics(recorded, tmp_path, old, new, same):
    known = as_run(tmp_path, recorded('ot').text, inp=INPUT).level
    level = as_run(tmp_path, recorded('ot').text, inp=INPUT.replace(old, new, 1)).level
    assert (level.fingerprint == known.fingerprint) is same


def test_smearing_over_fewer_orbitals_than_there_are_is_another_level(recorded, tmp_path):
    text = recorded('metal').text
    assert as_run(tmp_path, text).level.details['orbitals'] == 'all'
    fewer = re.sub(r'(Number of molecular orbitals: +)4', r'\g<1>3', text)
    assert as_run(tmp_path, fewer).level.details['orbitals'] == '3'
