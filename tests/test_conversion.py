"""Conversion, on random small networks: the rates of the spiking network are the conventional one's activations,
however its layers are computed, and the conventional network can be had back."""
import copy
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from snnkit.conversion import activations, convert, percentile_scales, with_scales
from snnkit.core import seeded
from snnkit.encoding import Direct
from snnkit.layers import LIF, QCFS, Gate, Residual, dense, fold, spike_trains, use
from snnkit.measures import accuracy_by_steps
from snnkit.models import efficientnet, lenet, plain, resnet9, resnet11, twin, vgg

few = settings(max_examples=25, deadline=None, derandomize=True)

def images(B=4, C=2, size=8, seed=0): return torch.rand(B, C, size, size, generator=seeded('images', seed))

@st.composite
def networks(draw, pools=('avg', None), activations=('relu', 'qcfs')):
    "A conventional network of two or three stages, with norms and biases or without, and a residual block or none"
    torch.manual_seed(draw(st.integers(0, 1000)))
    kind,norm,bias = draw(st.sampled_from(activations)),draw(st.booleans()),draw(st.booleans())
    def fire(): return nn.ReLU() if kind=='relu' else QCFS(draw(st.integers(2, 16)), draw(st.floats(.3, 3)))
    def synapse(c, o): return [nn.Conv2d(c, o, 3, padding=1, bias=bias), *([nn.BatchNorm2d(o)] if norm else [])]
    layers,c,size = [],2,8
    for _ in range(draw(st.integers(1, 2))):
        o = draw(st.integers(4, 8))
        layers += [*synapse(c, o), fire()]
        c,pool = o,draw(st.sampled_from(pools))
        if pool:
            layers.append(nn.AvgPool2d(2) if pool=='avg' else nn.MaxPool2d(2))
            size //= 2
    if draw(st.booleans()):
        body = nn.Sequential(*synapse(c, c+1), fire(), *synapse(c+1, c))
        layers.append(Residual(body, fire()))
    layers += [nn.Flatten(), nn.Linear(c*size*size, 7, bias=bias), fire(), nn.Linear(7, 3, bias=bias)]
    return settled(nn.Sequential(*layers))

def settled(ann):
    "With biases, and statistics of its norms, that are not what they began as"
    for m in ann.modules():
        if getattr(m, 'bias', None) is not None: nn.init.uniform_(m.bias, .05, .3)
    for i in range(5): ann.train()(images(seed=i))
    return ann.eval()

def error(net, ann, x):
    with torch.no_grad(): return (net(x)-ann(x)).abs().max().item()/max(ann(x).std().item(), 1e-6)

def by_its_rule(ann, x, T, **more):
    "Steps may be so coarse that a layer gives the same for all images; then only what it has learned is a scale"
    learned = any(isinstance(m, QCFS) for m in activations(ann).values())
    return convert(ann, x, T, 'qcfs' if learned else 'percentile', **more)

@few
@given(st.floats(.2, 3), st.sampled_from([1, 2, 4, 8, 32]), st.integers(0, 1000))
def test_a_layer_is_the_staircase(scale, T, seed):
    "Of a constant current, to the last spike: scale*clip(floor(z*T/scale + 1/2)/T, 0, 1)"
    z = 4*torch.rand(300, generator=seeded(seed), dtype=torch.float64)-1
    net = with_scales(nn.Sequential(nn.ReLU()), {'0': scale}, Direct(T)).double()
    spikes = net[1](z.expand(T, 1, -1))
    assert scale*spikes.mean(0)[0]==pytest.approx(scale*((z*T/scale+.5).floor()/T).clamp(0, 1), abs=1e-12)

@few
@given(networks(activations=('relu',)))
def test_scores_come_nearer_as_one_over_t(ann):
    "Nothing is cut off at the largest activation, so what is left of the membranes is all the error"
    x = images()
    errors = [error(convert(ann, x, T, percentile=100), ann, x) for T in (16, 256)]
    assert errors[1]<=max(.25*errors[0], .02)

