"""Three hundred random networks by the engine and by plain torch, with double precision as the judge; thousands on
request: `python tests/machine_room/fuzz.py --nets 5000 --seed 7`. And the judge is judged: an engine that is wrong is
found out."""
import subprocess,sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fuzz
from snnkit.engine import roads
from snnkit.layers import LIF, Conv2d

seed,chunk = 20,30
without = 'lone_norm', # of which torch 2.13 itself has wrong gradients

@pytest.mark.parametrize('start', range(0, 300, chunk))
def test_random_networks(start):
    "Spikes, outputs, gradients, statistics and generator are torch's, and most of the networks fire in every layer"
    found = {i: fuzz.check_net(seed, i, without=without, wide=False) for i in range(start, start+chunk)}
    wrong = [f'{i}: {v.status} by {v.mode}: {v.what}' for i,v in found.items() if v.status in ('mismatch', 'crash')]
    again = f'python tests/machine_room/fuzz.py --seed {seed} --narrow --without lone_norm --only'
    assert not wrong, '\n'.join([again, *wrong])
    n = Counter(v.status for v in found.values())
    assert n['same']+n['tie'] >= .6*len(found) and n['tie'] <= 3, n

def case(*layers, **kw):
    "A case of these layers, on spikes of two channels"
    x = (torch.rand(6, 2, 2, 6, 6, generator=torch.Generator().manual_seed(1))<.4).float()
    torch.manual_seed(0)
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for p in net.parameters(): p.normal_(.1, .4)
    return fuzz.Case(net, [x], 3, **kw)

def stack(**kw): return case(Conv2d(2, 8, 3, bias=False), LIF(.9, **kw), Conv2d(8, 8, 3, bias=False), LIF(.9))

def test_a_network_is_the_same_every_time():
    a,b,c = (fuzz.make(5, i) for i in (1, 1, 2))
    assert str(a)==str(b)!=str(c) and all(p.equal(q) for p,q in zip(a.net.parameters(), b.net.parameters()))
    assert all(x.equal(y) for x,y in zip(a.inputs, b.inputs))

def test_the_right_engine_passes(): assert fuzz.check(stack()).status=='same'

options = dict(leak=.8, threshold=1.05, reset='subtract', refractory=1, grad='straight_through')

@pytest.mark.parametrize('option', options)
def test_a_wrong_neuron_is_found(option, monkeypatch):
    "One that computes something else than asked, whenever the engine is asked"
    def wrong(layer, x): return roads.spikes_of(LIF(**layer.options() | {option: options[option]}), x)
    monkeypatch.setitem(roads._ways, LIF, wrong)
    assert fuzz.check(stack()).status=='mismatch'

def test_a_lost_gradient_is_found(monkeypatch):
    def wrong(layer, x): return roads.synapse(layer, x.detach())
    monkeypatch.setitem(roads._ways, nn.Conv2d, wrong)
    assert 'gradient' in fuzz.check(stack()).what

ties = ((.3, .1), 1, 'same'),((.3, .1), 1-2e-7, 'tie'),((.31, .1), .9, 'mismatch')

@pytest.mark.parametrize('weights,factor,status', ties)
def test_a_tie_is_called_a_tie(weights, factor, status, monkeypatch):
    "Currents that land on the threshold itself, and an engine whose threshold is off by rounding; or by more"
    def wrong(layer, x): return roads.spikes_of(LIF(**layer.options() | dict(threshold=layer.threshold*factor)), x)
    monkeypatch.setitem(roads._ways, LIF, wrong)
    layer = Conv2d(2, 1, 1, bias=False)
    made = case(layer, LIF(.5, float(np.float32(.3))))
    with torch.no_grad(): layer.weight.copy_(torch.tensor(weights).view(1, 2, 1, 1))
    assert fuzz.check(made).status==status

def test_a_silent_network_does_not_count():
    assert fuzz.check(case(Conv2d(2, 3, 1), LIF(threshold=1e6))).status=='silent'

def test_what_torch_refuses_is_refused():
    "And an answer in its place is a mismatch"
    assert fuzz.check(case(Conv2d(2, 3, 9), LIF())).status=='refused'

def test_the_command_tells_what_it_found():
    "How many, and an exit status"
    script = Path(fuzz.__file__)
    def run(*args): return subprocess.run([sys.executable, script, *args], capture_output=True, text=True)
    r = run('--nets', '4', '--seed', '3', '--narrow', '--jobs', '2', '--without', *without)
    assert r.returncode==0 and '4 networks' in r.stdout and '0 mismatches' in r.stdout, r.stdout+r.stderr
    r = run('--only', '1', '--seed', '3', '--narrow')
    assert r.returncode==0 and 'Sequential(' in r.stdout and '--only 1 --narrow' in r.stdout, r.stdout+r.stderr
