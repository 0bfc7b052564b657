"""Random networks, computed by the engine and by plain torch, with double precision as the judge.

    python tests/machine_room/fuzz.py --nets 5000 --seed 7  # exits with 1 if one of 5,000 networks is computed wrongly
    python tests/machine_room/fuzz.py --seed 7 --only 123   # the network 123 of these alone, described
    python tests/machine_room/fuzz.py --list                # what can be left out by `--without`

Spikes must be equal, outputs and all gradients lie within 1e-4 of double precision, running statistics and the state of
torch's generator be equal. A spike that differs is a mismatch unless double precision says that its membrane lay within
rounding of the threshold; from there on two networks are two networks, and nothing more is compared. A network counts
if every neuron layer in it fires."""
import argparse,copy,faulthandler,json,math,random,subprocess,sys,time,traceback
from collections import Counter
from contextlib import ExitStack,contextmanager
from dataclasses import dataclass,field
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from snnkit.core import seeded
from snnkit.encoding import Direct
from snnkit.engine import dense, to_train, use
from snnkit.layers import (IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear, Poisson,
                           Residual, ScaledBatchNorm2d, StepBatchNorm2d, Subsample, ThresholdBatchNorm2d)
from snnkit.spikebp import lif, membrane, surrogates

# What a network is made of, beside the kit's layers

class Sum(nn.Module):
    "The branches all read the input, and their outputs are added."
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x): return sum(dense(o(x)) for o in self.branches)

class Cat(nn.Module):
    "The branches all read the input, and their channels lie side by side."
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x): return torch.cat([o(x) for o in self.branches], 2)

class Fork(nn.Module):
    "What `stem` gives is read by all branches, whose outputs are added."
    def __init__(self, stem, *branches):
        super().__init__()
        self.stem,self.sum = stem,Sum(*branches)

    def forward(self, x): return self.sum(self.stem(x))

class Twice(nn.Module):
    "One layer, two times in a row."
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x): return self.layer(self.layer(x))

class Times(nn.Module):
    "The input times a number: spikes that are not 1."
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x): return x*self.factor

    def extra_repr(self): return f'{self.factor}'

class Look(nn.Module):
    "Hands on what it gets, after a look at it."
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        looks[self.how](self, (x,), x)
        return x

    def extra_repr(self): return f'{self.how!r}'

class Encoded(nn.Module):
    "An encoder that tosses the same coins in double precision as in single."
    def __init__(self, encoder):
        super().__init__()
        self.encoder,self.as_ = encoder,nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x):
        y = self.encoder(x.float())
        return y if self.as_.dtype==torch.float32 else dense(y).to(self.as_)

# Hooks that only look on

def keep(layer, args, y): layer.kept = y
def facts(layer, args, y): layer.known = y.shape,y.requires_grad,len(y),y.numel(),y.dtype,y.grad_fn
def mean(layer, args, y): layer.known = y.detach().mean()
def whole(layer, args, y): layer.known = dense(y)
def first_step(layer, args, y): layer.known = y[0]

looks = dict(keep=keep, facts=facts, mean=mean, whole=whole, first_step=first_step)

def bell(v): # a surrogate of the user's own
    return torch.exp(-v*v)

# How a network is drawn

features = dict(
    residual='residual blocks', sum='sums of branches', cat='branches side by side', fork='an output with two readers',
    twice='a layer used twice', shared='weights used twice', norm='norms', pool='pools', dropout='dropout',
    norm_of_two='a norm in training with two readers', lone_norm='a norm of a single image and step',
    look='a look in the middle', hooks='hooks that look on', backward_hooks='hooks of modules on the way back',
    frozen='frozen weights', retain='backward twice', again='two calls before backward', owed='a gradient of the input',
    surrogates='surrogate gradients', refractory='rest after a spike', start='charge before the first step',
    threads='two threads',
    cramped='limits drawn small', large='now and then a large layer', times='spikes that are not 1',
    nothing='trains without or full of spikes')

# Channels by the type of their words. Each new number of lanes has kernels to compile: fewer of them for the tests
widths = dict(u8=(1, 2, 3, 7, 8), u16=(9, 12, 16), u32=(17, 20, 31, 32), u64=(33, 40, 50, 63, 64, 65, 96, 128, 130))
few_widths = dict(u8=(1, 3, 8), u64=(33, 40, 48))

