"""Corners in which the engine was wrong without a word, or broke where torch does not: each is a test of its own. What
may end in a crash, or needs a cache or a package folder of its own, runs in another process."""
import copy,os,random,subprocess,sys,textwrap,threading,time
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune as prune
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from snnkit.core import seeded
from snnkit.engine.trains import Train, to_train
from snnkit.layers import dense, use
from snnkit.layers import IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Flatten, Integrator, Linear, make_norm, norms
from snnkit.models import lee_init, lenet

root = Path(__file__).resolve().parents[2]

def spikes(T, B, *shape, rate=.3, seed=0): return (torch.rand(T, B, *shape, generator=seeded(seed))<rate).float()

def assert_close(a, b, tol=1e-5): assert (a-b).norm() <= tol*b.norm()+1e-7, f'{((a-b).norm()/b.norm()).item():.1e}'

def python(code, timeout=200, path=root, **env):
    "A process of its own that runs `code` with the package in `path`."
    env = os.environ | dict(PYTHONPATH=str(path), OMP_NUM_THREADS='1') | {k: str(v) for k,v in env.items()}
    command = [sys.executable, '-c', textwrap.dedent(code)]
    return subprocess.run(command, env=env, cwd=path, capture_output=True, text=True, timeout=timeout)

def works(result):
    "Did the process end well?"
    assert result.returncode==0, f'ended with {result.returncode}: {result.stdout[-500:]}{result.stderr[-1500:]}'
    return result.stdout

# Several threads, and a fork

@pytest.mark.parametrize('learns', [False, True])
def test_threads_ask_one_network(learns):
    "Each gets what one alone would get: scores, and gradients too"
    works(python(f'''
        import torch, threading
        from snnkit.layers import use
        from snnkit.models import lenet
        torch.manual_seed(0)
        net,wrong = lenet(num_steps=10),[]
        trains = [(torch.rand(10, 4, 1, 28, 28)<.2).float() for _ in range(4)]
        def ask(x):
            y = x
            for layer in list(net.children())[1:]: y = layer(y)
            grads = torch.autograd.grad(y.sum(), list(net.parameters())) if {learns} else []
            return [y.detach(), *grads]
        with use('numba'), torch.set_grad_enabled({learns}):
            want = [ask(x) for x in trains]
            def work(x, w):
                with use('numba'), torch.set_grad_enabled({learns}): # a new thread begins with the default mode
                    for _ in range(15):
                        if not all(a.equal(b) for a,b in zip(ask(x), w)): wrong.append(1)
            threads = [threading.Thread(target=work, args=o) for o in zip(trains, want)]
            for t in threads: t.start()
            for t in threads: t.join()
        assert not wrong, f'{{len(wrong)}} of 60 answers are wrong'
        '''))

def road_of(x): # which road does the engine take for so many currents?
    return 'events' if type(LIF()(x)) is Train else 'torch'

many = torch.ones(2, 1, 1, 256, 256) # so many that the default mode takes events

