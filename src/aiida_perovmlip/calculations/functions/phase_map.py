"""From tilts along ramps to transitions, a phase diagram and its boundary, with provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.boundary import boundary_of, diagram_of
from aiida_perovmlip.analysis.transitions import Ramp, hysteresis_of, transitions_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array

FASTEST = 30.0
"""K/ns; faster ramps shift transitions and freeze in domains."""

LEAST_ATOMS = 10_000
"""Smaller cells shift transitions: the lattice constants of MAPbI3 and FAPbI3 converge from 12 000 atoms on."""

CUBIC = 'a0a0a0'

CURVES = ('m_layers', 'r_layers', 'm_absolute', 'r_absolute', 'tilt', 'floor', 'lengths', 'lengths_error', 'angles')
"""What is kept of each window as an array (n, 3)."""

LEAST_WINDOWS = 3
"""A ramp that broke off before it had so many windows shows labels, but no transition."""

SURE = 0.9
"""Confidence from which on the label of a window counts as sure."""


@recorded
def map_phases(report: orm.Dict, **nodes: orm.Dict) -> dict[str, orm.Data]:
    """Return what ramps over compositions say of phases.

    :param report: `ramps`, a list with `formula`, `x`, `direction` and the name `windows` of the node of each; `modes`,
        the same with `temperature` in K and `modes` for the runs at one temperature; `boundary`, temperature and half
        width in K, or None; `penalty` of a change. What else it holds is passed on.
    :param nodes: what `measure_tilts` returned as `windows`, and `measure_modes` as `modes`.

    Returns `phases`, whose keys are described in the topic on phases, and `curves`: amplitudes in Å per halide and
    lattice constants in Å against temperature in K, named `formula__direction__what`.
    """
    told = report.get_dict()
    ramps = [_Run.of(entry, nodes, float(told.get('penalty', 1.0))) for entry in told.pop('ramps')]
    if not ramps:
        raise ValueError('there is no ramp to map.')
    motion = [{**entry, **nodes[entry['modes']].get_dict()} for entry in told.pop('modes', [])]
    boundary, why = _boundary(ramps, told.pop('boundary', None))
    found = {
        **told,
        'compositions': _compositions(ramps),
        'diagram': [line.to_dict() for line in diagram_of(_by_x(ramps))],
        'boundary': boundary,
        'no_boundary': why,
        'modes': motion,
        'warnings': [*(warning for run in ramps for warning in run.warnings()), *_tilted(motion)],
    }
    arrays = {f'{run.name}__{what}': values for run in ramps for what, values in run.arrays().items()}
    return {'phases': orm.Dict(found), 'curves': orm.ArrayData(arrays)}


@dataclass(frozen=True)
class _Run:
    """One ramp with its windows, by rising temperature."""

    formula: str
    x: float
    direction: str
    n_atoms: int
    n_away: int
    windows: list[dict[str, Any]]
    ramp: Ramp

    @classmethod
    def of(cls, entry: Mapping[str, Any], nodes: Mapping[str, orm.Dict], penalty: float) -> _Run:
        """Read a ramp and look for its transitions."""
        known = nodes[entry['windows']].get_dict()
        if any(window['temperature'] is None for window in known['windows']):
            raise ValueError(f'the rows of {entry["formula"]} hold no temperature, without which there is no ramp.')
        windows = sorted(known['windows'], key=lambda window: float(window['temperature']))
        temperatures = np.array([window['temperature'] for window in windows])
        values = np.hstack([_column(windows, name) for name in ('m_layers', 'r_layers', 'lengths')])
        labels, direction = [window['label'] for window in windows], entry['direction']
        ramp = Ramp(direction, (), (), tuple(dict.fromkeys(labels)))
        if len(windows) >= LEAST_WINDOWS:
            ramp = transitions_of(temperatures, values, labels, direction, penalty)
        return cls(
            formula=entry['formula'],
            x=float(entry['x']),
            direction=direction,
            n_atoms=known['n_atoms'],
            n_away=known['n_away'],
            windows=windows,
            ramp=ramp,
        )

    @property
    def name(self) -> str:
        """Return what its arrays are called."""
        return f'{self.formula.replace(".", "_")}__{self.direction}'

    @property
    def rate(self) -> float:
        """Return how fast the temperature changes, in K/ns."""
        times = np.array([(window['start'] + window['stop']) / 2 for window in self.windows])
        temperatures = np.array([window['temperature'] for window in self.windows])
        return float(1000 * np.ptp(temperatures) / np.ptp(times)) if len(times) > 1 else 0.0

    def arrays(self) -> dict[str, Array]:
        """Return what is drawn."""
        found = {name: _column(self.windows, name) for name in CURVES}
        return {'temperature': np.array([window['temperature'] for window in self.windows]), **found}

    def described(self) -> dict[str, Any]:
        """Return what can be asked of the database."""
        sure = [window['confidence'] is not None and window['confidence'] >= SURE for window in self.windows]
        return {
            **self.ramp.to_dict(),
            'rate': self.rate,
            'n_windows': len(self.windows),
            'window_labels': [window['label'] for window in self.windows],
            'confidences': [window['confidence'] for window in self.windows],
            'share_sure': float(np.mean(sure)),
            'n_away': self.n_away,
        }

    def warnings(self) -> list[str]:
        """Return in sentences why its numbers should not be trusted as they are."""
        what, found = f'{self.direction} of {self.formula}', []
        if self.rate > FASTEST * (1 + 1e-6):
            found.append(
                f'{what}: {self.rate:.3g} K/ns is faster than {FASTEST:g} K/ns; transitions lag behind, and domains '
                'freeze in.'
            )
        if len(self.windows) < LEAST_WINDOWS:
            found.append(f'{what}: {len(self.windows)} windows are too few for a transition to be looked for.')
        if self.n_atoms < LEAST_ATOMS:
            found.append(
                f'{what}: {self.n_atoms} atoms are fewer than {LEAST_ATOMS}; transitions are shifted and smeared out.'
            )
        if self.n_away:
            found.append(
                f'{what}: up to {self.n_away} halides are off their sites in one frame; where these diffuse, or the '
                'crystal is no perovskite any more, tilts mean nothing.'
            )
        return found


def _tilted(motion: list[dict[str, Any]]) -> Iterator[str]:
    """Yield sentences on runs for the modes in which the axes, which are fitted together, are not alike."""
    for entry in motion:
        label = entry.get('label', CUBIC)
        if label != CUBIC:
            yield (
                f'modes of {entry["formula"]} at {entry["kelvin"]:g} K: the crystal is {label}, whose axes differ, but '
                'the fit is one for all three; look at the axes by themselves in a cell of one domain.'
            )


def _compositions(ramps: list[_Run]) -> dict[str, Any]:
    """Return what is known of each composition."""
    found: dict[str, Any] = {}
    for run in ramps:
        entry = found.setdefault(run.formula, {'x': run.x, 'n_atoms': run.n_atoms, 'ramps': {}})
        entry['ramps'][run.direction] = run.described()
    for formula, entry in found.items():
        own = {run.direction: run.ramp for run in ramps if run.formula == formula}
        entry['transitions'] = [each.to_dict() for each in hysteresis_of(own.get('heating'), own.get('cooling'))]
    return found


def _by_x(ramps: list[_Run]) -> dict[float, list[Ramp]]:
    found: dict[float, list[Ramp]] = {}
    for run in ramps:
        found.setdefault(run.x, []).append(run.ramp)
    return found


def _boundary(ramps: list[_Run], wanted: Mapping[str, float] | None) -> tuple[dict[str, Any] | None, str]:
    """Return the boundary between both tilts at one temperature, or why there is none."""
    if wanted is None:
        return None, 'it was not asked for.'
    try:
        found = _boundary_of(ramps, wanted)
    except ValueError as error:
        return None, str(error)
    directions: dict[str, Any] = {}
    for direction in dict.fromkeys(run.direction for run in ramps):
        try:
            directions[direction] = _boundary_of([run for run in ramps if run.direction == direction], wanted)
        except ValueError:
            directions[direction] = None
    return {**wanted, **found, 'directions': directions}, ''


def _boundary_of(ramps: list[_Run], wanted: Mapping[str, float]) -> dict[str, Any]:
    """Return the boundary as the windows of some ramps tell it."""
    shares: dict[float, list[float]] = {}
    for run in ramps:
        for window in run.windows:
            near = abs(window['temperature'] - wanted['temperature']) <= wanted['half_width']
            if near and window['label'] != CUBIC and window['activation'] is not None:
                shares.setdefault(run.x, []).append(window['activation'])
    xs = sorted(shares)
    return {
        'x': xs,
        'shares': [float(np.mean(shares[x])) for x in xs],
        'shares_error': [float(np.std(shares[x], ddof=1)) if len(shares[x]) > 1 else None for x in xs],
        **boundary_of(xs, [shares[x] for x in xs]).to_dict(),
    }


def _column(windows: list[dict[str, Any]], name: str) -> Array:
    """Return one quantity of all windows (n, 3); not a number where a window does not have it."""
    return np.array([window[name] if window[name] is not None else 3 * [np.nan] for window in windows], dtype=float)
