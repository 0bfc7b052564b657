"""The fused kernels against the neuron in closed form. Without a GPU the tests of what they compute run in a Python of
their own, whose Triton interprets its kernels (that is decided when `snnkit.engine.fused` is imported, and other tests
want it as it is); what the compiler makes of them is looked at here."""
import os,subprocess,sys
from functools import partial
from itertools import product
import pytest, torch
from hypothesis import given, settings, strategies as st
from snnkit.core import seeded
from snnkit.layers import use
from snnkit.models import lenet
from snnkit.spikebp import atan, lif, surrogates
from torch.utils._python_dispatch import TorchDispatchMode
triton = pytest.importorskip('triton', reason='Triton is not installed: there are no wheels of it for this platform')
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from snnkit.engine import fused
from snnkit.engine.fused import fused_lif

cuda = torch.cuda.is_available()
compiled = isinstance(fused._forward, triton.JITFunction)
dev = 'cuda' if cuda else 'cpu'

def on_device(f): return f if cuda or not compiled else None  # what the child process is for
def compiler(f): return f if compiled else None

few = settings(max_examples=60 if cuda else 12, deadline=None, derandomize=True) # the interpreter takes its time
grads = 'spike_bp', 'straight_through', *surrogates, partial(atan, slope=2), lambda v: torch.exp(-v*v)
neurons = st.fixed_dictionaries(dict(
    leak=st.one_of(st.just(1.), st.floats(.3, 1)),
    threshold=st.floats(.2, 3),
    reset=st.sampled_from(['zero', 'subtract']),
    refractory=st.one_of(st.integers(0, 5), st.integers(30, 80)),
    grad=st.sampled_from(grads),
    start=st.sampled_from([0., .5, 1.])))
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3)
lengths = st.one_of(st.integers(1, 70), st.sampled_from([31, 32, 33, 63, 64, 65]))
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
seeds = st.integers(0, 10**6)

def currents(T, shape, seed, dtype=torch.float32):
    return (torch.randn(T, *shape, generator=seeded('x', seed))+.3).to(dev, dtype)

def gradient(f, x, g, **kw):
    x = x.detach().requires_grad_()
    s = f(x, **kw)
    s.backward(g)
    return s.detach(), x.grad

if not cuda and compiled:
    def test_under_the_interpreter():
        cmd = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', __file__]
        r = subprocess.run(cmd, env=os.environ | dict(TRITON_INTERPRET='1'), capture_output=True, text=True)
        assert r.returncode==0, r.stdout
        print(r.stdout)

@on_device
@few
@given(neurons, lengths, shapes, dtypes, seeds)
def test_equals_the_closed_form(kw, T, shape, dtype, seed):
    "In half precision: equals float32's, rounded once for the gradient and, with a surrogate, once for its slope"
    x,g = currents(T, shape, seed, dtype),currents(T, shape, seed+1, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    (s,dx),(s2,dx2) = gradient(fused_lif, x, g, **kw),gradient(lif, x.to(wide), g.to(wide), **kw)
    assert s.dtype==dx.dtype==dtype and s.to(wide).equal(s2)
    rel = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 2*torch.finfo(dtype).eps)
    off = (dx.to(wide)-dx2).norm()
    assert off <= rel*dx2.norm() + 1e-6*(dtype==torch.float16), f'{off} of {dx2.norm()}'

@on_device
@few
@given(st.integers(1, 6), st.integers(1, 40), st.permutations(range(4)), st.integers(1, 2),
       st.sampled_from(['spike_bp', 'atan']), seeds)
def test_takes_any_layout(T, n, order, step, grad, seed):
    "Permuted dimensions, holes, one current expanded over time, one gradient expanded over neurons"
    x = currents(T, (2*step, 3, n), seed).permute(*order)
    x = x.contiguous().permute(*map(order.index, range(4)))[:, ::step]
    g = currents(T, (2, 1, 1), seed+1).expand_as(x)
    for o in (x, x[:1].expand(T, -1, -1, -1)):
        s,dx = gradient(fused_lif, o, g, refractory=1, grad=grad)
        s2,dx2 = gradient(lif, o.contiguous(), g.contiguous(), refractory=1, grad=grad)
        assert s.equal(s2) and torch.allclose(dx, dx2, rtol=1e-5, atol=1e-7)

