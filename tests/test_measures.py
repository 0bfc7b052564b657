"Intervals keep their promises, and what is counted is counted as by hand: hypothesis looks for sizes that break it."
import math, subprocess, sys
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from hypothesis import assume, given, settings, strategies as st
from scipy.stats import chi2, norm
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from snnkit.data import load
from snnkit.encoding import Direct, Poisson
from snnkit.layers import (IF, LIF, AvgPool2d, Conv2d, Dropout, Flatten, Integrator, Linear, Neuron, OverTime,
                           spike_trains, use, watch)
from snnkit.measures import (accuracy_by_steps, accuracy_interval, break_even, break_even_rate, confusion, costs,
                             disagreements, energy, error_increment, fan_out, firing_rates, is_spikes, mcnemar,
                             paired_interval, seed_interval, synaptic_ops, undisturbed, ways)
from snnkit.models import build, lenet, twin
from snnkit.training import evaluate

few = settings(max_examples=60, deadline=None, derandomize=True)
conf = st.floats(.5, .999)

def seeded(seed): return torch.Generator().manual_seed(seed)
def evaluation(predictions, labels): return SimpleNamespace(predictions=predictions, labels=labels)

@st.composite
def counts(draw):
    n = draw(st.integers(1, 20_000))
    return draw(st.integers(0, n)), n

@st.composite
def table(draw):
    "Images that only the first, only the second got right, and all."
    n = draw(st.integers(1, 5000))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n-b)), n

# Wilson

@few
@given(counts(), conf)
def test_wilson_is_the_formula_and_holds_the_estimate(kn, c):
    (k,n),z = kn, norm.ppf((1+c)/2)
    p = k/n
    mid,half = (p+z*z/(2*n))/(1+z*z/n), z*math.sqrt(p*(1-p)/n+z*z/(4*n*n))/(1+z*z/n)
    low,high = accuracy_interval(k, n, c)
    assert math.isclose(low, max(0, mid-half), abs_tol=1e-9) and math.isclose(high, min(1, mid+half), abs_tol=1e-9)
    assert 0<=low<=p+1e-12 and p-1e-12<=high<=1 and low<high

@few
@given(counts(), conf, conf)
def test_more_confidence_is_wider_and_more_images_are_narrower(kn, c1, c2):
    (k,n),(c1,c2) = kn, sorted((c1, c2))
    assume(c2-c1>1e-6)
    (a,b),(lo,hi) = accuracy_interval(k, n, c1), accuracy_interval(k, n, c2)
    assert lo<=a+1e-12 and b-1e-12<=hi and hi-lo>b-a
    lo,hi = accuracy_interval(4*k, 4*n, c1)
    assert hi-lo<b-a

@few
@given(counts(), conf)
def test_wilson_mirrors(kn, c):
    (k,n) = kn
    assert np.allclose(accuracy_interval(k, n, c), [1-o for o in accuracy_interval(n-k, n, c)[::-1]], atol=1e-12)

def test_wilson_known_values():
    "Newcombe 1998, table I, method 3."
    known = {(81, 263): (.2553, .3662), (15, 148): (.0624, .1605), (0, 20): (0, .1611), (1, 29): (.0061, .1718)}
    for (k,n),ends in known.items():
        assert np.allclose(accuracy_interval(k, n), ends, atol=5e-5)

@pytest.mark.parametrize('args,text', [
    ((-1, 5), 'correct'),
    ((6, 5), 'correct'),
    ((0, 0), 'total'),
    ((2.5, 5), 'correct'),
    ((float('nan'), 5), 'correct'),
    (('5', 10), 'correct'),
    ((None, 10), 'correct'),
    (([5], 10), 'correct'),
    ((5, '10'), 'total'),
    ((True, 5), 'correct'),
    ((1, 5, 0), 'confidence'),
    ((1, 5, 1), 'confidence'),
    ((1, 5, 95), 'confidence'),
    ((1, 5, -.1), 'confidence')])
def test_impossible_counts(args, text):
    with pytest.raises(ValueError, match=f'`{text}`'): accuracy_interval(*args)

# Pairs

@few
@given(table(), st.floats(.8, .999))
def test_paired_is_the_formula_holds_the_estimate_and_flips(bcn, conf):
    (b,c,n),z = bcn, norm.ppf((1+conf)/2)
    p,q = (b+1)/(n+2), (c+1)/(n+2)
    half = z*math.sqrt((p+q-(p-q)**2)/(n+2))
    low,high = paired_interval(b, c, n, conf)
    assert math.isclose(low, max(-1, p-q-half), abs_tol=1e-12) and math.isclose(high, min(1, p-q+half), abs_tol=1e-12)
    assert -1<=low<=(b-c)/n<=high<=1
    assert np.allclose(paired_interval(c, b, n, conf), (-high, -low), atol=1e-12)

