"""The engine equals its specification: spikes, gradients and trainings by events are those of the plain layers, for
LeNet and VGG9 whole (for random networks: test_fuzz.py); and what torch does to modules works over the layers."""
import copy,gc,weakref
import numpy as np
import pytest, torch
import torch.distributed as dist
from fastcore.test import expect_fail
from torch import nn
from torch.autograd import Function
from torch.nn.parallel import DistributedDataParallel
from same import answer, assert_close, assert_same, images
from snnkit import layers
from snnkit.engine import memory, roads, trains
from snnkit.core import seeded
from snnkit.encoding import Direct, poisson
from snnkit.engine.trains import Current, Lazy, Train, to_train
from snnkit.layers import (IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear, Poisson,
                           dense, make_norm, mode, norms, spike_trains, use)
from snnkit.models import lee_init, lenet, resnet, vgg9

@torch.no_grad()
def exact(net):
    "Weights on a coarse grid: sums are exact in every order, and no tie is broken by rounding"
    for p in net.parameters(): p.copy_((p*64).round()/64)
    return net

def conv3(a, b): return Conv2d(a, b, 3, padding=1, bias=False)

@pytest.mark.parametrize('kw', [
    dict(),
    dict(reset='subtract'),
    dict(leak=.9, refractory=2),
    dict(leak=.9, threshold=.7),
    dict(grad='atan'),
    dict(grad='triangle', leak=.95)], ids=str)
def test_whole_lenet(kw):
    torch.manual_seed(0)
    y,grads = assert_same(lenet(num_steps=16, **kw), images(5, 1, 28, 28))
    assert all(g.norm()>0 for g in grads.values())

@pytest.mark.parametrize('kw', [dict(kappa=5.), dict(kappa=5., leak=.9, reset='subtract')], ids=str)
def test_whole_vgg9(kw):
    torch.manual_seed(0)
    y,grads = assert_same(vgg9(num_steps=8, norm=None, **kw), images(2, 3, 32, 32)*2-1)
    assert all(g.norm()>0 for g in grads.values())

def test_ties_are_rare():
    "Real weights and leak: a sum in another order may round across the threshold; layers are fed the same train"
    torch.manual_seed(0)
    net,x,spikes,differ = lenet(num_steps=50),images(32, 1, 28, 28)*.3,0,0
    pairs = [(net.conv1, net.lif1), (net.pool1, net.if1), (net.conv2, net.lif2), (net.pool2, net.if2),
             (nn.Sequential(net.flatten, net.fc1), net.lif3)]
    with torch.no_grad():
        s = net.encoder(x)
        for synapse,cell in pairs:
            with use('torch'): want = cell(synapse(s))
            with use('numba'): got = cell(synapse(to_train(s))).dense()
            spikes,differ,s = spikes+want.sum().item(),differ+(want!=got).sum().item(),want
    print(f'{differ} of {spikes:.0f} spikes differ')
    assert spikes>10**6 and differ < 1e-5*spikes

def block():
    class Residual(nn.Module):
        def __init__(self, C):
            super().__init__()
            self.a,self.lif,self.b = conv3(C, C),LIF(),conv3(C, C)
            self.short,self.out = Conv2d(C, C, 1, bias=False),LIF()
        def forward(self, x): return self.out(self.b(self.lif(self.a(x))) + self.short(x))
    first = Poisson(8), conv3(2, 8), LIF()
    blocks = Residual(8), AvgPool2d(2), IF(), Residual(8)
    return lee_init(nn.Sequential(*first, *blocks, Flatten(), Linear(8*36, 5), Integrator()))

def normed():
    first = Poisson(8), conv3(2, 8), BatchNorm2d(8), LIF()
    second = Conv2d(8, 33, 3, 2, 1, bias=False), BatchNorm2d(33), LIF(.9), Dropout(.2)
    return lee_init(nn.Sequential(*first, *second, Flatten(), Linear(33*36, 5), Integrator()))

def dropped():
    first = Poisson(8), conv3(2, 8), LIF(), Dropout(.3)
    second = AvgPool2d(2), IF(), Dropout(.2)
    third = conv3(8, 8), LIF(), Dropout(.5)
    return lee_init(nn.Sequential(*first, *second, *third, Flatten(), Linear(8*36, 5), Integrator()))

