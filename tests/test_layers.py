"""Norms are the norms they are named after, folding changes no spike, residual blocks are what they say,
a mask lasts a window: for any sizes; and neurons of one's own are neurons."""
import copy
import pytest, torch
from fastcore.test import expect_fail
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
from same import images, normed, randomised, resnet
from snnkit.core import seeded
from snnkit.encoding import direct, poisson
from snnkit.layers import (IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear, MaxPool2d,
                           Neuron, OverTime, PLIF, Poisson, Residual, ScaledBatchNorm2d, StepBatchNorm2d, Subsample,
                           ThresholdBatchNorm2d, dense, fold, make_norm, merged, norms, spike_trains, unchanged, use,
                           watch)
from snnkit.models import lee_init, lenet, twin, vgg9
from snnkit.spikebp import fire, lif_autograd, surrogates

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 10**6)
each_norm = pytest.mark.parametrize('name', norms)

# Over time

@pytest.mark.parametrize('layer,shape', [
    (Conv2d(2, 4, 3, padding=1), (3, 2, 6, 6)),
    (Conv2d(2, 4, 3, stride=2, bias=False), (3, 2, 7, 6)),
    (Linear(5, 4), (3, 5))], ids=str)
@pytest.mark.parametrize('mode', ['torch', 'auto'])
def test_a_constant_current_is_computed_once(layer, shape, mode):
    "The same current at every step and the same gradients, from the work of one step"
    x,pull,found = torch.rand(shape, generator=seeded(1), requires_grad=True),None,[]
    for steps in (x.expand(5, *shape), torch.stack([x]*5)):
        with use(mode): y = dense(layer(steps))
        if pull is None: pull = torch.randn(y.shape, generator=seeded(2))
        found.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], pull)])
    for a,b in zip(*found): assert torch.allclose(a, b, atol=1e-5)
    seen = []
    with use('torch'):
        layer.register_forward_hook(lambda m, args, y: seen.append(args[0].shape))
        assert dense(layer(direct(x.detach(), 5))).stride(0)==0 and seen==[(5, *shape)] # a hook sees all of it

# Norms

class Reference(nn.Module):
    "The equations, in plain torch: x [T, B, C, H, W] -> the same"
    def __init__(self, name, norm):
        super().__init__()
        self.name,self.norm = name,norm
    def forward(self, x):
        n,dims = self.norm,(1, 3, 4) if self.name=='step' else (0, 1, 3, 4)
        wide = lambda o: o.view(-1, 1, n.num_features, 1, 1)
        if n.training: mean,var = x.mean(dims, keepdim=True),x.var(dims, unbiased=False, keepdim=True)
        else: mean,var = wide(n.running_mean),wide(n.running_var)
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
    for o in ('running_mean', 'running_var'):
        assert torch.allclose(getattr(norm, o), torch.cat([getattr(n, o) for n in plain]), atol=1e-6)
    assert norm.num_batches_tracked==3

@each_norm
def test_what_torch_does_to_a_norm(name):
    "eps and momentum, copies, state, types, half precision, and a fresh start"
    torch.manual_seed(0)
    own = dict(num_steps=4) if name in ('step', 'scaled') else {}
    start = norms[name](3, **own, eps=.1, momentum=.3)
    norm,x = randomised(copy.deepcopy(start)),torch.randn(4, 2, 3, 5, 5)
    assert (norm.eps, norm.momentum)==(.1, .3) and 'eps=0.1' in repr(norm)
    other = norms[name](3, **own, eps=.1)
    other.load_state_dict(norm.state_dict())
    norm.eval()
    other.eval()
    y = norm(x)
    assert other(x).equal(y) and copy.deepcopy(norm)(x).equal(y)
    assert torch.allclose(copy.deepcopy(norm).double()(x.double()).float(), y, atol=1e-5)
    assert norms[name](3, **own, dtype=torch.float64)(x.double()).dtype==torch.float64
    conv = Conv2d(3, 3, 1)
    z = norm(conv(x))
    with torch.autocast('cpu', torch.bfloat16): assert torch.allclose(norm(conv(x)).float(), z, atol=.1)
    norm.reset_parameters()
    assert all(v.equal(start.state_dict()[k]) for k,v in norm.state_dict().items())

