"The benchmark as a user runs it: processes of four libraries, their sameness, and the record that is left."
import json, subprocess, sys
from importlib.util import find_spec
from pathlib import Path
import pytest, torch
from PIL import Image
pytest.importorskip('snnkit.engine', reason='this version has no engine')
from snnkit.bench import bench as command
from snnkit.engine import bench
from snnkit.engine.bench import (Worker, at_work, bench_table, check_all, check_same, choice, chosen, grid_table,
                                 layer_case, layer_step, lenet_at, line, medians, peers, race, rate_table, set_rates,
                                 sweep_table, translate, write_task)
from snnkit.data import load
from snnkit.measures import firing_rates
from snnkit.models import build, lenet

missing = [o for o in peers if not find_spec(o)]
why = f'{", ".join(missing)} not installed; `pip install snnkit[peers]` brings them'
needs_peers = pytest.mark.skipif(bool(missing), reason=why)

def call(*args):
    cmd = [Path(sys.executable).parent/'snnkit-bench', *map(str, args)]
    p = subprocess.run(cmd, capture_output=True, text=True, timeout=240)
    assert p.returncode==0 and 'Traceback' not in p.stderr, p.stdout+p.stderr
    return p.stdout

@pytest.fixture(scope='module')
def task(tmp_path_factory):
    "A small LeNet and two digits, in a file"
    file = tmp_path_factory.mktemp('task')/'task.safetensors'
    write_task(file, 'lenet', load('digits'), 6, 2)
    return file

@needs_peers
def test_all_libraries_compute_the_same(task):
    with at_work(task, chosen(), 'inference', threads=1) as workers: found = check_all(workers)
    assert set(found)=={'snnkit', *peers}
    r = rate_table(found)
    assert (r>.005).all().all() and ((r.max()-r.min())/r.max()<.01).all()
    ours = torch.tensor(found['snnkit']['scores'])
    for o in peers: assert torch.allclose(torch.tensor(found[o]['scores']), ours, atol=1e-4)
    with pytest.raises(ValueError, match='lif2 fires'):
        off = [[n, s+200*(n=='lif2'), k] for n,s,k in found['norse']['layers']]
        check_same(found | dict(norse=found['norse'] | dict(layers=off)))

@needs_peers
def test_command_compares_and_leaves_a_record(tmp_path):
    small = '--data digits --num-steps 4 --batch-size 2 --threads 1 --runs 2 --steps 2'.split()
    text = call(*small, '--libraries', 'snnkit,spikingjelly', '--out', tmp_path)
    words = 'of fastest peer', 'GSynOps/s', 'synaptic operations', 'train', 'inference', 'lif3', 'T = 4'
    for o in words: assert o in text
    assert (tmp_path/'bench.txt').read_text().strip() in text
    assert len((tmp_path/'bench.csv').read_text().splitlines())==5
    assert Image.open(tmp_path/'bench.png').convert('L').getextrema()[0]<100
    r = json.loads((tmp_path/'bench.json').read_text())
    assert r['options']['num_steps']==4 and r['cpu'] and r['spikingjelly'] and r['threads']==1
    assert r['rates']['snnkit']==pytest.approx(r['rates']['spikingjelly'], rel=.01)
    for row in r['table']:
        seconds = r['results'][row['step']][row['library']]['seconds']
        assert len(seconds)==2 and min(seconds)>0 and row['ms']==pytest.approx(500*sum(seconds)) and row['MB']>0
    by = {(o['step'], o['library']): o for o in r['table']}
    assert by['train', 'spikingjelly']['of fastest peer']==1
    ratio = by['train', 'snnkit']['ms']/by['train', 'spikingjelly']['ms']
    assert by['train', 'snnkit']['of fastest peer']==pytest.approx(ratio)

def test_one_library_alone_has_no_ratio():
    times = dict(seconds=[.02, .03], first=1.5, memory=20.)
    t = bench_table(dict(inference=dict(snnkit=times)), dict(spikes=1000, synops=10**6), peak=1e9)
    assert t['of fastest peer'].isna().all() and (t['min']<=t.ms).all()
    assert t['% bound'].item()==pytest.approx(100/t.ms.item()) # a million operations at 1 G/s take 1 ms
    assert t['GSynOps/s'].item()==pytest.approx(1/t.ms.item())

def test_unknown_library_is_refused(tmp_path):
    allowed = "one of 'all', 'snnkit', 'spikingjelly', 'snntorch', 'norse'"
    with pytest.raises(SystemExit, match=allowed): command(libraries='snnkit,brian', out=tmp_path)
    assert not list(tmp_path.iterdir())

def test_rates_are_set_as_asked():
    torch.manual_seed(1)
    net,x = lenet(num_steps=30),torch.full((4, 1, 28, 28), .05)
    for rate in (.02, .15):
        x.fill_(rate)
        set_rates(net, x, rate)
        r = firing_rates(net, x).set_index('layer').rate
        assert r[['encoder', 'lif1', 'lif2', 'lif3']].between(.9*rate, 1.1*rate).all()
        # Behind a pool the currents are quarters, and so the rates have steps
        assert r[['if1', 'if2']].between(rate/1.6, 1.6*rate).all()