def mixed():
    first = Poisson(8), Conv2d(2, 8, 3, bias=False), LIF(grad='atan')
    second = Conv2d(8, 8, 3, bias=False), LIF()
    third = Flatten(), Linear(8*64, 33, bias=False), LIF(grad='sigmoid')
    return lee_init(nn.Sequential(*first, *second, *third, Linear(33, 5, bias=False), Integrator()))

@pytest.mark.parametrize('make', [block, normed, dropped, mixed])
def test_what_stands_between(make):
    "Sums of currents, norms, held masks, and surrogates beside spike-BP"
    torch.manual_seed(0)
    assert_same(make(), images(3, 2, 12, 12)*2-1, tol=2e-5)

@pytest.mark.parametrize('grad', ['spike_bp', 'atan'])
@pytest.mark.parametrize('join', ['spikes', 'currents'])
def test_residual_forms(join, grad):
    "Sums of spikes, and currents that are handed on"
    torch.manual_seed(0)
    net = resnet(((1, 1), (2, 2)), width=8, num_steps=8, size=12, join=join, grad=grad)
    assert_same(net, images(3, 3, 12, 12), tol=2e-5)

def test_direct_input_has_values():
    torch.manual_seed(0)
    first = Direct(6), conv3(2, 20), LIF(.5)
    net = nn.Sequential(*first, Flatten(), Linear(20*144, 5, bias=False), Integrator(.5))
    x = (images(3, 2, 12, 12)*16).round()/16
    assert_same(exact(lee_init(net)), x)

def train(net, x, mode, steps, lr=.1):
    opt,losses = torch.optim.SGD(net.parameters(), lr),[]
    with use(mode):
        for i in range(steps):
            torch.manual_seed(i)
            y = net(x)
            loss = (y - torch.eye(y.shape[1])[torch.arange(len(x))%y.shape[1]]).pow(2).sum()/2/len(x)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return torch.tensor(losses), [p.detach().clone() for p in net.parameters()]

def small():
    first = Poisson(12), conv3(1, 8), LIF(), AvgPool2d(2), IF()
    second = Flatten(), Linear(8*16, 20, bias=False), LIF()
    return lee_init(nn.Sequential(*first, *second, Linear(20, 3, bias=False), Integrator()), 4.)

def test_a_hundred_steps_end_where_the_specification_ends():
    torch.manual_seed(0)
    net,x = small(),images(6, 1, 8, 8)
    (a,p),(b,q) = (train(copy.deepcopy(net), x, m, 100, .3) for m in ('numba', 'torch'))
    assert b[-10:].mean() < .5*b[:10].mean()            # it learns
    assert torch.allclose(a, b, rtol=1e-4)
    for o,r in zip(p, q): assert_close(o, r, 1e-4)

def test_lenet_follows_until_a_tie():
    "Of millions of sums one soon lies within rounding of a threshold; then two trainings are two, at this rate alike"
    torch.manual_seed(0)
    net,x = lenet(num_steps=10),images(8, 1, 28, 28)
    a,b = (train(copy.deepcopy(net), x, m, 100, lr=.02)[0] for m in ('numba', 'torch'))
    assert torch.allclose(a[:5], b[:5], rtol=1e-5)
    assert abs(a[-30:].mean()/b[-30:].mean() - 1) < .1

def test_repetition_is_identical():
    torch.manual_seed(0)
    net,x = lenet(num_steps=10),images(7, 1, 28, 28)
    (a,p),(b,q) = (train(copy.deepcopy(net), x, 'numba', 8) for _ in range(2))
    assert a.equal(b) and all(o.equal(r) for o,r in zip(p, q))

@pytest.mark.parametrize('B', [1, 2, 3, 8])
def test_any_number_of_images(B):
    torch.manual_seed(0)
    assert_same(lenet(num_steps=6), images(B, 1, 28, 28))

# What a lazy tensor promises

def lazies():
    torch.manual_seed(0)
    conv,x = Conv2d(2, 20, 3, padding=1, bias=False),poisson(images(3, 2, 8, 8), 6, seeded(1))
    with use('numba'):
        current = conv(x)
        return conv,x,current,LIF()(current)

def test_kinds():
    conv,x,current,train = lazies()
    assert isinstance(current, Current) and isinstance(train, Train) and isinstance(train, torch.Tensor)
    assert train.pending and train.shape==(6, 3, 20, 8, 8) and train.requires_grad and train.dtype==torch.float32
    assert len(train.values)==train.dense().sum() and not train.pending

