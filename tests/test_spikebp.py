"The neuron in closed form against the authors' time loop under plain autograd, and against what must always hold."
import math
import pytest, torch
from hypothesis import given, settings, strategies as st
from snnkit import layers
from snnkit.core import seeded
from snnkit.encoding import Direct, poisson
from snnkit.models import lenet, vgg
from snnkit.layers import LIF, use
from snnkit.spikebp import (by_charge, fire, integrate, leak_correction, lif, lif_autograd, lif_step, membrane,
                            signed_step, surrogates)

grads = 'spike_bp', 'straight_through', *surrogates
few = settings(max_examples=60, deadline=None, derandomize=True)
options = dict(
    leak=st.one_of(st.just(1.), st.floats(.3, 1)),
    threshold=st.floats(.2, 3),
    reset=st.sampled_from(['zero', 'subtract']))
neurons = st.fixed_dictionaries(options | dict(refractory=st.integers(0, 5), grad=st.sampled_from(grads)))
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4)

def currents(T, shape, seed, scale=1.):
    return torch.randn(T, *shape, generator=seeded('x', seed), dtype=torch.float64)*scale + .2

def gradient(f, x, g, **kw):
    x = x.clone().requires_grad_()
    s = f(x, **kw)
    s.backward(g)
    return s.detach(), x.grad

def assert_close(a, b, rel=1e-5):
    assert (a-b).norm() <= rel*b.norm() + 1e-12, f'{(a-b).norm()} of {b.norm()}'

@few
@given(neurons, st.integers(1, 40), shapes, st.integers(0, 10**6))
def test_equals_autograd_of_the_loop(kw, T, shape, seed):
    x,g = currents(T, shape, seed),currents(T, shape, seed+1)
    (s,dx),(s2,dx2) = gradient(lif, x, g, **kw),gradient(lif_autograd, x, g, **kw)
    assert s.equal(s2)
    assert_close(dx, dx2)

@few
@given(st.integers(1, 40), shapes, st.integers(0, 10**6), st.floats(.3, 2))
def test_pooling_neuron_equals_autograd_of_the_loop(T, shape, seed, threshold):
    "The IF behind a pool sees multiples of a quarter: ties with the threshold are part of the test"
    x = torch.randint(0, 5, (T, *shape), generator=seeded(seed)).double()/4
    kw = dict(leak=1., threshold=.75 if seed%2 else threshold, grad='straight_through')
    (s,dx),(s2,dx2) = (gradient(f, x, currents(T, shape, seed), **kw) for f in (lif, lif_autograd))
    assert s.equal(s2) and dx.equal(dx2)

@pytest.mark.parametrize('grad', ['spike_bp', 'atan'])
@pytest.mark.parametrize('reset', ['zero', 'subtract'])
@pytest.mark.parametrize('refractory', [0, 2])
def test_whole_lenet_equals_autograd_of_the_loop(monkeypatch, grad, reset, refractory):
    torch.manual_seed(0)
    kw = dict(leak=.9, grad=grad, reset=reset, refractory=refractory)
    net = lenet(num_classes=3, size=12, num_steps=20, kappa=8., **kw).double()
    x = torch.rand(4, 1, 12, 12, generator=seeded(1), dtype=torch.float64)
    def run():
        torch.manual_seed(2)
        net.zero_grad()
        y = net(x)
        (y-torch.eye(4, 3)).pow(2).sum().backward()
        return y.detach(), [p.grad.clone() for p in net.parameters()]
    y,fast = run()
    monkeypatch.setattr(layers, 'lif', lif_autograd)
    y2,slow = run()
    assert torch.allclose(y, y2, rtol=1e-9)
    for a,b in zip(fast, slow):
        assert b.norm()>0
        assert_close(a, b)

def test_float32_is_as_close():
    x,g = currents(50, (4, 30), 0).float(),currents(50, (4, 30), 1).float()
    (s,dx),(s2,dx2) = gradient(lif, x, g, leak=.9),gradient(lif_autograd, x, g, leak=.9)
    same = (s==s2).all(0)
    assert same.float().mean()>.98                       # ties within rounding apart
    assert_close(dx[:, same], dx2[:, same])