@few
@given(table())
def test_paired_shrinks_with_images_and_grows_with_disagreement(bcn):
    b,c,n = bcn
    width = np.diff(paired_interval(b, c, n))[0]
    assert np.diff(paired_interval(4*b, 4*c, 4*n))[0] < width
    low,high = paired_interval(b, c, n)
    inside = b+c+2<=n and -1<low and high<1
    if inside: assert np.diff(paired_interval(b+1, c+1, n))[0] > width

@pytest.mark.parametrize('pb,pc,n', [
    (.02, .005, 1000),
    (.005, .005, 1000),
    (.002, .001, 300),
    (.05, .02, 200),
    (.0, .0, 100)])
def test_paired_coverage(pb, pc, n):
    "Never far below what it promises, at the rates of disagreement that good classifiers have."
    draws = np.random.default_rng(1).multinomial(n, [pb, pc, 1-pb-pc], 2000)
    ends = {k: paired_interval(*k, n) for k in set(map(tuple, draws[:,:2].tolist()))}
    held = np.mean([ends[k][0]<=pb-pc<=ends[k][1] for k in map(tuple, draws[:,:2].tolist())])
    assert held>.94

@few
@given(st.integers(1, 300), st.integers(0, 99))
def test_increment_is_the_difference(n, seed):
    y = torch.randint(10, (n,), generator=seeded(seed))
    miss = lambda k: torch.where(torch.rand(n, generator=seeded(seed+k))<.8, y, (y+1)%10)
    s,a = evaluation(miss(1), y), evaluation(miss(2), y)
    d = error_increment(s, a)
    def right(o): return (o.predictions==y).double().mean()
    assert math.isclose(d.points, 100*(right(a)-right(s)).item(), abs_tol=1e-9)
    assert d.low<=d.points<=d.high
    assert np.allclose(error_increment(a, s), (-d.points, -d.high, -d.low))
    assert d==error_increment(s.predictions==y, a.predictions==y)
    i = torch.randperm(n, generator=seeded(seed)) # the order does not matter as long as it is the same
    assert d==error_increment(evaluation(s.predictions[i], y[i]), evaluation(a.predictions[i], y[i]))

def test_other_images_are_refused():
    y = torch.arange(6)
    with pytest.raises(ValueError, match='same images'): error_increment(evaluation(y, y), evaluation(y[1:], y[1:]))
    with pytest.raises(ValueError, match='labels'): error_increment(evaluation(y, y), evaluation(y, y.flip(0)))
    with pytest.raises(ValueError, match='bools'): error_increment(y, y)
    with pytest.raises(ValueError, match='bools'): error_increment(y[:0]==0, y[:0]==0)
    with pytest.raises(ValueError, match='`a` has 6 images, `b` 5.*same images'): mcnemar(y>2, y[1:]>2)
    with pytest.raises(ValueError, match='labels of `a` and `b`'): mcnemar(evaluation(y, y), evaluation(y, y.flip(0)))
    with pytest.raises(ValueError, match='bools'): mcnemar(y, y)

def pair(b, c, n):
    "Which of `n` images each of two networks got right: `b` only the first, `c` only the second."
    i = torch.arange(n)
    return (i<b) | (i>=b+c), i>=b

@few
@given(table())
def test_mcnemar_is_the_sum_of_the_tails(bcn):
    b,c,n = bcn
    x,y = pair(b, c, n)
    p,m = mcnemar(x, y), b+c
    assert disagreements(x, y)==bcn and 0<=p<=1 and p==mcnemar(y, x)
    log = lambda k: math.lgamma(m+1)-math.lgamma(k+1)-math.lgamma(m-k+1)-m*math.log(2)
    assert p==pytest.approx(min(1, 2*sum(math.exp(log(k)) for k in range(max(b, c), m+1))), rel=1e-6, abs=1e-200)
    if m: assert mcnemar(*pair(b, c, m))==p # images on which they agree do not matter

@pytest.mark.parametrize('b,c,p', [
    (0, 0, 1),
    (1, 0, 1),
    (5, 5, 1),
    (6, 0, .03125),
    (0, 10, .001953125),
    (8, 2, .109375),
    (9, 1, .021484375)])
def test_mcnemar_known_values(b, c, p): assert mcnemar(*pair(b, c, 20))==pytest.approx(p, rel=1e-12)