@pytest.mark.parametrize('name', ['shared', 'threshold'])
@pytest.mark.parametrize('options', [dict(affine=False), dict(affine=True)], ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_norms_without_parameters(name, options, training):
    "With and without a scale of 1 and a shift of 0 a norm is the same: alone, before a neuron, as a twin and folded"
    x = torch.randn(4, 2, 3, 16, 16, generator=seeded(0))
    T = dict(threshold=2., alpha=.7) if name=='threshold' else {}
    a,b = norms[name](3, **T, **options).train(training),norms[name](3, **T).train(training)
    assert torch.allclose(a(x), b(x), atol=1e-6) and torch.allclose(a.plain(x), b.plain(x), atol=1e-6)
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
    assert type(ann) is nn.BatchNorm2d and ann.num_features==5 and not ann.training
    assert ann.weight.equal(torch.ones(5)) and ann.bias.equal(torch.zeros(5))
    assert count(ann)==10 and count(norm)=={'step': 15, 'scaled': 30}.get(name, 10)
    x = torch.randn(2, 5, 3, 3)
    assert ann(x).equal(nn.BatchNorm2d(5).eval()(x))
    weight = twin(norm.double()).weight
    assert type(weight.sum().item()) is float and weight.dtype==torch.float64

def test_silence_is_no_trouble():
    "Steps without any current, as the first ones of a deep layer are"
    for name in norms:
        norm,x = make_norm(name, 2, 3),torch.zeros(3, 2, 2, 4, 4).requires_grad_()
        y = norm(x)
        y.sum().backward()
        assert not y.any() and x.grad.isfinite().all()

# Folding

@st.composite
def foldable(draw):
    "A random net of blocks, plain and residual, with a norm that folds behind some convolutions; and spikes for it"
    pick = lambda *o: draw(st.sampled_from(o))
    torch.manual_seed(draw(seeds))
    T,C,layers = draw(st.integers(2, 8)),2,[]
    def conv(c, o, stride=1):
        synapse = Conv2d(c, o, 3, stride, 1, bias=pick(True, False))
        norm = make_norm(pick('shared', 'threshold', None), o, T, .7)
        return nn.Sequential(synapse, norm) if norm else nn.Sequential(synapse)
    for _ in range(draw(st.integers(1, 3))):
        o,stride = pick(C, 5),pick(1, 2)
        if pick(True, False) or o!=C: short = nn.Sequential(Conv2d(C, o, 1, stride, bias=False), BatchNorm2d(o))
        else: short = Subsample(stride) if stride>1 else None
        if pick(True, False):
            body = nn.Sequential(*conv(C, o, stride), LIF(.9), conv(o, o))
            layers.append(Residual(body, LIF(.8, .7), short))
        else: layers.append(nn.Sequential(*conv(C, o, stride), LIF(.95), Dropout(.5)))
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
    norm = ThresholdBatchNorm2d(3, .1)                    # the twin knows no threshold
    ann = twin(nn.Sequential(Conv2d(2, 3, 3), norm)).double().eval()
    assert torch.allclose(fold(ann)(x), ann(x), atol=1e-10)

def test_fold_of_a_convolution_that_is_used_twice():
    "Each place gets its own copy, and what has no norm keeps the plain one"
    torch.manual_seed(0)
    conv = Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(nn.Sequential(conv, BatchNorm2d(3)), nn.Sequential(conv, BatchNorm2d(3)), conv)
    net,x = randomised(net).double().eval(),torch.rand(2, 2, 3, 5, 5, dtype=torch.float64)
    assert torch.allclose(fold(net)(x), net(x), atol=1e-12) and fold(net)[2].weight.equal(conv.weight)

def test_merged_is_both():
    torch.manual_seed(0)
    for norm in (BatchNorm2d(4), BatchNorm2d(4, affine=False), ThresholdBatchNorm2d(4, .3, 2.)):
        conv,x = Conv2d(6, 4, 3, groups=2).double(),torch.rand(3, 2, 6, 5, 5, dtype=torch.float64)
        randomised(norm).double().eval()
        assert torch.allclose(merged(conv, norm)(x), norm(conv(x)), atol=1e-12)

@pytest.mark.parametrize('net,why', [
    (nn.Sequential(Conv2d(1, 2, 3), StepBatchNorm2d(2, 4)),
     "a StepBatchNorm2d, '1', but its scale changes with the step"),
    (nn.Sequential(nn.Sequential(Conv2d(1, 2, 3), ScaledBatchNorm2d(2, 4))), "a ScaledBatchNorm2d, '0.1', but"),
    (nn.Sequential(BatchNorm2d(1), Conv2d(1, 2, 3)), "right before the norm '0'"),
    (nn.Sequential(Conv2d(1, 2, 3), nn.Sequential(BatchNorm2d(2), LIF())), "right before the norm '1.0'"),
    (nn.Sequential(Conv2d(1, 2, 3), AvgPool2d(2), BatchNorm2d(2)), "right before the norm '2'"),
    (Residual(Conv2d(1, 1, 1), LIF(), BatchNorm2d(1)), "right before the norm 'shortcut'"),
    (nn.Sequential(Conv2d(1, 2, 3), BatchNorm2d(2, track_running_stats=False)), "'1' keeps no running statistics")])
def test_what_does_not_fold(net, why):
    with expect_fail(ValueError, contains=why): fold(net)

# Residual blocks

@pytest.mark.parametrize('grad', ['spike_bp', 'straight_through', 'atan'])
@pytest.mark.parametrize('short', ['conv', 'identity', 'strided'])
def test_gradients_of_a_block_are_autograd_s(short, grad):
    "The block against its equation as a time loop under plain autograd"
    torch.manual_seed(0)
    stride,kw = 1 if short=='identity' else 2,dict(leak=.9, threshold=.5, grad=grad)
    make = dict(conv=lambda: Conv2d(3, 3, 1, 2, bias=False), identity=lambda: None, strided=lambda: Subsample(2))[short]
    body = nn.Sequential(Conv2d(3, 3, 3, stride, 1), LIF(**kw), Conv2d(3, 3, 3, padding=1))
    block = Residual(body, LIF(**kw), make()).double()
    with torch.no_grad(): [p.mul_(2) for p in block.parameters()]
    x = poisson(images(2, 3, 6, 6), 10, seeded(1)).double().requires_grad_()
    one,_,two = block.body
    past = x[:, :, :, ::2, ::2] if short=='strided' else block.shortcut(x)
    want = lif_autograd(two(lif_autograd(one(x), **kw)) + past, **kw)
    got,pull = block(x),torch.randn(want.shape, dtype=torch.float64)
    assert got.equal(want) and 0<want.mean()<1
    grads = [torch.autograd.grad(y, [x, *block.parameters()], pull) for y in (got, want)]
    for a,b in zip(*grads): assert torch.allclose(a, b, atol=1e-10)

def test_a_block_s_twin():
    "Synapses and initial weights stay, neurons become ReLUs; the shortcut meets the body before the ReLU"
    torch.manual_seed(0)
    net = resnet()
    ann,x = twin(net),images(3, 2, 12, 12)
    assert ann(x).shape==(3, 5) and not any(isinstance(m, (OverTime, LIF)) for m in ann.modules())
    for (n,p),(m,q) in zip(net.named_parameters(), ann.named_parameters(), strict=True):
        assert n==m and p.equal(q) and p is not q
    block = ann[3]
    x = torch.rand(2, 8, 6, 6)
    assert block(x).equal((block.body[2](block.body[0](x).relu()) + block.shortcut(x)).relu())

def test_a_block_is_heard():
    "Its layers fire in the order in which they work, and `watch` hears them"
    torch.manual_seed(0)
    net,x,heard = resnet(),images(2, 2, 12, 12),[]
    with use('torch'), watch(net, lambda n, *_: heard.append(n)): net(x)
    names = ['2'] + [f'{i}.{o}' for i in (3, 4, 5) for o in ('body.1', 'neuron')]
    with use('torch'): assert heard==names==list(spike_trains(net, x))[1:]

# Dropout

def test_masks_are_drawn_anew():
    "For each image and call, a share p of units is missing at every step, and the others are scaled; the mean stays"
    torch.manual_seed(0)
    x,drop = torch.ones(3, 40, 10, 8, 8),Dropout(.3)
    y = drop(x)
    assert y[1].equal(y[0]) and y[2].equal(y[0]) and set(y.unique().tolist())=={0., torch.tensor(1/.7).item()}
    assert abs((y==0).float().mean()-.3)<.01 and abs(y.mean()-1)<.015
    assert len({tuple(o.flatten().tolist()) for o in y[0]})==40
    assert not drop(x).equal(y)

@few
@given(st.sampled_from([.1, .25, .5, .9]), shapes, seeds)
def test_a_mask_lasts_a_window(p, shape, seed):
    "Each unit is there at all steps, scaled, or at none; gradients too"
    torch.manual_seed(seed)
    x = (torch.rand(shape)<.6).float().requires_grad_()
    y = Dropout(p)(x)
    y.sum().backward()
    there = y.detach().amax(0)>0
    assert torch.allclose(y, there*x/(1-p)) and torch.allclose(x.grad*x, there*x/(1-p))

def test_dropout_is_off_in_eval():
    x = images(4, 2, 3, 5, 5)
    assert Dropout(.5).eval()(x) is x and Dropout(0)(x) is x
    with expect_fail(ValueError, contains='probability'): Dropout(1.5)

# Neurons

currents = torch.randn(12, 3, 4, generator=seeded(0), dtype=torch.float64)

@pytest.mark.parametrize('grad', ['spike_bp', 'straight_through', *surrogates])
@pytest.mark.parametrize('options', [
    dict(),
    dict(leak=.8, reset='subtract'),
    dict(threshold=.5, refractory=2)], ids=str)
def test_lif_by_steps(grad, options):
    "The loop over `step` is the layer: spikes for every rule, gradients for all but spike-BP, which is refused"
    layer = LIF(grad=grad, **options)
    with torch.no_grad(): assert Neuron.plain(layer, currents).equal(layer(currents))
    answers,pull = [],torch.randn(currents.shape, generator=seeded(1), dtype=torch.float64)
    for f in (layer, lambda x: Neuron.plain(layer, x)):
        x = currents.clone().requires_grad_()
        if grad=='spike_bp' and f is not layer:
            with expect_fail(ValueError, contains='not step by step'): f(x)
            return
        f(x).backward(pull)
        answers.append(x.grad)
    assert torch.allclose(*answers, atol=1e-12) and answers[0].any()

@pytest.mark.parametrize('grad', surrogates)
@pytest.mark.parametrize('options', [dict(), dict(reset='subtract'), dict(threshold=.5, refractory=2)], ids=str)
def test_a_learned_leak(grad, options):
    "Spikes and gradients of currents are a LIF's with that leak; the leak's own gradient is that of a written-out loop"
    layer,x = PLIF(.8, grad=grad, **options).double(),currents.clone().requires_grad_()
    pull = torch.randn(currents.shape, generator=seeded(1), dtype=torch.float64)
    layer.w.data.copy_(torch.tensor(.8, dtype=torch.float64).logit())
    gx,gw = torch.autograd.grad((layer(x)*pull).sum(), (x, layer.w))
    fixed = LIF(.8, grad=grad, **options)
    assert layer(x).equal(fixed(x))
    assert torch.allclose(gx, torch.autograd.grad((fixed(x)*pull).sum(), x)[0], atol=1e-12)
    leak = torch.tensor(.8, dtype=torch.float64, requires_grad=True)
    m,asleep,total = torch.zeros(3, 4, dtype=torch.float64),[],0.
    for x_t,p in zip(currents, pull):
        awake = 1-sum(asleep) if options.get('refractory') else 1.
        u = m+awake*x_t
        v = u-layer.threshold
        s = (v>0).double()
        smooth = surrogates[grad](v.detach())*v           # the slope times the distance has the surrogate's gradient
        total = total + (p*awake*smooth).sum()
        m = leak*(u-layer.threshold*awake*s if layer.reset=='subtract' else u*(1-awake*s))
        asleep = [*asleep, awake*s][-2:]
    want = torch.autograd.grad(total, leak)[0]*.8*.2 # of a sigmoid
    assert torch.allclose(gw, want, rtol=1e-9) and gw.abs()>1e-6

def test_a_learned_leak_learns():
    "Towards the leak of the neurons that it is shown"
    x = 2*torch.rand(30, 1, 200, generator=seeded(3))-.5
    want,layer = LIF(.9, reset='subtract')(x),PLIF(.5, reset='subtract')
    opt = torch.optim.Adam(layer.parameters(), .05)
    for _ in range(60):
        opt.zero_grad()
        (layer(x)-want).cumsum(0).square().mean().backward()
        opt.step()
    assert abs(layer.leak.item()-.9)<.03

class Adaptive(Neuron):
    "A neuron of ten lines: its threshold rises with every spike, and it learns its leak"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.))
    def step(self, x, state):
        m,high = (torch.zeros_like(x), torch.ones_like(x)) if state is None else state
        u = m + x
        s = fire(u-high)
        return s, (self.w.sigmoid()*(u-high*s), 1+.9*(high-1)+.2*s)

