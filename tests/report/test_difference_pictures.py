"""Pictures of how forces of two levels differ."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.calculations.functions.difference import label_difference
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.report.difference import density_of, place_of, write_differences, write_elements


@pytest.mark.parametrize(
    ('number', 'place'),
    [(1, (0, 0)), (2, (0, 17)), (5, (1, 12)), (26, (3, 7)), (55, (5, 0)), (57, (7.3, 2)), (70, (7.3, 15)),
     (71, (5, 2)), (82, (5, 13)), (103, (6, 2))],
)  # fmt: skip
def test_elements_stand_where_the_periodic_table_has_them(number, place):
    assert place_of(number) == place


def test_all_elements_have_places_of_their_own():
    assert len({place_of(number) for number in range(1, 104)}) == 103


def test_densities_add_up_to_all_atoms_and_pictures_name_their_nodes(make_frames, level, tmp_path):
    from dataclasses import replace

    frames = make_frames(3)
    rng = np.random.default_rng(0)
    moved = [replace(frame, forces=frame.forces + rng.normal(0, 0.1, frame.forces.shape)) for frame in frames]
    one, other = (DatasetData.from_frames(each, level).store() for each in (frames, moved))
    found = label_difference(one, other)
    lengths, density = density_of(found['arrays'])
    assert density.sum() / 10 == pytest.approx(1.0)  # ten bins to a decade
    assert 0.05 < lengths[density.argmax()] < 0.5
    for path in (
        write_differences({'one − other': found}, tmp_path / 'shift.svg'),
        write_elements(found, tmp_path / 'elements.svg'),
    ):
        assert found['summary'].uuid in path.read_text()