@few
@given(networks(pools=('avg', 'max', None)))
def test_the_conventional_network_is_had_back(ann):
    "And it was not touched"
    before,x = copy.deepcopy(ann.state_dict()),images()
    net = by_its_rule(ann, x, 4)
    back = twin(net)
    for k,v in ann.state_dict().items(): assert v.equal(before[k])
    kinds = [type(m) for m in back.modules() if isinstance(m, (nn.ReLU, QCFS))]
    assert kinds==[type(m) for m in activations(ann).values()]
    assert error(back.eval(), ann, x)<1e-4

@few
@given(networks(pools=('avg', 'max', None)), st.sampled_from([1, 4, 9]), st.booleans())
def test_the_same_spikes_however_layers_compute(ann, T, signed):
    "Dense, and by events"
    pytest.importorskip('numba')
    x = images()
    net,trains = by_its_rule(ann, x, T, signed=signed),[]
    for mode in ('torch', 'numba'):
        with use(mode): trains.append(spike_trains(net, x, LIF))
    for name,s in trains[0].items(): assert (dense(trains[1][name])!=s).float().mean()<.005, name # ties apart

@few
@given(networks(activations=('relu',)))
def test_norms_may_be_folded_before_or_after(ann):
    "The biases that they become come with the events of their synapse"
    x = images()
    scales = percentile_scales(ann, x)
    a,b = with_scales(ann, scales, Direct(8)),with_scales(fold(ann), scales, Direct(8))
    with torch.no_grad(): one,two,three = a(x),b(x),fold(a)(x)
    for o in (two, three): assert (one-o).abs().max()<=.3*one.std()+1e-6

@few
@given(networks(pools=('avg', 'max', None)), st.sampled_from([1, 2, 3, 8]), st.sampled_from([0., .2, .25, .5, .9]))
def test_a_readout_that_waits_hears_the_rest(ann, T, wait):
    "The last of the same currents, at least one, whatever the number of steps"
    x = images()
    net,late = (by_its_rule(ann, x, T, wait=w) for w in (0., wait))
    with torch.no_grad(): currents,scores,same = dense(net[:-1](x)),late(x),dense(late[:-1](x))
    assert same.equal(currents)
    heard = max(1, T-int(wait*T+.5))
    assert torch.allclose(scores, net[-1].unit*currents[-heard:].mean(0), atol=1e-4)

def test_fewer_steps_wait_as_long_as_a_network_made_for_them():
    ann,x,y = settled(twin(lenet(in_channels=2, size=8))),images(40),torch.arange(40)%10
    nets = {T: convert(ann, x, T, wait=.25) for T in (2, 4, 8)}
    found = accuracy_by_steps(nets[8], torch.utils.data.TensorDataset(x, y), [*nets])
    with torch.no_grad(): alone = {T: 100*(net(x).argmax(1)==y).float().mean().item() for T,net in nets.items()}
    assert found['test (%)'].to_dict()==pytest.approx(alone)

@pytest.mark.parametrize('make', [
    lambda: plain([8, 16, 'P', 16, 16, 'P', 16], hidden=20, kernel=3, num_classes=10, num_steps=8, in_channels=2,
                  size=8, norm='shared', max_pools=True, early_pools=True),
    lambda: resnet9(width=2, in_channels=2, size=8, norm='shared', join='currents')])
def test_what_is_taken_back_brings_counts_nearer(make):
    "Of deep networks whose norms shift their currents; their spikes are three-valued, and their twins what they were"
    x,errors = images(16),[]
    for seed in range(3):
        torch.manual_seed(seed)
        ann = settled(twin(make()))
        usual,back = (convert(ann, x, 8, percentile=100, signed=o) for o in (False, True))
        with torch.no_grad(): errors.append([(net(x)-ann(x)).square().mean().item() for net in (usual, back)])
        with torch.no_grad(): trains = {n: dense(s) for n,s in spike_trains(back, x, LIF).items()}
        assert all(set(s.unique().tolist())<={-1., 0., 1.} for s in trains.values())
        assert any((s<0).any() for s in trains.values())
        with torch.no_grad(): assert torch.allclose(twin(back)(x), ann(x), atol=1e-4)
    usual,back = torch.tensor(errors).mean(0)
    assert back<.9*usual