@pytest.mark.parametrize('b,c', [(700, 800), (900, 800), (610, 600)])
def test_mcnemar_is_near_its_chi_squared(b, c):
    "With many disagreements the exact test and McNemar's own approximation, with Edwards' correction, agree."
    assert mcnemar(*pair(b, c, 3000))==pytest.approx(chi2.sf((abs(b-c)-1)**2/(b+c), 1), abs=2e-3)

# Seeds

@few
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), conf, st.floats(-10, 10), st.floats(.1, 10))
def test_seed_interval_moves_with_its_values(v, c, add, times):
    a,b = seed_interval(v, c),seed_interval([add+times*o for o in v], c)
    assert a.mean==pytest.approx(np.mean(v), abs=1e-9) and a.sd==pytest.approx(pd.Series(v).std(), abs=1e-9)
    assert a.low<=a.mean<=a.high
    assert np.allclose(b, [add+times*a.mean, times*a.sd, add+times*a.low, add+times*a.high], atol=1e-6)
    assert np.allclose(seed_interval(v[::-1], c), a, atol=1e-9)
    if a.sd>1e-6: assert seed_interval(v, min(.9999, c+.0005)).high>a.high

@pytest.mark.parametrize('n,t', [(2, 12.7062), (3, 4.3027), (5, 2.7764), (10, 2.2622), (30, 2.0452)])
def test_seed_interval_has_students_t(n, t):
    "The table of the 97.5 % quantiles, for n-1 degrees of freedom."
    o = seed_interval(range(n))
    assert (o.high-o.mean)/o.sd*math.sqrt(n)==pytest.approx(t, abs=1e-4)==(o.mean-o.low)/o.sd*math.sqrt(n)

def test_seed_interval_of_few():
    one = seed_interval([.5])
    assert one.mean==.5 and all(map(math.isnan, one[1:]))
    assert seed_interval(torch.tensor([2., 2, 2]))==(2, 0, 2, 2)
    for bad in ([], [1, math.nan], [1, math.inf], [[1, 2]]):
        with pytest.raises(ValueError, match='`values` is .*one finite number a seed'): seed_interval(bad)
    with pytest.raises(ValueError, match='`confidence`'): seed_interval([1, 2], 95)

def test_folds_overlap():
    "Nadeau and Bengio: of five folds the variance of the mean is 1/5 + 1/4 of the values', not 1/5"
    v = [.3, .5, .2, .6, .4]
    a,b = seed_interval(v),seed_interval(v, overlap=.25)
    assert a[:2]==b[:2] and (b.high-b.mean)/(a.high-a.mean)==pytest.approx(1.5)
    for odd in (-.1, math.nan, math.inf, None, 'x', True):
        with pytest.raises(ValueError, match='`overlap` is'): seed_interval(v, overlap=odd)

def test_counts_of_torch_numpy_and_pandas_are_counts():
    want = accuracy_interval(3, 10)
    alike = [
        (torch.tensor(3), 10),
        (np.int64(3), np.uint8(10)),
        (3., 10.),
        (np.float32(3), torch.tensor(10.)),
        (np.array(3), 10)]
    for k,n in alike:
        assert accuracy_interval(k, n)==want
    for bad in (True, np.bool_(True), torch.tensor(True), torch.tensor([3]), 3.5, np.float64(3.5), math.inf, 3+0j):
        with pytest.raises(ValueError, match='`correct` is'): accuracy_interval(bad, 10)

def test_heavy_libraries_wait_until_they_are_needed():
    code = 'import sys, snnkit.measures; print(*{"scipy.stats", "sklearn", "sklearn.metrics"} & {*sys.modules})'
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert p.returncode==0 and not p.stdout.strip(), p.stdout+p.stderr

def image(): return torch.ones(1, 1, 6, 6)