def test_modes_of_two_threads_do_not_meet():
    "Each has the mode that it asked for, and afterwards all is as before"
    small,seen,steps = torch.ones(2, 1, 1, 4, 4),{},[threading.Event() for _ in range(3)]
    def a():
        with use('torch'):
            steps[0].set()
            steps[1].wait(10)
            seen['a'] = road_of(many)
        steps[2].set()
    def b():
        steps[0].wait(10)
        with use('numba'):
            steps[1].set()
            steps[2].wait(10)
            seen['b'] = road_of(small)
    threads = [threading.Thread(target=f) for f in (a, b)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert seen==dict(a='torch', b='events') and road_of(many)=='events'

def test_after_a_fork():
    "A child that was forked when workers were running computes the same, and does not wait for workers that it lacks"
    works(python('''
        import os, signal, torch
        from snnkit.layers import dense, use
        from snnkit.layers import Conv2d, LIF
        torch.manual_seed(0)
        torch.set_num_threads(2)
        net = torch.nn.Sequential(Conv2d(2, 8, 3, bias=False), LIF(.2), Conv2d(8, 8, 3, bias=False), LIF(.2))
        x = (torch.rand(6, 4, 2, 9, 9)<.5).float()
        def answer():
            net.zero_grad()
            with use('numba'):
                y = dense(net(x))
                y.sum().backward()
            return [y.detach(), *[p.grad.clone() for p in net.parameters()]]
        want = answer()
        if not (child := os.fork()):
            signal.alarm(60)
            os._exit(0 if all(a.equal(b) for a,b in zip(answer(), want)) else 1)
        status = os.waitpid(child, 0)[1]
        assert status==0, f'the child ended with {status}'
        '''))

# What is changed in place

def zero_(y): y.zero_()
def add_(y): y.add_(torch.linspace(0, .3, y.shape[-1]))
def setitem(y): y[:, :, 3:] = 0
def out(y): torch.mul(y, .5, out=y)
def copy_(y): y.copy_(y.flip(0))
def imul(y): y *= .5
def masked_fill_(y): y.masked_fill_(y>.5, .25)

changes = zero_,add_,setitem,out,copy_,imul,masked_fill_

@pytest.mark.parametrize('where', ['spikes', 'currents', 'pool', 'norm'])
@pytest.mark.parametrize('by', ['hook', 'code'])
@pytest.mark.parametrize('change', changes, ids=lambda f: f.__name__)
def test_a_change_in_place_is_seen(change, by, where):
    "By the next layer, as torch has it"
    torch.manual_seed(0)
    net = nn.Sequential(Conv2d(2, 8, 3, bias=False), BatchNorm2d(8), LIF(.2), AvgPool2d(2), IF(.3),
                        Conv2d(8, 8, 3, bias=False), LIF(.1)).eval()
    lee_init(net, 6.)
    x,place = spikes(6, 3, 2, 12, 12),dict(currents=0, norm=1, spikes=2, pool=3)[where]
    def answer(mode, change):
        other = copy.deepcopy(net)
        if by=='hook': other[place].register_forward_hook(lambda m, args, y: change(y))
        with use(mode), torch.no_grad():
            y = other[:place+1](x)
            if by=='code': change(y)
            return dense(other[place+1:](y))
    want = answer('torch', change)
    assert not want.equal(answer('torch', lambda y: None))
    assert answer('numba', change).equal(want)

def test_a_silenced_layer_is_silent():
    "A LeNet without its second layer of spikes knows nothing"
    torch.manual_seed(0)
    net = lenet(num_steps=10).eval()
    net.lif2.register_forward_hook(lambda m, args, y: zero_(y))
    with use('numba'), torch.no_grad(): assert not net(torch.rand(3, 1, 28, 28)).any()

# Ways back that are not the usual

def parted(): # (first layer, what is to be recomputed, the rest)
    torch.manual_seed(0)
    net = nn.Sequential(Conv2d(2, 8, 3, bias=False), LIF(.2), AvgPool2d(2), IF(.3),
                        Conv2d(8, 8, 3, bias=False), LIF(.1), Flatten(), Linear(72, 3), Integrator())
    return lee_init(net, 6.),spikes(6, 3, 2, 12, 12)

@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('begin,end', [(1, 4), (0, 4), (1, 6), (4, 6), (3, 9)])
def test_checkpoints(begin, end, reentrant):
    "Gradients are those without a checkpoint, wherever it begins and ends"
    net,x = parted()
    def grads(mode, through):
        net.zero_grad()
        with use(mode):
            y = net[:begin](x) if begin else x.clone().requires_grad_(reentrant) # without it torch's has no gradients
            y = through(net[begin:end], y)
            net[end:](y).pow(2).sum().backward()
        return [p.grad for p in net.parameters()]
    want = [g.clone() for g in grads('torch', lambda f, y: f(y))]
    for got,g in zip(grads('numba', lambda f, y: checkpoint(f, y, use_reentrant=reentrant)), want):
        assert got is not None
        assert_close(got, g)

@pytest.mark.parametrize('how', ['register_hook', 'retain_grad', 'grad'])
@pytest.mark.parametrize('layer', [0, 1, 2, 3])
def test_gradients_of_what_lies_between(layer, how):
    "As torch has them, if they are asked for before the next layer reads; after that, an error that says so"
    net,x = parted()
    def gradient(mode):
        heard = []
        with use(mode):
            y = net[:layer+1](x)
            if how=='register_hook': y.register_hook(heard.append)
            if how=='retain_grad': y.retain_grad()
            loss = net[layer+1:](y).pow(2).sum()
            if how=='grad': return torch.autograd.grad(loss, y)[0],dense(y)
            loss.backward()
        assert how!='register_hook' or len(heard)==1
        return heard[0] if heard else y.grad,dense(y)
    if how=='grad':
        with pytest.raises(ValueError, match='dense'): gradient('numba')
        return
    (got,_),(want,_) = gradient('numba'),gradient('torch')
    assert want.any()
    assert_close(dense(got), want)

@pytest.mark.parametrize('layer', range(5))
@pytest.mark.parametrize('times', [1, 2])
def test_backward_hooks_of_modules(layer, times):
    "They hear the gradients of outputs, as often as one goes back, and change nothing"
    torch.manual_seed(0)
    net = nn.Sequential(Conv2d(2, 8, 3, bias=False), BatchNorm2d(8), LIF(.2), Conv2d(8, 4, 3, bias=False), LIF(.2))
    x = spikes(6, 3, 2, 9, 9)
    def answer(mode):
        other,heard = copy.deepcopy(net),[]
        other[layer].register_full_backward_hook(lambda m, gin, gout: heard.append(gout[0]))
        with use(mode):
            loss = (dense(other(x.clone().requires_grad_()))*torch.linspace(-1, 1, 5)).sum()
            for i in range(times): loss.backward(retain_graph=i+1<times)
        return heard,[p.grad for p in other.parameters()],[o.float() for o in other.buffers()]
    (heard,*got),(told,*want) = answer('numba'),answer('torch')
    assert len(heard)==len(told)==times
    for a,b in zip(got, want):
        for o,p in zip(a, b): assert_close(o, p, 1e-4)

# Weights that are computed, replaced, or no numbers

class Counted(nn.Module):
    "A parametrization that counts how often it is asked."
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, w):
        self.calls += 1
        return 2*w