def test_a_start_at_nothing_underestimates():
    "By half a threshold over T in the mean, where no neuron is cut off or silent"
    z = .2+.8*torch.rand(4000, generator=seeded(3), dtype=torch.float64)
    for T in (4, 16):
        nets = [with_scales(nn.Sequential(nn.ReLU()), {'0': 1.3}, Direct(T), start).double() for start in (0., .5)]
        low,right = (1.3*net[1](z.expand(T, 1, -1)).mean().item()-z.mean().item() for net in nets)
        assert low==pytest.approx(-1.3/2/T, rel=.1) and abs(right)<.1*1.3/T

@pytest.mark.parametrize('make', [
    lambda: lenet(in_channels=2, size=8), lambda: vgg(5, 2, in_channels=2, size=8, norm='shared'),
    lambda: resnet9(width=2, in_channels=2, size=8, norm='threshold'),
    lambda: resnet9(width=2, in_channels=2, size=8, norm='shared', join='currents'),
    lambda: resnet11(width=2, in_channels=2, size=8, norm='scaled', num_steps=4),
    lambda: efficientnet(width=.1, depth=.3, in_channels=2, size=8, norm='step', num_steps=4)])
def test_every_family_can_be_followed(make):
    ann,x = settled(twin(make())),images()
    assert error(convert(ann, x, 256, percentile=100), ann, x)<.2

def largest_so_far(x, **options):
    "What a gate says, in torch's own operations"
    largest = nn.functional.max_pool2d(x.cumsum(0).flatten(0, 1), **options).unflatten(0, x.shape[:2])
    return largest.diff(dim=0, prepend=torch.zeros_like(largest[:1]))

def test_the_gate_lets_the_busiest_through():
    x = (torch.rand(400, 2, 3, 6, 6, generator=seeded(0))<torch.rand(2, 3, 6, 6, generator=seeded(1))).float()
    assert Gate(2)(x).sum(0).equal(nn.functional.max_pool2d(x.sum(0), 2))
    assert Gate(2)(x).unique().tolist()==[0, 1]
    for options in (dict(kernel_size=3, stride=1, padding=1), dict(kernel_size=2, ceil_mode=True)):
        assert Gate(**options)(x).equal(largest_so_far(x, **options))

@pytest.mark.parametrize('options', [dict(kernel_size=2), dict(kernel_size=3, stride=1, padding=1)])
@pytest.mark.parametrize('alike', [False, True])
def test_the_gate_hands_back_what_autograd_would(options, alike):
    x = torch.randn(5, 2, 3, 7, 6, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    y = largest_so_far(x, **options)
    g = torch.randn(y.shape, generator=seeded(1), dtype=y.dtype)
    if alike: g = g[:1].expand_as(g)
    (expected,),(given,) = (torch.autograd.grad(o, x, g) for o in (y, Gate(**options)(x)))
    assert torch.allclose(given, expected)
    assert (given.stride(0)==0)==alike

def test_early_pools_are_followed():
    "Pools of currents ahead of the neurons: the largest mean current, whichever step it came in"
    shape = dict(norm='shared', in_channels=2, size=8, num_classes=5)
    options = dict(early_pools=True, num_steps=4, **shape)
    for max_pools in (False, True):
        ann,x = settled(twin(plain((6, 'P', 8, 'P'), 3, 20, max_pools=max_pools, **options))),images()
        assert error(convert(ann, x, 256, percentile=100), ann, x)<.1

@pytest.mark.parametrize('unit', [.1, 8.])
@pytest.mark.parametrize('training', [False, True])
def test_a_unit_is_no_more_than_a_unit(unit, training):
    "A network whose activations are all larger by a factor has scores that are, also with the statistics of a batch"
    x,scores = torch.rand(16, 1, 28, 28, generator=seeded(0)),[]
    for factor in (1., unit):
        torch.manual_seed(0)
        ann = twin(lenet(norm='shared'), activation=lambda: QCFS(4, scale=factor))
        for m in ann.modules():
            if not isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)): continue
            nn.init.constant_(m.weight, factor)
            m.eps,m.momentum = 1e-20,1.
        ann.train()(x)
        with torch.no_grad(): scores.append(convert(ann, how='qcfs', num_steps=8).train(training)(x)/factor)
    assert (scores[1]-scores[0]).norm()<.02*scores[0].norm() # ties may round to either side
