"""Bands as jobs: a vacancy of copper hops on the surface of a pair potential that was trained on EMT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from aiida import orm
from ase.build import bulk

from aiida_perovmlip.calculations.neb import NebCalculation
from aiida_perovmlip.compute.contract import RESPONSE, Request, Response, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.tasks.neb import PATH, read_path
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.paths import linear

HOST = bulk('Cu', cubic=True) * (2, 2, 2)


def frames_of(images):
    return [Frame.from_atoms(image) for image in images]


@pytest.fixture
def images(copper_hop):
    """Return the straight path of a hop."""
    return copper_hop


@pytest.fixture
def potential(copper_potential):
    return copper_potential()


@pytest.fixture
def relax(run_job, potential):
    def run(path, options=None, **inputs):
        dataset = path if isinstance(path, DatasetData) else DatasetData.from_frames(frames_of(path))
        return run_job(NebCalculation, options, potential=potential, path=dataset, **inputs)

    return run


def energies(path):
    return path.frames.column('energy')


def test_a_hop_gives_its_path_with_energies_and_forces_of_the_potential(relax, potential, images):
    outputs, node = relax(images)
    assert node.is_finished_ok, node.exit_message
    path = outputs['path']
    assert len(path) == 7
    barrier = energies(path) - energies(path)[0]
    assert 0.2 < barrier.max() < 2.0
    assert barrier[-1] == pytest.approx(0.0, abs=1e-3)  # both ends are alike
    assert int(barrier.argmax()) == 3
    (level,) = path.levels.values()
    assert (level.labeller, level.details['content_hash']) == ('potential', potential.content_hash)
    assert path.frames[3].charge == 1
    assert path.frames[3].source == node.uuid
    results = outputs['results']
    assert results['is_converged']
    assert results['residual'] <= results['settings']['fmax'] == 0.03
    profile = results['profile']
    assert profile['forward'] == pytest.approx(barrier.max())
    assert (profile['top'], profile['is_interior'], profile['minima']) == (3, True, [])
    assert profile['curve_forward'] == pytest.approx(profile['forward'], abs=0.02)
    history = outputs['history']
    assert len(history.get_array('residual')) >= results['n_steps']
    assert history.get_array('barrier')[-1] == pytest.approx(barrier.max())


def test_a_path_that_did_not_converge_is_kept_and_goes_in_again(relax, images):
    part, node = relax(images, settings={'max_steps': 2, 'fmax': 0.005})
    assert node.exit_status == NebCalculation.exit_codes.ERROR_NOT_CONVERGED.status
    assert 'after 2 steps' in node.exit_message
    assert 'Go on from the output `path`' in node.exit_message
    assert not part['results']['is_converged']
    rest, node = relax(part['path'], settings={'fmax': 0.005})
    assert node.is_finished_ok, node.exit_message
    whole, _ = relax(images, settings={'fmax': 0.005})
    assert energies(rest['path']).max() == pytest.approx(energies(whole['path']).max(), abs=1e-3)


def test_a_job_without_time_keeps_its_path(relax, images):
    never = {'fmax': 1e-12, 'fmax_ends': 1e-12, 'max_steps': 10**6}
    outputs, node = relax(images, {'max_wallclock_seconds': 3}, settings={**never, 'relax_ends': False})
    assert node.exit_status == NebCalculation.exit_codes.ERROR_OUT_OF_WALLTIME.status
    assert len(outputs['path']) == 7
    assert outputs['results']['n_steps'] > 0
    outputs, node = relax(images, {'max_wallclock_seconds': 1}, settings=never)
    assert 'the ends were still relaxing' in node.exit_message
    assert outputs['results']['profile'] is None
    assert len(outputs['path']) == 7


def test_ends_that_fall_into_one_structure_have_an_exit_code_of_their_own(relax, images):
    near = images[0].copy()
    near.positions[0] += 0.2
    outputs, node = relax(linear(images[0], near, 3))
    assert node.exit_status == NebCalculation.exit_codes.ERROR_ENDS_MEET.status
    assert 'both ends relax into one structure' in node.exit_message
    assert 'path' in outputs


def test_what_is_no_path_is_refused_before_there_is_a_job(relax, images):
    overlapping = [image.copy() for image in images]
    overlapping[2].positions[0] = overlapping[2].positions[1] + 0.1
    with pytest.raises(ValueError, match=r'image 2 of 0 to 6: Cu0 and Cu1 are 0\.173 Å apart'):
        relax(overlapping)
    other = [image.copy() for image in images]
    other[-1].numbers[0] = 47
    with pytest.raises(ValueError, match='the path holds Ag, but the potential knows only Cu'):
        relax(other)
    with pytest.raises(ValueError, match='it needs its two ends and at least one image'):
        relax(images[:2])
    with pytest.raises(ValueError, match="unknown setting 'climbs'"):
        relax(images, settings={'climbs': True})
    with pytest.raises(ValueError, match=r'`other`'):
        relax(images, head=orm.Str('other'))


def test_what_a_killed_job_leaves_is_a_whole_path(potential, images, tmp_path):
    potential.export(tmp_path / 'potential')
    write_folder(build_shards(frames_of(images)), tmp_path / 'path')
    request = Request(
        task='aiida_perovmlip.compute.tasks.neb:Neb',
        plugins={'architecture': 'aiida_perovmlip.compute.architectures.reference:Reference'},
        inputs={'potential': 'potential', 'path': 'path'},
        settings={'band': {'fmax': 1e-12, 'max_steps': 10**6}},
    )
    (tmp_path / 'request.json').write_text(request.dump())
    command = [sys.executable, '-m', 'aiida_perovmlip.compute.harness']
    job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / PATH).is_file():
            assert time.monotonic() < deadline
            assert job.poll() is None
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
    finally:
        job.kill()
        job.wait()
    assert len(read_path(tmp_path / PATH)) == 7
    assert not (tmp_path / RESPONSE).exists()
    again = tmp_path / 'again'
    write_folder(build_shards(read_path(tmp_path / PATH)), again)
    request = Request(
        **{**json.loads(request.dump()), 'inputs': {'potential': 'potential', 'path': 'again'}, 'settings': {}}
    )
    (tmp_path / 'request.json').write_text(request.dump())
    subprocess.run(command, cwd=tmp_path, check=True)
    assert Response.load((tmp_path / RESPONSE).read_text()).status is Status.OK
