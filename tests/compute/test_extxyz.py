"""Frames as text."""

from __future__ import annotations

import gzip
import io
import random
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aiida_perovmlip.compute.extxyz import DIALECTS, Labels, open_text, read_extxyz, write_extxyz
from aiida_perovmlip.compute.frame import Frame, FrameError, from_voigt
from aiida_perovmlip.compute.shard import ShardBuilder, check

COMMENT = (
    'Lattice="4.0 0.0 0.0 0.0 5.0 0.0 0.0 0.0 6.0" Properties=species:S:1:pos:R:3:forces:R:3 '
    'energy=-3.5 stress="0.1 0.0 0.0 0.0 0.2 0.0 0.0 0.0 0.3" config_type=cubic pbc="T T T"'
)
ATOMS = ['Pb 0.0 0.0 0.0 0.1 0.2 0.3', 'I 2.0 0.5 0.25 -0.1 -0.2 -0.3']


def text_of(comment: str = COMMENT, atoms: list[str] = ATOMS, count: Any = 2) -> str:
    return '\n'.join([str(count), comment, *atoms, ''])


def molecule(comment: str) -> str:
    return f'2\n{comment}\nH 0 0 0\nH 0 0 0.74\n'


def read(text: str, **options: Any) -> list[Frame]:
    return list(read_extxyz(io.StringIO(text), 'file.xyz', **options))


def read_one(text: str, **options: Any) -> Frame:
    (frame,) = read(text, **options)
    return frame


def written(frames: list[Frame], dialect: Any) -> str:
    handle = io.StringIO()
    write_extxyz(frames, handle, dialect)
    return handle.getvalue()


def assert_same(one: Frame, other: Frame) -> None:
    for name in ('numbers', 'positions', 'cell', 'pbc', 'energy', 'forces', 'stress'):
        expected, value = getattr(one, name), getattr(other, name)
        assert (expected is None) == (value is None), name
        if expected is not None:
            np.testing.assert_array_equal(value, expected, err_msg=name)
    for name in ('charge', 'spin', 'group', 'trajectory', 'head', 'source'):
        assert getattr(one, name) == getattr(other, name), name


# Reading ------------------------------------------------------------------------------------------------------------