class Draw:
    "What chance decides about a network."
    def __init__(self, seed, number, without=(), wide=True):
        self.rng,self.without,self.wide = random.Random(f'{seed}-{number}'),set(without),wide
        self.widths = widths if wide else few_widths
        self.T,self.B = self.pick(1, 2, 3, 4, 5, 6, 8),self.pick(1, 1, 2, 3, 4)
        self.exact = self.chance(.5) # weights on a coarse grid: their sums are exact in any order
        self.training = self.chance(.75)
        self.words = self.pick(*self.widths)
        self.mixed = self.chance(.6) and wide # channels of any word type

    def pick(self, *options): return self.rng.choice(options)
    def chance(self, p): return self.rng.random()<p

    def may(self, feature, p):
        "Chance `p`, and never if the feature is to be left out; the draws that follow are the same."
        return self.chance(p) and feature not in self.without

    def width(self):
        "Channels of a layer."
        words = self.pick(*self.widths) if self.mixed else self.words
        if self.wide and self.chance(.2): return self.rng.randint(1, 130)
        return self.pick(*self.widths[words])

def neuron(d):
    "A neuron with any options; `tune` gives it its threshold."
    rules = (*surrogates, bell) if d.may('surrogates', .3) else ('spike_bp', 'spike_bp', 'straight_through')
    grad = d.pick(*rules)
    refractory = d.pick(1, 2, 3, 9) if d.may('refractory', .2) else 0
    reset = d.pick('zero', 'subtract')
    start = d.pick(.25, .5, 1.) if d.may('start', .2) else 0.
    if d.chance(.15): return IF(.75, reset, refractory, grad, start)
    leak = d.pick(1., .75, .5) if d.exact else d.pick(1., .99, .9, .7, .3)
    return LIF(float(np.float32(leak)), 1., reset, refractory, grad, start)

def many(d):
    """Is there more than one image and step? Of a single one torch 2.13's norm has wrong gradients, if the strides of
    its current and of its gradient differ where they mean nothing."""
    return d.T*d.B>1 or d.may('lone_norm', 1.)

def norm(d, C):
    "A norm of any kind, as if it had been trained."
    options = dict(eps=d.pick(1e-5, 1e-3), momentum=d.pick(.1, .5, None))
    kind = d.pick('shared', 'threshold', 'step', 'scaled')
    if kind in ('shared', 'threshold'):
        options |= dict(affine=d.chance(.8), track_running_stats=d.chance(.85))
    if kind=='shared': return BatchNorm2d(C, **options)
    if kind=='threshold': return ThresholdBatchNorm2d(C, d.pick(1., .5), d.pick(1., .7), **options)
    return (StepBatchNorm2d if kind=='step' else ScaledBatchNorm2d)(C, d.T, **options)