looks = [
    lambda s: s.mean(),
    lambda s: s[2],
    lambda s: torch.stack([s, s]),
    lambda s: s+1,
    lambda s: 2*s,
    lambda s: s.flatten(2)@torch.ones(1280, 3),
    lambda s: s.sum(0),
    lambda s: torch.cat([s, s], 1),
    lambda s: s.transpose(0, 1),
    lambda s: nn.functional.max_pool2d(s.flatten(0, 1), 2),
    lambda s: torch.where(s>0, s, -1.),
    lambda s: s.clone()]

@pytest.mark.parametrize('look', looks)
def test_looks_like_a_tensor(look):
    _,_,current,train = lazies()
    for o in (current, train):
        got = look(o)
        assert type(got) is torch.Tensor and torch.equal(got, look(o.dense())) and got.requires_grad

def test_as_numpy_and_text():
    *_,train = lazies()
    assert np.asarray(train.detach()).shape==train.shape
    assert 'tensor' in repr(train) and train.tolist()==train.dense().tolist()

class Tripled(Function):
    "A user's own function, which autograd hands the lazy tensor itself"
    @staticmethod
    def forward(ctx, x): return x*3
    @staticmethod
    def backward(ctx, g): return g*3

@pytest.mark.parametrize('which', [2, 3])
def test_gradient_through_foreign_functions(which):
    grads = []
    for f in (Tripled.apply, lambda o: o.dense()*3):
        o = lazies()
        (f(o[which])*torch.arange(8.)).sum().backward()
        grads.append(o[0].weight.grad)
    assert grads[0].norm()>0
    assert_close(*grads)

def test_gradient_through_foreign_functions_of_shared_weights():
    "A weight that two layers have gets the gradient of each once, whatever lies between"
    torch.manual_seed(0)
    conv,x,found = exact(lee_init(Conv2d(4, 4, 3, padding=1, bias=False), 6.)),random_spikes(6, 3, 4, 8, 8, rate=.4),[]
    for mode in ('numba', 'torch'):
        conv.zero_grad()
        with use(mode):
            s = Tripled.apply(LIF(.5)(conv(LIF(.5)(conv(x)))))
            (s*torch.arange(8.)).sum().backward()
        found.append(conv.weight.grad.clone())
    assert found[1].norm()>0
    assert_close(*found)

def test_gradient_is_owed_at_spikes_only():
    x = poisson(images(2, 3, 6, 6), 5, seeded(0)).requires_grad_()
    (to_train(x).dense()*2).sum().backward()
    assert x.grad.equal(2*(x.detach()!=0))

def test_a_change_of_weights_is_noticed():
    conv,_,current,train = lazies()
    with torch.no_grad(): conv.weight.mul_(2)
    for o in (current, train):
        with expect_fail(ValueError, contains='dense(y)'): o.dense()

def test_changed_data_is_seen():
    conv,x,*_ = lazies()
    with use('numba'), torch.no_grad():
        a = conv(x).dense()
        conv.weight.data.mul_(2)
        assert torch.allclose(conv(x).dense(), 2*a, atol=1e-6)

def test_no_grad_is_remembered():
    conv,x,*_ = lazies()
    with use('numba'):
        with torch.no_grad(): s = LIF()(conv(x))
        assert not s.dense().requires_grad and not s.requires_grad

@pytest.mark.parametrize('x', [torch.zeros(3, 4), torch.zeros(2, 3, 4, dtype=torch.float64), torch.zeros(2, 3, 4, 5)])
def test_other_shapes_and_types_are_refused(x):
    with expect_fail(ValueError, contains='[T, B, C, H, W]'): to_train(x)

def test_modes():
    with expect_fail(ValueError, contains="'auto', 'torch', 'numba', 'triton'"):
        with use('cuda'): pass
    with expect_fail(RuntimeError), use('torch'): raise RuntimeError
    assert mode()=='auto'

def missing(name): raise ModuleNotFoundError(f'No module named {name!r}')

def test_without_numba(monkeypatch):
    "Plain torch where numba is missing, and a clear word where it is asked for"
    monkeypatch.setattr(layers, 'resolve_name', missing)
    layers.found.cache_clear()
    try:
        torch.manual_seed(0)
        net = lenet(num_steps=30)
        x = poisson(images(8, 1, 28, 28), 30, seeded(0))
        assert type(net.lif1(net.conv1(x))) is torch.Tensor
        with expect_fail(ValueError, contains='pip install numba'):
            with use('numba'): pass
    finally: layers.found.cache_clear()