@few
@given(neurons, st.integers(1, 40), shapes, st.integers(0, 10**6))
def test_what_always_holds(kw, T, shape, seed):
    x = currents(T, shape, seed, scale=3.).requires_grad_()
    s = lif(x, **kw)
    s.sum().backward()
    assert s.shape==x.shape and ((s==0)|(s==1)).all() and x.grad.isfinite().all()
    assert s.mean() <= math.ceil(T/(1+kw['refractory']))/T + 1e-9
    if kw['grad']=='spike_bp' and kw['reset']=='zero':
        late = s.flip(0).cumsum(0).flip(0)==0            # after a neuron's last spike
        assert (x.grad[late]==0).all()

@few
@given(st.integers(1, 6), st.integers(10, 40), st.integers(0, 10**6))
def test_refractory(r, T, seed):
    x = torch.rand(T, 5, generator=seeded(seed))*3
    s = lif(x, refractory=r)
    for n in range(5):
        when = s[:, n].nonzero()[:, 0]
        assert (when.diff()>r).all()
    deaf = torch.zeros_like(x)
    for k in range(1, r+1): deaf[k:] += s[:-k] if k<T else 0
    assert lif(torch.where(deaf>0, 100., x), refractory=r).equal(s)   # input in a refractory step changes nothing

@few
@given(neurons, st.integers(0, 10**6))
def test_a_batch_gives_what_each_image_gives_alone(kw, seed):
    x,g = currents(20, (6, 7), seed),currents(20, (6, 7), seed+1)
    s,dx = gradient(lif, x, g, **kw)
    for b in range(6):
        s1,dx1 = gradient(lif, x[:, b:b+1], g[:, b:b+1], **kw)
        assert s1.equal(s[:, b:b+1]) and torch.allclose(dx1, dx[:, b:b+1], rtol=1e-12, atol=0)

@few
@given(st.floats(.3, 1), st.integers(1, 60), st.integers(0, 10**6))
def test_leak_correction_stays_in_its_bounds(leak, T, seed):
    s = poisson(torch.full((50,), .2, dtype=torch.float64), T, generator=seeded(seed))
    ng = leak_correction(s, leak)
    fired = s.sum(0)>0
    assert (ng[~fired]==0).all()
    assert (ng[fired]>=1+math.log(leak)-1e-12).all() and (ng<=1).all()

def test_membrane_agrees_with_spikes():
    x = currents(30, (10,), 3)
    u,s = membrane(x, leak=.9, threshold=.7)
    assert s.equal(lif(x, leak=.9, threshold=.7)) and s.equal((u>.7).double())

def test_readout_without_leak_passes_finite_differences():
    x = currents(6, (2, 3), 0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: integrate(x, 1.), x)

@pytest.mark.parametrize('name', surrogates)
def test_a_neuron_below_threshold_has_the_derivative_of_its_smooth_step(name):
    "For one step, the surrogate's gradient is the finite difference of the smooth step it stands for: its integral"
    v = torch.linspace(-1.9, 1.9, 40, dtype=torch.float64)
    x = (v+1)[None].requires_grad_()
    lif(x, grad=name).sum().backward()
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)
    h = 1e-2
    def area(o): return torch.trapezoid(surrogates[name](o-h+2*h*grid), dx=2*h/4000) # of the slope over [v-h, v+h]
    rise = torch.stack([area(o) for o in v])/(2*h)
    # kinks of triangle and rectangle left out
    smooth = ((v.abs()-.5).abs()>2*h) & (v.abs()>2*h) & ((v.abs()-1).abs()>2*h)
    assert torch.allclose(x.grad[0][smooth], rise[smooth], rtol=2e-3, atol=1e-5)

odd = [None, 'x', True, 3, math.nan, [], [1.], object(), torch.ones(3).long(), torch.tensor(1.), torch.zeros(0, 2)]

@pytest.mark.parametrize('f', [lif, lif_autograd, integrate, membrane])
def test_odd_currents(f):
    for o in odd:
        with pytest.raises(ValueError, match='`x` is .* time first'): f(o)