def test_a_frame_is_read_with_all_that_is_known_of_it() -> None:
    frame = read_one(text_of(f'{COMMENT} charge=-1 spin=2 trajectory="run 7" head=r2scan source=abc other=[1,2] bare'))
    assert frame.symbols == ['Pb', 'I']
    assert frame.numbers.dtype == np.uint8
    np.testing.assert_array_equal(frame.positions, [[0, 0, 0], [2, 0.5, 0.25]])
    np.testing.assert_array_equal(frame.cell, np.diag([4, 5, 6]))
    np.testing.assert_array_equal(frame.forces, [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    np.testing.assert_array_equal(frame.stress, [0.1, 0.2, 0.3, 0, 0, 0])
    assert frame.pbc.all()
    assert (frame.energy, frame.charge, frame.spin) == (-3.5, -1, 2)
    assert (frame.group, frame.trajectory, frame.head, frame.source) == ('cubic', 'run 7', 'r2scan', 'abc')


def test_a_plain_xyz_file_is_a_molecule_without_labels() -> None:
    frame = read_one('2\n\nH 0 0 0\nH 0 0 0.74\n')
    assert not frame.pbc.any()
    assert not frame.cell.any()
    assert (frame.energy, frame.forces, frame.stress, frame.charge) == (None, None, None, None)
    assert frame.group == 'default'


@pytest.mark.parametrize(
    ('comment', 'pbc'),
    [
        ('Lattice="4 0 0 0 5 0 0 0 6"', [True, True, True]),
        ('lattice="4 0 0 0 5 0 0 0 6"', [True, True, True]),
        ('LATTICE="4 0 0 0 5 0 0 0 6" pbc="T F T"', [True, False, True]),
        ('Lattice="4 0 0 0 5 0 0 0 6" pbc=[true, true, false]', [True, True, False]),
        ('Lattice={4 0 0 0 5 0 0 0 6} pbc="1 0 0"', [True, False, False]),
        ("Lattice='4 0 0 0 5 0 0 0 0' pbc='T T F'", [True, True, False]),
        ('Lattice="0 0 0 0 0 0 0 0 0" pbc="F F F"', [False, False, False]),
        ('', [False, False, False]),
    ],
)
def test_periodicity_follows_the_lattice_unless_it_is_stated(comment: str, pbc: list[bool]) -> None:
    assert read_one(f'1\n{comment}\nH 0 0 0\n').pbc.tolist() == pbc


def test_the_lattice_vectors_are_rows_as_in_ase() -> None:
    text = '1\nLattice="4 0.1 0.2 0.3 5 0.4 0.5 0.6 6"\nH 0 0 0\n'
    expected = ase.io.read(io.StringIO(text), format='extxyz').cell.array
    np.testing.assert_array_equal(read_one(text).cell, expected)


def test_reference_labels_are_preferred_to_others_of_the_same_value() -> None:
    text = text_of(
        COMMENT.replace('forces:R:3', 'forces:R:3:REF_forces:R:3') + ' REF_energy=-3.50000001',
        [f'{atom} {atom.split(maxsplit=4)[4]}' for atom in ATOMS],
    )
    assert read_one(text).energy == -3.50000001


def test_labels_choose_among_spellings_that_disagree() -> None:
    text = text_of(COMMENT + ' REF_energy=-7 total_energy=-9')
    assert read_one(text, labels=Labels(energy='energy')).energy == -3.5
    assert read_one(text, labels=Labels(energy='REF_energy')).energy == -7
    assert read_one(text, labels=Labels(energy='total_energy')).energy == -9
    columns = COMMENT.replace('forces:R:3', 'forces:R:3:dft:R:3')
    text = text_of(columns, [f'{atom} 7 8 9' for atom in ATOMS])
    np.testing.assert_array_equal(read_one(text, labels=Labels(forces='dft')).forces, [[7, 8, 9]] * 2)


def test_free_and_total_energies_are_nobodys_energy_unless_named() -> None:
    comment = 'Properties=species:S:1:pos:R:3 free_energy=1 total_energy=2 dft_energy=3'
    text = text_of(comment, ['H 0 0 0'], 1)
    assert read_one(text).energy is None
    assert read_one(text, labels=Labels(energy='dft_energy')).energy == 3


def test_a_virial_is_minus_volume_times_stress() -> None:
    base = COMMENT.split(' stress=', maxsplit=1)[0] + ' pbc="T T T"'
    virial = -120 * np.array([[0.1, 0.02, 0.0], [0.02, 0.2, 0.01], [0.0, 0.01, 0.3]])
    row = ' '.join(map(repr, virial.ravel()))
    for key in ('virial', 'virials', 'REF_virial'):
        stress = read_one(text_of(f'{base} {key}="{row}"')).stress
        np.testing.assert_allclose(stress, [0.1, 0.2, 0.3, 0.01, 0, 0.02], rtol=1e-14)
    nested = virial.tolist()
    for value in (f'"_JSON {nested}"', str(nested), f'{{{row}}}'):
        np.testing.assert_allclose(read_one(text_of(f'{base} virial={value}')).stress, stress, rtol=1e-14)


def test_six_numbers_of_stress_are_in_voigt_order() -> None:
    comment = COMMENT.split(' stress=', maxsplit=1)[0]
    np.testing.assert_array_equal(read_one(text_of(f'{comment} stress="1 2 3 4 5 6"')).stress, [1, 2, 3, 4, 5, 6])


def test_stress_and_virial_of_the_same_tensor_agree_and_otherwise_labels_decide() -> None:
    assert read_one(text_of(COMMENT + ' virial="-12 0 0 0 -24 0 0 0 -36"')).stress[1] == 0.2
    wrong = text_of(COMMENT + ' virial="12 0 0 0 24 0 0 0 36"')
    with pytest.raises(FrameError, match='`stress` and `virial` disagree about the stress'):
        read(wrong)
    assert read_one(wrong, labels=Labels(stress='stress')).stress[1] == 0.2
    assert read_one(wrong, labels=Labels(virial='virial')).stress[1] == pytest.approx(-0.2)


def test_atomic_numbers_stand_in_for_symbols() -> None:
    assert read_one('1\nProperties=Z:I:1:pos:R:3\n82 0 0 0\n').symbols == ['Pb']
    assert read_one('1\nProperties=species:S:1:Z:I:1:pos:R:3\nPb 82 0 0 0\n').symbols == ['Pb']


def test_json_and_escapes_give_back_the_text() -> None:
    comment = r'group="_JSON \"a=\\u003d 1\"" trajectory="say \"x\"" head=\=x source=' + "'it'"
    frame = read_one(f'1\n{comment}\nH 0 0 0\n')
    assert (frame.group, frame.trajectory, frame.head, frame.source) == ('a== 1', 'say "x"', '=x', 'it')


def test_frames_are_read_one_at_a_time() -> None:
    handle = io.StringIO(text_of() + text_of(count='x'))
    frames = read_extxyz(handle)
    assert len(next(frames)) == 2
    with pytest.raises(FrameError, match=r'^frame 1, line 5: '):
        next(frames)


def test_blank_lines_at_the_end_are_no_fault() -> None:
    assert len(read(text_of() + '\n  \n\n')) == 1
    assert read('') == []
    assert read('\n\n') == []


def test_compressed_files_are_opened_as_others_are(tmp_path: Path) -> None:
    (tmp_path / 'a.xyz').write_text(text_of())
    with gzip.open(tmp_path / 'a.xyz.gz', 'wt') as handle:
        handle.write(text_of())
    for name in ('a.xyz', 'a.xyz.gz'):
        with open_text(tmp_path / name) as handle:
            assert len(list(read_extxyz(handle))) == 1


# Faults -------------------------------------------------------------------------------------------------------------

FAULTS = {
    'count is text': (text_of(count='two'), 1, "'two' is not a number of atoms"),
    'count is negative': (text_of(count=-2), 1, "'-2' is not a number of atoms"),
    'count is a fraction': (text_of(count='2.0'), 1, "'2.0' is not a number of atoms"),
    'count is endless': (text_of(count='9' * 5000), 1, 'is not a number of atoms'),
    'count is zero': (text_of(atoms=[], count=0), 1, 'no atoms'),
    'count is too large': (text_of(count=3), 4, 'the file ends after 2 of 3 atoms'),
    'count swallows the next frame': (text_of(count=3) + text_of(), 5, '1 columns instead of the 7'),
    'no comment line': ('2', 1, 'the file ends where the comment line of the frame has to be'),
    'blank line between': ('\n' + text_of(), 1, 'only its end may be blank'),
    'column missing': (text_of(atoms=[ATOMS[0], 'I 2 2 2 1 1']), 4, 'there are 6 columns instead of the 7'),
    'column too many': (text_of(atoms=[ATOMS[0] + ' 1', ATOMS[1]]), 3, 'there are 8 columns instead of the 7'),
    'position is text': (text_of(atoms=['Pb 0 0 x 0 0 0', ATOMS[1]]), 3, "`pos` holds 'x', which is not a number"),
    'Fortran exponent': (
        text_of(atoms=[ATOMS[0], 'I 0 0 0 0 0 1D-3']),
        4,
        "`forces` holds '1D-3', which is not a numb",
    ),
    'digits grouped': (text_of(atoms=[ATOMS[0], 'I 0 0 1_000 0 0 0']), 4, "`pos` holds '1_000', which is not a number"),
    'digits of another script': (text_of(atoms=[ATOMS[0], 'I 0 0 ١ 0 0 0']), 4, "`pos` holds '١', which is not a n"),
    'position is NaN': (text_of(atoms=[ATOMS[0], 'I nan 0 0 0 0 0']), 4, '`pos` is not finite'),
    'force is infinite': (text_of(atoms=['Pb 0 0 0 0 -inf 0', ATOMS[1]]), 3, '`forces` is not finite'),
    'unknown element': (text_of(atoms=[ATOMS[0], 'Xx 0 0 0 0 0 0']), 4, "`species`: 'Xx' is not a chemical element"),
    'placeholder element': (text_of(atoms=['X 0 0 0 0 0 0', ATOMS[1]]), 3, "`species`: 'X' is not a chemical element"),
    'element in capitals': (text_of(atoms=['PB 0 0 0 0 0 0', ATOMS[1]]), 3, "'PB' is not a chemical element"),
    'atomic number': ('1\nProperties=Z:I:1:pos:R:3\n119 0 0 0\n', 3, '`Z` is 119'),
    'atomic number is real': (
        '1\nProperties=Z:I:1:pos:R:3\n1.0 0 0 0\n',
        3,
        "`Z` holds '1.0', which is not an integer",
    ),
    'numbers are no integers': ('1\nProperties=Z:R:1:pos:R:3\n1 0 0 0\n', 2, '`Z` has to be I:1'),
    'two species': ('1\nProperties=species:S:1:Z:I:1:pos:R:3\nH 2 0 0 0\n', 2, '`species` and `Z` disagree'),
    'logical': (
        '1\nProperties=species:S:1:pos:R:3:move:L:1\nH 0 0 0 maybe\n',
        3,
        "`move` holds 'maybe', which is not T",
    ),
    'no species': ('1\nProperties=pos:R:3\n0 0 0\n', 2, 'no column `species`; it has `pos`'),
    'no positions': ('1\nProperties=species:S:1\nH\n', 2, 'no column `pos`; it has `species`'),
    'integer positions': ('1\nProperties=species:S:1:pos:I:3\nH 0 0 0\n', 2, '`pos` has to be R:3'),
    'key twice': (text_of(COMMENT + ' energy=-3.5'), 2, '`energy` is there twice'),
    'lattice twice': (text_of(COMMENT + ' lattice="1 0 0 0 1 0 0 0 1"'), 2, '`Lattice` is there twice'),
    'column twice': (text_of(COMMENT.replace('forces:R', 'pos:R')), 2, '`Properties` cannot be understood: `pos` is t'),
    'column without kind': (
        text_of(COMMENT.replace('forces:R:3', 'forces')),
        2,
        '`Properties` cannot be understood: it',
    ),
    'column of unknown kind': (text_of(COMMENT.replace('forces:R:3', 'forces:Q:3')), 2, '`forces:Q:3` is not a name'),
    'column of no width': (text_of(COMMENT.replace('forces:R:3', 'forces:R:0')), 2, '`forces:R:0` is not a name'),
    'columns without value': (text_of('Properties'), 2, '`Properties` cannot be understood'),
    'open quote': (molecule('Lattice="4 0 0 0 5 0 0 0 6'), 2, 'no key with a value'),
    'text after quote': (molecule('a="b"c'), 2, 'no key with a value can be read from'),
    'value without key': (molecule('a=1 =2'), 2, "can be read from '=2'"),
    'lattice of eight': (molecule('Lattice="4 0 0 0 5 0 0 0"'), 2, '`Lattice` has to be 9 numbers, not 8'),
    'lattice is text': (molecule('Lattice="a b c"'), 2, '`Lattice` has to be 9 numbers, not no number'),
    'lattice is NaN': (molecule('Lattice="nan 0 0 0 5 0 0 0 6"'), 2, '`Lattice` is not finite'),
    'no volume': (molecule('Lattice="4 0 0 0 5 0 4 5 0"'), 2, '`Lattice` spans no volume'),
    'no area': (molecule('Lattice="4 0 0 8 0 0 0 0 1" pbc="T T F"'), 2, '`Lattice` spans no volume'),
    'no length': (molecule('Lattice="0 0 0 0 5 0 0 0 6" pbc="T F F"'), 2, '`Lattice` spans no volume'),
    'too large': (molecule('Lattice="1e308 1e308 0 0 5 0 0 0 6"'), 2, '`Lattice` spans no volume'),
    'periodic without lattice': (molecule('pbc="T T T"'), 2, 'there is no `Lattice`'),
    'pbc of two': (text_of(COMMENT.replace('T T T', 'T T')), 2, "`pbc` has to be three times T or F, not 'T T'"),
    'pbc is text': (text_of(COMMENT.replace('T T T', 'a b c')), 2, '`pbc` has to be three times T or F'),
    'energy is text': (text_of(COMMENT.replace('-3.5', 'low')), 2, "`energy` has to be 1 number, not no number: 'low'"),
    'energy is bare': (text_of(COMMENT.replace('=-3.5', '')), 2, '`energy` has to be 1 number, not 0'),
    'energy is true': (
        text_of(COMMENT.replace('-3.5', '"_JSON true"')),
        2,
        '`energy` has to be 1 number, not no number',
    ),
    'energy is two': (text_of(COMMENT.replace('-3.5', '"1 2"')), 2, '`energy` has to be 1 number, not 2'),
    'energy is NaN': (text_of(COMMENT.replace('-3.5', 'NaN')), 2, '`energy` is not finite'),
    'energies disagree': (
        text_of(COMMENT + ' REF_energy=-3.6'),
        2,
        '`REF_energy` and `energy` disagree about the energy',
    ),
    'forces disagree': (
        text_of(COMMENT.replace('forces:R:3', 'forces:R:3:REF_forces:R:3'), [f'{atom} 1 1 1' for atom in ATOMS]),
        2,
        '`REF_forces` and `forces` disagree about the forces; say which one is meant with Labels(forces=…)',
    ),
    'forces are two numbers': (
        text_of(COMMENT.replace('forces:R:3', 'forces:R:2'), [atom.rsplit(maxsplit=1)[0] for atom in ATOMS]),
        2,
        'the column `forces` has to be R:3',
    ),
    'stress of five': (
        text_of(COMMENT.replace('"0.1 0.0 0.0 0.0 ', '"')),
        2,
        '`stress` has to be 6 or 9 numbers, not 5',
    ),
    'stress is NaN': (text_of(COMMENT.replace('0.1', 'nan')), 2, '`stress` is not finite'),
    'stress is not symmetric': (text_of(COMMENT.replace('0.1 0.0', '0.1 0.7')), 2, '`stress`: the stress is not symm'),
    'stresses disagree': (text_of(COMMENT + ' REF_stress="1 1 1 0 0 0"'), 2, '`REF_stress` and `stress` disagree'),
    'stress of a slab': (text_of(COMMENT.replace('T T T', 'T T F')), 2, 'there is a `stress`, but `pbc` is not'),
    'virial of six': (text_of(COMMENT + ' virial="1 2 3 4 5 6"'), 2, '`virial` has to be 9 numbers, not 6'),
    'charge is a fraction': (text_of(COMMENT + ' charge=0.5'), 2, '`charge` is 0.5, which is not a small integer'),
    'charge is large': (text_of(COMMENT + ' charge=40000'), 2, '`charge` is 40000.0, which is not a small integer'),
    'charges disagree': (text_of(COMMENT + ' charge=1 total_charge=0'), 2, '`charge` and `total_charge` disagree'),
    'spin is zero': (text_of(COMMENT + ' multiplicity=0'), 2, '`multiplicity` is 0, but the spin is the multiplicity'),
    'group is bare': (text_of(COMMENT + ' group'), 2, '`group` has no value'),
    'group is broken': (text_of(COMMENT + ' group="_JSON {"'), 2, '`group` is not valid JSON'),
}


@pytest.mark.parametrize('case', FAULTS)
def test_a_fault_is_named_with_file_frame_and_line(case: str) -> None:
    text, line, message = FAULTS[case]
    with pytest.raises(FrameError) as caught:
        read(text)
    assert str(caught.value).startswith(f'file.xyz, frame 0, line {line}: ')
    assert message in str(caught.value)
    with pytest.raises(FrameError) as caught:
        read(text_of() + text)
    assert str(caught.value).startswith(f'file.xyz, frame 1, line {line + 4}: ')


def test_an_atom_too_many_is_taken_for_the_next_frame() -> None:
    with pytest.raises(FrameError, match=r"frame 1, line 4: 'I 2\.0 .*' is not a number of atoms"):
        read(text_of(count=1))


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (
            Labels(energy='e0'),
            'there is no key `e0` for the energy; there are `Lattice`, `Properties`, `energy`, `stress`',
        ),
        (Labels(forces='f0'), 'there is no column `f0` for the forces; there are `species`, `pos`, `forces`'),
        (Labels(stress='s0'), 'there is no key `s0` for the stress'),
        (Labels(virial='v0'), 'there is no key `v0` for the virial'),
    ],
)
def test_a_label_that_was_asked_for_has_to_be_there(labels: Labels, message: str) -> None:
    with pytest.raises(FrameError) as caught:
        read(text_of(), labels=labels)
    assert message in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'latin.xyz').write_bytes(text_of(COMMENT + ' group=\xe9').encode('latin-1'))
    packed = gzip.compress(text_of().encode() * 50)
    (tmp_path / 'cut.xyz.gz').write_bytes(packed[:-10])
    (tmp_path / 'spoilt.xyz.gz').write_bytes(packed[:20] + b'\xff\xff\xff' + packed[23:])
    (tmp_path / 'plain.xyz.gz').write_bytes(text_of().encode())
    for path in tmp_path.iterdir():
        with open_text(path) as handle, pytest.raises(FrameError, match=f'{path.name}, frame .* cannot be read on'):
            list(read_extxyz(handle, path.name))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(['bytes', 'lines']), st.integers(1, 4))