# What torch does to modules

def test_deepcopy_and_state_dict():
    torch.manual_seed(0)
    net,x = lenet(num_steps=6),images(3, 1, 28, 28)
    y,_ = answer(net, x, 'numba')
    other = copy.deepcopy(net)
    assert answer(other, x, 'numba')[0].equal(y)
    fresh = lenet(num_steps=6)
    fresh.load_state_dict(net.state_dict())
    assert answer(fresh, x, 'numba')[0].equal(y)
    assert all(type(v) is torch.Tensor for v in net.state_dict().values())

def test_autocast():
    "Half precision on the CPU: the spikes are exact, the membranes stay in single precision"
    torch.manual_seed(0)
    net,x = lenet(num_steps=6),images(3, 1, 28, 28)
    y,_ = answer(net, x, 'torch')
    for mode in ('auto', 'torch', 'numba'):
        torch.manual_seed(1)
        net.zero_grad()
        with use(mode), torch.autocast('cpu', torch.bfloat16): z = net(x)
        z.float().sum().backward()
        alike = torch.corrcoef(torch.stack([z.float().flatten(), y.flatten()]))[0, 1]
        assert alike>.8 and all(p.grad.norm()>0 for p in net.parameters())

@pytest.mark.slow
def test_compile():
    torch.manual_seed(0)
    first = Conv2d(1, 20, 3, bias=False), LIF(), AvgPool2d(2), IF()
    net = nn.Sequential(*first, Flatten(), Linear(20*9, 4, bias=False), Integrator())
    x = poisson(images(3, 1, 8, 8), 4, seeded(0))
    for p in net.parameters(): nn.init.normal_(p, 0, .5)
    fast = torch.compile(net, backend='aot_eager')
    for mode in ('auto', 'numba'):
        with use(mode):
            y = fast(x)
            y.sum().backward()
            grads = [p.grad.clone() for p in net.parameters()]
            net.zero_grad()
            y2 = net(x)
            y2.sum().backward()
        assert_close(y.detach(), y2.detach())
        for g,p in zip(grads, net.parameters()): assert_close(g, p.grad)
        net.zero_grad()

def test_data_parallel():
    torch.manual_seed(0)
    net,x = lenet(num_steps=6),images(4, 1, 28, 28)
    a,b = answer(nn.DataParallel(net), x, 'numba'),answer(net, x, 'numba')
    assert a[0].equal(b[0])
    for n,g in b[1].items(): assert a[1][f'module.{n}'].equal(g)

def test_distributed_data_parallel(tmp_path):
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        net,x = lenet(num_steps=6),images(4, 1, 28, 28)
        b = answer(net, x, 'numba')
        a = answer(DistributedDataParallel(net), x, 'numba')
        assert a[0].equal(b[0])
        for n,g in b[1].items(): assert_close(a[1][f'module.{n}'], g)
    finally: dist.destroy_process_group()

# The choice

def kinds_at(layer, *shape, limit):
    "What a layer gives for spikes of `shape` at a rate just below `limit` and just above it, learning or not"
    for rate in (.9*limit, 1.1*limit):
        kinds = set()
        for grad in (True, False):
            with torch.set_grad_enabled(grad): kinds.add(type(layer(random_spikes(*shape, rate=rate))))
        yield kinds

def test_the_rate_of_the_input_decides():
    "By events where few fire, densely where many do; in the same way forward, backward and at inference"
    images,features = (20, 8, 2, 20, 20),(40, 8, 400)
    cases = ((Conv2d(2, 16, 3, bias=False), images, .75), (Conv2d(2, 16, 1, bias=False), images, .2),
             (Linear(400, 20, bias=False), features, .1), (Linear(400, 512, bias=False), features, .2))
    for layer,shape,limit in cases:
        assert roads.limit(layer.weight, shape[0]*shape[1])==limit
        assert list(kinds_at(layer, *shape, limit=limit))==[{Current}, {torch.Tensor}]
    wide = Conv2d(64, 64, 3, bias=False)
    assert roads.limit(wide.weight, 100)==.5 and roads.limit(wide.weight, 100, owed=True)==.25

