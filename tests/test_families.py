"Networks that are converted, and networks with a rule of their own, are runs like any other: one line names them."
from dataclasses import replace
import pytest,torch
from snnkit import experiments as E
from snnkit.conversion import convert
from snnkit.data import Images,load
from snnkit.experiments import Config,Store,key,run
from snnkit.layers import LIF
from snnkit.models import twin
from snnkit.stdp import DiehlCook
from snnkit.training import evaluate,load_weights

def few(part=None):
    "The digits with every fifth test image: here nothing hangs on how many are asked"
    d = load('digits', part=part)
    return replace(d, test=Images(d.test.x[::5], d.test.y[::5]))

digits = 'test_families:few'
ann_first = Config(data=digits, part=300, encoder='direct', epochs=1, num_steps=8, convert='qcfs', levels=4)
stdp = Config(data=digits, part=300, model='snnkit.stdp:DiehlCook', options=dict(neurons=20), epochs=1)
told = 'config', 'valid_accuracy', 'test_accuracy', 'right', 'rates', 'steps'

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    "Checkpoints and records of these tests lie in a folder of their own."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.chdir(tmp_path)

def accuracy(net, c):
    "On test images, computed as a run does it"
    with E.steady(1): return evaluate(net, E.data_for(c).test).accuracy

def weights_of(c, file):
    net = E.network(c, E.data_for(c))
    load_weights(net, file)
    return net.eval()

@pytest.mark.parametrize('how, levels, encoder, wait, signed', [
    ('qcfs', 4, 'direct', 0., False),
    ('qcfs', 4, 'direct', 0., True),
    ('percentile', None, 'direct', .25, False),
    ('spike_norm', None, 'poisson', 0., False)])
def test_a_run_converts_its_twin(tmp_path, how, levels, encoder, wait, signed):
    "The twin is trained first, and is a run of its own; its weights are those of the converted network."
    given = dict(grad='rate', signed=True) if signed else {}
    c = replace(ann_first, convert=how, levels=levels, encoder=encoder, wait=wait, **given)
    store = Store(tmp_path/'r')
    r = run(c, store, quiet=True, weights=tmp_path/'w')
    its = replace(c, **E.its_twin(c))
    assert store.read().keys()=={key(c), key(its)} and its.num_steps==Config.num_steps
    assert len(E.increments([*store.read().values()]))==1
    teacher, = (tmp_path/'cache').rglob('teachers/*.safetensors')
    ann,net = weights_of(its, teacher),weights_of(c, tmp_path/'w')
    x = E.data_for(c).test[:50][0]
    with torch.no_grad(): assert torch.allclose(twin(net)(x), ann(x), atol=1e-5)
    assert net[-1].wait==wait and accuracy(net, c)==r['test_accuracy']
    assert {m.signed for m in net.modules() if isinstance(m, LIF)}=={signed}
    assert r['history']==[] and [*r['steps']]==['1', '2', '4', '8']
    assert r['steps']['8']['test_accuracy']==pytest.approx(r['test_accuracy'])
    assert r['steps']['8']['energies']['effective']>r['steps']['1']['energies']['effective']

@pytest.mark.parametrize('signed', [False, True])
def test_a_converted_network_learns_on(tmp_path, signed):
    "With its own learning rate, from the weights of the twin that other runs have trained."
    store,on = Store(tmp_path/'r'),replace(ann_first, tune=1, grad='rate', signed=signed)
    slow,fast = (replace(on, tune_lr=lr) for lr in (1e-9, 1e-2))
    unlike = replace(on, tune=2, grad='atan', signed=False, num_steps=2)
    kinds = replace(on, tune=0), unlike, slow, fast
    found = [run(c, store, quiet=True) for c in kinds]
    for c,r in zip(kinds, found): assert (len(r['history']), len(r['steps']))==(c.tune, c.num_steps.bit_length())
    assert len([*(tmp_path/'cache').rglob('teachers/*.safetensors')])==1 # one twin for all
    assert len(store.read())==5
    none,_,*others = map(E.unpack, found)
    changed = [int((o!=none).sum()) for o in others]
    assert changed[0]<=1 and changed[1]>30 # a last bit may decide a tie

