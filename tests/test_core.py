"Checks tell what they found and how to mend it, seeds are repeatable, files are whole or not there."
import math,os
from pathlib import Path
import numpy as np
import pytest, torch
from snnkit.core import (atomic, cache_home, check_choice, check_number, check_seed, check_steps, check_whole, mix_seed,
                         need, own_stream, seeded)

no_number = [None, 'x', '3', True, False, np.True_, [], [1], 1j, object(), torch.tensor(1.), math.nan, math.inf]

@pytest.mark.parametrize('value', no_number + [1.5, -1, np.float64(2.)])
def test_what_is_no_whole_number(value):
    said = '`n` is .*, but it must be an integer of at least 0. Mend it.'
    with pytest.raises(ValueError, match=said): check_whole('n', value, 0, 'Mend it.')
    for check,name in ((check_steps, 'num_steps'), (check_seed, 'seed')):
        with pytest.raises(ValueError, match=f'`{name}`'): check(value)

@pytest.mark.parametrize('value', [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_become_python_s(value):
    n = check_whole('n', value, 3, high=3)
    assert type(n) is int and n==3
    for low,high in ((4, 9), (0, 2)):
        with pytest.raises(ValueError, match=f'from {low} to {high}'): check_whole('n', value, low, high=high)

@pytest.mark.parametrize('value', no_number)
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match='`p` is'): check_number('p', value, '[0, 1]', '')

@pytest.mark.parametrize('within,inside,outside', [
    ('(0, 1]', [1, 1., 1e-300, np.float32(.5)], [0, 1.0001]),
    ('[0, 1)', [0, .99], [1, -1e-9]),
    ('(0, inf)', [1e300, 1], [0, -1]),
    ('(-inf, inf)', [-1e300, 0], [])])
def test_numbers_within_limits(within, inside, outside):
    for o in inside: assert type(check_number('p', o, within, '')) is float
    for o in outside:
        with pytest.raises(ValueError, match='`p` is'): check_number('p', o, within, '')

@pytest.mark.parametrize('value', [None, 'c', 3, True, [], {}, ['a'], float('nan'), torch.zeros(2)])
def test_what_is_no_choice(value):
    said = "`name` is .*, but it must be one of 'a', 'b'"
    with pytest.raises(ValueError, match=said): check_choice('name', value, ('a', 'b'))

def test_need_raises_only_where_it_must():
    need(True, '', '', '')
    with pytest.raises(ValueError, match=r'^found, but allowed\. Mend\.$'): need(False, 'found', 'allowed', 'Mend.')

def test_seeds_depend_on_all_parts_and_on_nothing_else():
    parts = [(42,), (42, 'a'), (42, 'b'), (43, 'a'), ('a', 42), (42, 'a', 0)]
    draws = [torch.rand(4, generator=seeded(*p)) for p in parts]
    assert len({tuple(o.tolist()) for o in draws})==len(parts)
    assert all(torch.rand(4, generator=seeded(*p)).equal(o) for p,o in zip(parts, draws))
    assert mix_seed(42)==42 and all(0<=mix_seed(*p)<2**63 for p in parts)

def test_a_stream_of_ones_own_leaves_the_others_alone():
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    with pytest.raises(KeyError):
        with own_stream(5, 'x'):
            a = torch.rand(3)
            raise KeyError
    assert torch.rand(3).equal(want)
    with own_stream(5, 'x'): assert torch.rand(3).equal(a)

def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path/'deep'/'file'
    with atomic(path) as new: Path(new).write_text('old')
    for fail in (True, False):
        try:
            with atomic(path) as new:
                Path(new).write_text('new')
                assert path.read_text()=='old'
                if fail: raise KeyError
        except KeyError: pass
        assert path.read_text()==('old' if fail else 'new') and os.listdir(path.parent)==['file']

def test_the_cache_obeys_its_variable(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_home()==tmp_path/'snnkit'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cache_home()==tmp_path/'.cache'/'snnkit'