odd_calls = {
    'paired None': ('b', lambda: paired_interval(None, 1, 10)),
    'paired True': ('c', lambda: paired_interval(1, True, 10)),
    'paired text': ('total', lambda: paired_interval(1, 1, '10')),
    'confidence None': ('confidence', lambda: accuracy_interval(1, 5, None)),
    'confidence text': ('confidence', lambda: seed_interval([1, 2], '0.9')),
    'values None': ('values', lambda: seed_interval(None)),
    'values text': ('values', lambda: seed_interval(['a'])),
    'values ragged': ('values', lambda: seed_interval([[1], [1, 2]])),
    'evaluation None': ('an evaluation', lambda: error_increment(None, None)),
    'evaluation text': ('an evaluation', lambda: mcnemar('ab', 'ab')),
    'evaluation empty': ('an evaluation', lambda: mcnemar([], [])),
    'confusion None': ('an evaluation', lambda: confusion(None, ['a'])),
    'confusion bools': ('evaluation', lambda: confusion([True], ['a'])),
    'confusion classes': ('classes', lambda: confusion(evaluation(torch.tensor([0]), torch.tensor([0])), 3)),
    'rates of None': ('model', lambda: firing_rates(None, torch.ones(1, 2))),
    'rates for None': ('images', lambda: firing_rates(small(), None)),
    'rates for 3': ('images', lambda: firing_rates(small(), 3)),
    'rates seed': ('seed', lambda: firing_rates(small(), image(), seed='a')),
    'rates batch': ('batch_size', lambda: firing_rates(small(), image(), True)),
    'ops of a function': ('model', lambda: synaptic_ops(len, torch.ones(1, 2))),
    'ops seed': ('seed', lambda: synaptic_ops(small(), image(), seed=-1)),
    'fan-out': ('layer', lambda: fan_out(nn.ReLU(), (3,))),
    'spikes': ('x', lambda: is_spikes([0, 1])),
    'energy None': ('ops', lambda: energy(None)),
    'energy of another table': ('ops', lambda: energy(pd.DataFrame(dict(a=[1])))),
    'energy count': ('count', lambda: energy(synaptic_ops(nn.Linear(2, 2), torch.ones(1, 2)), [])),
    'mac': ('mac', lambda: break_even('4')),
    'ac': ('ac', lambda: break_even(ac=None)),
    'activity': ('activity', lambda: break_even(activity=True)),
    'steps': ('num_steps', lambda: break_even_rate(None))}

@pytest.mark.parametrize('name', odd_calls)
def test_odd_calls_are_told_by_name(name):
    argument,call = odd_calls[name]
    with pytest.raises(ValueError, match=f'^`?{argument}`? is'): call()

def test_confusion():
    y,p = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 0, 2])
    t = confusion(evaluation(p, y), ['a', 'b', 'c', 'never'])
    assert t.values.tolist()==[[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0]*4]
    assert t.index.name=='true' and t.columns.name=='predicted' and list(t)==['a', 'b', 'c', 'never']
    with pytest.raises(ValueError, match='classes'): confusion(evaluation(p, y), ['a', 'b'])

# Rates

def small(**kw):
    torch.manual_seed(0)
    first = Poisson(7),Conv2d(1, 3, 3, padding=1),LIF(**kw),AvgPool2d(2),IF(),Dropout(.3)
    net = nn.Sequential(*first, Flatten(), Linear(27, 5), LIF(), Linear(5, 4), Integrator())
    for p in net.parameters(): nn.init.normal_(p, 0, .7)
    return net

@few
@given(st.integers(1, 9), st.integers(1, 10), st.integers(0, 3))
def test_rates_as_by_hand(n, batch_size, seed):
    net,x = small(), torch.rand(n, 1, 6, 6, generator=seeded(seed))
    r = firing_rates(net, x, batch_size, seed).set_index('layer')
    assert list(r.index)==['0', '2', '4', '8'] and list(r.kind)==['Poisson', 'LIF', 'IF', 'LIF']
    assert list(r.neurons)==[36, 108, 27, 5]
    assert r.rate.between(0, 1).all() and np.allclose(r.rate*r.neurons*7, r.spikes)
    if batch_size<n: return
    with undisturbed(net, seed): trains = spike_trains(net, x)
    for name,s in trains.items():
        assert r.rate[name]==pytest.approx(s.mean().item())
        assert r.spikes[name]==pytest.approx(s.sum().item()/n)

def test_a_data_set_is_as_good_as_its_images():
    net,x = small(), torch.rand(10, 1, 6, 6, generator=seeded(0))
    for f in (firing_rates, synaptic_ops): assert f(net, x, 4).equals(f(net, TensorDataset(x, torch.zeros(10)), 4))

@pytest.mark.parametrize('f', [firing_rates, synaptic_ops])
def test_looking_leaves_no_trace(f):
    net,x = small().train(), torch.rand(6, 1, 6, 6, generator=seeded(0))
    net[5].eval()
    before = {k: v.clone() for k,v in net.state_dict().items()}
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    a = f(net, x, 4)
    assert torch.rand(4).equal(want)
    assert net.training and not net[5].training and net[2].training
    assert not any(m._forward_hooks for m in net.modules()) and all(p.grad is None for p in net.parameters())
    assert all(v.equal(before[k]) for k,v in net.state_dict().items())
    torch.manual_seed(99)
    assert f(net, x, 4).equals(a)
    net[3].forward = lambda x: 1/0
    with pytest.raises(ZeroDivisionError): f(net, x)
    assert net.training and not net[5].training and not any(m._forward_hooks for m in net.modules())

