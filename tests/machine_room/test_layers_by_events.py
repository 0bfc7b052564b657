"""The layers by events equal the layers as torch computes them: norms, folds, residual blocks, dropout, and the
networks of the models chapter."""
import copy

import pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
from same import assert_same, images, normed, randomised, resnet
from snnkit.core import seeded
from snnkit.encoding import poisson
from snnkit.engine.trains import Current, Train, to_train
from snnkit.layers import (LIF, QCFS, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Gate, MaxPool2d, Neuron, Poisson,
                           Subsample, ThresholdBatchNorm2d, dense, fold, make_norm, norms, spike_trains, use, watch)
from snnkit.models import build, calibrate, lenet, models
from snnkit.spikebp import by_charge
from test_models import rate_for, tiny

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 10**6)
each_norm = pytest.mark.parametrize('name', norms)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4))

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

@pytest.mark.parametrize('grad', by_charge)
@pytest.mark.parametrize('norm', [None, 'shared'])
def test_gradients_of_the_charge(grad, norm):
    torch.manual_seed(0)
    net = lenet(num_classes=3, size=12, num_steps=12, kappa=6., norm=norm, grad=grad, leak=1., reset='subtract')
    y,grads = assert_same(net, images(4, 1, 12, 12), tol=1e-3)
    assert all(g.norm()>0 for g in grads.values())

def test_fold_by_events():
    "A sum near the threshold may round to its other side: layers are fed the same train, and hardly any spike differs"
    torch.manual_seed(0)
    first = Conv2d(1, 20, 5, bias=False), BatchNorm2d(20), LIF()
    second = Conv2d(20, 40, 5, bias=False), ThresholdBatchNorm2d(40, .8), LIF(threshold=.8)
    net = randomised(nn.Sequential(*first, *second)).eval()
    slim,s,spikes,differ = fold(net),poisson(images(16, 1, 28, 28)*.5, 25, seeded(0)),0,0
    assert slim[0].weight.is_contiguous()
    with torch.no_grad(), use('numba'):
        for i in (0, 3):
            want,got = (dense(m[i:i+3](to_train(s))) for m in (net, slim))
            spikes,differ,s = spikes+want.sum().item(),differ+(want!=got).sum().item(),want
    assert spikes>10**5 and differ < 1e-5*spikes

@pytest.mark.parametrize('norm', [None, *norms])
def test_residual_nets_by_events(norm):
    torch.manual_seed(0)
    y,grads = assert_same(resnet(norm=norm), images(3, 2, 12, 12)*2-1, tol=5e-5)
    assert all(g.norm()>0 for g in grads.values())

def test_subsampled_train():
    "Either form, with the same values and gradients"
    x = (images(5, 2, 3, 7, 7)<.4).float()
    for stride in (1, 2, 3):
        with use('numba'):
            s = to_train(x.requires_grad_())
            y = Subsample(stride)(s)
        (y*torch.arange(y.numel()).view_as(y)).sum().backward()
        assert y.equal(x[..., ::stride, ::stride]) and x.grad.any()
        x.grad = None

@few
@given(st.sampled_from([.1, .25, .5, .9]), shapes, seeds, st.booleans())
def test_a_mask_lasts_a_window(p, shape, seed, sparse):
    "Each unit is there at all steps, scaled, or at none; in either form, gradients too"
    torch.manual_seed(seed)
    x = (torch.rand(shape)<.6).float().requires_grad_()
    with use('numba' if sparse else 'torch'):
        y = Dropout(p)(to_train(x) if sparse else x)
        assert type(y) is (Train if sparse else torch.Tensor)
        y = dense(y)
        y.sum().backward()
    there = y.detach().amax(0)>0
    assert torch.allclose(y, there*x/(1-p)) and torch.allclose(x.grad*x, there*x/(1-p))

def test_dropout_is_off_in_eval():
    with use('numba'):
        trains = images(4, 2, 3, 5, 5), to_train((images(4, 2, 3, 5, 5)<.3).float())
        for x in trains: assert Dropout(.5).eval()(x) is x and Dropout(0)(x) is x

def test_a_constant_current_by_events():
    "Computed for one step, it is what every step would give, with the gradients of all"
    layer,x = Conv2d(2, 4, 3, padding=1),images(3, 2, 6, 6).requires_grad_()
    found = []
    for steps in (x.expand(5, *x.shape), torch.stack([x]*5)):
        with use('numba'): y = dense(layer(steps))
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for a,b in zip(*found): assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)