def conv(d, shape, O=None, same=False):
    "A convolution, and the shape of its output; `same`: height and width stay."
    C,H,W = shape
    O = O or d.width()
    s = 1 if same else d.pick(1, 1, 1, 2, 2, 3)
    k = (d.pick(1, 3),)*2 if same or not d.wide else (d.pick(1, 2, 3, 4, 5), d.pick(1, 2, 3, 4, 5))
    p = tuple(o//2 for o in k) if same else (d.pick(0, 1, 2), d.pick(0, 1, 3))
    dilation = 2 if not same and d.chance(.08) else 1
    if min(*k, H, W)==1: dilation = 1 # torch 2.13 itself dies of some convolutions of one pixel with dilation
    k = tuple(min(o, (n+2*q-1)//dilation+1) for o,n,q in zip(k, (H, W), p))
    groups = math.gcd(C, O) if d.chance(.08) else 1
    s = (s, d.pick(1, 2)) if not same and d.chance(.05) else s
    layer = Conv2d(C, O, k, s, p, dilation, groups, bias=d.chance(.3))
    rows,columns = (s, s) if isinstance(s, int) else s
    size = lambda n, q, o, step: (n+2*q-dilation*(o-1)-1)//step+1
    return layer,(O, size(H, p[0], k[0], rows), size(W, p[1], k[1], columns))

def currents(d, shape, O=None, same=False):
    "A convolution and what may follow it before a neuron."
    layer,shape = conv(d, shape, O, same)
    after = [norm(d, shape[0])] if d.may('norm', .4) and many(d) else []
    return [layer, *after],shape

def body(d, C, H, W, O):
    "Layers that keep height and width and end with a current."
    layers,shape = [],(C, H, W)
    for _ in range(d.pick(0, 1, 1)):
        more,shape = currents(d, shape, same=True)
        layers += [*more, neuron(d)]
    more,_ = currents(d, shape, O, same=True)
    return nn.Sequential(*layers, *more)

def stage(d, shape):
    more,shape = currents(d, shape)
    return [*more, neuron(d)],shape

def pooled(d, shape):
    "A pool, with or without neurons behind it."
    C,H,W = shape
    K = min(d.pick(1, 2, 2, 3), H, W)
    s = d.pick(K, K, 1, 2)
    options = dict(padding=1) if K>1 and d.chance(.05) else dict(ceil_mode=True) if d.chance(.05) else {}
    layer = AvgPool2d(K, s, **options)
    shape = tuple(layer(torch.zeros(1, 1, *shape)).shape[2:])
    behind = IF(.75, d.pick('zero', 'subtract')) if d.chance(.5) else neuron(d)
    return [layer] + [behind]*d.chance(.8),shape

def residual(d, shape):
    C,H,W = shape
    O = C if d.chance(.5) else d.width()
    short = None if O==C and d.chance(.6) else Conv2d(C, O, 1, bias=False)
    if O==C and d.chance(.2): short = Subsample(1)
    way,sum_ = body(d, C, H, W, O),neuron(d) if d.chance(.9) else nn.Identity()
    if isinstance(sum_, nn.Identity) and d.chance(.5): way.append(neuron(d)) # spikes are added to what came in
    return [Residual(way, sum_, short)],(O, H, W)

def branch(d, C, H, W, O):
    "Layers that keep height and width and end with a current or with spikes."
    return nn.Sequential(body(d, C, H, W, O), *[neuron(d) for _ in range(d.pick(0, 1))])

def summed(d, shape):
    C,H,W = shape
    O = d.width()
    branches = [branch(d, C, H, W, O) for _ in range(d.pick(2, 2, 3))]
    return [Sum(*branches)] + [neuron(d) for _ in range(d.pick(0, 1))],(O, H, W)

def beside(d, shape):
    C,H,W = shape
    outs = [d.width() for _ in range(2)]
    branches = [branch(d, C, H, W, O) for O in outs]
    if d.chance(.3): branches,outs = [*branches, nn.Identity()],[*outs, C]
    return [Cat(*branches)],(sum(outs), H, W)

def fork(d, shape):
    "An output that two read: a convolution's, a norm's, a neuron's or a pool's."
    first,(C,H,W) = conv(d, shape)
    kind = d.pick('conv', 'norm', 'neuron', 'pool')
    stem = [first]
    if kind=='norm' and many(d) and (not d.training or d.may('norm_of_two', 1.)): stem.append(norm(d, C))
    if kind=='neuron': stem.append(neuron(d))
    if kind=='pool': stem += [neuron(d), AvgPool2d(3, 1, 1) if d.chance(.2) or min(H, W)<2 else AvgPool2d(1)]
    point = lambda: Conv2d(C, C, 1, bias=False)
    readers = [lambda: neuron(d), nn.Identity, lambda: Times(.5), lambda: nn.Sequential(neuron(d), point()),
               lambda: nn.Sequential(point(), neuron(d)),
               lambda: nn.Sequential(*[norm(d, C) for _ in range(many(d))], neuron(d))]
    branches = [d.pick(*readers)() for _ in range(d.pick(2, 2, 3))]
    return [Fork(nn.Sequential(*stem), *branches)] + [neuron(d) for _ in range(d.pick(0, 1))],(C, H, W)

def twice(d, shape):
    C,H,W = shape
    layers = currents(d, shape, C, same=True)[0] + [neuron(d) for _ in range(d.pick(0, 1, 1))]
    return [Twice(nn.Sequential(*layers))] + [neuron(d) for _ in range(d.pick(0, 1))],shape

def shared(d, shape):
    "Two layers with the same weight."
    C,H,W = shape
    a,b = (Conv2d(C, C, 3, padding=1, bias=o) for o in (False, d.chance(.3)))
    b.weight = a.weight
    return [a, neuron(d), b, neuron(d)],shape

blocks = dict(residual=residual, sum=summed, cat=beside, fork=fork, twice=twice, shared=shared, pool=pooled)

def between(d):
    "What may stand between two blocks."
    layers = []
    if d.may('dropout', .15): layers.append(Dropout(d.pick(.5, .3, .9)))
    if d.may('times', .05): layers.append(Times(d.pick(2., -1., .5)))
    if d.may('look', .1): layers.append(Look(d.pick(*looks)))
    if d.chance(.05): layers.append(neuron(d))
    return layers

def trunk(d, shape):
    "Blocks for images."
    layers = []
    for _ in range(d.pick(1, 1, 2, 2, 3)):
        name = d.pick(*blocks)
        block = blocks[name] if d.may(name, .45) else stage
        more,shape = block(d, shape)
        layers += [*more, *between(d)]
    return layers,shape

def tail(d, F):
    "Layers for features."
    layers = []
    for _ in range(d.pick(0, 1, 1, 2)):
        O = d.width()
        layers += [Linear(F, O, bias=d.chance(.3)), neuron(d), *between(d)]
        F = O
    if d.chance(.8): layers.append(Linear(F, d.pick(1, 3, 10 if d.wide else 8), bias=d.chance(.5)))
    return layers + [Integrator(float(np.float32(d.pick(1., .9))))]*d.chance(.7)

# What a network gets to see

def shape_of_input(d, large):
    if large: return d.pick(1, 3, 5),d.rng.randint(10, 14),d.rng.randint(10, 14)
    return d.width() if d.chance(.3) else d.pick(1, 2, 3, 5),d.rng.randint(1, 9),d.rng.randint(1, 9)

def values(d, shape, g):
    "Spike trains of every sort, and currents."
    rate = d.pick(.05, .2, .4, .7)
    if d.may('nothing', .06): rate = d.pick(0., 1.)
    spikes = (torch.rand(shape, generator=g)<rate).float()
    kind = d.pick('spikes', 'spikes', 'spikes', 'signed', 'scaled', 'currents')
    sign = torch.randint(0, 2, shape, generator=g)*2.-1
    if kind=='signed': return spikes*sign
    if kind=='scaled': return spikes*sign*torch.randint(1, 9, shape, generator=g)/4
    if kind=='currents': return torch.randint(-32, 33, shape, generator=g)/16
    return spikes

def laid(d, x):
    "The same numbers, otherwise in memory."
    how = d.pick('plain', 'plain', 'channels last', 'sliced', 'constant')
    if how=='channels last': return x.movedim(2, -1).contiguous().movedim(-1, 2)
    if how=='sliced': return torch.stack([x, x+1], 3).select(3, 0)
    if how=='constant': return x[:1].expand(x.shape)
    return x

@dataclass
class Case:
    "A network, and what is to be done with it."
    net:nn.Module
    inputs:list             # one, or two for two calls
    seed:int                # of torch's generator
    learn:str='grad'        # 'grad', 'no_grad' or 'inference'
    sparse:bool=False       # the engine gets the input in sparse form
    owed:bool=False         # the input has a gradient
    retain:bool=False       # backward twice
    threads:int=1
    limits:dict=field(default_factory=dict) # of the engine, while this network runs

    def __str__(self):
        told = {k: v for k,v in vars(self).items() if k not in ('net', 'inputs')}
        inputs = ', '.join(f'{tuple(o.shape)} strides {o.stride()} of {o.unique().numel()} values' for o in self.inputs)
        return f'{self.net}\ntraining {self.net.training}, inputs {inputs}\n{told}'

def hook(d, net):
    "Hooks that look on, at layers here and there."
    for m in net.modules():
        if list(m.children()): continue
        if d.may('hooks', .06): m.register_forward_hook(looks[d.pick(*looks)])
        if d.may('backward_hooks', .03) and isinstance(m, (Conv2d, Linear, LIF)): m.register_full_backward_hook(back)

def back(layer, gin, gout): layer.heard = getattr(layer, 'heard', 0)+1

@torch.no_grad()
def weigh(d, net, g):
    "Weights, parameters of norms and running statistics."
    for m in net.modules():
        if isinstance(m, (Conv2d, Linear)):
            fan = m.weight[0].numel()
            size = 2/math.sqrt(fan)
            m.weight.copy_(torch.randn(m.weight.shape, generator=g)*size + d.pick(0, 1, 3)/fan)
            if m.bias is not None: m.bias.copy_(torch.randn(m.bias.shape, generator=g)*size/4)
        if isinstance(m, nn.BatchNorm2d):
            for n,p in m.named_parameters(): p.copy_(torch.randn(p.shape, generator=g)*.3 + (n in ('weight', 'scale')))
            if m.running_mean is not None:
                m.running_mean.copy_(torch.randn(m.running_mean.shape, generator=g)*.3)
                m.running_var.copy_(torch.rand(m.running_var.shape, generator=g)+.3)
    for p in net.parameters():
        if d.exact: p.copy_((p*32).round()/32)
        p.requires_grad_(p.requires_grad and not d.may('frozen', .1))

def threshold_for(cell, x, rate, grid):
    "A threshold at which `cell` fires about as often as `rate` says, or at least fires."
    low,high = 1e-3,4*x.abs().max().item()+1e-3
    best = None
    for _ in range(10):
        cell.threshold = float(np.float32(math.sqrt(low*high)))
        if grid: cell.threshold = max(1, round(cell.threshold*64))/64
        fired = lif(x, **cell.options() | dict(grad='spike_bp')).mean().item()
        if fired and (best is None or abs(fired-rate)<best[0]): best = abs(fired-rate),cell.threshold
        if .7*rate<fired<1.4*rate: break
        low,high = (cell.threshold, high) if fired>rate else (low, cell.threshold)
    if best: cell.threshold = best[1]

def tune(d, case):
    "Let every neuron layer fire, by its threshold."
    tuned = set()
    def look(m, args):
        if m in tuned: return
        tuned.add(m)
        threshold_for(m, dense(args[0]), d.pick(.02, .05, .1, .2, .4, .9), d.exact)
    before = copy.deepcopy(case.net.state_dict())
    hooks = [m.register_forward_pre_hook(look) for m in case.net.modules() if isinstance(m, LIF)]
    with torch.no_grad(), use('torch'):
        torch.manual_seed(case.seed)
        try: case.net(case.inputs[0])
        except ValueError: pass # a norm of a single number: `check` finds out that torch refuses it
    for h in hooks: h.remove()
    case.net.load_state_dict(before)

def cramped(d):
    "Limits of the engine's, small enough that small networks take the ways of large ones."
    if not d.may('cramped', .3): return {}
    return dict(_portion=d.pick(1, 2**3, 2**6), _few=d.pick(0, 2**20), _light=d.pick(0, 2**19))

def make(seed, number, without=(), wide=True):
    "Network `number` of those that `seed` gives."
    d = Draw(seed, number, without, wide)
    g,large = seeded('fuzz', seed, number),d.may('large', .04)
    if large: d.words,d.mixed,d.B = 'u64',False,min(d.B, 2)
    encoder = d.pick(Poisson, Poisson, Direct) if d.chance(.15) else None
    images = d.chance(.8) or large
    shape = shape_of_input(d, large) if images else (d.pick(1, 5, 16, 40, 100, 300),)
    first,out = trunk(d, shape) if images else ([], shape)
    layers = [*first, *[Flatten()]*(images and d.chance(.8))]
    if not images or layers[-1:] and isinstance(layers[-1], Flatten): layers += tail(d, math.prod(out))
    if encoder: layers.insert(0, Encoded(encoder(d.T)))
    if not any(isinstance(m, LIF) for o in layers for m in o.modules()): layers.append(neuron(d))
    net = nn.Sequential(*layers)
    weigh(d, net, g)
    hook(d, net)
    net.train(d.training)
    if d.chance(.1):
        for m in net.modules(): m.train(d.chance(.5) if isinstance(m, nn.BatchNorm2d) else m.training)
    inputs = []
    for _ in range(1 + d.may('again', .1)):
        if encoder: inputs.append(torch.rand(d.B, *shape, generator=g)*2-d.pick(0, 1, 1))
        else: inputs.append(laid(d, values(d, (d.T, d.B, *shape), g)))
    if encoder: inputs = [o.clamp(0, 1) if d.chance(.7) else o.clamp(-1, 1) for o in inputs]
    case = Case(net, inputs, d.rng.randrange(10**6), learn=d.pick(*['grad']*8, 'no_grad', 'inference'))
    case.owed = not encoder and d.may('owed', .25)
    case.sparse = not encoder and not case.owed and d.chance(.3)
    case.retain,case.threads,case.limits = d.may('retain', .1),1+d.may('threads', .4),cramped(d)
    tune(d, case)
    return case

# How a network is run

@dataclass
class Found:
    "What a run gave."
    names:list      # of the neuron layers, in the order of their calls
    spikes:list     # of each call
    currents:list   # of each call, where they were asked for
    cells:list      # the neurons
    outputs:list
    grads:dict
    buffers:dict
    rng:torch.Tensor # the state of torch's generator after the forward pass
    heard:dict      # how often hooks heard the way back
    terms:dict      # of a bias: the absolute gradients that make up its own, added

@contextmanager
def setting(**values):
    "Within this context the engine's `roads` and `synapses` have these values."
    from snnkit.engine import roads, synapses
    places = {k: roads if hasattr(roads, k) else synapses for k in values}
    old = {k: getattr(m, k) for k,m in places.items()}
    try:
        for k,m in places.items(): setattr(m, k, values[k])
        yield
    finally:
        for k,m in places.items(): setattr(m, k, old[k])

@contextmanager
def road(mode, case):
    "Compute by `mode`; 'mixed' is the default mode, with a coin for each layer in place of its rate."
    with ExitStack() as stack:
        stack.enter_context(use('auto' if mode=='mixed' else mode))
        stack.enter_context(setting(**case.limits))
        if mode=='mixed':
            coin = random.Random(case.seed)
            stack.enter_context(setting(_small=0, _pays=lambda *_: coin.random()<.5))
        if case.learn=='no_grad': stack.enter_context(torch.no_grad())
        if case.learn=='inference': stack.enter_context(torch.inference_mode())
        yield

def record(net, watch):
    "Hear the neurons of `net` without looking at their spikes; with `watch` keep their currents too."
    calls,hooks = [],[]
    def listen(name):
        return lambda m, args, y: calls.append((name, m, dense(args[0]).detach() if watch else None, y))
    for n,m in net.named_modules():
        if isinstance(m, LIF): hooks.append(m.register_forward_hook(listen(n)))
    return calls,hooks

def hear_terms(net):
    "A dictionary that the way back fills: for a synapse's bias, the sums of the absolute gradients it is a sum of."
    terms = {}
    def listen(name):
        def add(g): terms[name] = terms.get(name, 0) + g.abs().transpose(0, 2).flatten(1).sum(1)
        def after(m, args, y):
            if y.requires_grad: y.register_hook(add)
        return after
    for n,m in net.named_modules():
        if isinstance(m, (Conv2d, Linear)) and m.bias is not None: m.register_forward_hook(listen(f'{n}.bias'))
    return terms

def backward(case, outputs, precise):
    "Gradients of a sum in which every number has a weight of its own."
    g = seeded('pull', case.seed)
    loss = sum((dense(o)*torch.randn(o.shape, generator=g).to(dense(o).dtype)).sum() for o in outputs)
    if not loss.requires_grad: return
    for i in range(1+case.retain): loss.backward(retain_graph=i<case.retain)

def run(case, mode, precise=False):
    "What `mode` makes of a case; `precise`: in double precision, with the currents."
    net = copy.deepcopy(case.net)
    if precise: net.double()
    terms = hear_terms(net) if precise and case.learn=='grad' else {}
    calls,_ = record(net, mode=='torch')
    torch.set_num_threads(case.threads)
    inputs = [o.double() if precise else o.detach() for o in case.inputs]
    if case.owed: inputs = [o.requires_grad_() for o in inputs]
    with road(mode, case):
        given = [to_train(o) if case.sparse and mode!='torch' else o for o in inputs]
        torch.manual_seed(case.seed)
        outputs = [net(o) for o in given]
        rng = torch.get_rng_state()
        if case.learn=='grad': backward(case, outputs, precise)
        outputs,spikes = ([dense(o).detach() for o in l] for l in (outputs, [o[3] for o in calls]))
    grads = {n: p.grad for n,p in net.named_parameters()} | {f'input {i}': o.grad for i,o in enumerate(inputs)}
    heard = {n: getattr(m, 'heard', 0) for n,m in net.named_modules()}
    names,cells,currents,_ = zip(*calls) if calls else ((),)*4
    return Found(names, spikes, currents, cells, outputs, grads, dict(net.named_buffers()), rng, heard, terms)

# How two runs are compared

@dataclass
class Verdict:
    "What came of a network."
    status:str       # 'same', 'tie', 'silent', 'refused', 'mismatch' or 'crash'
    mode:str=''
    what:str=''      # what differs
    cancelled:int=0  # gradients in which torch's own rounding is as large

def drift(a, b):
    "The largest distance of two tensors."
    return (a.double()-b.double()).abs().max().item() if b.numel() else 0.

def is_tie(i, got, judge, plain):
    "Does every neuron of call `i` that differs do so first where its membrane lies within rounding of the threshold?"
    cell,x,s = judge.cells[i],judge.currents[i],judge.spikes[i]
    u,_ = membrane(x, cell.leak, cell.threshold, cell.reset, cell.refractory, cell.start)
    scale = cell.threshold+x.abs().max().item()+u.abs().max().item()
    same = all(a.equal(b.to(a)) for a,b in zip(plain.spikes[:i], judge.spikes[:i]))
    near = 4e-6*scale + (8*len(x)*drift(plain.currents[i], x) if same else 0)
    differs = (got.spikes[i].double()!=s).flatten(1)
    first = differs.cumsum(0).eq(1) & differs
    return ((u-cell.threshold).abs().flatten(1)[first]<near).all().item()

def at_an_edge(judge):
    "Does a membrane lie within rounding of an edge of the rectangle that is its surrogate?"
    for cell,x in zip(judge.cells, judge.currents):
        if cell.grad!='rectangle': continue
        u,_ = membrane(x, cell.leak, cell.threshold, cell.reset, cell.refractory, cell.start)
        if (((u-cell.threshold).abs()-.5).abs()<4e-6*(1+u.abs().max())).any(): return True
    return False

def wrong_spikes(got, judge, plain):
    "(status, what) if a spike differs, else None."
    if got.names!=judge.names: return 'mismatch',f'neurons were called as {got.names}, not as {judge.names}'
    for i,(a,b) in enumerate(zip(got.spikes, judge.spikes)):
        where = f'{got.names[i]} (call {i})'
        if a.shape!=b.shape: return 'mismatch',f'spikes of {where} have shape {tuple(a.shape)}, not {tuple(b.shape)}'
        if a.double().equal(b): continue
        n = (a.double()!=b).sum().item()
        return 'tie' if is_tie(i, got, judge, plain) else 'mismatch',f'{n} of {b.numel()} spikes of {where} differ'

rounding = 2**-22 # of a few numbers in single precision, relative

class Tolerance:
    """1e-4 of what double precision finds, a trace of the largest of all, and the rounding of the terms of a sum. Where
    plain torch in single precision has the same spikes and is off by more, the sums cancel: then as much as 64 times
    its error, which is counted."""
    def __init__(self, wants):
        self.scale = max([o.norm().item() for o in wants if o is not None], default=0.)
        self.cancelled = 0

    def wrong(self, a, b, own, terms=None):
        """What is wrong with `a`, if anything, where double precision has `b` and plain torch has `own`; `terms`: the
        absolute terms of `b`, added, if it is a sum of which they are known."""
        if a is None and b is None: return None
        if a is None or b is None: return 'missing' if a is None else 'there, and torch has none'
        if a.shape!=b.shape: return f'of shape {tuple(a.shape)}, not {tuple(b.shape)}'
        error,allowed = (a.double()-b).norm().item(),1e-4*b.norm().item()+1e-5*self.scale+1e-12
        if terms is not None: allowed += rounding*terms.norm().item()
        if error<=allowed: return None
        if own is None or error>64*(own.double()-b).norm().item(): return f'off by {error:.2e} of {b.norm():.2e}'
        self.cancelled += 1

def wrong_among(kind, got, judge, plain, terms):
    "The first of some named tensors that is wrong, if one is, and how many cancelled."
    tolerance = Tolerance(judge.values())
    for n,b in judge.items():
        wrong = tolerance.wrong(got[n], b, plain[n] if plain else None, terms.get(n))
        if wrong: return f'the {kind} {n} is {wrong}',0
    return None,tolerance.cancelled

def numbers(found):
    "What is compared within rounding, each buffer on its own scale."
    yield 'output',dict(enumerate(found.outputs))
    for n,o in found.buffers.items(): yield 'buffer',{n: o.double()}
    yield 'gradient of',found.grads

def wrong_numbers(got, judge, plain, equal):
    "What else differs, if anything, and how many numbers cancelled; `equal`: had plain torch the spikes of the judge?"
    if not got.rng.equal(plain.rng): return 'the state of the generator differs',0
    cancelled = 0
    for (kind,a),(_,b),(_,own) in zip(numbers(got), numbers(judge), numbers(plain)):
        wrong,n = wrong_among(kind, a, b, own if equal else None, judge.terms)
        if wrong: return wrong,0
        cancelled += n
    if got.heard!=judge.heard: return f'hooks heard {got.heard}, not {judge.heard}',0
    return None,cancelled

def compare(got, judge, plain):
    "The verdict on a run."
    wrong = wrong_spikes(got, judge, plain)
    if wrong: return Verdict(wrong[0], what=wrong[1])
    equal = wrong_spikes(plain, judge, plain) is None
    what,cancelled = wrong_numbers(got, judge, plain, equal)
    if not what: return Verdict('same', cancelled=cancelled)
    if 'gradient' in what and at_an_edge(judge): return Verdict('tie', what='a surrogate at its edge')
    return Verdict('mismatch', what=what)

modes = 'numba','mixed'

def judged(case):
    "Double precision, and plain torch in single precision; or the error that torch has."
    try: return run(case, 'torch', precise=True),run(case, 'torch'),None
    except Exception as e: return None,None,e

def check(case):
    "The verdict on a case."
    judge,plain,error = judged(case)
    cancelled = 0
    for mode in modes:
        try: got = run(case, mode)
        except Exception as e:
            if error is not None: continue
            return Verdict('crash', mode, f'{type(e).__name__}: {e}\n{traceback.format_exc()}')
        if error is not None: return Verdict('mismatch', mode, f'gives an answer where torch says {error}')
        verdict = compare(got, judge, plain)
        if verdict.status!='same':
            verdict.mode = mode
            return verdict
        cancelled += verdict.cancelled
    if error is not None: return Verdict('refused', what=str(error))
    fires = judge.spikes and all(o.any() for o in judge.spikes)
    return Verdict('same' if fires else 'silent', cancelled=cancelled)

def check_net(seed, number, **options):
    "The verdict on network `number` of those that `seed` gives."
    threads = torch.get_num_threads()
    try: return check(make(seed, number, **options))
    finally: torch.set_num_threads(threads)

# Many networks, as a command

def work(seed, numbers, **options):
    "Try these networks and tell of each, one line of JSON when it begins and one when it is done."
    faulthandler.enable()
    for i in numbers:
        print(json.dumps(dict(begins=i)), flush=True)
        v = check_net(seed, i, **options)
        print(json.dumps(dict(number=i, **vars(v))), flush=True)

def start(seed, numbers, args):
    "A process that tries these networks."
    todo = ['--worker', ','.join(map(str, numbers)), '--seed', str(seed), '--without', ','.join(args.without)]
    command = [sys.executable, __file__, *todo, *['--narrow']*args.narrow]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

def follow(process, numbers, seed, tell, args):
    "Hear a process out; if it dies, that is a crash of the network it was at, and another one goes on behind it."
    while True:
        begun = None
        for line in process.stdout:
            if not line.startswith('{'): continue
            o = json.loads(line)
            if 'begins' in o: begun = o['begins']
            else: tell(o.pop('number'), Verdict(**o))
        code = process.wait()
        if code==0: return
        tell(begun, Verdict('crash', what=f'the process ended with {code}'))
        numbers = numbers[numbers.index(begun)+1:]
        if not numbers: return
        process = start(seed, numbers, args)

def summary(found, seconds):
    n = Counter(o.status for o in found.values())
    cancelled = sum(o.cancelled for o in found.values())
    return (f'{len(found)} networks in {seconds:.0f} s: {n["same"]+n["tie"]} counted (all layers spike), '
            f'{n["silent"]} silent, {n["refused"]} refused by torch too; {n["mismatch"]} mismatches, '
            f'{n["tie"]} near ties rounded otherwise, '
            f'{cancelled} numbers that cancel, {n["crash"]} crashes')

def describe(seed, number, verdict, args):
    text = f'\n{verdict.status} by {verdict.mode}: {verdict.what}\n'
    text += f'again: python tests/machine_room/fuzz.py --seed {seed} --only {number}'
    if args.without!=['']: text += f' --without {",".join(args.without)}'
    return text + ' --narrow'*args.narrow

def options(args=None):
    p = argparse.ArgumentParser(description='Hold the engine against plain torch with random networks.')
    p.add_argument('--nets', type=int, default=300, help='how many networks')
    p.add_argument('--first', type=int, default=0, help='number of the first one, to go on from there')
    p.add_argument('--seed', type=int, default=0, help='which networks')
    p.add_argument('--jobs', type=int, default=1, help='processes')
    p.add_argument('--only', type=int, help='try this network alone, and describe it')
    p.add_argument('--without', default='', type=lambda o: o.split(','), help='features to leave out, with commas')
    p.add_argument('--narrow', action='store_true', help='few widths and kernels, and so fewer kernels to compile')
    p.add_argument('--list', action='store_true', help='list the features')
    p.add_argument('--worker', help=argparse.SUPPRESS)
    return p.parse_args(args)

a_process = 100 # networks that one process tries: each keeps kernels and buffers

def try_many(args):
    "Try many networks; gives the verdicts."
    found,end = {},args.first+args.nets
    bar = tqdm(total=args.nets, unit='net', miniters=1, mininterval=10)
    def tell(number, verdict):
        found[number] = verdict
        bar.update()
        if verdict.status in ('mismatch', 'crash'): print(describe(args.seed, number, verdict, args), flush=True)
    runs = [range(i, min(i+a_process, end)) for i in range(args.first, end, a_process)]
    def job(first):
        for o in runs[first::args.jobs]: follow(start(args.seed, o, args), list(o), args.seed, tell, args)
    threads = [Thread(target=job, args=(i,)) for i in range(args.jobs)]
    for t in threads: t.start()
    for t in threads: t.join()
    bar.close()
    return found

def main():
    args = options()
    kw = dict(without=args.without, wide=not args.narrow)
    if args.list:
        for k,v in features.items(): print(f'{k:16} {v}')
    elif args.worker: work(args.seed, [int(o) for o in args.worker.split(',')], **kw)
    elif args.only is not None:
        print(make(args.seed, args.only, **kw), flush=True)
        verdict = check_net(args.seed, args.only, **kw)
        print(describe(args.seed, args.only, verdict, args))
        return verdict.status in ('mismatch', 'crash')
    else:
        begin = time.time()
        found = try_many(args)
        print(summary(found, time.time()-begin))
        return any(o.status in ('mismatch', 'crash') for o in found.values())

if __name__=='__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