def test_a_linear_layer_for_few_images_is_dense():
    assert type(Linear(2000, 20, bias=False)(random_spikes(20, 4, 2000, rate=.01))) is torch.Tensor

def test_who_computes_is_told():
    "By name, for layers that the engine knows"
    torch.manual_seed(0)
    net,x = lenet(num_steps=20),images(8, 1, 28, 28)*.3
    found = roads.computed_by(net, x)
    assert found['conv1']=='numba' and set(found)>={'encoder', 'lif1', 'pool1', 'flatten', 'fc1'}
    with use('torch'): assert set(roads.computed_by(net, x).values())=={'torch'}

class Another(LIF):
    "A neuron of a user's own, made of ours"
    def plain(self, x): return super().plain(x)*0 + .5

class Doubled(Conv2d):
    def plain(self, x): return super().plain(x)*2

def test_a_layer_with_a_method_of_its_own_is_left_alone():
    x = random_spikes(5, 2, 3, 8, 8)
    with use('numba'):
        assert (Another()(x)==.5).all()
        mine,ours = Doubled(3, 4, 3, bias=False),Conv2d(3, 4, 3, bias=False)
        mine.weight = ours.weight
        assert_close(mine(x).detach(), 2*dense(ours(x)).detach())
        ours.plain = lambda x: 'mine'
        assert ours(x)=='mine'

def test_options_that_were_changed_are_checked():
    "As plain torch does it"
    layer = LIF()
    layer.leak = 2.
    for mode in ('torch', 'numba'):
        with use(mode), expect_fail(ValueError, contains='leak'): layer(random_spikes(5, 2, 3, 8, 8))

def test_nothing_learns_what_was_computed_without_gradients():
    "Where a part of a network is called under no_grad, nothing before and in it gets a gradient, though neurons wait"
    torch.manual_seed(0)
    first = Conv2d(2, 8, 3, bias=False), LIF(.2), AvgPool2d(2), IF(.3)
    net = exact(nn.Sequential(*first, Flatten(), Linear(72, 3), Integrator()))
    x = random_spikes(6, 3, 2, 8, 8, rate=.4)
    for begin in range(5):
        for end in range(begin+1, 6):
            found = []
            for mode in ('torch', 'numba'):
                net.zero_grad()
                with use(mode):
                    y = net[:begin](x)
                    with torch.no_grad(): y = net[begin:end](y)
                    net[end:](y).sum().backward()
                found.append([p.grad is not None for p in net.parameters()])
            assert found[0]==found[1], (begin, end)

def test_a_look_without_gradients_costs_none():
    "Whoever looks at spikes under no_grad or in inference mode leaves them their gradient"
    for look in (torch.no_grad, torch.inference_mode):
        conv,_,_,s = lazies()
        with look(): s.mean()
        (s+0).sum().backward()
        assert conv.weight.grad.norm()>0

def test_a_norm_whose_output_nobody_reads_takes_note():
    "As torch's: statistics move with the call"
    norm,plain,x = BatchNorm2d(4),BatchNorm2d(4),torch.randn(3, 2, 4, 6, 6)
    with use('numba'): norm(x)
    with use('torch'): plain(x)
    assert_close(norm.running_mean, plain.running_mean)

def test_transposed_weights_learn():
    "Weights that lie in memory as nobody expects get their gradient all the same"
    torch.manual_seed(0)
    conv,fc = Conv2d(2, 8, 3, bias=False),Linear(288, 3, bias=False)
    net = exact(lee_init(nn.Sequential(conv, LIF(.2), Flatten(), fc, Integrator(.5)), 6.))
    conv.weight = nn.Parameter(conv.weight.detach().transpose(0, 1).contiguous().transpose(0, 1))
    fc.weight = nn.Parameter(fc.weight.detach().t().contiguous().t())
    assert_same(net, random_spikes(6, 3, 2, 8, 8, rate=.4))

def test_small_work_stays_dense(): assert type(LIF()(Conv2d(1, 4, 3)(torch.ones(4, 2, 1, 8, 8)))) is torch.Tensor

def random_spikes(T, B, *shape, rate=.1): return (torch.rand(T, B, *shape, generator=seeded(5))<rate).float()