@each_norm
def test_neurons_read_through_a_norm(name):
    "They fire as behind torch's norm, and the running statistics are the same"
    torch.manual_seed(0)
    current = torch.randn(6, 4, 3, 16, 16)
    a,b = make_norm(name, 3, 6, .5),make_norm(name, 3, 6, .5)
    with torch.no_grad(), use('numba'): spikes = dense(LIF(threshold=.5)(a(current)))
    with torch.no_grad(): ties = (spikes!=LIF(threshold=.5)(b.plain(current))).float().mean()
    assert 0<spikes.mean()<1 and ties<1e-4 # where rounding decides
    assert torch.allclose(a.running_mean, b.running_mean, atol=1e-6)
    assert torch.allclose(a.running_var, b.running_var, atol=1e-5)

@pytest.mark.parametrize('kind', ['shared', 'threshold'])
@pytest.mark.parametrize('training', [True, False])
def test_norms_without_parameters_by_events(kind, training):
    x = torch.randn(4, 2, 3, 16, 16, generator=seeded(0)).requires_grad_()
    options = dict(threshold=2., alpha=.7) if kind=='threshold' else {}
    a,b = (norms[kind](3, affine=affine, **options).train(training) for affine in (False, True))
    with use('numba'): spikes = [dense(LIF()(o(x))) for o in (a, b)]
    assert spikes[0].equal(spikes[1]) and spikes[0].any()
    assert torch.allclose(*(torch.autograd.grad(o.sum(), x)[0] for o in spikes), atol=1e-6)

def test_a_block_is_heard_by_events():
    "Hooks hear the same layers in the same order"
    torch.manual_seed(0)
    net,x,heard = resnet(),images(2, 2, 12, 12),[]
    with use('torch'), watch(net, lambda n, *_: heard.append(n)): net(x)
    with use('numba'): assert heard==list(spike_trains(net, x))[1:]

@pytest.mark.parametrize('name', [o for o in models if o!='lenet'])
def test_events_give_the_same_spikes(name):
    net,x = tiny(name, leak=.75)
    calibrate(net, x, rate_for(name))
    with torch.no_grad():
        for p in net.parameters(): p.copy_((p*64).round()/64) # sums are exact in every order
    trains = []
    for mode in ('numba', 'torch'):
        torch.manual_seed(0)
        with use(mode): trains.append(spike_trains(net, x))
    assert len(trains[0])==sum(isinstance(m, (Neuron, Poisson)) for m in net.modules())
    for n,s in trains[0].items(): assert s.equal(trains[1][n]) and s.any(), n

def test_a_max_pool_of_a_sparse_train():
    x = (images(5, 2, 3, 8, 8)<.2).float()
    a,b = x.clone().requires_grad_(),x.clone().requires_grad_()
    with use('numba'): y = dense(MaxPool2d(2)(to_train(a)))
    z = MaxPool2d(2)(b)
    assert y.equal(z)
    for o in (y, z): (o*torch.arange(o.numel()).view_as(o)).sum().backward()
    assert (a.grad*x).equal(b.grad*x)

def test_a_neuron_of_ones_own_amid_events():
    "It gets a dense current, and what stands before and behind it goes by events as ever"
    class Plain(Neuron):
        def step(self, x, m):
            u = x if m is None else m + x
            s = (u>1).float()
            return s, .5*u*(1-s)
    net = nn.Sequential(Poisson(6), Conv2d(2, 20, 3, bias=False), Plain(), Conv2d(20, 33, 3, bias=False), LIF())
    torch.manual_seed(0)
    for p in net.parameters(): nn.init.normal_(p, 0, .2)
    with torch.no_grad():
        for p in net.parameters(): p.copy_((p*64).round()/64)
    trains = []
    for mode in ('numba', 'torch'):
        torch.manual_seed(1)
        with use(mode): trains.append(spike_trains(net, images(2, 2, 12, 12)))
    for n,s in trains[0].items(): assert s.equal(trains[1][n]) and s.any(), n

@pytest.mark.parametrize('norm', [None, *norms])
@pytest.mark.parametrize('reset', ['zero', 'subtract'])
@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('grad', ['atan', 'spike_bp', 'straight_through'])
def test_gradients_in_bfloat16(norm, reset, last, grad):
    "What the kernels make of currents in bfloat16 is what torch makes of the same currents in float32, rounded"
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 9, 7)
    if last: x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    g,neurons,found = torch.randn(x.shape),LIF(leak=.9, threshold=.5, reset=reset, grad=grad),[]
    first = randomised(nn.Sequential(make_norm(norm, 32, 4, .5))) if norm else nn.Identity()
    for kind,mode in (torch.bfloat16, 'numba'), (torch.float32, 'torch'):
        layer = copy.deepcopy(first)
        current = x.bfloat16().to(kind).requires_grad_()
        with use(mode): s = dense(neurons(layer(current)))
        grads = torch.autograd.grad(s, [current, *layer.parameters()], g.bfloat16().to(kind))
        assert s.dtype==current.dtype
        found.append([s.detach().float(), *(o.float() for o in grads)])
    (s,*ours),(their_s,*theirs) = found
    assert 0<s.mean()<1 and (s!=their_s).float().mean()<1e-3 # where rounding decides
    for a,b in zip(ours, theirs): assert (a-b).norm()<.02*b.norm()