def test_a_neuron_of_ones_own_is_a_neuron():
    "Looped, heard, cloned, stored; its parameter learns; its twin is a ReLU"
    torch.manual_seed(0)
    net = nn.Sequential(Poisson(8), Conv2d(1, 4, 3), Adaptive(), Flatten(), Linear(4*36, 3), Integrator())
    x = images(2, 1, 8, 8)
    trains = spike_trains(net, x)
    assert list(trains)==['0', '2'] and trains['2'].any() and set(trains['2'].unique().tolist())=={0., 1.}
    net(x).square().sum().backward()
    assert net[2].w.grad.abs()>0
    ann = twin(net)
    assert type(ann[2]) is nn.ReLU and ann(x).shape==(2, 3)
    other = copy.deepcopy(net)
    other.load_state_dict(net.state_dict())
    torch.manual_seed(1)
    y = net(x)
    torch.manual_seed(1)
    assert other(x).equal(y)

def test_a_step_of_ones_own_replaces_the_window():
    "Of a LIF whose subclass overrides `step` the step is computed, and roads are told"
    class Deaf(LIF):
        def step(self, x, state): return torch.zeros_like(x), None
    class Loud(IF):
        def plain(self, x): return torch.ones_like(x)
    assert not Deaf()(currents).any() and Loud()(currents).all()
    assert unchanged(LIF(), LIF) and unchanged(IF(), LIF) and unchanged(LIF(grad='atan'), LIF)
    assert not unchanged(Deaf(), LIF) and not unchanged(Loud(), LIF) and not unchanged(Adaptive(), LIF)
    tweaked = LIF()
    tweaked.plain = lambda x: x
    assert not unchanged(tweaked, LIF)