def test_a_spoilt_file_gives_good_frames_or_a_frame_error(rng: random.Random, unit: str, changes: int) -> None:
    frame = Frame(
        np.array([82, 53], np.uint8), np.eye(3)[:2], np.diag([4.0, 5, 6]), np.ones(3, bool), 1.5, -np.eye(3)[:2],
        np.arange(6.0), 1, 2, 'a "b" = c', 'é', 'x', 'T',
    )  # fmt: skip
    content = b''.join(written([frame, frame], dialect).encode() for dialect in ('mace', 'ase', 'gpumd'))
    pieces = [content[i : i + 1] for i in range(len(content))] if unit == 'bytes' else content.splitlines(keepends=True)
    for _ in range(changes):
        place = rng.randrange(len(pieces))
        alphabet = [bytes([rng.randrange(256)]), *(bytes([code]) for code in b' \n"\'{}[]=\\-.0139eE_:TF')]
        pieces[place] = rng.choice([b'', pieces[place] * 2, rng.choice(pieces), rng.choice(alphabet), b'nan', b'1e999'])
    handle = io.TextIOWrapper(io.BytesIO(b''.join(pieces)), encoding='utf-8')
    try:
        frames = list(read_extxyz(handle, 'spoilt.xyz'))
    except FrameError as error:
        frames, message = [], str(error)
    else:
        message = 'spoilt.xyz, frame'
    assert message.startswith('spoilt.xyz, frame')
    for frame in frames:
        builder = ShardBuilder()
        builder.add(frame)
        check(builder.build())


