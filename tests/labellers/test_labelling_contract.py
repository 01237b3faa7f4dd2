"""What the labels of every labeller have to be, whatever makes them; one that is registered is tested.

All label the same frames through the chain. Derivatives of the energy tell whether units, signs and the order of atoms
are right: a force on the wrong atom or with the wrong sign, or a stress in other units, would not be one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import labeller_named

STEP, STRAIN = 0.02, 0.004


def perovskite() -> Frame:
    """Return a rattled cell of CsPbI3 whose species are mixed up."""
    sites = np.array([(0, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0)])
    positions = sites * 6.2 + np.random.default_rng(0).normal(0, 0.08, (5, 3))
    numbers = np.array([53, 55, 53, 82, 53], np.uint8)
    return Frame(numbers, positions, 6.2 * np.eye(3), np.ones(3, bool), group='still')


def metal() -> Frame:
    """Return a rattled cell of two metals, mixed up."""
    sites = np.array([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])
    positions = sites * 3.9 + np.random.default_rng(0).normal(0, 0.08, (4, 3))
    return Frame(np.array([29, 79, 29, 79], np.uint8), positions, 3.9 * np.eye(3), np.ones(3, bool), group='still')


@dataclass(frozen=True)
class Case:
    """How a labeller is run here.

    :param code: fixture, or `plugin` for the environment of the labeller.
    :param sees_charge: whether the charge of a frame changes its energy; one that does not has to say so in its level.
    :param fails: what of the frame with two atoms in one place has to be said.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    code: str = 'plugin'
    still: Callable[[], Frame] = perovskite
    fixtures: tuple[str, ...] = ()
    sees_charge: bool = True
    stress: bool = True
    fails: str = ''


CASES = {
    'tblite': Case({'smallest_cell': 0.0}, fails='interatomic distances'),
    'cp2k': Case(
        {'basis': 'SZV', 'cutoff': 200.0, 'rel_cutoff': 40.0, 'eps_scf': 1e-6, 'smallest_cell': 0.0}, 'cp2k_code'
    ),
    'vasp': Case({'kspacing': 0.6}, 'vasp_code', fixtures=('family',), fails='interatomic distances'),
    'pyscf': Case({'basis': 'SZV', 'cutoff': 150.0, 'smallest_cell': 0.0}),
    'gpaw': Case({'cutoff': 300.0}, stress=False),  # that of so few plane waves is no derivative of the energy
    'emt': Case({}, 'python_code', metal, sees_charge=False),
    'potential': Case({}, 'python_code', sees_charge=False),
}


def moved(still: Frame, direction: Any, step: float) -> Frame:
    return replace(still, positions=still.positions + step * direction, group=f'moved {np.sign(step):+.0f}')


def strained(still: Frame, strain: float) -> Frame:
    stretch = np.eye(3)
    stretch[0, 0] += strain
    group = f'strained {np.sign(strain):+.0f}'
    return replace(still, positions=still.positions @ stretch, cell=still.cell @ stretch, group=group)


def all_frames(still: Frame, direction: Any) -> list[Frame]:
    """Return the frames of the contract; the last but one is charged, in the last two atoms lie in one place."""
    broken = still.positions.copy()
    broken[1] = broken[0]
    frames = [
        still,
        *(moved(still, direction, step) for step in (STEP, -STEP)),
        *(strained(still, strain) for strain in (STRAIN, -STRAIN)),
    ]
    neutral = [replace(frame, charge=0) for frame in frames]
    return [
        *neutral,
        replace(still, charge=-1, group='charged'),
        replace(still, positions=broken, charge=0, group='broken'),
    ]


@pytest.fixture(params=registry.names('labellers'))
def name(request) -> str:
    if request.param == 'unruly':
        pytest.skip('it misbehaves on purpose; the tests of the chain are its own')
    return request.param


@pytest.mark.slow
def test_labels_have_the_right_units_signs_order_level_and_source(name, request):
    from aiida_perovmlip.workflows.label import LabelWorkChain

    assert name in CASES, f'say in CASES how `{name}` is run here'
    case = CASES[name]
    still = case.still()
    direction = np.random.default_rng(1).normal(size=still.positions.shape)
    direction /= np.linalg.norm(direction)
    settings = dict(case.settings)
    if 'family' in case.fixtures:
        settings['potential_family'] = request.getfixturevalue('family')
    code = request.getfixturevalue('plugin_code')(name) if case.code == 'plugin' else request.getfixturevalue(case.code)
    given = {'potential': request.getfixturevalue('springs')} if name == 'potential' else {}
    frames = DatasetData.from_frames(all_frames(still, direction))
    builder = LabelWorkChain.get_builder_from_protocol(name, code, frames, settings=settings, max_concurrent=1)
    builder.job = given
    protocol = builder.settings.get_dict()
    _, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message

    labelled = {frame.group: frame for frame in node.outputs.dataset}
    failures = {row['group']: row for row in node.outputs.failures['frames']}
    assert set(labelled) | set(failures) == {frame.group for frame in frames}
    assert not set(labelled) & set(failures)
    middle = labelled['still']
    assert np.array_equal(middle.positions, still.positions)
    assert np.array_equal(middle.numbers, still.numbers)

    slope = (labelled['moved +1'].energy - labelled['moved -1'].energy) / (2 * STEP)
    assert slope == pytest.approx(-(middle.forces * direction).sum(), abs=0.02, rel=0.03)
    assert np.abs(middle.forces).max() > 0.05
    if case.stress and middle.stress is not None:
        volume = abs(np.linalg.det(still.cell))
        slope = (labelled['strained +1'].energy - labelled['strained -1'].energy) / (2 * STRAIN * volume)
        assert slope == pytest.approx(middle.stress[0], abs=5e-4, rel=0.05)

    level = labeller_named(name).level_of(protocol, given)
    assert node.outputs.dataset.level.fingerprint == level.fingerprint
    jobs = {child.uuid for child in node.called if isinstance(child, orm.CalcJobNode)}
    assert {frame.source for frame in labelled.values()} <= jobs

    if not case.sees_charge:
        assert 'charged' in failures or labelled['charged'].energy == middle.energy
    elif 'charged' in labelled:
        assert abs(labelled['charged'].energy - middle.energy) > 0.1
        assert labelled['charged'].charge == -1
    else:
        assert failures['charged']['kind'] in ('refused', 'not_converged', 'failed')
    if 'broken' in failures:
        assert case.fails in failures['broken']['reason']
    else:
        assert name in ('emt', 'potential', 'cp2k', 'pyscf', 'gpaw'), 'two atoms in one place got a label'


@pytest.fixture
def springs(python_code, make_frames):
    """Return a potential of springs for the elements of CsPbI3."""
    from aiida_perovmlip.calculations.train import TrainCalculation

    builder = TrainCalculation.get_builder()
    builder.code, builder.architecture = python_code, 'reference'
    builder.training = DatasetData.from_frames(make_frames(8), {'labeller': 'test', 'functional': 'pairs'})
    return run_get_node(builder)[0]['potential']