@pytest.mark.parametrize('name', ['leak', 'threshold', 'reset', 'refractory', 'grad'])
@pytest.mark.parametrize('f', [lif, lif_autograd])
def test_odd_options(f, name):
    for o in (None, 'x', True, -1, math.nan, [], torch.tensor(.9)):
        with pytest.raises(ValueError, match=f'`{name}` is'): f(currents(3, (2,), 0), **{name: o})

def test_fire_gives_gradients_to_all_that_made_its_argument():
    "A threshold too: the way of a neuron of one's own"
    u,th = currents(1, (50,), 0)[0].requires_grad_(),torch.tensor(.3, dtype=torch.float64, requires_grad=True)
    s = fire(u-th)
    assert s.equal((u>th).double())
    s.sum().backward()
    assert torch.allclose(u.grad, surrogates['atan'](u.detach()-.3)) and torch.allclose(th.grad, -u.grad.sum())
    for o in (None, 'x', 3, torch.ones(2).long()):
        with pytest.raises(ValueError, match='`v`'): fire(o)
    for o in (None, 'x', 'spike_bp', 3, []):
        with pytest.raises(ValueError, match='`grad`'): fire(u, o)

@few
@given(neurons, st.integers(1, 20), st.integers(0, 10**6))
def test_steps_are_the_window(kw, T, seed):
    "The state that `lif_step` hands on is all that there is"
    x,state,out = currents(T, (3,), seed),None,[]
    for x_t in x:
        s,state = lif_step(x_t, state, **kw)
        out.append(s)
    assert torch.stack(out).equal(lif(x, **kw))

whole = dict(leak=1., reset='subtract')

@few
@given(st.floats(.2, 3), st.integers(1, 40), st.integers(0, 10**6))
def test_a_rate_has_the_gradient_of_a_quantised_relu(threshold, T, seed):
    "For a gradient that is the same at all steps: that of a ReLU which is clipped where a neuron fires at every step"
    x = currents(T, (30,), seed)
    g = torch.randn(30, generator=seeded('g', seed), dtype=torch.float64).expand(T, -1)
    _,dx = gradient(lif, x, g, grad='rate', threshold=threshold, **whole)
    charge = x.sum(0).requires_grad_()
    (g[0]*(charge/threshold).clamp(0, T)).sum().backward()
    assert_close(dx, charge.grad.expand_as(dx))

def test_a_rate_reads_its_gradient_where_the_neuron_fired():
    x = torch.tensor([.6, .6, .6, .1]).view(4, 1)
    g = torch.tensor([100., 3., 100., 100.]).view(4, 1)
    s,dx = gradient(lif, x, g, grad='rate', **whole)
    assert s.flatten().tolist()==[0, 1, 0, 0] and dx.flatten().tolist()==[3]*4

@few
@given(st.floats(.2, 3), st.floats(0, 1), st.integers(1, 40), st.integers(0, 10**6))
def test_what_was_fired_too_early_is_taken_back(threshold, start, T, seed):
    "No charge is lost, nobody takes back what he has not fired, and what fires alone fires as ever"
    x = currents(T, (30,), seed)
    state,out = None,[]
    for x_t in x:
        s,state = signed_step(x_t, state, threshold, start)
        out.append(s)
    s,(u,fired) = torch.stack(out),state
    assert_close(u+threshold*s.sum(0), start*threshold+x.sum(0))
    assert fired.equal(s.sum(0)) and s.cumsum(0).min()>=0 and set(s.unique().tolist())<={-1, 0, 1}
    options = whole | dict(threshold=threshold, start=start, grad='rate')
    assert lif(x, signed=True, **options).equal(s)
    seen = {k: v for k,v in options.items() if k!='grad'}
    assert membrane(x, signed=True, **seen)[1].equal(s)
    assert lif(x.abs(), signed=True, **options).equal(lif(x.abs(), **options))

def test_a_spike_that_is_taken_back_counts_for_the_gradient():
    "Its step is one of those at which the count changed"
    x = torch.tensor([1.6, -1.2, 1., .1]).view(4, 1)
    g = torch.tensor([1., 2., 6., 100.]).view(4, 1)
    s,dx = gradient(lif, x, g, grad='rate', signed=True, **whole)
    assert s.flatten().tolist()==[1, -1, 1, 0] and dx.flatten().tolist()==[3]*4