# Real files, beside ASE ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('path', 'labels'),
    [
        ('cspbi3_train/train.xyz.gz', {'energy', 'forces', 'stress'}),
        ('fasni3_r2scan_vasp/FASnI3_cubic.extxyz.gz', {'energy', 'forces'}),
        ('fasni3_r2scan_vasp/FASnI3_tetra.extxyz.gz', {'energy', 'forces'}),
        ('gpumd_fixtures/train.xyz', {'energy', 'forces'}),
        ('gpumd_fixtures/PbTe_train.xyz.gz', {'energy', 'forces'}),
    ],
)
def test_real_files_are_read_as_by_ase(path: str, labels: set[str], shared_data: Path) -> None:
    with open_text(shared_data / path) as handle:
        frames = list(read_extxyz(handle, path))
    images = ase.io.read(shared_data / path, ':', format='extxyz')
    assert len(frames) == len(images)
    for frame, atoms in zip(frames, images, strict=True):
        results = dict(atoms.calc.results)
        if 'force' in atoms.arrays:
            results['forces'] = atoms.arrays['force']
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.cell, atoms.cell.array)
        np.testing.assert_array_equal(frame.pbc, atoms.pbc)
        assert {name for name in ('energy', 'forces', 'stress') if getattr(frame, name) is not None} == labels
        for name in labels:
            np.testing.assert_array_equal(getattr(frame, name), results[name])
        assert frame.group == atoms.info.get('config_type', 'default')