class Every(Neuron):
    "A neuron of one's own, which fires at every other step."
    def step(self, x, n):
        n = 0 if n is None else n
        return torch.full_like(x, n%2), n+1

def test_any_neuron_is_counted():
    r = firing_rates(nn.Sequential(Poisson(4), Every()), torch.ones(2, 3))
    assert r.layer.tolist()==['0', '1'] and r.kind.tolist()==['Poisson', 'Every']
    assert r.rate.tolist()==[1, .5] and r.spikes.tolist()==[12, 6]

class Trains(TensorDataset):
    "Spike trains [T, C] that are batched along the second dimension."
    time_first = True

@pytest.mark.parametrize('batch_size', [2, 5, 9])
def test_spike_trains_are_counted_an_image(batch_size):
    "A model without encoder, and data that make their own batches: not T images but as many as there are."
    torch.manual_seed(0)
    x = (torch.rand(7, 5, 6, generator=seeded(0))<.4).float()
    net = nn.Sequential(Linear(6, 4), LIF(threshold=.2), Linear(4, 2), Integrator())
    trains = Trains(x, torch.zeros(7))
    r,ops = firing_rates(net, trains, batch_size),synaptic_ops(net, trains, batch_size)
    with torch.no_grad(): s = net[:2](x.transpose(0, 1))
    assert r.neurons.tolist()==[4]
    assert r.spikes[0]==pytest.approx(s.sum().item()/7) and r.rate[0]==pytest.approx(s.mean().item())
    assert ops.steps.tolist()==[5, 5] and ops.dense.tolist()==[5*24, 5*8] and ops.operation.tolist()==['AC', 'AC']
    assert ops.effective.tolist()==pytest.approx([4*x.sum().item()/7, 2*s.sum().item()/7])

def test_a_maximum_pool_costs_nothing():
    "And hands on spikes, where an average pool hands on numbers."
    class MaxPool2d(OverTime, nn.MaxPool2d): pass
    torch.manual_seed(0)
    x = torch.full((3, 1, 4, 4), .5)
    nets = [nn.Sequential(Poisson(5), pool(2), Conv2d(1, 2, 1)) for pool in (MaxPool2d, AvgPool2d)]
    most,mean = (synaptic_ops(net, x) for net in nets)
    assert most.layer.tolist()==['2'] and most.operation.tolist()==['AC'] and mean.operation.tolist()==['MAC']
    with undisturbed(nets[0], 0): pooled = nets[0][:2](x)
    assert most.effective[0]==2*pooled.count_nonzero().item()/3

def test_signed_and_silent_trains():
    r = firing_rates(nn.Sequential(Poisson(20), LIF()), -torch.ones(2, 3))
    assert r.rate.tolist()==[1, 0] and r.spikes.tolist()==[60, 0]

def test_a_layer_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc,self.fire,self.fc = Poisson(4),LIF(threshold=.5),Linear(3, 3)
        def forward(self, x): return self.fire(self.fc(self.fire(self.enc(x))))
    net = Twice()
    nn.init.ones_(net.fc.weight)
    nn.init.zeros_(net.fc.bias)
    r = firing_rates(net, torch.ones(2, 3)).set_index('layer')
    assert r.neurons.to_dict()==dict(enc=3, fire=6) and r.rate.to_dict()==dict(enc=1, fire=1)

@pytest.mark.parametrize('batch_size', [2, 5, 9])
def test_both_in_one_pass(batch_size):
    "What is counted together is what each counts alone, of networks that fire and of those that do not."
    x = torch.rand(9, 1, 6, 6, generator=seeded(0))
    both = costs(small(), x, batch_size, seed=3)
    assert both.rates.equals(firing_rates(small(), x, batch_size, 3))
    assert both.ops.equals(synaptic_ops(small(), x, batch_size, 3))
    ann = twin(small())
    both = costs(ann, x, batch_size)
    assert both.rates is None and both.ops.equals(synaptic_ops(ann, x, batch_size))

@pytest.mark.parametrize('f', [firing_rates, synaptic_ops, costs])
def test_bad_arguments(f):
    x = torch.rand(2, 1, 6, 6)
    with pytest.raises(ValueError, match='empty'): f(small(), x[:0])
    with pytest.raises(ValueError, match='batch_size'): f(small(), x, 0)
    with pytest.raises(ValueError, match='`model` has no'): f(nn.Sequential(nn.ReLU()), x)

def test_what_a_spike_train_is():
    assert is_spikes(torch.tensor([0., 1, -1]))
    for odd in ([0., 1, .5], [0., float('nan')]): assert not is_spikes(torch.tensor(odd))

# Operations