def test_only_a_rate_has_a_gradient_for_signed_spikes():
    for make in (lambda **o: lif(torch.rand(5, 2), **o), LIF):
        with pytest.raises(ValueError, match='`signed` is True and'): make(signed=True, grad='atan', **whole)
        with pytest.raises(ValueError, match='`signed` is 2'): make(signed=2, grad='rate', **whole)

@pytest.mark.parametrize('norm', [None, 'shared'])
def test_signed_spikes_by_events_are_those_of_torch(norm):
    "Through pools and norms, and so are their gradients"
    pytest.importorskip('snnkit.engine.roads')
    torch.manual_seed(0)
    options = whole | dict(grad='rate', signed=True, norm=norm, size=12, num_classes=3, in_channels=2)
    for net in (lenet(encoder=Direct(6), **options), vgg(encoder=Direct(6), depth=5, pool_neurons=False, **options)):
        x,found = torch.rand(4, 2, 12, 12, generator=seeded(0)),[]
        for mode in ('torch', 'numba'):
            with use(mode): y = net(x)
            grads = torch.autograd.grad(y.square().sum(), [*net.parameters()])
            found.append((y.detach(), *grads))
        for a,b in zip(*found): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

def test_a_network_learns_by_rates():
    "A step down the gradient makes the error smaller, whoever computes, and neurons that were silent get a share"
    torch.manual_seed(0)
    net = lenet(num_steps=8, size=12, num_classes=3, grad='rate', kappa=6., **whole)
    x,y = torch.rand(8, 1, 12, 12, generator=seeded(0)),torch.eye(3)[torch.arange(8)%3]
    def error():
        torch.manual_seed(1)
        return (net(x)-y).pow(2).sum()
    before = error()
    before.backward()
    with torch.no_grad():
        for p in net.parameters(): p -= 1e-4*p.grad
    assert error()<before
    net.lif3.register_forward_hook(lambda m, args, s: heard.append((s.sum((0, 1)), args[0])))
    heard = []
    net.zero_grad()
    error().backward()
    silent = heard[0][0]==0
    assert silent.any() and (net.fc1.weight.grad[silent].abs().sum(1)>0).any()

def test_one_step_has_no_rate():
    with pytest.raises(ValueError, match='whole window'): lif_autograd(torch.rand(5, 2), grad='rate', **whole)
    for grad in by_charge:
        with pytest.raises(ValueError, match=f"`grad` is '{grad}'"):
            lif_step(torch.rand(2), None, 1., 1., 'subtract', 0, grad)

bounded = st.fixed_dictionaries(options)

@few
@given(bounded, st.integers(1, 40), st.integers(0, 10**6))
def test_the_bound_takes_the_gradient_of_saturated_neurons_only(kw, T, seed):
    "Against the loop, and against spike-BP: some neurons have more charge than they can fire away, others less"
    x,g = currents(T, (40,), seed)+torch.linspace(-1, 4, 40),currents(T, (40,), seed+1)
    s,dx = gradient(lif, x, g, grad='bounded', **kw)
    s2,dx2 = gradient(lif_autograd, x, g, grad='bounded', **kw)
    s3,dx3 = gradient(lif, x, g, **kw)
    assert s.equal(s2) and s.equal(s3)
    assert_close(dx, dx2)
    over = x.sum(0)>=kw['threshold']*T
    assert (dx[:, over]==0).all() and dx[:, ~over].equal(dx3[:, ~over])

def test_a_layer_can_be_stepped_unless_a_gradient_needs_the_window():
    x = torch.rand(9, 4, generator=seeded(0))
    for grad in ('spike_bp', *by_charge):
        layer,state,out = LIF(grad=grad, **whole),None,[]
        for x_t in x:
            s,state = layer.step(x_t, state)
            out.append(s)
        assert torch.stack(out).equal(layer(x.unsqueeze(1))[:, 0])
        with pytest.raises(ValueError, match='end of the window'): layer.step(x[0].clone().requires_grad_(), None)
