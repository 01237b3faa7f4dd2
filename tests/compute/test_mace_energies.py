"""Energies of isolated atoms that a MACE potential gets; no MACE is needed here."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import OTHER_LEVEL, UNKNOWN_LEVEL, Plan, PotentialFacts
from aiida_perovmlip.compute.architectures.mace import MaceSettings
from aiida_perovmlip.compute.architectures.mace.energies import (
    ROUNDING,
    AtomicEnergies,
    find_energies,
    fit,
    refuse_other_energies,
)
from aiida_perovmlip.compute.architectures.mace.heads import heads_of
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

ATOMS = {'Cs': -1.0, 'I': -3.0, 'Pb': -2.0}
KNOWN = PotentialFacts(
    elements=('Br', 'Cs', 'I', 'Pb'),
    cutoff=5.0,
    heads=('Default',),
    energies_of_atoms={'Default': {'Br': -4.0, **ATOMS}},
)


def made_of(*counts):
    """Return frames with numbers of Cs, Pb and I, and the energy of these atoms."""
    frames = []
    for cs, pb, i in counts:
        numbers = np.array([55] * cs + [82] * pb + [53] * i, dtype=np.uint8)
        energy = cs * ATOMS['Cs'] + pb * ATOMS['Pb'] + i * ATOMS['I']
        positions = 5.0 * np.arange(3.0 * len(numbers)).reshape(-1, 3)
        frames.append(Frame(numbers, positions, energy=energy, forces=np.zeros((len(numbers), 3))))
    return frames


@pytest.fixture
def energies(tmp_path):
    def find(frames, strategy='scratch', predict=None, replay=None, same_level=None, **settings):
        given = write_folder(build_shards(frames), tmp_path / 'frames')
        plan = Plan(
            strategy=strategy,
            settings=MaceSettings(**settings),
            training=given,
            validation=given,
            replay=write_folder(build_shards(replay), tmp_path / 'replay') if replay else None,
            known=KNOWN if strategy != 'scratch' else None,
            has_level_of_parent=same_level,
        )
        return find_energies(plan, heads_of(plan), predict)

    return find


def test_the_average_finds_energies_that_the_frames_determine(energies, tmp_path):
    found = energies(made_of((1, 1, 3), (2, 1, 4), (1, 2, 4)))
    assert found.by_head['Default'] == pytest.approx(ATOMS)
    assert fit(write_folder(build_shards(made_of((1, 1, 3))), tmp_path / 'one'), np.array([-12.0]))[1] == 1


def test_isolated_atoms_are_the_energies_and_no_longer_frames(energies, tmp_path):
    frames = made_of((1, 1, 3), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    found = energies([replace(frames[0], energy=-99.0), *frames[1:]], atomic_energies='isolated')
    assert found.by_head['Default'] == pytest.approx(ATOMS)
    given = write_folder(build_shards(frames), tmp_path / 'all')
    plan = Plan(settings=MaceSettings(atomic_energies='isolated'), training=given, validation=given)
    assert [len(head.training) for head in heads_of(plan)] == [1]


def test_an_estimate_that_is_not_determined_says_so(energies):
    def wrong_by_one_of_lead(frames):
        return [frame.energy - np.count_nonzero(frame.numbers == 82) for frame in frames]

    sure = energies(
        made_of((1, 1, 3), (2, 1, 4), (1, 2, 4)), 'naive', wrong_by_one_of_lead, atomic_energies='estimated'
    )
    assert sure.by_head['Default'] == pytest.approx({'Br': -4.0, **ATOMS, 'Pb': -1.0})
    assert not [note for note in sure.notes if 'determine' in note]
    vague = energies(made_of((1, 1, 3), (2, 2, 6)), 'naive', wrong_by_one_of_lead, atomic_energies='estimated')
    assert 'estimated for 3 elements from frames that determine 1 combinations' in vague.notes[0]


def test_energies_that_nobody_asked_for_are_explained_unless_they_are_of_the_level_of_the_parent(energies):
    frames, right = made_of((1, 1, 3), (2, 1, 4), (1, 2, 4)), lambda frames: [frame.energy for frame in frames]
    expected = {True: ('parent', []), None: ('parent', [UNKNOWN_LEVEL]), False: ('estimated', [OTHER_LEVEL])}
    for is_same, (way, notes) in expected.items():
        found = energies(frames, 'naive', right, same_level=is_same)
        assert (found.way, found.notes[: len(notes)]) == (way, notes)
        asked = energies(frames, 'naive', right, same_level=is_same, atomic_energies=way)
        assert (asked.way, asked.notes) == (way, found.notes[len(notes) :])
    assert (energies(frames).way, energies(frames).notes) == ('average', [])


def test_a_run_that_takes_up_another_says_of_the_energies_what_that_one_found(energies):
    given = {'Cs': -10.0, 'I': -30.0, 'Pb': -20.0}
    for found in (energies(made_of((1, 1, 3)), 'naive'), energies(made_of((1, 1, 3)), 'naive', atomic_energies=given)):
        assert found.notes
        assert AtomicEnergies.kept(json.loads(json.dumps(found.about()))) == found


def test_no_element_of_a_head_is_left_with_nothing(energies):
    frames = [replace(frame, head='a') for frame in made_of((1, 1, 3), (2, 1, 4))]
    frames += [replace(frame, head='b') for frame in made_of((1, 1, 0), (2, 1, 0))]
    found = energies(frames)
    assert set(found.by_head['b']) == {'Cs', 'I', 'Pb'}
    assert found.by_head['b']['I'] == found.by_head['a']['I'] != 0.0
    assert found.notes == ['The head `b` was given no energy of I: it has that of another head.']


def test_elements_of_the_parent_keep_its_energies_unless_they_are_dropped(energies):
    frames = made_of((1, 1, 3))
    given = {'Cs': -10.0, 'I': -30.0, 'Pb': -20.0}
    kept = energies(frames, 'naive', atomic_energies=given)
    assert kept.by_head['Default'] == {'Br': -4.0, **given}
    assert kept.notes == ['The head `Default` was given no energy of Br: it has that of the parent.']
    dropped = energies(frames, 'naive', atomic_energies=given, keep_elements=False)
    assert dropped.by_head['Default'] == given


def test_the_replay_head_has_the_energies_of_the_parent(energies):
    frames = made_of((1, 1, 3), (2, 1, 4))
    given = {'Cs': -10.0, 'I': -30.0, 'Pb': -20.0}
    found = energies(frames, 'multihead', replay=frames, atomic_energies=given)
    assert found.by_head == {'parent': {'Br': -4.0, **ATOMS}, 'default': {'Br': -4.0, **given}}


@pytest.mark.parametrize(
    ('done', 'words'),
    [
        ({'a': {'I': -1.0, 'Cs': -35.24}}, r'Cs \(a\): asked -35.250000 eV, done -35.240000 eV'),
        ({'a': {'I': -1.0}}, r'Cs \(a\): not in the file'),
        ({'a': {'I': -1.0, 'Cs': -35.25, 'Br': 0.0}}, r'Br \(a\): not asked for, done 0.000000 eV'),
        ({'b': {'I': -1.0, 'Cs': -35.25}}, r'not in the file'),
    ],
)
def test_a_file_with_other_energies_of_atoms_is_an_error(done, words):
    wanted = {'a': {'I': -1.0, 'Cs': -35.25}}
    with pytest.raises(JobError, match=words) as caught:
        refuse_other_energies(wanted, done)
    assert caught.value.status is Status.SETTINGS_IGNORED
    close = {'a': {'I': -1.0, 'Cs': -35.25 * (1 + 3e-7)}}
    refuse_other_energies(wanted, close, ROUNDING['float32'])
    with pytest.raises(JobError, match='asked'):
        refuse_other_energies(wanted, close, ROUNDING['float64'])