@on_device
def test_spikes_of_a_channels_last_convolution_lie_channels_last():
    x = currents(12, (3, 4, 5), 0).to(memory_format=torch.channels_last).unflatten(0, (6, 2)).requires_grad_()
    s = fused_lif(x)
    s.backward(torch.ones_like(s))
    assert s.stride()==x.stride()==x.grad.stride() and s.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)

@on_device
def test_many_blocks_with_a_tail():
    x,g = currents(3, (1000,), 0),currents(3, (1000,), 1)
    (s,dx),(s2,dx2) = gradient(fused_lif, x, g, leak=.9),gradient(lif, x, g, leak=.9)
    assert s.equal(s2) and torch.allclose(dx, dx2, rtol=1e-5)
    assert fused_lif(torch.zeros(3, 0, 4, device=dev)).shape==(3, 0, 4)

@on_device
def test_the_bound_stands_before_the_kernel():
    x,g = currents(12, (50,), 0)+torch.linspace(-1, 3, 50, device=dev),currents(12, (50,), 1)
    (s,dx),(s2,dx2) = gradient(fused_lif, x, g, grad='bounded'),gradient(lif, x, g, grad='bounded')
    assert s.equal(s2) and torch.allclose(dx, dx2, rtol=1e-5)
    over = x.sum(0)>=len(x)
    assert over.any() and not over.all() and (dx[:, over]==0).all() and (s[:, over].sum(0)>0).all()

@on_device
def test_gradients_between_spikes_are_not_even_looked_at():
    x,g = currents(40, (30,), 0),currents(40, (30,), 1)
    s,dx = gradient(fused_lif, x, g)
    assert gradient(fused_lif, x, torch.where(s>0, g, torch.nan))[1].equal(dx)

@on_device
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_under_autocast(dtype):
    torch.manual_seed(0) # of some weights nothing fires
    fc,x = torch.nn.Linear(6, 5).to(dev),torch.rand(20, 3, 6, generator=seeded(0)).to(dev)*4
    with torch.autocast(dev, dtype=dtype):
        y = fc(x)
        s = fused_lif(y, grad='atan')
    assert s.dtype==y.dtype==dtype and s.float().equal(lif(y.float())) and 0<s.float().mean()<1
    s.float().pow(2).sum().backward()
    assert fc.weight.grad.dtype==torch.float32 and fc.weight.grad.norm()>0

@on_device
def test_inside_torch_compile():
    f = lambda x: fused_lif(2*x, leak=.9)*3
    x,g = currents(20, (7,), 0),currents(20, (7,), 1)
    (s,dx),(s2,dx2) = gradient(torch.compile(f, backend='aot_eager'), x, g),gradient(f, x, g)
    assert s.equal(s2) and torch.allclose(dx, dx2) and dx.norm()>0

class Made(TorchDispatchMode):
    "Bytes of the empty tensors that are made on the device, to be filled by kernels"
    bytes = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if 'empty' in str(func): self.bytes += out.nbytes*(out.device.type==dev)
        return out

@on_device
def test_without_learning_only_spikes_are_made():
    x = currents(20, (7,), 0)
    with Made() as made: s = fused_lif(x, grad='atan')
    assert made.bytes==s.nbytes and s.grad_fn is None and s.equal(lif(x))
    with torch.no_grad(): assert fused_lif(x.clone().requires_grad_()).equal(s)

@on_device
@pytest.mark.parametrize('grad,size', [
    pytest.param('spike_bp', 8+4, id='spike_bp'),
    pytest.param('straight_through', 8, id='straight_through'),
    pytest.param('atan', 8+2*40, id='named'),
    pytest.param(atan, 8+2*40, id='function')])
def test_keeps_bits_and_no_more_than_it_must(grad, size):
    "Of a neuron, over 40 steps: two words of bits; one number for spike-BP, or a slope a step in the currents' dtype"
    x,kept = currents(40, (7,), 0, torch.bfloat16).requires_grad_(),[]
    def keep(t):
        kept.append(t.nbytes)
        return t
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t): fused_lif(x, grad=grad)
    assert sum(kept)==7*size

