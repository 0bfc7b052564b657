"""The kernels' instructions do not look whether an index is within its array. So random layers run here on arrays that
end where forbidden memory begins, with numbers before them that must stay: reading or writing past either end is
found."""
import os,subprocess,sys
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='pages are forbidden by mprotect')

code = '''
import ctypes,faulthandler,mmap,sys
from importlib import import_module
from types import SimpleNamespace
import numpy as np, torch
from torch import nn
from snnkit.core import seeded
from snnkit.engine import events
from snnkit.layers import IF,LIF,AvgPool2d,BatchNorm2d,Conv2d,Dropout,Flatten,Integrator,Linear,Poisson,use

faulthandler.enable()
torch.set_num_threads(1)
page,canary = mmap.PAGESIZE,0x5a
protect = ctypes.CDLL(None, use_errno=True).mprotect
taken = [] # all guarded memory: its pages, and where the array begins

def guarded(shape, dtype, fill=None):
    "An array that ends where a page begins that may neither be read nor written, behind bytes of 0x5a"
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))*dtype.itemsize
    pages = (size+page-1)//page+2 # one before it, in which canaries live
    m = mmap.mmap(-1, pages*page)
    whole = np.frombuffer(m, np.uint8)
    end = (pages-1)*page
    assert protect(ctypes.c_void_p(whole.ctypes.data+end), ctypes.c_size_t(page), 0)==0
    whole[:end-size] = canary
    a = np.frombuffer(m, dtype, size//dtype.itemsize, end-size).reshape(shape)
    if fill is None: a.view(np.uint8)[...] = 0xff # NaN, and an index that is nowhere
    else: a[...] = fill
    taken.append((whole, end-size))
    return a

def copy(a): return guarded(a.shape, a.dtype, a)

def unharmed():
    for whole,begin in taken: assert (whole[:begin]==canary).all(), 'written before the beginning of an array'
    taken.clear()

class Numpy: # as the engine sees it
    def __getattr__(self, name): return getattr(np, name)
    def empty(self, shape, dtype=np.float32): return guarded(shape, dtype)
    def zeros(self, shape, dtype=np.float32): return guarded(shape, dtype, 0)
    def ones(self, shape, dtype=np.float32): return guarded(shape, dtype, 1)
    def ascontiguousarray(self, a): return copy(a)
    def array(self, a): return copy(np.array(a))

def fresh(*shape, dtype=np.float32): return guarded(shape, dtype)
def scratch(worker, name, size, dtype=np.float32): return guarded((size,), dtype)
def aligned(size, dtype=np.float32): return guarded((size,), dtype, 0)

def guard():
    "Memory of the engine, wherever it is asked for, is guarded"
    rooms = [import_module(f'snnkit.engine.{o}') for o in sys.argv[2:]]
    found = set()
    for room in rooms:
        if hasattr(room, 'np'): room.np = Numpy()
        for f in fresh, scratch, aligned:
            if hasattr(room, f.__name__):
                setattr(room, f.__name__, f)
                found.add(f.__name__)
    assert found=={'fresh', 'scratch', 'aligned'}, found
    for name in 'reach','windows','weight_map':
        f = getattr(events, name)
        setattr(events, name, lambda *args, f=f: tuple(copy(o) for o in f(*args)))
    numbers = events.numbers
    events.numbers = lambda g: copy(numbers(g))
    spread = events.offsets
    events.offsets = lambda counts: copy(spread(counts))

def tensor(a): return torch.from_numpy(copy(a.numpy()))

def train(T, B, shape, kind, g):
    "A train of spikes: empty, full, with a few, or with values"
    if kind=='empty': x = torch.zeros(T, B, *shape)
    elif kind=='full': x = torch.ones(T, B, *shape)
    else: x = (torch.rand(T, B, *shape, generator=g)<.2).float()
    if kind=='values': x = x*torch.randint(-1, 2, x.shape, generator=g)
    return tensor(x)

def run(layers, x, g):
    "Forward and backward, by events"
    net = nn.Sequential(*layers)
    for p in net.parameters(): p.data = tensor(torch.randn(p.shape, generator=g)*.7)
    x = x.requires_grad_()
    with use('numba'):
        y = net(x)
        y.backward(tensor(torch.randn(y.shape, generator=g)))
    assert all(p.grad.isfinite().all() for p in net.parameters()) and x.grad.isfinite().all() and y.isfinite().all()
    unharmed()

def pick(g, *of): return of[int(torch.randint(len(of), (1,), generator=g))]

def widths(g):
    "Channels in and out, of one type of words: there is a kernel to compile for each pair of types"
    low,high = pick(g, (1, 9), (9, 17), (17, 33), (33, 131), (33, 131))
    return (int(torch.randint(low, high, (1,), generator=g)) for _ in range(2))

def linear(g):
    C,O = widths(g)
    x = train(pick(g, 1, 2, 7), pick(g, 1, 3), (C,), pick(g, *kinds), g)
    run([Linear(C, O, bias=pick(g, True, False)), neuron(g)], x, g)

def neuron(g):
    soft = pick(g, 'zero', 'subtract')
    leak,refractory = pick(g, 1., .9),pick(g, 0, 0, 2)
    return LIF(leak, .5, reset=soft, refractory=refractory, grad=pick(g, 'spike_bp', 'spike_bp', 'atan'))

def conv(g):
    C,O = widths(g)
    K = pick(g, 1, 1, (3, 1), 3 if O<6 or O>63 else (4, 1)) # as many rows of taps as other layers have
    s,p = pick(g, 1, 2),pick(g, 0, 1)
    H,W = (int(torch.randint(4, 8, (1,), generator=g)) for _ in range(2))
    x = train(pick(g, 1, 3), pick(g, 1, 2), (C, H, W), pick(g, 'empty', 'full', 'few'), g)
    layers = [Conv2d(C, O, K, s, p, bias=pick(g, True, False))]
    if pick(g, True, False): layers.append(BatchNorm2d(O))
    run([*layers, neuron(g)], x, g)

def pooled(g):
    C,O = widths(g)
    H,W = (int(torch.randint(4, 9, (1,), generator=g)) for _ in range(2))
    x = train(pick(g, 1, 3), pick(g, 1, 2), (C, H, W), pick(g, 'empty', 'full', 'few'), g)
    layers = [Conv2d(C, O, 1, bias=False), LIF(1., .5)]
    if pick(g, True, False): layers.append(Dropout(.3))
    run([*layers, AvgPool2d(*pick(g, (2, 2), (3, 2), (2, 1))), pick(g, IF(.5), IF(.5, reset='subtract'))], x, g)

def planes(g):
    "Wide layers whose currents do not fit into the nearest cache"
    x = train(2, 1, (40, 13, 12), 'few', g)
    layers = [Conv2d(40, pick(g, 50, 64, 66, 114), 3, padding=1, bias=False), LIF(.9, .5)]
    run([*layers, *pick(g, [], [AvgPool2d(2), IF(.5)])], x, g)

def images(g):
    C = pick(g, 1, 3)
    x = torch.rand(2, C, 5, 6, generator=g)
    x = tensor(x*(x>.7)) # mostly black
    with use('numba'): Conv2d(C, 4, 3)(Poisson(pick(g, 1, 6))(x))
    unharmed()

kinds = 'empty','full','few','few','values'
which = dict(linear=linear, conv=conv, pooled=pooled, planes=planes, images=images)
name,n = sys.argv[1].split()
guard()
for seed in range(int(n)):
    print(name, seed, flush=True)
    which[name](seeded(name, seed))
used = {o for o,f in vars(events).items() if getattr(f, 'overloads', None)}
missing = {'_tossed'} if name=='images' else {'_pack', '_forward', '_backward'}
assert int(n)==0 or missing<=used, used # the kernels did the work
print('done')
'''

