"""A run of CP2K that was done elsewhere gives the frames that converged, and says of the others why not."""

from __future__ import annotations

import gzip
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