def wide(a, b, kernel, size, stride, reset, after):
    "Spikes enter a convolution wide enough that its backward pass works in planes of 16 channels"
    torch.manual_seed(0)
    mid = dict(nothing=[], pool=[AvgPool2d(2), IF(.5, reset=reset)], norm=[])[after]
    norm = [BatchNorm2d(b)] if after=='norm' else []
    second = Conv2d(a, b, kernel, stride, kernel//2, bias=False), *norm, LIF(.3, reset=reset)
    net = nn.Sequential(conv3(1, a), LIF(.3), *second, *mid)
    with torch.no_grad():
        for m in net:
            if isinstance(m, Conv2d): m.weight.copy_(torch.randint(-8, 17, m.weight.shape, generator=seeded(1))/64)
    return net, random_spikes(4, 3, 1, size, size, rate=.3)

@pytest.mark.parametrize('reset', ['zero', 'subtract'])
@pytest.mark.parametrize('after', ['nothing', 'pool', 'norm'])
@pytest.mark.parametrize('a,b,kernel,size,stride', [
    (5, 50, 5, 14, 1),
    (3, 100, 3, 12, 1),
    (3, 64, 3, 12, 1),
    (2, 33, 3, 36, 2),
    (2, 128, 4, 13, 1)])
def test_gradients_in_planes_of_channels(a, b, kernel, size, stride, after, reset):
    net,x = wide(a, b, kernel, size, stride, reset, after)
    with use('numba'): syn = net[2](net[1](net[0](x))).synapse
    assert syn.parts[0].g.pitch==16 and syn.parts[-1].end==b
    tol = 3e-5 if after=='norm' else 1e-5 # torch's norm in single precision is 1.5e-5 off itself, the engine's < 1e-6
    assert_same(net, x, tol)

def test_planes_and_the_rest_are_all_channels():
    from snnkit.engine.events import geometry, parts
    for O in range(1, 200):
        p = parts(geometry(28, 28, 3, 5, 5, O, 1, 2, 2))
        assert [p[0].begin, p[-1].end]==[0, O]
        assert all(q.begin==r.end for r,q in zip(p, p[1:])) and all(o.begin<o.end for o in p)

def test_only_active_features_are_moved():
    torch.manual_seed(0)
    x = random_spikes(5, 4, 300, rate=.4)
    x[:, :, 20:] = 0
    net = nn.Sequential(Linear(300, 130, bias=False), LIF(.2), Linear(130, 3, bias=False), Integrator())
    with use('numba'): assert net[0](x).synapse.g.C==20
    assert_same(net, x)
    assert_same(net, torch.zeros_like(x))

@pytest.mark.parametrize('shape', [(1, 28, 28), (3, 9, 7), (70, 6, 6), (500,)])
def test_coins_fall_as_in_poisson(shape):
    x = torch.rand(6, *shape, generator=seeded(0)).mul(2).sub(1).clamp(0, 1) # half of it black
    with use('numba'): s = Poisson(9)(x, seeded(3))
    assert type(s) is Train
    a,b = seeded(3),seeded(3)
    assert torch.equal(dense(s), poisson(x, 9, a))
    with use('numba'): Poisson(9)(x, b)
    assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))

def test_coins_for_what_is_not_sparse():
    "Signed intensities, a gradient that is asked for, and plain torch give the dense train"
    x = torch.rand(2, 1, 8, 8)
    for mode,v in (('numba', -x), ('numba', x.clone().requires_grad_()), ('torch', x)):
        with use(mode): assert type(Poisson(4)(v, seeded(0))) is torch.Tensor
    for bad in (x*2, x+float('nan')):
        with use('numba'), expect_fail(ValueError): Poisson(4)(bad)

def test_memory_is_used_again_and_never_twice():
    memory.free()
    a = memory.fresh(300, 1000)
    a[:] = 1
    at = a.ctypes.data
    b = memory.fresh(300, 1000)
    assert b.ctypes.data!=at
    view = a[5:]
    del a
    c = memory.fresh(300, 1000)
    assert c.ctypes.data not in (at, b.ctypes.data) # a view keeps it
    del view
    assert memory.fresh(300, 1000).ctypes.data==at
    memory.free()
    assert not memory._spare

def test_neurons_one_after_another():
    torch.manual_seed(0)
    first = Conv2d(2, 6, 3, bias=False), LIF(.2), LIF(threshold=1.5)
    second = AvgPool2d(2), IF(.4), IF(1.2)
    net = exact(nn.Sequential(*first, *second, Flatten(), Linear(96, 3, bias=False), Integrator()))
    assert_same(net, random_spikes(8, 3, 2, 10, 10, rate=.3))