shapes = {'conv': (20, 50, 5, 14), 'fc': (2450, 200)} # LeNet's second convolution and its first linear layer

def clocked(times):
    "A stand-in for the clock, which gives the seconds `times` in turn: event-driven, dense and as the engine chooses"
    turns = iter(times)
    return lambda steps, rounds: next(turns)

def test_a_wrong_choice_shows(monkeypatch):
    "Made-up clocks: the engine takes the faster road twice, then the slower one"
    times = [.001, .004, .001], [.008, .002, .002], [.001, .004, .004], [.009, .003, .0045]
    monkeypatch.setattr(bench, 'medians', clocked(times))
    t = grid_table(shapes, (.02, .6))
    assert t['auto/best'].tolist() == pytest.approx([1, 1, 4, 1.5])
    assert t[['event', 'dense', 'auto']].to_numpy().tolist() == [pytest.approx([1000*o for o in row]) for row in times]
    assert t.layer.tolist() == ['conv', 'conv', 'fc', 'fc'] and t.rate.tolist() == [.02, .6]*2

def test_choice_follows_the_rate():
    "Rare spikes are followed, frequent ones multiplied; the table tells what the engine did in the layer itself"
    for shape in shapes.values():
        found = [choice(shape, r, 25, 16) for r in (.01, .05, .9)]
        assert found == ['event', 'event', 'dense']
    assert choice((200, 50), .01, 5, 2) == 'dense' # too little work to start the kernels for

def test_engine_is_nearer_to_the_faster_road():
    "By the clock: where one road is much faster, the engine's own time is nearer to that road's than to the other's"
    modes = 'numba', 'torch', 'auto'
    event,dense,auto = medians([layer_step(shapes['conv'], .01, m, 25, 4) for m in modes], 9)
    if max(event, dense) < 1.5*min(event, dense): pytest.skip('both roads take about the same time here')
    assert auto < (event*dense)**.5

@needs_peers
@pytest.mark.parametrize('library', list(peers))
def test_residual_networks_are_refused(library):
    net = build('resnet9', width=2, in_channels=1, size=8, num_steps=2)
    with pytest.raises(ValueError, match='has a Residual.*--libraries snnkit'): translate(net, library)

@needs_peers
@pytest.mark.parametrize('library', list(peers))
def test_neurons_of_ones_own_are_refused(library):
    "Their counterpart would be a ReLU, and the network no longer the same"
    from snnkit.layers import Neuron
    class Mine(Neuron):
        def step(self, x, state): return (x>1).float(),state
    net = lenet(num_steps=2)
    net.lif2 = Mine()
    with pytest.raises(ValueError, match='has a Mine.*--libraries snnkit'): translate(net, library)

def test_two_points_are_no_line():
    with pytest.raises(ValueError, match='`x` has 2 points.*three or more'): line([1, 2], [3, 5])
    assert line([0, 1, 2, 3], [1, 3, 5, 7]) == pytest.approx((2, 1, 1))
    assert line([0, 1, 2, 3], [0, 1, 0, 1])[2] < .5

shape = (200, 50)
no_rate = None, 'x', True, 0, 1, -1, float('nan')
no_count = None, 'x', True, 0, 2.5
odd = [ # what is called, and the argument that the message must name
    (lambda o: chosen(o), 'libraries', (None, 3, 'brian', ['snnkit'])),
    (lambda o: translate(lenet(num_steps=2), o), 'library', (None, 3, 'brian', [])),
    (lambda o: translate(o, 'norse'), 'net', (None, 3, 'lenet', torch.nn.Linear(2, 2))),
    (lambda o: set_rates(lenet(num_steps=2), torch.rand(1, 1, 28, 28), o), 'rate', no_rate),
    (lambda o: lenet_at(o, 2, 2), 'rate', no_rate),
    (lambda o: lenet_at(.1, o, 2), 'num_steps', no_count),
    (lambda o: lenet_at(.1, 2, o), 'batch_size', no_count),
    (lambda o: sweep_table([(.1, 2)], 2, o), 'rounds', no_count),
    (lambda o: medians([lambda i: i], o), 'rounds', no_count),
    (lambda o: layer_case(shape, o, 2, 2), 'rate', (None, 'x', True, -1, 2, float('nan'))),
    (lambda o: layer_case(shape, .1, o, 2), 'num_steps', no_count),
    (lambda o: layer_case(shape, .1, 2, o), 'batch_size', no_count),
    (lambda o: layer_step(shape, .1, o, 2, 2)(0), 'mode', (None, 3, 'fast', [])),
    (lambda o: Worker('snnkit', Path('nowhere'), o, 1), 'what', (None, 3, 'check', [])),
    (lambda o: Worker('snnkit', Path('nowhere'), 'train', o), 'threads', no_count),
    (lambda o: race([], o), 'runs', no_count),
    (lambda o: race([], 1, o), 'steps', no_count)]

@pytest.mark.parametrize('call, name, value', [(f, n, o) for f,n,values in odd for o in values])
def test_odd_arguments_are_named(call, name, value):
    with pytest.raises(ValueError, match=f'`{name}` is .*, but '): call(value)
