"""What the thermodynamic rows of a run tell: means with errors, and the drift of what should be conserved."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_perovmlip.analysis.series import average_of, drift_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.md import GPA
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.data.trajectory import TrajectoryData

AVERAGED = ('temperature', 'potential_energy', 'kinetic_energy', 'volume', 'spread')
"""Columns whose means are told as they are."""


TOLD = ('engine', 'settings', 'effective', 'n_steps')
"""What a leg tells that holds for the whole run."""


@recorded
def summarize_run(trajectory: TrajectoryData, legs: orm.List, results: orm.Dict | None = None) -> orm.Dict:
    """Return the statistics of a whole run, with what is known of each of its legs.

    :param results: those of the newest leg that could tell any.
    """
    known = {} if results is None else {name: results[name] for name in TOLD if name in results.get_dict()}
    step = max(leg['step'] for leg in legs.get_list())
    total = {'n_atoms': trajectory.trajectory.n_atoms, 'step': step, 'legs': legs.get_list()}
    return orm.Dict({**known, **statistics_of(trajectory.trajectory), **total})


def statistics_of(trajectory: Trajectory) -> dict[str, Any]:
    """Return the means of the thermodynamic rows with standard errors, and the drift of what should be conserved.

    Each mean has `mean`, `error`, `spread`, `n` and `n_independent`, in K, eV, Å³, GPa and eV/Å; `drift` is in
    meV/atom/ps. All rows count, those of the beginning too.
    """
    names = trajectory.thermo_names
    found: dict[str, Any] = {'n_frames': len(trajectory), 'timestep': trajectory.timestep}
    for name in AVERAGED:
        if name in names:
            found[name] = average_of(trajectory.thermo(name)[1]).numbers()
    if 'stress' in names:
        found['pressure'] = average_of(-trajectory.thermo('stress')[1][:, :3].mean(axis=1) * GPA).numbers()
    if 'conserved' in names:
        times, values = trajectory.thermo('conserved')
        if len(times) > 1:
            per_atom = 1000 * (values - values[0]) / trajectory.n_atoms
            found['drift'] = drift_of(times, per_atom).numbers()
    return found