def test_inference_forgets_what_a_train_was_made_of():
    net = nn.Sequential(Conv2d(2, 6, 3, bias=False), LIF(.2), AvgPool2d(2), IF(.4))
    x = random_spikes(8, 3, 2, 10, 10, rate=.3)
    with use('numba'), torch.inference_mode():
        s = to_train(x)
        words = weakref.ref(s.spikes.words)
        y = net(s)
        y.spikes
        del s
        gc.collect()
    assert words() is None and y.shape==(8, 3, 6, 4, 4)

@pytest.mark.parametrize('channels', [3, 20, 50, 130, 600])
@pytest.mark.parametrize('name', norms)
@pytest.mark.parametrize('learns', [True, False])
def test_neurons_read_through_a_norm(name, channels, learns):
    "Spikes, all gradients and the running statistics are those of torch's norm"
    torch.manual_seed(0)
    norm = make_norm(name, channels, 5).train(learns)
    x = 2*torch.randn(5, 4, channels, 7, 6)+1
    with torch.no_grad():
        for p in norm.parameters(): p += .3*torch.randn_like(p)
        norm.running_mean.normal_()
        norm.running_var.uniform_(.5, 2)
    neurons = [
        dict(),
        dict(reset='subtract', refractory=2),
        dict(grad='atan'),
        dict(grad='sigmoid', reset='subtract')]
    for options in neurons:
        found = []
        for mode in ('numba', 'torch'):
            net,v = nn.Sequential(copy.deepcopy(norm), LIF(.9, **options)),x.clone().requires_grad_()
            with use(mode):
                y = net(v)
                seen = dense(y)
                (seen*torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
            assert isinstance(y, Train)==(mode=='numba' and 'grad' not in options)
            learned = [p.grad for p in net.parameters()]
            found.append([seen.detach(), v.grad, *learned, *[o.float() for o in net.buffers()]])
        for a,b in zip(*found): assert_close(a, b, 3e-5)

def test_a_norm_takes_note_once():
    "Whoever looks first, a neuron or a reader, the running statistics move once"
    x = torch.randn(3, 2, 4, 6, 6)
    for look in (lambda y: LIF()(y), lambda y: dense(y), lambda y: (dense(y), LIF()(y)), lambda y: dense(y)+dense(y)):
        norm = BatchNorm2d(4)
        with use('numba'): look(norm(x))
        assert norm.num_batches_tracked==1
        test = nn.BatchNorm2d(4)
        test(x.flatten(0, 1))
        assert_close(norm.running_mean, test.running_mean)
        assert_close(norm.running_var, test.running_var)

def moved(x):
    "`x` in another order in memory: channels last, or images behind features"
    if x.ndim==3: return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.movedim(2, -1).contiguous().movedim(-1, 2)

@pytest.mark.parametrize('reset', ['zero', 'subtract'])
@pytest.mark.parametrize('grad', ['atan', 'sigmoid', 'fast_sigmoid', 'triangle', 'rectangle'])
@pytest.mark.parametrize('shape,last', [
    ((7, 3, 5, 9, 11), ''),
    ((7, 3, 5, 9, 11), 'x'),
    ((7, 3, 5, 9, 11), 'g'),
    ((4, 6, 700), ''),
    ((4, 6, 700), 'x')], ids=str)
def test_surrogates_fused(shape, last, grad, reset):
    "Spikes are the same, gradients within rounding, whatever lies how in memory, and spikes lie as their currents"
    x,g = (torch.randn(shape, generator=seeded(o)) for o in 'xg')
    if last=='x': x = moved(x)
    if last=='g': g = moved(g)
    found = []
    for mode in ('torch', 'numba'):
        a = x.clone().requires_grad_()
        with use(mode): s = LIF(.9, .6, reset=reset, grad=grad)(a)
        s.backward(g)
        found.append((s.detach(), a.grad))
    (s,dx),(s2,dx2) = found
    assert s.equal(s2) and 0<s.mean()<1 and torch.allclose(dx, dx2, rtol=1e-5, atol=1e-6)
    if x.is_contiguous() or x.ndim==5: assert s2.stride()==dx2.stride()==x.stride()
