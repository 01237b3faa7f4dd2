"""From labelled snapshots to how much band edges fluctuate over composition, with provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.band_edges import edges_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.data.dataset import DatasetData


@recorded
def compare_band_edges(report: orm.Dict, **nodes: orm.Data) -> orm.Dict:
    """Compare how much the band edges fluctuate in some compositions.

    All snapshots of a composition that hold the same atoms in the same cell have one zero of energy, which is the mean
    electrostatic potential of that cell: it is what the edges are held against. Where cells or atoms differ, there is
    no common reference, and the gap alone is told to mean something.

    :param report: `compositions`, a list with `x`, and the names `frames` and `results` of the nodes of each. What else
        it holds is passed on.
    :param nodes: the snapshots that went into a `LabelWorkChain`, and its output `results`, with the band edges that
        CP2K (`band_edges`) and VASP tell.
    """
    told = report.get_dict()
    found = []
    for entry in told.pop('compositions'):
        frames, results = nodes[entry['frames']], nodes[entry['results']]
        assert isinstance(frames, DatasetData)
        assert isinstance(results, orm.Dict)
        found.append({'x': float(entry['x']), **_edges(frames, results)})
    found.sort(key=lambda each: each['x'])
    best = {name: max(found, key=lambda each: each[name]['std'])['x'] for name in ('vbm', 'cbm')} if found else {}
    return orm.Dict({**told, 'compositions': found, 'largest': best})


def _edges(frames: DatasetData, results: orm.Dict) -> dict[str, Any]:
    """Return the fluctuations of one composition, and which snapshots have no edges."""
    facts = results.get_dict().get('facts', {})
    pairs = {int(position): _pair_of(each) for position, each in facts.items()}
    known = {position: pair for position, pair in sorted(pairs.items()) if pair is not None}
    if len(known) < 2:
        raise ValueError(
            f'{len(known)} of {len(frames)} snapshots have band edges, but two are the least: let the labeller tell '
            'them, such as CP2K by `band_edges`.'
        )
    vbm, cbm = zip(*known.values(), strict=True)
    reference = np.zeros(len(known)).tolist() if _are_alike(frames) else None
    lacking = [position for position in range(len(frames)) if position not in known]
    return {**edges_of(vbm, cbm, reference).to_dict(), 'lacking': lacking}


def _pair_of(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the band edges in eV that a labeller told of a frame, over both spins; None where it told none."""
    if 'vbm_eV' in facts:
        return float(facts['vbm_eV']), float(facts['cbm_eV'])
    channels = facts.get('band_edges') or []
    tops = [each['vbm'] for each in channels if each['vbm'] is not None]
    bottoms = [each['cbm'] for each in channels if each['cbm'] is not None]
    return (max(tops), min(bottoms)) if tops and bottoms else None


def _are_alike(frames: DatasetData) -> bool:
    """Whether all snapshots hold the same atoms in the same cell."""
    first: Any = None
    for frame in frames.frames:
        if first is None:
            first = frame
        same = np.array_equal(np.sort(frame.numbers), np.sort(first.numbers)) and np.allclose(
            frame.cell, first.cell, rtol=0.0, atol=1e-4
        )
        if not same:
            return False
    return True
