"""From studies of diffusion in the provenance graph to their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.analysis.arrhenius import Arrhenius, Estimate
from aiida_perovmlip.analysis.diffusion import CM2_PER_S, DIMENSIONS
from aiida_perovmlip.report.profiles import save_figure
from aiida_perovmlip.report.transport import Coefficients, Curve, draw_arrhenius, draw_displacements


def write_arrhenius(nodes: Any, path: str | Path, kind: str = 'sum') -> Path:
    """Write the picture of coefficients against temperature of one or several studies (SVG, PDF or PNG).

    :param nodes: the node of a `DiffusionWorkChain`, or several.
    :param kind: `sum`, `tracer` or `collective`.
    """
    known = [nodes] if hasattr(nodes, 'uuid') else list(nodes)
    series = [each for node in known for each in coefficients_of(node, kind, is_alone=len(known) == 1)]
    uuids = [uuid for node in known for uuid in (node.uuid, node.outputs.diffusion.uuid)]
    description = f'Coefficients of diffusion ({kind}) of {len(series)} species against temperature'
    save_figure(draw_arrhenius(series), path, description, uuids)
    return Path(path)


def write_msd(node: Any, path: str | Path, kind: str = 'sum') -> Path:
    """Write the picture of displacements against time, a panel for each species (SVG, PDF or PNG).

    :param node: the node of a `DiffusionWorkChain`.
    :param kind: `sum`, `tracer` or `collective`.
    """
    panels = curves_of(node, kind)
    uuids = [node.uuid, node.outputs.diffusion.uuid, node.outputs.msd.uuid]
    description = f'Displacements squared ({kind}) of {", ".join(panels)} in {node.outputs.diffusion["formula"]}'
    save_figure(draw_displacements(panels), path, description, uuids)
    return Path(path)


def coefficients_of(node: Any, kind: str = 'sum', is_alone: bool = True) -> Iterable[Coefficients]:
    """Yield the coefficients of each species of a study that has any.

    :param is_alone: whether no other study is shown, so that the name of the species tells enough.
    """
    result = node.outputs.diffusion.get_dict()
    name = node.label or result['formula']
    for species, found in result['species'].items():
        rows = [row for row in found.get(kind, {}).get('temperatures', []) if not row['lack']]
        if not rows:
            continue
        yield Coefficients(
            label=species if is_alone else f'{name}, {species}',
            temperatures=np.array([row['temperature'] for row in rows]),
            means=np.array([row['coefficient'] for row in rows]),
            errors=np.array([row['error'] or 0.0 for row in rows]),
            runs=np.array([(row['temperature'], each) for row in rows for each in row['coefficients']]),
            fit=_fit(found[kind]['arrhenius']),
        )


def curves_of(node: Any, kind: str = 'sum') -> dict[str, list[Curve]]:
    """Return the displacements of each species of a study, one curve for each temperature."""
    result, arrays = node.outputs.diffusion.get_dict(), node.outputs.msd
    panels: dict[str, list[Curve]] = {}
    for species, found in result['species'].items():
        for row in found.get(kind, {}).get('temperatures', []):
            base = f'{species}__{kind}__{row["temperature"]:g}K'.replace('.', '_')
            lags, mean, runs = (arrays.get_array(f'{base}__{what}') for what in ('lags', 'mean', 'runs'))
            curve = Curve(f'{row["temperature"]:g} K', lags, mean, runs, *_line(row))
            panels.setdefault(species, []).append(curve)
    return panels


def _line(row: Mapping[str, Any]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return the window of a fit and its line; None where nothing was fitted."""
    if row['lack']:
        return None, None
    slope = row['coefficient'] * 2 * DIMENSIONS / CM2_PER_S
    return (row['window']['begin'], row['window']['end']), (slope, float(np.mean(row['intercepts'])))


def _fit(known: Mapping[str, Any] | None) -> Arrhenius | None:
    """Return a fit as it was stored."""
    if known is None:
        return None
    covariance = known['covariance']
    return Arrhenius(
        activation_energy=known['activation_energy'],
        activation_energy_error=known['activation_energy_error'],
        prefactor=Estimate(known['prefactor'], known['prefactor_factor']),
        prefactor_error=known['prefactor_error'],
        covariance=None if covariance is None else (tuple(covariance[0]), tuple(covariance[1])),
        temperatures=tuple(known['temperatures']),
        coefficients=tuple(known['coefficients']),
        left_out=tuple(known['left_out']),
    )
