"""Paths relaxed by several jobs and several bands: a vacancy of copper hops once, and twice."""

from __future__ import annotations

import json
import sys
from copy import deepcopy

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.neb import NebCalculation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.tasks.neb import PATH
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.structures.hops import vacancy_hops
from aiida_perovmlip.structures.paths import linear
from aiida_perovmlip.workflows.band import BandWorkChain


@pytest.fixture
def relax(python_code, copper_potential):
    def run(images, options=None, **inputs):
        builder = BandWorkChain.get_builder()
        builder.code, builder.potential = python_code, copper_potential()
        builder.path = DatasetData.from_frames([Frame.from_atoms(image) for image in images])
        for name, value in {**inputs, 'options': options or {}}.items():
            setattr(builder, name, value)
        return run_get_node(builder)

    return run


def two_hops(copper):
    """Return a path on which two atoms hop one after the other, each into the vacancy that it finds."""
    hop = vacancy_hops(copper, 'Cu', 3.0)[0]
    start, middle = hop.ends(copper)
    vacant = start.positions[np.linalg.norm(start.positions - middle.positions, axis=1).argmax()]
    mover = int(np.linalg.norm(start.positions - middle.positions, axis=1).argmax())
    distances = middle.get_distances(mover, range(len(middle)), mic=True)
    near = [atom for atom in np.flatnonzero(distances < 3.0) if atom != mover]
    # the second atom goes where the first one came from, straight on
    ways = np.array([middle.positions[atom] - vacant for atom in near])
    shifts = copper.cell.scaled_positions(ways)
    ways = (shifts - np.round(shifts)) @ copper.cell.array
    atom = near[int(np.linalg.norm(ways, axis=1).argmin())]
    end = middle.copy()
    end.positions[atom] -= ways[int(np.linalg.norm(ways, axis=1).argmin())]
    return [*linear(start, middle, 3), *linear(middle, end, 3)[1:]]


def test_a_band_that_ran_out_of_steps_goes_on_where_it_stopped(relax, copper_hop):
    outputs, node = relax(copper_hop, settings={'max_steps': 3, 'fmax': 0.04}, max_iterations=20)
    assert node.is_finished_ok, node.exit_message
    (jobs,) = outputs['results']['bands'].values()
    assert len(jobs) > 2
    whole, _ = relax(copper_hop, settings={'fmax': 0.04})
    found, wanted = (each['results']['profile']['forward'] for each in (outputs, whole))
    assert found == pytest.approx(wanted, abs=5e-3)
    assert len(outputs['path']) == 7


def test_a_band_that_never_converges_ends_and_keeps_its_path(relax, copper_hop):
    outputs, node = relax(copper_hop, settings={'max_steps': 1, 'fmax': 1e-9}, max_iterations=2)
    assert node.exit_status == 500
    assert '2 of 2 jobs were run' in node.exit_message
    assert 'the largest force on the band is' in node.exit_message
    assert len(outputs['path']) == 7
    assert 'results' not in outputs


def test_ends_that_meet_end_the_chain_with_their_own_code(relax, copper_hop):
    near = copper_hop[0].copy()
    near.positions[0] += 0.2
    _, node = relax(linear(copper_hop[0], near, 3))
    assert node.exit_status == 570
    assert 'both ends relax into one structure' in node.exit_message
    assert len(list(node.called)) == 1  # trying again would end the same way


def test_a_path_with_a_minimum_is_cut_there_where_that_is_asked_for(relax, copper):
    images = two_hops(copper)
    whole, node = relax(images)
    assert node.is_finished_ok, node.exit_message
    (minimum,) = whole['results']['profile']['minima']
    assert minimum == 4
    cut, node = relax(images, split=True)
    assert node.is_finished_ok, node.exit_message
    assert cut['results']['n_bands'] == 2
    assert set(cut['results']['bands']) == {'band', 'band_piece_01', 'band_piece_02'}
    path, profile = cut['path'], cut['results']['profile']
    assert len(path) == 17  # two bands of seven images, and three ends
    assert profile['minima'] == [8]
    # each hop is the same one, seen alone: only its own band has an image on the very top
    one, other = profile['steps']
    assert one == pytest.approx(other, abs=5e-3)
    assert profile['steps'][0][0] == pytest.approx(profile['forward'], abs=5e-3)
    assert max(forward for forward, _ in whole['results']['profile']['steps']) <= profile['forward'] + 5e-3


