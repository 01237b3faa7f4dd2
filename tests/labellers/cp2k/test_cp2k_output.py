"""What CP2K prints is read with its units and signs, whatever kind of run it was."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units

from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput


def read(text):
    output = Cp2kOutput(text.splitlines(keepends=True))
    return list(output.snapshots()), output


def test_energy_forces_and_stress_are_converted_once_and_the_stress_has_the_sign_of_ase(recorded):
    (snapshot,), _ = recorded('ot').read()
    assert snapshot.energy == pytest.approx(-58.327398288701367 * units.Hartree, rel=1e-14)
    row = next(line for line in recorded('ot').text.splitlines() if line.strip().startswith('1      1      Cs'))
    printed = np.array([float(word) for word in row.split()[3:]])
    assert snapshot.forces[0] == pytest.approx(printed * units.Hartree / units.Bohr, rel=1e-12)
    xx = next(line for line in recorded('ot').text.splitlines() if line.startswith(' STRESS|      x  '))
    assert snapshot.stress[0] == pytest.approx(-float(xx.split()[2]) * units.GPa, rel=1e-12)
    assert snapshot.stress[5] == pytest.approx(-float(xx.split()[3]) * units.GPa, rel=1e-12)
    assert snapshot.elements == ('Cs', 'Pb', 'I', 'I', 'I')


def test_the_header_tells_what_ran(recorded):
    header = recorded('kpoints').read()[1].header
    assert (header.version, header.run_type, header.method) == ('2023.1', 'ENERGY_FORCE', 'GPW')
    assert (header.cutoff, header.rel_cutoff, header.n_grids, header.eps_scf) == (150.0, 30.0, 4, 1e-5)
    assert (header.charge, header.multiplicity, header.unrestricted, header.electrons) == (0, 1, False, [34])
    assert (header.mesh, header.n_kpoints) == ((2, 2, 2), 8)
    assert header.functional == ['PBE']
    assert header.basis['Pb'] == 'SZV-MOLOPT-SR-GTH-q4'
    assert header.potentials['Cs'] == 'GTH-PBE-q9'
    assert header.cell == pytest.approx([6.3, 6.3, 6.3, 90, 90, 90])
    assert [element for element, _ in header.atoms] == ['Cs', 'Pb', 'I', 'I', 'I']


def test_each_frame_of_a_batch_has_its_own_stress_and_verdict(recorded):
    snapshots, output = recorded('batch').read()
    assert [snapshot.converged for snapshot in snapshots] == [True] * 3
    assert [snapshot.cycles for snapshot in snapshots] == [9, 11, 10]
    assert len({snapshot.stress[0] for snapshot in snapshots}) == 3
    assert output.ending.ended


@pytest.mark.parametrize(
    ('name', 'verdicts'),
    [
        ('ot', [True]),
        ('unconverged', [False]),
        ('batch_out_of_time', [True, False]),
        ('dynamics', [True] * 4),
        ('relaxation', [True] * 3),
        ('anion', [True]),
        ('isolated', [True]),
    ],
)
def test_an_scf_cycle_counts_as_converged_only_where_it_says_so(recorded, name, verdicts):
    assert [snapshot.converged for snapshot in recorded(name).read()[0]] == verdicts


def test_running_out_of_time_is_seen_in_the_cycle_and_at_the_end(recorded):
    snapshots, output = recorded('batch_out_of_time').read()
    assert [snapshot.out_of_time for snapshot in snapshots] == [False, True]
    assert output.ending.out_of_time


def test_band_edges_of_ot_are_those_of_the_printed_eigenvalues(recorded):
    (snapshot,), _ = recorded('ot').read()
    (channel,) = snapshot.channels
    edges = channel.edges()
    gap = float(next(line for line in recorded('ot').text.splitlines() if 'HOMO - LUMO gap' in line).split()[-1])
    assert len(channel.occupied) == 17
    assert edges['gap'] == pytest.approx(gap, abs=1e-5)
    assert edges['fermi'] == pytest.approx(edges['vbm'], abs=1e-5)


def test_both_spins_have_band_edges(recorded):
    (snapshot,), _ = recorded('anion').read()
    up, down = (channel.edges() for channel in snapshot.channels)
    assert (up['spin'], down['spin']) == (1, 2)
    assert up['vbm'] > down['vbm'] + 1.0  # the electron too many sits at the edge of the conduction band
    assert snapshot.spin_square == pytest.approx((0.75, 0.75), abs=1e-3)


def test_band_edges_of_k_points_are_the_extremes_over_the_mesh(recorded):
    (snapshot,), _ = recorded('kpoints').read()
    (channel,) = snapshot.channels
    assert len(channel.occupied) == 8 * 17
    single = [float(line.split()[-2]) for line in recorded('kpoints').text.splitlines() if 'MO| Band gap' in line]
    assert channel.edges()['gap'] <= min(single) + 1e-7
    assert 1.0 < channel.edges()['gap'] < 2.0


def test_unoccupied_states_that_were_not_found_give_no_gap(recorded):
    text = recorded('ot').text.replace('Eigensolver reached convergence', 'Eigensolver did not reach convergence')
    (snapshot,), _ = read(text)
    assert snapshot.channels[0].edges()['cbm'] is None
    assert snapshot.channels[0].edges()['gap'] is None


def test_entropy_is_read_where_there_is_smearing(recorded):
    assert recorded('smearing').read()[0][0].entropy == pytest.approx(0.0)
    assert recorded('metal').read()[0][0].entropy == pytest.approx(-0.00018622654576 * units.Hartree)
    assert recorded('ot').read()[0][0].entropy is None


def test_a_text_that_was_cut_off_anywhere_never_gives_a_whole_snapshot_that_it_does_not_hold(recorded):
    text = recorded('ot').text
    (whole,), _ = read(text)
    for end in range(len(text) // 2, len(text), 97):
        snapshots, output = read(text[:end])
        for snapshot in snapshots:
            if snapshot.energy is not None and snapshot.forces is not None and snapshot.stress is not None:
                assert snapshot.energy == pytest.approx(whole.energy, abs=1e-9)
                assert snapshot.forces == pytest.approx(whole.forces)
                assert snapshot.stress == pytest.approx(whole.stress, rel=1e-6)
        assert not output.ending.ended or 'PROGRAM ENDED' in text[:end]


def test_the_tables_of_later_versions_are_read(recorded):
    text = ' SCF WAVEFUNCTION OPTIMIZATION\n  *** SCF run converged in     7 steps ***\n'
    text += ' ENERGY| Total FORCE_EVAL ( QS ) energy [hartree]             -2.5\n'
    text += ' FORCES| Atomic forces [hartree/bohr]\n FORCES|   Atom     x   y   z   |f|\n'
    text += ' FORCES|      1  1.0E-01  2.0E-01 -3.0E-01  3.7E-01\n FORCES| Sum     1.0E-01  2.0E-01 -3.0E-01\n'
    text += ' STRESS| Analytical stress tensor [bar]\n STRESS|      x    y    z\n'
    text += ' STRESS|      x  1.0E+04 0.0E+00 0.0E+00\n STRESS|      y  0.0E+00 2.0E+04 0.0E+00\n'
    text += ' STRESS|      z  0.0E+00 0.0E+00 3.0E+04\n'
    (snapshot,), _ = read(text)
    assert snapshot.energy == pytest.approx(-2.5 * units.Hartree)
    assert snapshot.forces[0] == pytest.approx(np.array([0.1, 0.2, -0.3]) * units.Hartree / units.Bohr)
    assert snapshot.stress == pytest.approx(np.array([-1, -2, -3, 0, 0, 0]) * units.GPa)


def test_numbers_that_did_not_fit_their_column_are_no_numbers(recorded):
    text = recorded('ot').text.replace('-58.327398288701367', '*******************')
    (snapshot,), _ = read(text)
    assert np.isnan(snapshot.energy)


def test_cp2k_tells_why_it_gave_up(recorded):
    assert 'The requested basis set <NOSUCH-GTH-q4> for element <Pb>' in recorded('no_basis').read()[1].ending.abort
    assert 'unknown keyword NO_SUCH_KEY in section DFT' in recorded('bad_keyword').read()[1].ending.abort


def test_the_header_is_that_of_the_first_step(recorded):
    snapshots, output = recorded('cell_relaxation').read()
    assert len(snapshots) == 3
    assert output.header.cell == pytest.approx([6.3, 6.3, 6.3, 90, 90, 90])
    assert output.header.kinds == ['Cs', 'Pb', 'I']


def test_the_k_points_are_read_with_scheme_and_shift(recorded):
    header = recorded('kpoints').read()[1].header
    assert (header.scheme, header.shift) == ('MacDonald', (0.25, 0.25, 0.25))
    assert len(header.points) == 8
    assert header.points[0] == (0.125, 0.0, 0.0, 0.0)