@on_device
def test_differentiates_once():
    x = currents(20, (7,), 0).requires_grad_()
    dx, = torch.autograd.grad(fused_lif(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'): dx.sum().backward()

@on_device
@pytest.mark.parametrize('kw', [dict(), dict(grad='atan', reset='subtract'), dict(refractory=2)])
def test_whole_lenet(kw):
    torch.manual_seed(0)
    net = lenet(num_classes=3, size=12, num_steps=10, kappa=8., leak=.9, **kw).to(dev)
    x = torch.rand(2, 1, 12, 12, generator=seeded(1)).to(dev)
    def run():
        torch.manual_seed(2)
        net.zero_grad()
        y = net(x)
        (y-torch.eye(2, 3, device=dev)).pow(2).sum().backward()
        return y.detach(), [p.grad.clone() for p in net.parameters()]
    with use('torch'): y,plain = run()
    with use('triton'): y2,ours = run()
    assert y.equal(y2)
    for a,b in zip(ours, plain): assert b.norm()>0 and (a-b).norm() <= 1e-5*b.norm()

def build(kernel, cc=90, extra={}, **kw):
    "Compile `kernel` as `fused_lif` does, for an NVIDIA GPU that need not be here; what is not in `kw` is a number"
    names = [p.name for p in kernel.params]
    numbers = dict(T='i32', N='i64', leak='fp64', threshold='fp64', log_leak='fp64', begin='fp64')
    def type_of(n):
        if n in numbers: return numbers[n]
        is_pointer = isinstance(kw[n], str) and kw[n].startswith('*')
        return kw[n] if is_pointer else 'constexpr'
    types = {n: type_of(n) for n in names}
    fixed = {(i,): kw[n] for i,n in enumerate(names) if types[n]=='constexpr'}
    source,gpu = ASTSource(kernel, types, fixed),GPUTarget('cuda', cc, 32)
    return triton.compile(source, target=gpu, options=fused._options | extra).asm

def options(name, dtype, subtract, rest, cc=90, **kw):
    "The tensors that `fused_lif` hands its kernels for the gradient `name`, and their options"
    wide,acc = ('*fp64', tl.float64) if dtype=='*fp64' else ('*fp32', tl.float32)
    scale = wide if name=='spike_bp' else None
    slope = None if name in ('spike_bp', 'straight_through') else dtype
    common = dict(bits='*i32', scale=scale, slope=slope, REST=rest, SUBTRACT=subtract, ACC=acc, BLOCK=512, cc=cc)
    return common | dict(x=dtype, spikes=dtype, NAME=name) | kw, common | dict(g=dtype, dx=dtype) | kw

variants = [
    *product(['spike_bp', 'atan'], ['*bf16', '*fp32', '*fp64'], [(False, 0), (True, 3)]),
    *product([*surrogates, 'straight_through', ''], ['*fp32'], [(False, 3)])]

@compiler
def test_compiles_for_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    for name,dtype,(subtract,rest) in variants:
        forward,backward = options(name, dtype, subtract, rest)
        assert build(fused._forward, **forward)['cubin'] and build(fused._backward, **backward)['cubin']
    for cc in (75, 80):
        forward,backward = options('spike_bp', '*fp32', False, 3, cc)
        assert build(fused._forward, **forward)['cubin'] and build(fused._backward, **backward)['cubin']
    assert build(fused._forward, **options('', '*fp32', False, 0, bits=None, slope=None)[0])['cubin']   # nothing kept

@compiler
@pytest.mark.parametrize('dtype,fma', [('*fp32', 'FFMA'), ('*fp64', 'DFMA')])
def test_no_product_is_fused_with_a_sum(tmp_path, monkeypatch, dtype, fma):
    "The scan has no such instruction; the leak correction's division has, and has more of them if fusion is allowed"
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    scan,corrected = (options(name, dtype, True, 3)[0] for name in ('straight_through', 'spike_bp'))
    assert fma not in build(fused._forward, **scan)['sass']
    strict,loose = (build(fused._forward, extra=o, **corrected) for o in ({}, dict(enable_fp_fusion=True)))
    assert 'fma.' not in strict['ptx'] and 'fma.' in loose['ptx']
    assert strict['sass'].count(fma) < loose['sass'].count(fma)

@compiler
def test_registers_suffice(tmp_path, monkeypatch):
    "Neither kernel spills a register to memory"
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    for kernel,kw in zip((fused._forward, fused._backward), options('spike_bp', '*fp32', False, 3)):
        code = build(kernel, **kw)['sass']
        assert 'STG' in code and 'STL' not in code and 'LDL' not in code

@compiler
@pytest.mark.skipif(cuda, reason='there is a GPU')
def test_a_cpu_tensor_is_refused():
    with pytest.raises(ValueError, match='snnkit.spikebp.lif'): fused_lif(torch.rand(5, 2))
