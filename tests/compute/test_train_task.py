"""What the training task makes of what an architecture says that it did."""

from __future__ import annotations

import json
import shutil

import pytest
from test_harness import INPUTS, run

from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.tasks.train import CURVE, ENDED, TWICE, refuse_ignored_settings

SETTINGS = {'width': 8, 'rate': 0.1, 'offset': None}


def test_equal_settings_pass_also_where_the_unsaid_ones_are_not_told():
    refuse_ignored_settings(SETTINGS, ['width'], {'width': 8})
    refuse_ignored_settings(SETTINGS, ['rate'], {'rate': 0.1 + 1e-12})


def test_a_setting_that_was_said_and_of_which_nothing_is_told_is_an_error():
    with pytest.raises(JobError, match='It is not known whether `rate` had an effect') as caught:
        refuse_ignored_settings(SETTINGS, ['width', 'rate'], {'width': 8})
    assert caught.value.status is Status.SETTINGS_IGNORED


def test_a_default_that_was_not_followed_is_an_error_without_a_parent_alone():
    with pytest.raises(JobError, match='`width`: asked 8, done 16'):
        refuse_ignored_settings(SETTINGS, [], {'width': 16})
    refuse_ignored_settings(SETTINGS, [], {'width': 16}, has_parent=True)
    with pytest.raises(JobError, match='`width`: asked 8, done 16'):
        refuse_ignored_settings(SETTINGS, ['width'], {'width': 16}, has_parent=True)


def test_none_leaves_the_choice_to_the_architecture():
    refuse_ignored_settings(SETTINGS, ['offset'], {'offset': 3.0})
    refuse_ignored_settings(SETTINGS, ['offset'], {})


@pytest.fixture
def train(tmp_path, make_frames):
    """Return a function that runs the job of a folder, whose frames are always the same."""

    def go(name, checkpoint=None, **settings):
        folder = tmp_path / name
        if not folder.is_dir():
            write_folder(build_shards(make_frames(6)), folder / 'training')
            write_folder(build_shards(make_frames(2, seed=1)), folder / 'validation')
        if checkpoint is not None:
            shutil.copytree(tmp_path / checkpoint / 'checkpoint', folder / 'checkpoint')
        return run(folder, 'train', {'architecture': 'reference'}, inputs=INPUTS, settings=settings), folder

    return go


def contents(folder):
    """Return what a training leaves, by name."""
    files = [path for name in ('potential', 'checkpoint') for path in (folder / name).rglob('*') if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*files, folder / CURVE]}


@pytest.mark.parametrize('restart', [False, True])
def test_a_job_that_is_queued_anew_after_its_end_gives_the_result_of_that(train, restart, monkeypatch):
    """Also where it had taken up another run itself: then it is asked to `restart`, as is one that must not."""
    if restart:
        train('earlier')
        (train('earlier')[1] / 'checkpoint' / 'finished').unlink()  # as of a run that was stopped
    first, folder = train('job', *(['earlier'] if restart else []), restart=restart)
    assert first.status is Status.OK
    before = contents(folder)
    monkeypatch.setattr('aiida_perovmlip.compute.architectures.reference.Reference.train', None)  # never called
    again, _ = train('job', restart=restart)
    assert again.status is Status.OK, again.error
    assert again.results['notes'].pop() == TWICE
    assert json.dumps(again.results) == json.dumps(first.results)
    assert contents(folder) == before


def test_a_finished_training_that_is_taken_up_in_another_folder_is_refused(train):
    train('earlier')
    response, _ = train('later', 'earlier', restart=True)
    assert response.status is Status.BAD_INPUT
    assert 'reached its end' in response.error['message']


def test_an_end_of_other_settings_or_one_that_is_half_written_is_not_taken_for_this_one(train):
    _, folder = train('job')
    again, _ = train('job', reference={'ridge': 1e-3})
    assert again.results['settings']['ridge'] == 1e-3
    (folder / ENDED).write_text((folder / ENDED).read_text()[:-5])
    last, _ = train('job', reference={'ridge': 1e-3})
    assert last.status is Status.OK
    assert TWICE not in last.results['notes']


@pytest.mark.parametrize('damage', ['gone', 'cut off', 'another'])
def test_a_potential_that_is_no_longer_whole_is_made_again_from_the_last_state(train, damage):
    first, folder = train('job')
    before = contents(folder)
    (path,) = (path for path in (folder / 'potential').iterdir() if path.is_file())
    if damage == 'gone':
        path.unlink()
    elif damage == 'cut off':
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.write_text(path.read_text().replace('5.0', '5.5', 1))
    again, _ = train('job')
    assert again.status is Status.OK, again.error
    assert TWICE not in again.results['notes']
    assert again.results['facts'] == first.results['facts']
    assert contents(folder)[f'potential/{path.name}'] == before[f'potential/{path.name}']