def conv_by_hand(conv, x):
    "Pairs of a nonzero input and a nonzero weight, in plain loops over outputs, channels and kernel."
    w,(sh,sw),(ph,pw),(dh,dw) = conv.weight, conv.stride, conv.padding, conv.dilation
    (N,_,H,W),(O,I,kh,kw),(_,_,h,v) = x.shape, w.shape, conv(x).shape
    n = 0
    for b,o,i,j,c,p,q in np.ndindex(N, O, h, v, I, kh, kw):
        y,z = i*sh-ph+p*dh, j*sw-pw+q*dw
        if 0<=y<H and 0<=z<W: n += bool(w[o,c,p,q]!=0 and x[b,o//(O//conv.groups)*I+c,y,z]!=0)
    return n

@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    k=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99))
def test_ops_of_convolutions_as_by_hand(k, stride, padding, dilation, groups, seed):
    torch.manual_seed(seed)
    x = torch.rand(2, 2, 5, 6)-.4
    net = nn.Sequential(Poisson(2), Conv2d(2, 4, k, stride, padding, dilation, groups))
    net[1].weight.data[torch.rand_like(net[1].weight)<.2] = 0
    conv,analog = net[1].counterpart(), x.relu()
    with undisturbed(net, seed): s = net[0](x)
    r,a = synaptic_ops(net, x, seed=seed).loc[0], synaptic_ops(conv, analog).loc[0]
    dense = conv(x)[0].numel()*conv.weight[0].numel()
    assert (r.operation, r.steps, r.dense, r.effective)==('AC', 2, 2*dense, conv_by_hand(conv, s.flatten(0, 1))/2)
    assert (a.operation, a.steps, a.dense, a.effective)==('MAC', 1, dense, conv_by_hand(conv, analog)/2)
    assert 0<=r.activity<=1 and r.effective<=r.dense

@few
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_ops_of_linear_layers_as_by_hand(i, o, seed):
    torch.manual_seed(seed)
    fc,x = nn.Linear(i, o), torch.randn(3, i).relu()
    fc.weight.data[torch.rand(o, i)<.3] = 0
    r = synaptic_ops(fc, x, 2).loc[0]
    pairs = sum(bool(fc.weight[b,a]!=0 and v[a]!=0) for v in x for a in range(i) for b in range(o))
    assert r.dense==i*o and r.effective==pytest.approx(pairs/3)
    r = synaptic_ops(nn.Sequential(Poisson(5), nn.Sequential(Linear(i, o))), torch.ones(3, i)).loc[0]
    assert (r.layer, r.operation, r.dense, r.effective, r.activity)==('1.0', 'AC', 5*i*o, 5*i*o, 1)

def test_fan_out_is_that_of_the_padding_mode():
    assert fan_out(nn.Conv2d(1, 2, 3, padding=1, padding_mode='circular'), (1, 4, 4)).eq(18).all()
    assert fan_out(nn.Linear(4, 7), (4,)).tolist()==[7]*4

def test_one_analog_value_makes_it_multiply():
    x = torch.eye(4)
    assert synaptic_ops(nn.Linear(4, 2), x, 2).operation[0]=='AC'
    x[3, 3] = .5
    assert synaptic_ops(nn.Linear(4, 2), x, 2).operation[0]=='MAC'
    gray = torch.full((3, 1, 4, 4), .5)
    net = nn.Sequential(Poisson(5), AvgPool2d(2), Conv2d(1, 2, 1), LIF(), Flatten(), Linear(8, 2))
    assert synaptic_ops(net, gray).operation.tolist()==['MAC', 'AC']
    net = nn.Sequential(Direct(2), Flatten(), Linear(16, 2))
    assert synaptic_ops(net, gray).operation.tolist()==['MAC']

def test_lenet_and_its_twin():
    torch.manual_seed(0)
    net,x = lenet(num_steps=5), torch.rand(4, 1, 28, 28, generator=seeded(0))
    macs = [28*28*20*25, 14*14*50*20*25, 2450*200, 2000]
    s,a = synaptic_ops(net, x), synaptic_ops(twin(net), x)
    assert a.dense.tolist()==macs and s.dense.tolist()==[5*o for o in macs] and sum(macs)==5_784_000
    assert s.operation.tolist()==['AC']*4 and a.operation.tolist()==['MAC']*4
    assert s.layer.tolist()==['conv1', 'conv2', 'fc1', 'fc2']
    assert (s.effective<=s.dense).all() and (a.effective<=a.dense).all()
    r = firing_rates(net, x).set_index('layer')
    assert s.effective[2]==pytest.approx(200*r.spikes.if2) and s.effective[3]==pytest.approx(10*r.spikes.lif3)
    assert energy(a, 'dense').sum()==pytest.approx(4.6*5.784)
    assert energy(s).tolist()==pytest.approx((.9e-6*s.effective).tolist()) and list(energy(s).index)==s.layer.tolist()
    assert energy(a).tolist()==pytest.approx((4.6e-6*a.effective).tolist())