@pytest.mark.parametrize('out,found', [
    (lambda x: x, 'one tensor of shape (3, 4)'),
    (lambda x: (x, None, None), '(one tensor of shape (3, 4), NoneType, NoneType)'),
    (lambda x: None, 'NoneType'),
    (lambda x: (x[0], None), '(one tensor of shape (4,), NoneType)')])
def test_a_step_must_give_spikes_and_state(out, found):
    class Odd(Neuron):
        def step(self, x, state): return out(x)
    with expect_fail(ValueError, contains=f'`step` of Odd gives {found}'): Odd()(currents)

@pytest.mark.parametrize('option', ['leak', 'threshold'])
@pytest.mark.parametrize('value', [nn.Parameter(torch.tensor(.9)), torch.tensor(.9)], ids=['parameter', 'tensor'])
def test_a_parameter_without_gradient_is_refused(option, value):
    "Where it is given, and where it is set later"
    with expect_fail(ValueError, contains=f'`{option}` is a {type(value).__name__}'): LIF(**{option: value})
    layer = LIF(grad='atan')
    setattr(layer, option, value)
    with expect_fail(ValueError, contains='take a `PLIF`, which learns its leak'): layer(currents)
    if option=='leak':
        with expect_fail(ValueError, contains='no gradient'): Integrator(value)