@pytest.mark.parametrize('norm', [None, 'shared', 'step'])
@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16])
def test_the_rate_by_the_kernels(norm, kind):
    "Spikes and gradients as torch gives them; the gradient of the currents is one step for all"
    if norm=='step' and kind==torch.bfloat16: return # torch computes it
    torch.manual_seed(0)
    x = torch.randn(4, 3, 9, 7, 32).permute(0, 1, 4, 2, 3)
    neurons,found = LIF(leak=1, threshold=.5, reset='subtract', grad='rate'),[]
    g = torch.randn(x.shape[1:]).expand(x.shape)
    first = randomised(nn.Sequential(make_norm(norm, 32, 4, .5))) if norm else nn.Identity()
    for other,mode in (kind, 'numba'), (torch.float32, 'torch'):
        layer = copy.deepcopy(first)
        current = x.to(kind).to(other).requires_grad_()
        with use(mode): s = dense(neurons(layer(current)))
        of_current,*grads = torch.autograd.grad(s, [current, *layer.parameters()], g.to(kind).to(other))
        assert of_current.stride(0)==0 or norm=='step'
        found.append([s.detach().float(), of_current.float(), *(o.float() for o in grads)])
    (s,*ours),(their_s,*theirs) = found
    assert 0<s.mean()<1 and (s!=their_s).float().mean()<1e-3
    for a,b in zip(ours, theirs): assert (a-b).norm()<(.02 if kind==torch.bfloat16 else 1e-4)*b.norm()

@pytest.mark.parametrize('options', [dict(), dict(bias=False), dict(groups=2), dict(stride=2, padding=(1, 2))])
def test_a_gradient_that_is_the_same_at_every_step(options):
    "A convolution goes back through one step, and gives what it gives for all steps"
    torch.manual_seed(0)
    conv,x = Conv2d(4, 6, 3, **options),torch.randn(5, 2, 4, 9, 8, requires_grad=True)
    with use('torch'): y = conv(x)
    g = torch.randn(y.shape[1:]).expand(y.shape)
    one,each = (torch.autograd.grad(y, [x, *conv.parameters()], o, retain_graph=True) for o in (g, g.clone()))
    assert one[0].stride(0)==0 and each[0].stride(0)>0
    for a,b in zip(one, each): assert torch.allclose(a, b, atol=1e-4)

dense_layers = Conv2d(20, 16, 3),BatchNorm2d(20),nn.Sequential(Conv2d(20, 16, 3), BatchNorm2d(16))

@pytest.mark.parametrize('layer', dense_layers)
def test_torch_computes_for_a_sparse_train(layer):
    "What events would not pay for: the gradient finds its way to the train"
    s = (images(6, 2, 20, 9, 9)<.9).float()
    found = []
    for mode in ('auto', 'torch'):
        x = s.clone().requires_grad_()
        with use(mode): y = dense(layer(to_train(x) if mode=='auto' else x))
        found.append([y.detach(), *torch.autograd.grad((y*y).sum(), [x, *layer.parameters()])])
    for a,b in zip(*found):
        keep = s>0 if a.shape==s.shape else torch.ones_like(a) # a train's gradient is that of its spikes
        assert torch.allclose(a*keep, b*keep, rtol=1e-3, atol=1e-3)

def test_a_constant_image_gets_the_sum_of_its_gradients():
    "Whether these are the same at every step or not"
    torch.manual_seed(0)
    conv,x = Conv2d(2, 3, 3),torch.randn(2, 2, 6, 6)
    for g in torch.randn(5, 2, 3, 4, 4), torch.randn(2, 3, 4, 4).expand(5, -1, -1, -1, -1):
        with use('torch'): ways = conv(x.expand(5, -1, -1, -1, -1)),conv(torch.stack([x]*5))
        a,b = (torch.autograd.grad(y, conv.weight, g)[0] for y in ways)
        assert torch.allclose(a, b, atol=1e-4)