def test_energy_refuses():
    ops = synaptic_ops(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="'effective', 'dense'"): energy(ops, 'all')
    with pytest.raises(ValueError, match="'MAC', 'AC'"): energy(ops.assign(operation='XOR'))
    with pytest.raises(ValueError, match='negative'): energy(ops.assign(dense=-1), 'dense')

# Break-even

@few
@given(st.floats(.01, 100), st.floats(.01, 100), st.floats(0, 1), st.integers(1, 1000))
def test_break_even_is_where_the_energies_meet(mac, ac, activity, T):
    n = break_even(mac, ac, activity)
    assert n*ac==pytest.approx(mac*activity) and break_even_rate(T, mac, ac, activity)*T==pytest.approx(n)

@few
@given(st.integers(1, 12), st.floats(.05, 1), st.floats(.1, 1), st.integers(0, 99))
def test_a_layer_wins_below_the_break_even(T, p, lit, seed):
    "As `energy` counts: a layer fed by coins against its twin, fed by an image of which a share `lit` is not black."
    net,x = nn.Sequential(Poisson(T), Conv2d(1, 2, 3, padding=1)),torch.rand(3, 1, 6, 6, generator=seeded(seed))
    s,a = synaptic_ops(net, torch.full_like(x, p)),synaptic_ops(net[1].counterpart(), x*(x<=max(lit, x.min())))
    assume(a.operation[0]=='MAC')
    for count,act in (('dense', 1.), ('effective', a.activity[0])):
        ratio = s.steps[0]*s.activity[0]/break_even(activity=act)
        if count=='dense': a.dense = a.effective/a.activity # without the padding, as a spike's fan-out
        assert energy(s).sum()/energy(a, count).sum()==pytest.approx(ratio)
        assert (ratio<1)==(s.activity[0]<break_even_rate(T, activity=act))

def test_break_even_known_values():
    assert break_even()==pytest.approx(5.11, abs=.002) and break_even(activity=0)==0
    assert break_even(activity=.5)==pytest.approx(2.56, abs=.005)
    assert break_even_rate(100)==pytest.approx(.0511, abs=1e-4) and break_even_rate(5)>1>break_even_rate(6)
    assert break_even(.23, .03)==pytest.approx(7.67, abs=.01) # 8-bit integers

@pytest.mark.parametrize('kw', [
    dict(mac=0),
    dict(mac=-4.6),
    dict(ac=0),
    dict(ac=math.inf),
    dict(ac=math.nan),
    dict(activity=-.1),
    dict(activity=1.1),
    dict(activity=math.nan)])
def test_break_even_refuses(kw):
    for f in (break_even, lambda **kw: break_even_rate(10, **kw)):
        with pytest.raises(ValueError, match=f'`{[*kw][0]}` is'): f(**kw)
    with pytest.raises(ValueError, match='`num_steps` is'): break_even_rate(.5)

# NeuroBench

def neurobench(net, x):
    "The operations per image that NeuroBench counts in `net`, torch's or ours, whose layers it hears step by step."
    missing = 'neurobench is not installed; `pip install snnkit[dev]` brings it'
    pytest.importorskip('neurobench', reason=missing, exc_type=ImportError)
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import NeuroBenchModel, TorchModel
    class StepByStep(NeuroBenchModel):
        def __init__(self):
            super().__init__()
            synapses = {n: m for n,m in net.named_modules() if isinstance(m, (Conv2d, Linear))}
            self.layers = nn.ModuleDict({n.replace('.', '_'): twin(m) for n,m in synapses.items()})
        def __net__(self): return self.layers
        def __call__(self, x):
            with undisturbed(net, 0), watch(net, self.step_by_step, (Conv2d, Linear)): return net(x)
        def step_by_step(self, name, layer, x, y):
            for o in x: self.layers[name.replace('.', '_')](o)
    spiking = any(isinstance(m, (Conv2d, Linear)) for m in net.modules())
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), len(x))
    counted = StepByStep() if spiking else TorchModel(net)
    found = Benchmark(counted, loader, [], [], [[], [SynapticOperations]]).run(quiet=True)
    return found['SynapticOperations']

def assert_counts_as_neurobench(net, x):
    "Doubles, for sums of millions without rounding."
    net,x = net.double(),x.double()
    with use('torch'): theirs,ours = neurobench(net, x),synaptic_ops(net, x)
    assert (ours.activity>0).all() # every layer has something to do
    met = ours.groupby('operation').effective.sum()
    want = dict(AC=theirs['Effective_ACs'], MAC=theirs['Effective_MACs'])
    assert {o: met.get(o, 0) for o in want}==pytest.approx(want, rel=1e-12)
    return ours,theirs['Dense']