def own(m):
    parametrize.register_parametrization(m, 'weight', Counted())
    return m

def pruned(m): return prune.ln_structured(m, 'weight', .3, 2, 0)

computed = dict(weight_norm=parametrizations.weight_norm, old_weight_norm=nn.utils.weight_norm, pruned=pruned, own=own,
                spectral_norm=parametrizations.spectral_norm, old_spectral_norm=nn.utils.spectral_norm)

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('mode', ['auto', 'numba'])
@pytest.mark.parametrize('kind', ['conv', 'linear'])
@pytest.mark.parametrize('by', computed)
def test_computed_weights(by, kind, mode):
    "In the default mode too; and what computes a weight is asked once a call"
    x = spikes(20, 8, *((2, 20, 20) if kind=='conv' else (500,)))
    def answer(mode):
        torch.manual_seed(0)
        synapse = Conv2d(2, 8, 3, bias=False) if kind=='conv' else Linear(500, 40, bias=False)
        other = nn.Sequential(computed[by](synapse), LIF(.2))
        with use(mode): y = dense(other(x))
        (y*torch.linspace(-1, 1, y.shape[-1])).sum().backward()
        counts = [m.calls for m in other.modules() if isinstance(m, Counted)]
        return [y.detach(), *[p.grad for p in other.parameters()], *other.buffers()],counts
    (got,calls),(want,once) = answer(mode),answer('torch')
    assert calls==once
    for a,b in zip(got, want): assert_close(a, b, 1e-4)

def test_weights_of_another_width_are_refused():
    "As torch refuses them, and not read past their ends"
    works(python('''
        import torch
        from torch import nn
        from snnkit.layers import Conv2d, Linear, dense, use
        torch.manual_seed(0)
        conv,linear = (lambda: Conv2d(4, 8, 3, bias=False), (4, 8, 8)),(lambda: Linear(100, 8, bias=False), (100,))
        wrong = {conv: [(8, 2, 3, 3), (8, 6, 3, 3), (8, 36)], linear: [(8, 40), (8, 140)]}
        for (make,shape),weights in wrong.items():
            for mode,weight in ((m, w) for m in ('torch', 'numba') for w in weights):
                x,layer = (torch.rand(6, 2, *shape)<.4).float(),make()
                layer.weight = nn.Parameter(torch.randn(weight))
                print(mode, layer, weight, flush=True)
                with use(mode):
                    try: y = dense(layer(x))
                    except (RuntimeError, ValueError): continue
                raise SystemExit(f'it gives {y.abs().max()}')
        '''))