def test_reading_is_faster_than_with_ase(shared_data: Path) -> None:
    with open_text(shared_data / 'cspbi3_train/train.xyz.gz') as handle:
        text = handle.read()

    def seconds(function: Any) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    ours = min(seconds(lambda: list(read_extxyz(io.StringIO(text)))) for _ in range(3))
    theirs = min(seconds(lambda: list(ase.io.iread(io.StringIO(text), format='extxyz'))) for _ in range(3))
    print(f'\n214 frames: {ours:.3f} s, ASE {theirs:.3f} s: {theirs / ours:.1f} times as fast')


# Writing ------------------------------------------------------------------------------------------------------------

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ['', 'T', '12', '1e5', 'nan', '1 2', 'T F', ',', ' a ', 'a=b', '"', "it's", '\\', '_JSON 1', '{x}']
    ),
)


@st.composite
def any_frame(draw: Any) -> Frame:
    count = draw(st.integers(1, 4))
    vectors = hnp.arrays(float, (count, 3), elements=finite)
    periodic = draw(st.booleans())
    cell = np.diag(draw(hnp.arrays(float, 3, elements=st.floats(1, 50)))) + np.tril(
        draw(hnp.arrays(float, (3, 3), elements=st.floats(-5, 5))), -1
    )
    pbc = np.ones(3, bool) if periodic else draw(hnp.arrays(bool, 3))
    return Frame(
        draw(hnp.arrays(np.uint8, count, elements=st.integers(1, 118))),
        draw(vectors),
        cell,
        pbc,
        energy=draw(st.none() | finite),
        forces=draw(st.none() | vectors),
        stress=draw(st.none() | hnp.arrays(float, 6, elements=st.floats(-1e3, 1e3))) if pbc.all() else None,
        charge=draw(st.none() | st.integers(-9, 9)),
        spin=draw(st.none() | st.integers(1, 9)),
        group=draw(texts),
        trajectory=draw(texts),
        head=draw(texts),
        source=draw(texts),
    )


