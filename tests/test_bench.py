"The benchmark as a user runs it: processes of four libraries, their sameness, and the record that is left."
import json, subprocess, sys
from importlib.util import find_spec
from pathlib import Path
import pytest, torch
from PIL import Image
from snnkit.engine.bench import bench_table, chosen, check_all, check_same, grid_table, peers, race, rate_table, set_rates, translate, write_task
from snnkit.data import load
from snnkit.measures import firing_rates
from snnkit.models import build, lenet

missing = [o for o in peers if not find_spec(o)]
needs_peers = pytest.mark.skipif(bool(missing), reason=f'{", ".join(missing)} not installed; `pip install snnkit[peers]` brings them')

def call(*args, ok=True):
    p = subprocess.run([Path(sys.executable).parent/'snnkit-bench', *map(str, args)], capture_output=True, text=True, timeout=240)
    assert (p.returncode==0)==ok, p.stdout+p.stderr
    assert 'Traceback' not in p.stderr
    return p.stdout if ok else p.stderr

@pytest.fixture(scope='module')
def task(tmp_path_factory):
    "A small LeNet and two digits, in a file"
    file = tmp_path_factory.mktemp('task')/'task.safetensors'
    write_task(file, 'lenet', load('digits'), 6, 2)
    return file

@needs_peers
def test_all_libraries_compute_the_same(task):
    found = check_all(task, chosen(), threads=1)
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
    text = call('--data', 'digits', '--num-steps', 4, '--batch-size', 2, '--threads', 1, '--runs', 2, '--steps', 2, '--libraries', 'snnkit,spikingjelly', '--out', tmp_path)
    for o in ('of fastest peer', 'GSynOps/s', 'synaptic operations', 'train', 'inference', 'lif3', 'T = 4'): assert o in text
    assert (tmp_path/'bench.txt').read_text().strip() in text and len((tmp_path/'bench.csv').read_text().splitlines())==5
    assert Image.open(tmp_path/'bench.png').convert('L').getextrema()[0]<100
    r = json.loads((tmp_path/'bench.json').read_text())
    assert r['options']['num_steps']==4 and r['cpu'] and r['spikingjelly'] and r['threads']==1
    assert r['rates']['snnkit']==pytest.approx(r['rates']['spikingjelly'], rel=.01)
    for row in r['table']:
        seconds = r['results'][row['step']][row['library']]['seconds']
        assert len(seconds)==2 and min(seconds)>0 and row['ms']==pytest.approx(500*sum(seconds)) and row['MB']>0
    by = {(o['step'], o['library']): o for o in r['table']}
    assert by['train', 'spikingjelly']['of fastest peer']==1
    assert by['train', 'snnkit']['of fastest peer']==pytest.approx(by['train', 'snnkit']['ms']/by['train', 'spikingjelly']['ms'])

def test_one_library_alone_has_no_ratio(task):
    t = bench_table(dict(inference=race(task, ['snnkit'], 'inference', 1, 2, 1)), dict(spikes=1000, synops=10**6), peak=1e9)
    assert t['of fastest peer'].isna().all() and (t['min']<=t.ms).all()
    assert t['% bound'].item()==pytest.approx(100/t.ms.item()) and t['GSynOps/s'].item()==pytest.approx(1/t.ms.item())   # a million operations at 1 G/s take 1 ms

def test_unknown_library_is_refused(tmp_path):
    assert "one of 'all', 'snnkit', 'spikingjelly', 'snntorch', 'norse'" in call('--libraries', 'snnkit,brian', '--out', tmp_path, ok=False)
    assert not list(tmp_path.iterdir())

def test_rates_are_set_as_asked():
    torch.manual_seed(1); net,x = lenet(num_steps=30),torch.full((4, 1, 28, 28), .05)
    for rate in (.02, .15):
        x.fill_(rate); set_rates(net, x, rate)
        r = firing_rates(net, x).set_index('layer').rate
        assert r[['encoder', 'lif1', 'lif2', 'lif3']].between(.9*rate, 1.1*rate).all()
        assert r[['if1', 'if2']].between(rate/1.6, 1.6*rate).all()   # behind a pool the currents are quarters, and so the rates have steps

def test_grid_holds_the_choice_against_both():
    pytest.importorskip('snnkit.engine', reason='this version has no engine')
    t = grid_table({'conv': (8, 16, 3, 8), 'fc': (200, 50)}, (.05, .4), 5, 2, 3)
    assert len(t)==4 and (t[['event', 'dense', 'auto']]>0).all().all()
    assert (t['auto/best']==t['auto']/t[['event', 'dense']].min(axis=1)).all()

@needs_peers
@pytest.mark.parametrize('library', list(peers))
def test_residual_networks_are_refused(library):
    with pytest.raises(ValueError, match='has a Residual.*--libraries snnkit'): translate(build('resnet9', width=2, in_channels=1, image_size=8, num_steps=2), library)