# Weights, pools, and what is refused

def test_weights_are_contiguous():
    "So they can be stored, strung together and pruned, whoever made the net"
    from safetensors.torch import load, save
    from torch.nn.utils import parameters_to_vector, prune
    folded = fold(nn.Sequential(Conv2d(3, 8, 3), BatchNorm2d(8)))
    for net in (lenet(), vgg9(width=4), twin(vgg9(width=4)), nn.Sequential(Conv2d(3, 8, 3)), folded):
        state = net.state_dict()
        assert all(o.is_contiguous() for o in state.values())
        back = load(save(state))
        assert all(back[k].equal(v) for k,v in state.items())
        assert len(parameters_to_vector(net.parameters()))==sum(p.numel() for p in net.parameters())
        conv = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
        prune.l1_unstructured(conv, 'weight', .5)
        assert (conv.weight==0).float().mean().item()==pytest.approx(.5, abs=.02)

def test_gradients_of_weights_are_contiguous():
    conv = Conv2d(3, 8, 3)
    conv(images(2, 2, 3, 6, 6)).sum().backward()
    assert conv.weight.grad.is_contiguous()

@few
@given(st.integers(1, 5), st.integers(1, 3), st.integers(2, 3), st.integers(1, 2), seeds)
def test_max_pool(T, B, kernel, stride, seed):
    "Spikes in, spikes out: one where any pixel of the window fires; torch's layer at each step; gradients too"
    x = (images(T, B, 2, 7, 7, seed=seed)<.2).float().requires_grad_()
    layer = MaxPool2d(kernel, stride)
    y = layer(x)
    want = torch.stack([nn.MaxPool2d(kernel, stride)(x_t) for x_t in x])
    assert y.equal(want) and set(y.unique().tolist()) <= {0., 1.}
    pull = torch.randn(y.shape, generator=seeded(seed))
    for a,b in zip(*(torch.autograd.grad(o, x, pull) for o in (y, want))): assert a.equal(b)

