"""What the scripts of `examples` say where something is not as they hope."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest


@pytest.mark.usefixtures('without_codes')
@pytest.mark.parametrize('name', ['diffusion_vacancy', 'phase_ramp'])
@pytest.mark.parametrize('has_code', [True, False])
def test_a_script_without_its_code_or_its_potential_ends_with_a_sentence(
    name, has_code, python_code, tmp_path, monkeypatch, script
):
    module = script(name)
    if has_code:
        monkeypatch.setattr(module, 'find_code', lambda *_: python_code)
    potential = tmp_path / 'nep.txt'
    words = ['--potential', str(potential), '--output', str(tmp_path / 'pictures')]
    monkeypatch.setattr(sys, 'argv', [name, *words])
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert (str(potential) if has_code else '`aiida-perovmlip setup --with nep`') in str(caught.value.code)


def test_what_a_study_could_not_tell_is_shown_as_such(monkeypatch, capsys, script):
    module = script('diffusion_vacancy')
    known = {'temperature': 600.0, 'coefficient': 1e-5, 'error': None, 'window': {'begin': 1.0, 'end': 9.0}}
    hops = {'n_hops': None, 'ambiguous': None}
    found = {
        'sum': {'temperatures': [known, {'temperature': 700.0, 'lack': 'it is short.'}]},
        'hops': [hops, hops],
        'notes': ['it melts.'],
    }
    study = SimpleNamespace(outputs=SimpleNamespace(diffusion={'species': {'I': found}}))
    record = dict.fromkeys(('activation_energy_error', 'at_room_temperature_factor', 'lower_bound'))
    record |= {'activation_energy': 0.2, 'at_room_temperature': 1e-7}
    monkeypatch.setattr(module, 'diffusion_records', lambda _: [record])
    module.show(study)
    text = capsys.readouterr().out
    assert '1.00e-05 ± ?' in text
    assert 'Ea = 0.20 ± ? eV' in text
