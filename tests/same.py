"What tests of several chapters need to compare networks, and small networks to compare. Nothing here needs the engine."
import copy
import torch
from torch import nn
from snnkit.core import seeded
from snnkit.layers import LIF, Conv2d, Flatten, Integrator, Linear, Poisson, Residual, Subsample, dense, make_norm, use
from snnkit.models import lee_init

def images(B, *shape, seed=0): return torch.rand(B, *shape, generator=seeded(seed))

def answer(net, x, mode, seed=1):
    "Scores, and gradients of parameters, computed by `mode`"
    torch.manual_seed(seed)
    net.zero_grad()
    with use(mode):
        y = net(x)
        (y*torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return dense(y).detach(), {n: p.grad.clone() for n,p in net.named_parameters() if p.grad is not None}

def assert_close(a, b, tol=1e-5): assert (a-b).norm() <= tol*b.norm()+1e-7, f'{((a-b).norm()/b.norm()).item():.1e}'

def assert_same(net, x, tol=1e-5):
    "Events and plain torch give the same scores and gradients"
    (y,grads),(y2,grads2) = (answer(net, x, m) for m in ('numba', 'torch'))
    assert_close(y, y2, tol)
    assert grads.keys()==grads2.keys()
    for n in grads: assert_close(grads[n], grads2[n], tol)
    return y, grads

def randomised(module):
    "`module` with random affine parameters and running statistics, as if it had been trained"
    with torch.no_grad():
        for m in module.modules():
            if not isinstance(m, nn.BatchNorm2d): continue
            for n,p in m.named_parameters(): p.uniform_(.5, 1.5) if n in ('weight', 'scale') else p.normal_(0, .3)
            m.running_mean.normal_(0, .3)
            m.running_var.uniform_(.2, 3)
    return module

def normed(name, T=6):
    "A net with two norms called `name`"
    kinds = [make_norm(name, c, T, .7) for c in (8, 33)]
    conv1,conv2 = Conv2d(2, 8, 3, padding=1, bias=False),Conv2d(8, 33, 3, 2, 1, bias=False)
    body = conv1,kinds[0],LIF(),conv2,kinds[1],LIF(.9, .7)
    return lee_init(nn.Sequential(Poisson(T), *body, Flatten(), Linear(33*36, 5), Integrator()))

def resnet(T=8, norm=None):
    "A block of each kind: convolution, identity, strided identity"
    def body(c, o, stride=1):
        some = [m for m in [make_norm(norm, o, T)] if m]
        second = Conv2d(o, o, 3, padding=1, bias=False)
        return nn.Sequential(Conv2d(c, o, 3, stride, 1, bias=False), *some, LIF(), second, *copy.deepcopy(some))
    blocks = [Residual(body(8, 33), LIF(), Conv2d(8, 33, 1, bias=False)), Residual(body(33, 33), LIF()),
              Residual(body(33, 33, 2), LIF(), Subsample(2))]
    first = [Poisson(T), Conv2d(2, 8, 3, padding=1, bias=False), LIF()]
    return lee_init(nn.Sequential(*first, *blocks, Flatten(), Linear(33*36, 5), Integrator()), 1.)