def model(name, **kw):
    torch.manual_seed(0)
    # large weights, for every layer to fire
    sizes = dict(efficientnet=dict(width=.25, depth=.3, norm=None, kappa=20.), lenet=dict(kappa=8.))
    return build(name, num_steps=6, **sizes.get(name, dict(width=16, kappa=8.)), **kw)

@pytest.mark.parametrize('name', ['lenet', 'vgg9', 'resnet11', 'efficientnet'])
@pytest.mark.parametrize('encoder', ['poisson', 'direct'])
def test_models_count_as_neurobench(name, encoder):
    net = model(name, encoder=Direct(6) if encoder=='direct' else None)
    c,size = (1, 28) if name=='lenet' else (3, 32)
    x = torch.rand(2, c, size, size, generator=seeded(0))
    for o in (net, twin(net)):
        ours,dense = assert_counts_as_neurobench(o, x)
        assert (ours.effective/ours.activity).sum()==pytest.approx(dense, rel=1e-8) # NeuroBench's has no padding
        assert dense<ours.dense.sum()
    mixed = encoder=='direct' or name=='efficientnet'     # between its blocks go currents
    assert set(synaptic_ops(net, x.double()).operation)==({'AC', 'MAC'} if mixed else {'AC'})

def test_without_padding_dense_is_as_neurobench():
    torch.manual_seed(0)
    first = Poisson(3),Conv2d(2, 4, 3, stride=2),LIF(threshold=.2),AvgPool2d(2)
    net = nn.Sequential(*first, Flatten(), Linear(16, 3), Integrator())
    x = 2*torch.rand(5, 2, 9, 9, generator=seeded(0))-1
    for o in (net, twin(net)):
        ours,dense = assert_counts_as_neurobench(o, x)
        assert ours.dense.sum()==dense
    assert synaptic_ops(net, x.double()).operation.tolist()==['AC', 'MAC'] # what an average pool gives is no spike

def test_pruned_weights_count_as_neurobench():
    net,x = model('lenet'),torch.rand(2, 1, 28, 28, generator=seeded(0))
    for p in net.parameters(): p.data[torch.rand_like(p)<.3] = 0
    for o in (net, twin(net)): assert_counts_as_neurobench(o, x)

def test_train_and_eval_mode_are_the_same_to_look_at():
    net,x = small(), torch.rand(5, 1, 6, 6, generator=seeded(0))
    assert firing_rates(net.train(), x).equals(firing_rates(net.eval(), x))

def trained(T): return lenet(num_steps=T, encoder=Direct(T), pretrained='digits')

@pytest.mark.parametrize('counted', [None, 30])
def test_answers_of_fewer_steps(counted):
    "One run tells what networks that run for fewer steps answer and spend."
    digits = load('digits').test
    some,n = Subset(digits, range(200)),counted or 200
    sample = Subset(digits, range(counted)) if counted else None
    t = accuracy_by_steps(trained(6), some, (1, 3, 6), 50, counted=sample)
    for T in t.index:
        short = trained(T)
        found = evaluate(short, some)
        assert t.loc[T, 'test (%)']==pytest.approx(100*found.accuracy)
        low,high = accuracy_interval(round(200*found.accuracy), 200)
        assert (t.loc[T, 'low'], t.loc[T, 'high'])==pytest.approx((100*low, 100*high))
        rates,ops = costs(short, Subset(digits, range(n)))
        assert t.loc[T, 'spikes']==pytest.approx(rates.spikes.sum())
        for o in ways: assert t.loc[T, f'{o} (µJ)']==pytest.approx(energy(ops, o).sum())

class Still(nn.Module):
    "The image at every step, by no encoder"
    def forward(self, x): return x.expand(3, *x.shape)

def test_what_cannot_answer_after_fewer_steps():
    some = Subset(load('digits').test, range(10))
    silent = nn.Sequential(Still(), Flatten(), Linear(784, 10, bias=False), Integrator())
    for wrong,told in ((twin(trained(6)), 'no `Integrator`'), (silent, 'no spikes')):
        with pytest.raises(ValueError, match=told): accuracy_by_steps(wrong, some, (1, 2))
    asked = {(1, 8): '`steps` has 8, .*`model` runs for 6', (0, 1): 'is 0'}
    for steps,told in asked.items():
        with pytest.raises(ValueError, match=told): accuracy_by_steps(trained(6), some, steps)
