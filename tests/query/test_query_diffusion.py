"""The table of a published study, from stored results of runs that are made up by its own parameters."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_perovmlip.analysis.arrhenius import BOLTZMANN, fit_arrhenius, lower_bound
from aiida_perovmlip.query import diffusion
from aiida_perovmlip.query.motion import STUDY, diffusion_records

PUBLISHED = {  # Tyagi, Brocks and Tao, Table 2: Eₐ in eV, D₀ in cm²/s, D(300 K) in cm²/s
    'I_i-': ('I', 0.18, 5.93e-4, 5.61e-7),
    'V_I+': ('I', 0.15, 1.04e-4, 3.19e-7),
    'I_MA0': ('MA', 0.18, 3.16e-4, 2.99e-7),
    'I_MA+': ('MA', 0.20, 3.47e-4, 1.51e-7),
}
KELVINS = np.repeat([500.0, 525.0, 550.0, 575.0, 600.0], 3)


def store(label, species):
    """Store a study with a result, as its chain does."""
    node = orm.WorkChainNode(process_type=STUDY, label=label)
    node.store()
    told = {'formula': 'CH6INPb', 'charge': 1, 'architecture': 'allegro', 'engine': 'lammps', 'species': species}
    result = orm.Dict(told).store()
    result.base.links.add_incoming(node, LinkType.RETURN, 'diffusion')
    return node


def moving(energy, prefactor):
    values = prefactor * np.exp(-energy / (BOLTZMANN * KELVINS))
    rows = [{'temperature': kelvin, 'n_runs': 3, 'lack': None} for kelvin in np.unique(KELVINS).tolist()]
    fit = fit_arrhenius(KELVINS, values).numbers()
    hops = [{'n_hops': 40, 'ambiguous': 0.1}, {'n_hops': 60, 'ambiguous': 0.2}, {'n_hops': None, 'ambiguous': None}]
    return {'sum': {'temperatures': rows, 'arrhenius': fit, 'arrhenius_lack': None}, 'hops': hops, 'bound': None}


def test_the_table_of_the_paper_comes_from_stored_results():
    nodes = [store(name, {ion: moving(energy, d0)}) for name, (ion, energy, d0, _) in PUBLISHED.items()]
    table = diffusion(nodes).set_index('name')
    assert list(table.index) == list(PUBLISHED)
    for name, (ion, energy, prefactor, room) in PUBLISHED.items():
        row = table.loc[name]
        assert row['species'] == ion
        assert row['activation_energy [eV]'] == pytest.approx(energy)
        assert row['prefactor [cm²/s]'] == pytest.approx(prefactor)
        assert row['at_room_temperature [cm²/s]'] == pytest.approx(room, rel=0.03)
        assert (row['n_temperatures'], row['n_runs'], row['n_hops'], row['ambiguous']) == (5, 15, 100, 0.2)


def test_what_does_not_move_has_a_bound_in_the_table():
    bound = vars(lower_bound(600.0, 2000.0, 0.5))
    still = {'sum': {'temperatures': [], 'arrhenius': None, 'arrhenius_lack': 'it rests.'}, 'hops': [], 'bound': bound}
    table = diffusion([store('V_MA-', {'MA': still})])
    row = table.iloc[0]
    assert row['lower_bound [eV]'] == pytest.approx(0.36, abs=0.01)
    assert np.isnan(row['activation_energy [eV]'])
    assert np.isnan(row['n_hops'])
    assert row['lack'] == 'it rests.'


def test_other_kinds_are_asked_for_by_name():
    node = store('one', {'I': {**moving(0.2, 1e-4), 'tracer': {'temperatures': [], 'arrhenius': None}}})
    (record,) = diffusion_records([node], 'tracer')
    assert (record['n_runs'], record['activation_energy']) == (0, None)
    assert diffusion_records([node], 'collective') == []
    assert len(diffusion([node], 'collective')) == 0