@pytest.mark.parametrize('kind', ['conv', 'linear'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_felt(kind, bad):
    "0 times NaN is NaN"
    torch.manual_seed(0)
    layer = Conv2d(3, 8, 3, bias=False) if kind=='conv' else Linear(12, 8, bias=False)
    x = spikes(5, 2, *((3, 6, 6) if kind=='conv' else (12,)))
    x[:, :, 1] = 0 # never fires
    with torch.no_grad(): layer.weight[2, 1] = bad
    found = []
    for mode in ('numba', 'torch'):
        with use(mode), torch.no_grad(): found.append((dense(layer(x)), dense(LIF(.2)(layer(x)))))
    for a,b in zip(*found): assert torch.allclose(a, b, atol=1e-5, equal_nan=True)
    assert found[0][0].isnan().any()

# Norms

def neuron_first(y): return dense(LIF()(y)),dense(y)
def reader_first(y): return dense(y),dense(LIF()(y))
def two_neurons(y): return dense(LIF()(y)),dense(LIF(.5)(y))
def neuron_and_conv(y): return dense(LIF()(y)),Conv2d(4, 2, 1)(y)
def neuron_is_seen_later(y):
    s = LIF()(y)
    return dense(y),dense(s)

readers = neuron_first,reader_first,two_neurons,neuron_and_conv,neuron_is_seen_later

@pytest.mark.parametrize('name', norms)
@pytest.mark.parametrize('read', readers, ids=lambda f: f.__name__)
def test_a_norm_of_two_readers_takes_note_once(name, read):
    x = 2*torch.randn(3, 2, 4, 6, 6, generator=seeded(0))+1
    found = []
    for mode in ('torch', 'numba'):
        norm = make_norm(name, 4, 3)
        with use(mode): read(norm(x))
        found.append(norm)
    plain,norm = found
    assert norm.num_batches_tracked==1
    assert_close(norm.running_mean, plain.running_mean)
    assert_close(norm.running_var, plain.running_var)

@pytest.mark.parametrize('first', ['reader', 'neuron'])
def test_a_norm_that_is_called_twice_before_the_way_back(first):
    "Once by torch and once by the engine: two images of a pair, or a layer used twice"
    torch.manual_seed(0)
    norm,x = BatchNorm2d(4, affine=False),torch.randn(3, 2, 4, 6, 6, requires_grad=True)
    def grads(mode):
        x.grad,n = None,copy.deepcopy(norm)
        with use(mode):
            ways = [lambda o: dense(n(o)), lambda o: dense(LIF()(n(o)))]
            a,b = ways if first=='reader' else ways[::-1]
            (a(x).pow(2).sum() + (b(2*x)*torch.linspace(-1, 1, 6)).sum()).backward()
        return x.grad
    assert_close(grads('numba'), grads('torch'), 1e-4)

class Norm64(nn.Module):
    "A norm by its formula: torch 2.13's own has wrong gradients of a single image and step, misled by strides."
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        o,dims = self.norm,(0, 1, 3, 4)
        mean,var = (x.mean(dims), x.var(dims, unbiased=False)) if self.training else (o.running_mean, o.running_var)
        mean,var,weight,bias = (p[:, None, None] for p in (mean, var, o.weight, o.bias))
        return (x-mean)/(var+o.eps).sqrt()*weight + bias

@pytest.mark.parametrize('synapse', [True, False])
@pytest.mark.parametrize('training', [True, False])
def test_a_norm_of_a_single_image_and_step(training, synapse):
    "Gradients are those of double precision, however the dimensions of size 1 lie in memory"
    torch.manual_seed(0)
    first,norm,last = [Conv2d(17, 17, 1, bias=False)]*synapse,BatchNorm2d(17),LIF(.9, .5, grad='sigmoid')
    net,judge = nn.Sequential(*first, norm, last),nn.Sequential(*first, Norm64(norm), last)
    x = spikes(1, 1, 1, 3, 17).movedim(-1, 2) # channels last
    def grads(net, x, mode):
        net,x = copy.deepcopy(net).to(x.dtype).train(training),x.clone().requires_grad_()
        with use(mode): y = dense(net(x))
        (y*torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)).sum().backward()
        return [x.grad.double(), *[p.grad.double() for p in net.parameters()]]
    for a,b in zip(grads(net, x, 'numba'), grads(judge, x.double(), 'torch')): assert_close(a, b, 1e-4)

# The same seed, the same result

def test_who_computes_depends_on_network_and_input_alone(monkeypatch):
    "Nothing is measured: a clock that runs wild changes nothing"
    ticks = random.Random(0)
    monkeypatch.setattr(time, 'perf_counter', lambda: ticks.random()*1e3)
    def result():
        torch.manual_seed(0)
        net = lee_init(nn.Sequential(Conv2d(2, 8, 3, bias=False), LIF(.9), Conv2d(8, 16, 3, bias=False), LIF(.9),
                                     Flatten(), Linear(16*64, 3), Integrator(.9)))
        opt,x = torch.optim.SGD(net.parameters(), .1),spikes(20, 8, 2, 12, 12)
        for _ in range(4):
            opt.zero_grad()
            net(x).pow(2).sum().backward()
            opt.step()
        return [p.detach() for p in net.parameters()]
    assert all(a.equal(b) for a,b in zip(result(), result()))

@pytest.mark.slow
def test_fresh_processes_with_fresh_caches_agree(tmp_path):
    "The measure itself: processes with nothing but the seed in common"
    code = '''
        import hashlib, torch
        from snnkit.models import lenet
        torch.manual_seed(0)
        net,x = lenet(num_steps=20),torch.rand(16, 1, 28, 28)
        opt = torch.optim.SGD(net.parameters(), .1)
        for _ in range(6):
            opt.zero_grad()
            net(x).pow(2).sum().backward()
            opt.step()
        bits = [p.detach().contiguous().numpy().tobytes() for p in net.parameters()]
        print(hashlib.sha256(b''.join(bits)).hexdigest())'''
    assert len({works(python(code, XDG_CACHE_HOME=tmp_path/str(i))) for i in range(2)})==1
