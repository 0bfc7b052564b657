"""Norms are the norms they are named after, folding changes no spike, residual blocks are what they say, a mask lasts a window:
for any sizes, by every road the engine takes."""
import copy
import pytest, torch
from fastcore.test import expect_fail
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
from snnkit.core import seeded
from snnkit.encoding import poisson
from snnkit.engine.trains import Current, Train, to_train
from snnkit.layers import dense, use
from snnkit.layers import (LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear, OverTime, Poisson, Residual, ScaledBatchNorm2d,
                           StepBatchNorm2d, Subsample, ThresholdBatchNorm2d, fold, make_norm, merged, norms, spike_trains, watch)
from snnkit.models import lee_init, twin
from snnkit.spikebp import lif_autograd
from test_engine import assert_same, images

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 10**6)
each_norm = pytest.mark.parametrize('name', norms)

def randomised(module):
    "`module` with random affine parameters and running statistics, as if it had been trained"
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                for n,p in m.named_parameters(): p.uniform_(.5, 1.5) if n in ('weight', 'scale') else p.normal_(0, .3)
                m.running_mean.normal_(0, .3); m.running_var.uniform_(.2, 3)
    return module

# Norms

class Reference(nn.Module):
    "The equations, in plain torch: x [T, B, C, H, W] -> the same"
    def __init__(self, name, norm):
        super().__init__()
        self.name,self.norm = name,norm
    def forward(self, x):
        n,dims = self.norm,(1, 3, 4) if self.name=='step' else (0, 1, 3, 4)
        wide = lambda o: o.view(-1, 1, n.num_features, 1, 1)
        mean,var = (x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)) if n.training else (wide(n.running_mean), wide(n.running_var))
        xhat = (x-mean)/(var+n.eps).sqrt()
        if self.name=='step': return wide(n.weight)*xhat
        if self.name=='scaled': return wide(n.scale)*xhat + wide(n.shift)
        return wide(n.weight)*(xhat*(n.threshold*n.alpha if self.name=='threshold' else 1)) + wide(n.bias)

shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4))

@few
@given(st.sampled_from(sorted(norms)), shapes, seeds, st.booleans(), st.sampled_from([.3, 1., 2.]))
def test_norms_are_their_equations(name, shape, seed, training, threshold):
    "Values, and gradients of the current and of the parameters"
    torch.manual_seed(seed)
    norm = randomised(make_norm(name, shape[2], shape[0], threshold)).double().train(training)
    if name=='threshold': norm.alpha = .7
    x,answers = torch.randn(shape, dtype=torch.float64, requires_grad=True),[]
    pull = torch.randn(shape, dtype=torch.float64)
    for m in (Reference(name, norm), norm):
        y = m(x)
        answers.append([y, *torch.autograd.grad(y, [x, *norm.parameters()], pull)])
    for a,b in zip(*answers): assert torch.allclose(a, b, atol=1e-8)

@each_norm
@pytest.mark.parametrize('momentum', [.1, .5, None])
def test_running_statistics(name, momentum):
    "Those of torch's norm: one for all steps, or one for each"
    T,norm = 4,make_norm(name, 3, 4)
    plain = [nn.BatchNorm2d(3, momentum=momentum) for _ in range(T if name=='step' else 1)]
    norm.momentum = momentum
    for i in range(3):
        x = i + torch.randn(T, 2, 3, 5, 5, generator=seeded(i))
        norm(x)
        for n,o in zip(plain, x if name=='step' else [x.flatten(0, 1)]): n(o)
    for o in ('running_mean', 'running_var'): assert torch.allclose(getattr(norm, o), torch.cat([getattr(n, o) for n in plain]), atol=1e-6)
    assert norm.num_batches_tracked==3