def test_bfloat16_of_every_kind_of_neuron():
    "Channels in rows of other lengths go to torch, as do rules that the kernels lack; nobody need learn from it"
    def fires(channels, **options):
        x = torch.randn(3, 2, channels, 4, 4, generator=seeded(0)).bfloat16().requires_grad_()
        with use('numba'): return dense(LIF(**options)(BatchNorm2d(channels)(x)))
    kinds = dict(grad='atan'),dict(grad='bounded'),dict(refractory=1),dict(grad='straight_through')
    for s in fires(5, grad='atan'), *(fires(16, **o) for o in kinds):
        assert s.dtype==torch.bfloat16 and 0<s.mean()<1
    with torch.no_grad(): assert 0<fires(16, grad='atan').mean()<1

@few
@given(shapes, seeds, st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
def test_stairs_by_the_kernels(shape, seed, kind, last):
    "QCFS in one loop gives torch's numbers, and its gradients"
    torch.manual_seed(seed)
    x = torch.randn(16, *shape[2:]).to(kind)
    if last: x = x.contiguous(memory_format=torch.channels_last)
    g,layer,found = torch.randn(x.shape).to(kind),QCFS(4, scale=1.3),[]
    for other,mode in (kind, 'numba'), (torch.float32, 'torch'):
        z = x.to(other).requires_grad_()
        with use(mode): y = layer(z)
        found.append([o.detach().float() for o in (y, *torch.autograd.grad(y, (z, layer.log_scale), g.to(other)))])
    (y,dz,ds),(their_y,their_dz,their_ds) = found
    assert y.equal(their_y.to(kind).float()) and dz.equal(their_dz)
    assert torch.allclose(ds, their_ds, rtol=1e-3, atol=1e-3)

@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('size', [2, 3, (2, 3)])
def test_pools_of_dense_trains(kind, size):
    "In windows side by side by the kernels, in others by torch: the same means and gradients"
    torch.manual_seed(0)
    x = (torch.rand(4, 3, 12, 12, 64)<.2).to(kind).permute(0, 1, 4, 2, 3)
    found,steps = [],[]
    for options in dict(), dict(stride=1):
        for other,mode in (kind, 'auto'), (torch.float32, 'torch'):
            z = x.to(other).requires_grad_()
            with use(mode): y = AvgPool2d(size, **options)(z)
            steps.append(type(y.grad_fn).__name__)
            g = torch.randn(y.shape, generator=seeded(1)).to(other)
            found.append([y.detach().float(), torch.autograd.grad(y, z, g)[0].float()])
    assert (steps[0]=='_MeanedBackward') == isinstance(size, int) and '_Meaned' not in steps[2]
    for (y,dz),(their_y,their_dz) in (found[:2], found[2:]):
        assert torch.allclose(y, their_y, atol=1e-2 if kind==torch.bfloat16 else 1e-6)
        assert torch.allclose(dz, their_dz, atol=2e-2 if kind==torch.bfloat16 else 1e-6)

@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('size', [2, 3, (2, 3)])
@pytest.mark.parametrize('alike', [False, True])
def test_gates_of_currents(kind, size, alike):
    "In windows side by side by the kernels, in others by torch: the same sums, and the same gradients"
    torch.manual_seed(0)
    x = torch.randn(4, 3, 12, 12, 64).to(kind).permute(0, 1, 4, 2, 3)
    for options,by_kernel in (dict(), isinstance(size, int)), (dict(stride=1), False), (dict(padding=1), False):
        z = x.clone().requires_grad_()
        with use('auto'): y = Gate(size, **options)(z)
        with use('torch'): their_y = Gate(size, **options)(z)
        g = torch.randn(y.shape, generator=seeded(1)).to(kind)
        if alike: g = g[:1].expand_as(g)
        (dz,),(their_dz,) = (torch.autograd.grad(o, z, g) for o in (y, their_y))
        assert (type(y.grad_fn).__name__=='_GrownBackward')==by_kernel
        assert torch.allclose(y, their_y, rtol=0, atol=1e-6) # torch adds in double
        assert torch.allclose(dz.float(), their_dz.float(), atol=5e-2 if kind==torch.bfloat16 else 1e-5)
        assert (dz.stride(0)==0)==alike

def test_the_first_of_equal_sums_has_the_gradient():
    x = torch.ones(2, 8, 16, 16, 32).permute(0, 1, 4, 2, 3).requires_grad_()
    for mode in 'numba','torch':
        with use(mode): dx = torch.autograd.grad(Gate(2)(x).sum(), x)[0]
        assert dx[..., ::2, ::2].eq(1).all() and dx.sum()==dx[..., ::2, ::2].sum()