rooms = 'memory', 'trains', 'synapses', 'roads' # which ask for memory

def call(*args):
    env = os.environ | dict(OMP_NUM_THREADS='1')
    return subprocess.run([sys.executable, '-c', *args], capture_output=True, text=True, env=env)

@pytest.mark.parametrize('layer,n', dict(linear=40, conv=20, pooled=12, planes=4, images=4).items())
def test_no_kernel_reads_or_writes_beyond_its_arrays(layer, n):
    "Widths from 1 to 130, one step and several, one image and several, empty trains and full ones"
    r = call(code, f'{layer} {n}', *rooms)
    assert r.stdout.endswith('done\n'), f'{r.stdout[-100:]}\n{r.stderr[-3000:]}'

@pytest.mark.parametrize('what', ['return total(load(a, 1, 0, z))', 'store(a, -1, 0, z)'])
def test_the_guards_notice(what):
    "A row read one float too late, or written one float too early"
    change = f"""
from numba import njit
from snnkit.engine.lanes import load, store, zeros, total, one_row, sixteen
@njit
def f(a):
    z = zeros(sixteen, one_row)
    {what}
f(guarded((16,), np.float32, 1))
unharmed()
"""
    r = call(code.replace('name,n = sys.argv[1].split()\nguard()', change+'name,n = "images","0"'))
    assert 'written before' in r.stderr if 'store' in what else r.returncode<0, r.stderr[-1000:]