@each_norm
def test_what_torch_does_to_a_norm(name):
    "eps and momentum, copies, state, types, half precision, and a fresh start"
    torch.manual_seed(0)
    own = dict(num_steps=4) if name in ('step', 'scaled') else {}
    start = norms[name](3, **own, eps=.1, momentum=.3)
    norm,x = randomised(copy.deepcopy(start)),torch.randn(4, 2, 3, 5, 5)
    assert (norm.eps, norm.momentum)==(.1, .3) and 'eps=0.1' in repr(norm)
    other = norms[name](3, **own, eps=.1); other.load_state_dict(norm.state_dict())
    norm.eval(); other.eval()
    y = norm(x)
    assert other(x).equal(y) and copy.deepcopy(norm)(x).equal(y) and torch.allclose(copy.deepcopy(norm).double()(x.double()).float(), y, atol=1e-5)
    assert norms[name](3, **own, dtype=torch.float64)(x.double()).dtype==torch.float64
    conv = Conv2d(3, 3, 1); z = norm(conv(x))
    with torch.autocast('cpu', torch.bfloat16): assert torch.allclose(norm(conv(x)).float(), z, atol=.1)
    norm.reset_parameters()
    assert all(v.equal(start.state_dict()[k]) for k,v in norm.state_dict().items())