@pytest.fixture
def deadly_code(make_code, tmp_path):
    """Return a Python whose first job dies as soon as it has saved its path."""
    mark, script = tmp_path / 'has-died', tmp_path / 'deadly-python'
    script.write_text(
        f"""#!/bin/sh
[ -e {mark} ] && exec {sys.executable} "$@"
touch {mark}
{sys.executable} "$@" &
while [ ! -e {PATH} ]; do sleep 0.05; done
kill -9 $!
"""
    )
    script.chmod(0o755)
    return make_code(f'deadly-{tmp_path.name}', script)


def test_a_job_that_was_killed_is_followed_by_one_that_goes_on_from_its_path(relax, copper_hop, deadly_code):
    outputs, node = relax(copper_hop, code=deadly_code, settings={'fmax': 0.04})
    assert node.is_finished_ok, node.exit_message
    killed, whole = (orm.load_node(uuid) for uuid in outputs['results']['bands']['band'])
    assert killed.exit_status == NebCalculation.exit_codes.ERROR_NO_RESPONSE.status
    assert whole.inputs.path.uuid == killed.outputs.path.uuid
    assert len(outputs['path']) == 7


def test_a_potential_that_predicts_nonsense_ends_the_chain_at_once(relax, copper_hop, tmp_path):
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': 'nan', 'elements': ['Cu']}))
    facts = {'architecture': 'unruly', 'elements': ['Cu'], 'cutoff': 5.0}
    potential = PotentialData(tmp_path, **facts).store()
    _, node = relax(copper_hop, potential=potential)
    assert node.exit_status == 530
    assert 'predicts an energy or a force that is not finite' in node.exit_message
    assert len(list(node.called)) == 1


def test_a_step_that_runs_again_starts_no_job_twice(relax, copper, monkeypatch):
    """As where the daemon is killed behind a step: it runs again with the context of before."""

    def twice(step):
        def run(self):
            before = deepcopy(self.ctx.bands)
            step(self)
            self.ctx.bands = before
            return step(self)

        return run

    for name in ('take_stock', 'launch'):
        monkeypatch.setattr(BandWorkChain, name, twice(getattr(BandWorkChain, name)))
    outputs, node = relax(two_hops(copper), split=True)
    assert node.is_finished_ok, node.exit_message
    assert len(outputs['path']) == 17
    assert [each.process_label for each in node.called].count('Neb<reference>') == 3


def test_options_and_paths_that_no_job_could_take_are_refused(relax, copper_hop):
    with pytest.raises(ValueError, match="jobs have no option 'queue'"):
        relax(copper_hop, options={'queue': 'long'})
    with pytest.raises(ValueError, match='`max_iterations` is 0 but has to be at least 1'):
        relax(copper_hop, max_iterations=0)
    with pytest.raises(ValueError, match='it needs its two ends'):
        relax(copper_hop[:2])


def test_a_path_that_cannot_go_in_again_ends_with_what_its_job_said(relax, copper_hop, monkeypatch):
    start = BandWorkChain._builder

    def only_once(self, band):
        if band['jobs']:
            raise ValueError('Cu2 jumps by a cell vector.')  # what becomes of atoms that a bad potential throws about
        return start(self, band)

    monkeypatch.setattr(BandWorkChain, '_builder', only_once)
    outputs, node = relax(copper_hop, settings={'max_steps': 1, 'fmax': 1e-9})
    assert node.exit_status == 500
    assert 'the largest force on the band is' in node.exit_message
    assert 'Its path cannot go in again: Cu2 jumps by a cell vector.' in node.exit_message
    assert len(outputs['path']) == 7