def test_answers_of_fewer_steps_in_a_table(tmp_path):
    store = Store(tmp_path/'r')
    rs = [run(replace(ann_first, seed=s), store, quiet=True) for s in (1, 2)]
    t = E.by_steps(rs, 'added')
    assert t.index.tolist()==[1, 2, 4, 8] and t['energy (µJ)'].is_monotonic_increasing
    assert t.loc[8, 'test (%)']==pytest.approx(50*sum(r['test_accuracy'] for r in rs))
    for r in rs: assert r['steps']['8']['energies']==pytest.approx(r['energies']) # counted on the same images
    assert t.loc[8, 'spikes']==pytest.approx(sum(r['spikes'] for r in rs)/2)
    alone = E.by_steps(rs[:1])
    assert (alone.low<alone['test (%)']).all() and (alone['test (%)']<alone.high).all()
    twins = [store.read()[key(replace(ann_first, seed=1, **E.its_twin(ann_first)))]]
    for wrong in (twins, rs + [run(replace(ann_first, num_steps=4), store, quiet=True)]):
        with pytest.raises(ValueError, match='do not know fewer steps'): E.by_steps(wrong)

def test_a_network_with_a_rule_of_its_own(tmp_path):
    "Its seed is that of the run, the same run gives the same record, and what it needs lies where runs keep it."
    seeds = dict(a=1, b=1, c=2)
    first,again,other = (run(replace(stdp, seed=s), Store(tmp_path/n), quiet=True, weights=tmp_path/f'{n} weights')
                         for n,s in seeds.items())
    assert all(first[o]==again[o] for o in told) and first['right']!=other['right']
    assert first['steps']=={} and first['best_epoch']==1 and first['updates']==20*700
    assert first['test_accuracy']>.2 and not E.workplace(replace(stdp, seed=1)).exists()
    net = weights_of(stdp, tmp_path/'a weights')
    assert accuracy(net, replace(stdp, seed=1))==first['test_accuracy']

def test_labels_are_not_looked_at_while_it_learns(tmp_path):
    d = E.data_for(replace(stdp, part=200)).train
    class Other:
        "The same images, with labels turned round"
        y = 9-d.y
        def __len__(self): return len(d)
        def __getitem__(self, i): return d[i][0],self.y[i]
    nets = [DiehlCook(10, seed=3).fit(o, quiet=True) for o in (d, Other())]
    assert nets[0].synapse.weight.equal(nets[1].synapse.weight)
    for net,o in zip(nets, (d, Other())): net.label(o)
    assert nets[0].votes.equal(nets[1].votes.flip(1))

def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    "After any thousand images, to the last bit."
    d = E.data_for(Config(part=2500)).train
    whole = DiehlCook(10, seed=3).fit(d, epochs=1, quiet=True)
    seen,show = [],DiehlCook.run
    def stop(self, images, seeds, learn):
        if len(seen)==2: raise KeyboardInterrupt
        seen.append(len(images))
        return show(self, images, seeds, learn)
    monkeypatch.setattr(DiehlCook, 'run', stop)
    with pytest.raises(KeyboardInterrupt): DiehlCook(10, seed=3).fit(d, 1, tmp_path, quiet=True)
    monkeypatch.setattr(DiehlCook, 'run', show)
    after = DiehlCook(10, seed=3).fit(d, 1, tmp_path, quiet=True)
    assert seen==[1000, 1000] and after.synapse.weight.equal(whole.synapse.weight)
    with pytest.raises(ValueError, match='of another network'): DiehlCook(11, seed=3).fit(d, 1, tmp_path, quiet=True)

def test_bits_of_the_conventional_network_stay(tmp_path):
    c = replace(ann_first, convert='percentile', levels=None)
    its = replace(c, **E.its_twin(c))
    ann = E.network(its, E.data_for(its)).eval()
    before = {k: v.clone() for k,v in ann.state_dict().items()}
    convert(ann, E.data_for(its).train[:100][0], 4)
    assert all(v.equal(before[k]) for k,v in ann.state_dict().items()) and not ann.training