@pytest.mark.parametrize('name', ['shared', 'threshold'])
@pytest.mark.parametrize('options', [dict(affine=False), dict(affine=True)], ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_norms_without_parameters(name, options, training):
    "With and without scale and shift that are 1 and 0 a norm is the same: on its own, before a neuron, as a twin and folded"
    x,T = torch.randn(4, 2, 3, 16, 16, generator=seeded(0)),dict(threshold=2., alpha=.7) if name=='threshold' else {}
    a,b = norms[name](3, **T, **options).train(training),norms[name](3, **T).train(training)
    assert torch.allclose(a(x), b(x), atol=1e-6) and torch.allclose(a.plain(x), b.plain(x), atol=1e-6)
    x.requires_grad_()
    with use('numba'): spikes = [dense(LIF()(o(x))) for o in (a, b)]
    assert spikes[0].equal(spikes[1])
    assert torch.allclose(*(torch.autograd.grad(o.sum(), x)[0] for o in spikes), atol=1e-6)
    assert sum(p.numel() for p in twin(a).parameters())==sum(p.numel() for p in a.parameters())==6*options['affine']
    conv = Conv2d(3, 3, 1)
    with torch.no_grad(): assert torch.allclose(fold(nn.Sequential(conv, a))(x), a.eval()(conv(x)), atol=1e-5)

@pytest.mark.parametrize('name', ['step', 'scaled'])
def test_norms_that_are_their_parameters(name):
    with pytest.raises(ValueError, match='`affine` is False'): norms[name](3, 4, affine=False)
    assert norms[name](3, 4, affine=True)(torch.randn(4, 2, 3, 5, 5)).shape==(4, 2, 3, 5, 5)

@each_norm
def test_twin_of_a_norm(name):
    "torch's norm of the same channels; as many parameters, unless they belong to steps"
    norm = make_norm(name, 5, 3, .5).eval()
    ann,count = twin(norm),lambda m: sum(p.numel() for p in m.parameters())
    assert type(ann) is nn.BatchNorm2d and ann.num_features==5 and not ann.training and ann.weight.equal(torch.ones(5)) and ann.bias.equal(torch.zeros(5))
    assert count(ann)==10 and count(norm)=={'step': 15, 'scaled': 30}.get(name, 10)
    x = torch.randn(2, 5, 3, 3)
    assert ann(x).equal(nn.BatchNorm2d(5).eval()(x)) and type(twin(norm.double()).weight.sum().item()) is float and twin(norm.double()).weight.dtype==torch.float64

def test_silence_is_no_trouble():
    "Steps without any current, as the first ones of a deep layer are"
    for name in norms:
        norm,x = make_norm(name, 2, 3),torch.zeros(3, 2, 2, 4, 4).requires_grad_()
        y = norm(x); y.sum().backward()
        assert not y.any() and x.grad.isfinite().all()

def normed(name, T=6):
    kinds = [make_norm(name, c, T, .7) for c in (20, 33)]
    return lee_init(nn.Sequential(Poisson(T), Conv2d(2, 20, 3, padding=1, bias=False), kinds[0], LIF(), Conv2d(20, 33, 3, 2, 1, bias=False), kinds[1], LIF(.9, .7), Flatten(), Linear(33*36, 5), Integrator()))

@each_norm
@pytest.mark.parametrize('training', [True, False])
def test_norms_by_events(name, training):
    torch.manual_seed(0)
    y,grads = assert_same(randomised(normed(name)).train(training), images(3, 2, 12, 12)*2-1, tol=2e-5)
    assert all(g.norm()>0 for g in grads.values())

@each_norm
def test_the_synapse_before_a_norm_and_the_neuron_behind_work_by_events(name):
    net = normed(name)
    with use('numba'):
        s = to_train(net[0](images(2, 2, 12, 12)))
        current = net[1](s)
        assert type(current) is Current and type(net[2](current)) is Current and type(net[3](net[2](current))) is Train

# Folding

@st.composite
def foldable(draw):
    "A random net of blocks, plain and residual, with a norm that folds behind some of its convolutions; and spikes for it"
    pick = lambda *o: draw(st.sampled_from(o))
    torch.manual_seed(draw(seeds))
    T,C,layers = draw(st.integers(2, 8)),2,[]
    conv = lambda c, o, stride=1: nn.Sequential(Conv2d(c, o, 3, stride, 1, bias=pick(True, False)), *[m for m in [make_norm(pick('shared', 'threshold', None), o, T, .7)] if m])
    for _ in range(draw(st.integers(1, 3))):
        o,stride = pick(C, 5),pick(1, 2)
        short = nn.Sequential(Conv2d(C, o, 1, stride, bias=False), BatchNorm2d(o)) if pick(True, False) or o!=C else Subsample(stride) if stride>1 else None
        layers.append(Residual(nn.Sequential(*conv(C, o, stride), LIF(.9), conv(o, o)), LIF(.8, .7), short) if pick(True, False) else nn.Sequential(*conv(C, o, stride), LIF(.95), Dropout(.5)))
        C = o
    return randomised(nn.Sequential(*layers)), poisson(images(2, 2, 9, 9, seed=draw(seeds)), T, seeded(draw(seeds)))

@few
@given(foldable())
def test_fold_changes_no_spike(made):
    net,x = made
    net,x = net.double().eval(),x.double()
    before,slim = copy.deepcopy(net.state_dict()),fold(net.train())
    assert not slim.training and not any(isinstance(m, nn.BatchNorm2d) for m in slim.modules())
    a,b = (spike_trains(m, x) for m in (net.eval(), slim))
    assert list(a)==list(b) and all(a[n].equal(b[n]) for n in a)
    assert all(v.equal(before[k]) for k,v in net.state_dict().items())

def test_fold_by_events():
    "In single precision a sum near the threshold may round to its other side: every layer is fed the same train, and hardly any spike differs"
    torch.manual_seed(0)
    net = randomised(nn.Sequential(Conv2d(1, 20, 5, bias=False), BatchNorm2d(20), LIF(), Conv2d(20, 40, 5, bias=False), ThresholdBatchNorm2d(40, .8), LIF(threshold=.8))).eval()
    slim,s,spikes,differ = fold(net),poisson(images(16, 1, 28, 28)*.5, 25, seeded(0)),0,0
    assert slim[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), use('numba'):
        for i in (0, 3):
            want,got = (dense(m[i:i+3](to_train(s))) for m in (net, slim))
            spikes,differ,s = spikes+want.sum().item(),differ+(want!=got).sum().item(),want
    assert spikes>10**5 and differ < 1e-5*spikes

class BatchNorm1d(OverTime, nn.BatchNorm1d): shape,size = '[T, B, F]',('num_features', 2)

def test_fold_into_a_linear_layer():
    torch.manual_seed(0)
    net,x = nn.Sequential(Linear(6, 4), BatchNorm1d(4), LIF()).double(),torch.rand(9, 5, 6, dtype=torch.float64)
    for _ in range(3): net(x)
    assert torch.allclose(fold(net)[0](x), net.eval()[:2](x), atol=1e-12) and fold(net)(x).equal(net(x))

def test_fold_of_a_twin():
    torch.manual_seed(0)
    ann,x = randomised(twin(normed('shared'))).double().eval(),images(3, 2, 12, 12).double()
    assert torch.allclose(fold(ann)(x), ann(x), atol=1e-10)
    ann = twin(nn.Sequential(Conv2d(2, 3, 3), ThresholdBatchNorm2d(3, .1))).double().eval() # the twin knows no threshold
    assert torch.allclose(fold(ann)(x), ann(x), atol=1e-10)

def test_fold_of_a_convolution_that_is_used_twice():
    "Each place gets its own copy, and what has no norm keeps the plain one"
    torch.manual_seed(0); conv = Conv2d(3, 3, 3, padding=1)
    net,x = randomised(nn.Sequential(nn.Sequential(conv, BatchNorm2d(3)), nn.Sequential(conv, BatchNorm2d(3)), conv)).double().eval(),torch.rand(2, 2, 3, 5, 5, dtype=torch.float64)
    assert torch.allclose(fold(net)(x), net(x), atol=1e-12) and fold(net)[2].weight.equal(conv.weight)

def test_merged_is_both():
    torch.manual_seed(0)
    for norm in (BatchNorm2d(4), BatchNorm2d(4, affine=False), ThresholdBatchNorm2d(4, .3, 2.)):
        conv,x = Conv2d(6, 4, 3, groups=2).double(),torch.rand(3, 2, 6, 5, 5, dtype=torch.float64)
        randomised(norm).double().eval()
        assert torch.allclose(merged(conv, norm)(x), norm(conv(x)), atol=1e-12)

@pytest.mark.parametrize('net,why', [
    (nn.Sequential(Conv2d(1, 2, 3), StepBatchNorm2d(2, 4)), "a StepBatchNorm2d, '1', but its scale changes with the step"),
    (nn.Sequential(nn.Sequential(Conv2d(1, 2, 3), ScaledBatchNorm2d(2, 4))), "a ScaledBatchNorm2d, '0.1', but"),
    (nn.Sequential(BatchNorm2d(1), Conv2d(1, 2, 3)), "right before the norm '0'"),
    (nn.Sequential(Conv2d(1, 2, 3), nn.Sequential(BatchNorm2d(2), LIF())), "right before the norm '1.0'"),
    (nn.Sequential(Conv2d(1, 2, 3), AvgPool2d(2), BatchNorm2d(2)), "right before the norm '2'"),
    (Residual(Conv2d(1, 1, 1), LIF(), BatchNorm2d(1)), "right before the norm 'shortcut'"),
    (nn.Sequential(Conv2d(1, 2, 3), BatchNorm2d(2, track_running_stats=False)), "'1' keeps no running statistics")])
def test_what_does_not_fold(net, why):
    with expect_fail(ValueError, contains=why): fold(net)

# Residual blocks

def resnet(T=8, norm=None):
    "A block of each kind: convolution, identity, strided identity"
    def body(c, o, stride=1):
        some = [m for m in [make_norm(norm, o, T)] if m]
        return nn.Sequential(Conv2d(c, o, 3, stride, 1, bias=False), *some, LIF(), Conv2d(o, o, 3, padding=1, bias=False), *copy.deepcopy(some))
    return lee_init(nn.Sequential(Poisson(T), Conv2d(2, 20, 3, padding=1, bias=False), LIF(), Residual(body(20, 33), LIF(), Conv2d(20, 33, 1, bias=False)), Residual(body(33, 33), LIF()),
                                  Residual(body(33, 33, 2), LIF(), Subsample(2)), Flatten(), Linear(33*36, 5), Integrator()), 1.)

@pytest.mark.parametrize('norm', [None, *norms])
def test_residual_nets_by_events(norm):
    torch.manual_seed(0)
    y,grads = assert_same(resnet(norm=norm), images(3, 2, 12, 12)*2-1, tol=5e-5)
    assert all(g.norm()>0 for g in grads.values())

@pytest.mark.parametrize('grad', ['spike_bp', 'straight_through', 'atan'])
@pytest.mark.parametrize('short', ['conv', 'identity', 'strided'])
def test_gradients_of_a_block_are_autograd_s(short, grad):
    "The block against its equation as a time loop under plain autograd"
    torch.manual_seed(0)
    stride,kw = 1 if short=='identity' else 2,dict(leak=.9, threshold=.5, grad=grad)
    make = dict(conv=lambda: Conv2d(3, 3, 1, 2, bias=False), identity=lambda: None, strided=lambda: Subsample(2))[short]
    block = Residual(nn.Sequential(Conv2d(3, 3, 3, stride, 1), LIF(**kw), Conv2d(3, 3, 3, padding=1)), LIF(**kw), make()).double()
    with torch.no_grad(): [p.mul_(2) for p in block.parameters()]
    x = poisson(images(2, 3, 6, 6), 10, seeded(1)).double().requires_grad_()
    one,_,two = block.body
    want = lif_autograd(two(lif_autograd(one(x), **kw)) + (block.shortcut(x) if short!='strided' else x[:, :, :, ::2, ::2]), **kw)
    got,pull = block(x),torch.randn(want.shape, dtype=torch.float64)
    assert got.equal(want) and 0<want.mean()<1
    for a,b in zip(*(torch.autograd.grad(y, [x, *block.parameters()], pull) for y in (got, want))): assert torch.allclose(a, b, atol=1e-10)

def test_subsampled_train():
    "Either form, with the same values and gradients"
    x = (images(5, 2, 3, 7, 7)<.4).float()
    for stride in (1, 2, 3):
        with use('numba'): s = to_train(x.requires_grad_()); y = Subsample(stride)(s)
        (y*torch.arange(y.numel()).view_as(y)).sum().backward()
        assert y.equal(x[..., ::stride, ::stride]) and x.grad.any(); x.grad = None

def test_a_block_s_twin():
    "Synapses and initial weights stay, neurons become ReLUs; the shortcut meets the body before the ReLU"
    torch.manual_seed(0)
    net = resnet(); ann,x = twin(net),images(3, 2, 12, 12)
    assert ann(x).shape==(3, 5) and not any(isinstance(m, (OverTime, LIF)) for m in ann.modules())
    for (n,p),(m,q) in zip(net.named_parameters(), ann.named_parameters(), strict=True): assert n==m and p.equal(q) and p is not q
    block = ann[3]; x = torch.rand(2, 20, 6, 6)
    assert block(x).equal((block.body[2](block.body[0](x).relu()) + block.shortcut(x)).relu())

def test_a_block_is_heard():
    "Its layers fire in the order in which they work, and `watch` hears them"
    torch.manual_seed(0)
    net,x,heard = resnet(),images(2, 2, 12, 12),[]
    with use('torch'), watch(net, lambda n, *_: heard.append(n)): net(x)
    names = ['2'] + [f'{i}.{o}' for i in (3, 4, 5) for o in ('body.1', 'neuron')]
    with use('numba'): assert heard==names==list(spike_trains(net, x))[1:]

# Dropout

@few
@given(st.sampled_from([.1, .25, .5, .9]), shapes, seeds, st.booleans())
def test_a_mask_lasts_a_window(p, shape, seed, sparse):
    "Each unit is there at all steps, scaled, or at none; in either form, gradients too"
    torch.manual_seed(seed)
    x = (torch.rand(shape)<.6).float().requires_grad_()
    with use('numba' if sparse else 'torch'):
        y = Dropout(p)(to_train(x) if sparse else x)
        assert type(y) is (Train if sparse else torch.Tensor)
        y = dense(y); y.sum().backward()
    there = y.detach().amax(0)>0
    assert torch.allclose(y, there*x/(1-p)) and torch.allclose(x.grad*x, there*x/(1-p))

def test_masks_are_drawn_anew():
    "For each image and call, a share p of all units; the mean stays"
    torch.manual_seed(0)
    x,drop = torch.ones(3, 40, 10, 8, 8),Dropout(.3)
    y = drop(x)
    assert abs((y==0).float().mean()-.3)<.01 and abs(y.mean()-1)<.015
    assert len({tuple(o.flatten().tolist()) for o in y[0]})==40
    assert not drop(x).equal(y)

def test_dropout_is_off_in_eval():
    with use('numba'):
        for x in (images(4, 2, 3, 5, 5), to_train((images(4, 2, 3, 5, 5)<.3).float())): assert Dropout(.5).eval()(x) is x and Dropout(0)(x) is x
    with expect_fail(ValueError, contains='probability'): Dropout(1.5)