@pytest.mark.parametrize('dialect', [name for name in DIALECTS if name != 'gpumd'])
@settings(max_examples=80, derandomize=True, deadline=None)
@given(frames=st.lists(any_frame(), max_size=3))
def test_what_is_written_is_read_back_exactly(dialect: Any, frames: list[Frame]) -> None:
    again = read(written(frames, dialect))
    assert len(again) == len(frames)
    for one, other in zip(frames, again, strict=True):
        assert_same(one, other)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(frame=any_frame())
def test_a_virial_loses_no_more_than_rounding(frame: Frame) -> None:
    again = read_one(written([frame], 'gpumd'))
    for name in ('positions', 'forces', 'energy', 'group', 'trajectory', 'head', 'source', 'charge', 'spin'):
        np.testing.assert_array_equal(getattr(again, name), getattr(frame, name))
    if frame.stress is None:
        assert again.stress is None
    else:
        np.testing.assert_allclose(again.stress, frame.stress, rtol=1e-14, atol=0)


@pytest.mark.parametrize('dialect', DIALECTS)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(frame=any_frame())
def test_ase_reads_the_same_from_every_dialect(dialect: Any, frame: Frame) -> None:
    atoms = ase.io.read(io.StringIO(written([frame], dialect)), format='extxyz')
    results = atoms.calc.results if atoms.calc is not None else {}
    found = {**atoms.info, **atoms.arrays, **results}
    names = DIALECTS[dialect]
    np.testing.assert_array_equal(atoms.numbers, frame.numbers)
    np.testing.assert_array_equal(atoms.positions, frame.positions)
    np.testing.assert_array_equal(atoms.cell.array, frame.cell)
    np.testing.assert_array_equal(atoms.pbc, frame.pbc)
    for key, value in ((names.energy, frame.energy), (names.forces, frame.forces)):
        np.testing.assert_array_equal(found.get(key), value)
    if frame.stress is None:
        assert names.stress not in found
    else:
        expected = {
            'mace': from_voigt(frame.stress).ravel(),
            'gpumd': -atoms.get_volume() * from_voigt(frame.stress),
        }.get(dialect, frame.stress)
        np.testing.assert_allclose(found[names.stress], expected, rtol=0 if dialect != 'gpumd' else 1e-12)
    for key, text in ((names.group, frame.group), ('trajectory', frame.trajectory), ('source', frame.source)):
        assert found.get(key, '') == text
    for key in ('charge', 'spin'):
        assert found.get(key) == getattr(frame, key)