odd_tensors = [torch.zeros(3), torch.zeros(2, 3).long(), torch.tensor(float('nan'))]
odd = [None, 'x', True, 3, -1, float('nan'), [], [1.], *odd_tensors, nn.ReLU, object()]
inputs = [o for o in odd if not (isinstance(o, torch.Tensor) and o.is_floating_point())]

@pytest.mark.parametrize('make', [
    lambda: Conv2d(3, 4, 3),
    lambda: Linear(3, 2),
    lambda: AvgPool2d(2),
    lambda: MaxPool2d(2),
    Flatten,
    lambda: BatchNorm2d(3),
    lambda: StepBatchNorm2d(3, 4),
    LIF,
    IF,
    Adaptive,
    Integrator,
    lambda: Poisson(3),
    lambda: Dropout(.5)])
def test_layers_refuse_odd_inputs(make):
    layer = make()
    small = [] if isinstance(layer, Poisson) else [torch.zeros(3), torch.tensor(1.)]
    for x in inputs + small:
        with pytest.raises(ValueError, match='`x`'): layer(x)

@pytest.mark.parametrize('f,name,fine', [
    (lambda o: LIF(leak=o), 'leak', ()),
    (lambda o: LIF(threshold=o), 'threshold', (3,)),
    (lambda o: LIF(reset=o), 'reset', ()),
    (lambda o: LIF(refractory=o), 'refractory', (3,)),
    (lambda o: LIF(grad=o), 'grad', (nn.ReLU,)),
    (lambda o: Integrator(o), 'leak', ()),
    (lambda o: Dropout(o), 'p', ()),
    (lambda o: Subsample(o), 'stride', (3,)),
    (lambda o: Poisson(o), 'num_steps', (3,)),
    (lambda o: Poisson(3, o), 'max_rate', ()),
    (lambda o: make_norm('step', 3, o), 'num_steps', (3,)),
    (lambda o: make_norm('shared', o, 3), 'num_features', (3,)),
    (lambda o: make_norm(o, 3, 3), 'name', (None,)),
    (lambda o: ThresholdBatchNorm2d(3, o), 'threshold', (3,)),
    (lambda o: ThresholdBatchNorm2d(3, 1., o), 'alpha', (3,)),
    (lambda o: Residual(o, LIF()), 'body', ()),
    (lambda o: Residual(nn.Identity(), o), 'neuron', ()),
    (lambda o: Residual(nn.Identity(), LIF(), o), 'shortcut', (None,)),
    (lambda o: fold(o), 'model', ()),
    (lambda o: merged(o, BatchNorm2d(3)), 'synapse', ()),
    (lambda o: merged(Conv2d(3, 3, 1), o), 'norm', ()),
    (lambda o: spike_trains(o, torch.zeros(1)), 'model', ()),
    (lambda o: use(o).__enter__(), 'mode', ())], ids=lambda o: o if isinstance(o, str) else '')
def test_odd_arguments(f, name, fine):
    "A ValueError that names the argument, whatever is given"
    for o in odd:
        if any(o is f_ or (type(o) is type(f_) and isinstance(o, int) and o==f_) for f_ in fine): continue
        with pytest.raises(ValueError, match=f'`{name}`'): f(o)

def test_who_has_no_batch_is_told_so():
    for net in (lenet(size=8), nn.Sequential(Poisson(3), Flatten())):
        with expect_fail(ValueError, contains='If this is one image without a batch, give `image[None]`'):
            net(torch.zeros(1, 8, 8))
    with expect_fail(ValueError, contains='`image[None]`'): nn.Sequential(Poisson(3), Linear(5, 2))(torch.zeros(5))
    with expect_fail(ValueError, contains='put an encoder first'): Conv2d(1, 2, 3)(torch.zeros(4, 1, 8, 8))