def test_the_dialects_read_as_their_codes_expect() -> None:
    frame = read_one(text_of(COMMENT + ' charge=1 head=pbe'))
    lattice = 'Lattice="4.0 0.0 0.0 0.0 5.0 0.0 0.0 0.0 6.0"'
    stress = '"0.1 0.0 0.0 0.0 0.2 0.0 0.0 0.0 0.3"'
    assert written([frame], 'mace').splitlines() == [
        '2',
        f'{lattice} Properties=species:S:1:pos:R:3:REF_forces:R:3 config_type=cubic head=pbe charge=1 '
        f'REF_energy=-3.5 REF_stress={stress} pbc="T T T"',
        'Pb 0.0 0.0 0.0 0.1 0.2 0.3',
        'I  2.0 0.5 0.25 -0.1 -0.2 -0.3',
    ]
    gpumd = written([frame], 'gpumd').splitlines()[1]
    assert gpumd.startswith(f'{lattice} Properties=species:S:1:pos:R:3:force:R:3 ')
    assert ' energy=-3.5 virial="-12.0 0.0 0.0 0.0 -24.0 0.0 0.0 0.0 -36.0" pbc="T T T"' in gpumd
    assert ' stress=' not in gpumd
    for dialect in ('nequip', 'ase'):
        assert f' group=cubic head=pbe charge=1 energy=-3.5 stress={stress}' in written([frame], dialect)


def test_no_text_can_pose_as_a_key() -> None:
    """GPUMD and others split the line at spaces, whether these are quoted or not."""
    frame = read_one('1\nLattice="4 0 0 0 5 0 0 0 6"\nH 0 0 0\n')
    for text in ('a energy=7', 'energy = 7 "', 'x\nvirial="1', 'a virial='):
        line = written(
            [Frame(frame.numbers, frame.positions, frame.cell, frame.pbc, group=text)], 'gpumd'
        ).splitlines()[1]
        assert 'energy=' not in line.replace(' ', '')
        assert 'virial=' not in line.replace(' ', '')


def test_gpumd_needs_a_cell() -> None:
    with pytest.raises(FrameError, match='frame 1 has no cell'):
        written([read_one(text_of()), read_one('1\n\nH 0 0 0\n')], 'gpumd')


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'lammps' is not a dialect of extended XYZ; there are mace, gpumd, nequip, ase"
    ):
        written([], 'lammps')
