"The neuron in real units for any parameters: hypothesis looks for the ones that break its laws."
import math

import pytest, torch
from hypothesis import given, settings, strategies as st
from snnkit.neuron import (charge_time, fi_curve, leak_to_tau, membrane_step, plot_trace, simulate, sines, tau_to_leak,
                           time_grid)

few = settings(max_examples=40, deadline=None, derandomize=True)
num = lambda lo,hi: st.floats(lo, hi, allow_nan=False)
neuron = st.fixed_dictionaries(dict(
    dt=num(.05, 2.),
    tau=num(.5, 100.),
    resistance=num(.1, 20.),
    rest=num(-70., 5.),
    refractory=num(0., 12.)))

def const(i, steps): return torch.full((steps,), i, dtype=torch.float64)
def noise(seed, *shape): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
def hold(kw): return kw['dt']*round(kw['refractory']/kw['dt'])

@few
@given(neuron, num(.1, 20.), num(-5., .999))
def test_silent_up_to_rheobase(kw, gap, part):
    i = part*gap/kw['resistance']
    tr = simulate(const(i, 300), threshold=kw['rest']+gap, **kw)
    assert len(tr.spike_times)==0 and tr.potential.isfinite().all()
    assert fi_curve(const(i, 1), kw['tau'], kw['resistance'], kw['rest']+gap, kw['rest'], kw['refractory']).item()==0

@few
@given(neuron, num(.1, 20.), num(1.01, 50.))
def test_constant_current_keeps_the_closed_form(kw, gap, times):
    "The first spike comes 0..dt after it is due; so does each next one, after the refractory period in whole steps."
    i,dt,th = times*gap/kw['resistance'], kw['dt'], kw['rest']+gap
    due = charge_time(const(i, 1), kw['tau'], kw['resistance'], th, kw['rest']).item()
    steps = min(math.ceil((3*due+2*hold(kw))/dt)+4, 4000)
    ts = simulate(const(i, steps), threshold=th, **kw).spike_times
    assert len(ts)>=1 or due>steps*dt-dt
    assert ((ts[:1]-due)>=-1e-6*due).all() and ((ts[:1]-due)<=dt*(1+1e-6)).all()
    late = ts.diff()-due-hold(kw)
    assert (late>=-1e-6*due).all() and (late<=dt*(1+1e-6)).all()
    rate = fi_curve(const(i, 1), kw['tau'], kw['resistance'], th, kw['rest'], kw['refractory']).item()
    assert math.isclose(1000/rate, kw['refractory']+due, rel_tol=1e-9)
    assert ((ts.diff()-1000/rate).abs()<=dt+abs(hold(kw)-kw['refractory'])+1e-6*due).all()

@few
@given(neuron, num(.1, 20.), st.integers(0, 1000), num(.1, 300.))
def test_any_current_leaves_the_refractory_period_alone(kw, gap, seed, scale):
    tr = simulate(scale*noise(seed, 300, 3), threshold=kw['rest']+gap, **kw)
    assert tr.potential.isfinite().all()
    for ts,u in zip(tr.spike_times, tr.potential.T):
        assert (ts.diff()>kw['refractory']).all()
        for k in (u>kw['rest']+gap).nonzero()[:,0]: assert (u[k+1:k+1+round(hold(kw)/kw['dt'])]==kw['rest']).all()

@few
@given(neuron, st.integers(0, 1000), st.sampled_from([(2,), (2, 3), (1, 2, 2)]))
def test_a_batch_is_each_neuron_alone(kw, seed, shape):
    i = 5*noise(seed, 120, *shape)
    many = simulate(i, threshold=kw['rest']+1, **kw)
    assert many.potential.shape==i.shape and len(many.spike_times)==math.prod(shape)
    for n,x in enumerate(i.flatten(1).T):
        one = simulate(x, threshold=kw['rest']+1, **kw)
        assert torch.equal(one.potential, many.potential.flatten(1)[:,n])
        assert torch.equal(one.spike_times, many.spike_times[n])

@few
@given(neuron, st.integers(1, 50))
def test_steps_add_up(kw, n):
    "Flow property of the exact solution: n steps of dt are one step of n*dt."
    u,i = noise(n, 5), noise(n+1, 5)
    args = dict(tau=kw['tau'], resistance=kw['resistance'], rest=kw['rest'])
    v = u
    for _ in range(n): v = membrane_step(v, i, kw['dt'], **args)
    torch.testing.assert_close(v, membrane_step(u, i, n*kw['dt'], **args), rtol=1e-9, atol=1e-9)

@few
@given(num(.01, 2.), num(.5, 200.), num(.1, 20.), st.integers(0, 1000))
def test_the_layers_recurrence_is_the_same_neuron(dt, tau, resistance, seed):
    i = 3*noise(seed, 200, 4)/resistance
    tr,l,m = simulate(i, dt, tau, resistance, threshold=.3, refractory=0.), tau_to_leak(tau, dt), torch.zeros(4)
    for x,u in zip((1-l)*resistance*i, tr.potential):
        m = m+x
        torch.testing.assert_close(m, u, rtol=1e-9, atol=1e-9)
        m = l*torch.where(u>.3, 0., m)

@few
@given(num(1e-3, 1e4), num(1e-3, 10.))
def test_leak_and_tau_are_inverse(tau, dt):
    if tau_to_leak(tau, dt)>1e-300: assert math.isclose(leak_to_tau(tau_to_leak(tau, dt), dt), tau, rel_tol=1e-6)

def test_threshold_is_strict():
    "With a step much longer than tau the potential is exactly R*I."
    assert len(simulate(const(.5, 3), dt=1e6).spike_times)==0
    assert len(simulate(const(.5+1e-12, 3), dt=1e6, refractory=0.).spike_times)==3

def test_gradient_below_threshold():
    i = (.2+.05*noise(0, 20, 2)).requires_grad_()
    assert not (simulate(i).potential>1).any()
    assert torch.autograd.gradcheck(lambda i: simulate(i).potential, i)

def test_gradient_stops_at_the_reset():
    i = const(2., 40).requires_grad_()
    tr = simulate(i, refractory=1.)
    first = (tr.potential>1).nonzero()[0,0]
    grad, = torch.autograd.grad(tr.potential[first+10], i)
    assert (grad[:first+5]==0).all() and (grad[first+5:first+11]>0).all()

def test_gradient_of_the_closed_form_is_finite_everywhere():
    i = torch.tensor([-1., 0., .5, .6, 4.], dtype=torch.float64, requires_grad=True)
    fi_curve(i).sum().backward()
    assert i.grad.isfinite().all() and (i.grad[:3]==0).all() and (i.grad[3:]>0).all()

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_follows_input(dtype):
    tr = simulate(torch.full((60,), 2., dtype=dtype), dt=1.)
    assert tr.time.dtype==tr.potential.dtype==tr.spike_times.dtype==dtype and len(tr.spike_times)==8

@pytest.mark.parametrize('dt,ref,steps', [
    (.1, .3, 3),
    (.3, .9, 3),
    (.25, 5., 20),
    (.7, 1., 1),
    (1., .4, 0),
    (.1, .7, 7)])
def test_refractory_is_rounded_to_the_nearest_step(dt, ref, steps):
    u = simulate(const(1e4, 40), dt=dt, refractory=ref).potential
    assert (u>1).nonzero()[:,0].diff().unique().tolist()==[steps+1]

odd = [None, 'x', True, math.nan, [], object(), torch.tensor(1.)]

def without(kw, *names):
    "What else is in `kw`, or another odd argument"
    return {k: v for k,v in kw.items() if k not in names} or dict(tau=None)

@pytest.mark.parametrize('f', [
    simulate,
    lambda i, **kw: fi_curve(i, **without(kw, 'dt')),
    lambda i, **kw: charge_time(i, **without(kw, 'dt', 'refractory'))])
@pytest.mark.parametrize('name', ['dt', 'tau', 'resistance', 'threshold', 'rest', 'refractory'])
def test_odd_neurons(f, name):
    for o in odd + [-1]*(name not in ('threshold', 'rest')):
        with pytest.raises(ValueError, match='`(dt|tau|resistance|threshold|rest|refractory)` is'):
            f(const(1., 3), **{name: o})

@pytest.mark.parametrize('f', [simulate, charge_time, fi_curve, lambda i: plot_trace(i, None)])
def test_odd_currents(f):
    for o in (None, 'x', True, 3, [1.], torch.ones(3).long(), torch.full((3,), math.nan)):
        with pytest.raises(ValueError, match='`current`'): f(o)

@pytest.mark.parametrize('f,name', [
    (lambda o: tau_to_leak(o), 'tau'),
    (lambda o: tau_to_leak(1., o), 'dt'),
    (lambda o: leak_to_tau(o), 'leak'),
    (lambda o: leak_to_tau(.9, o), 'dt'),
    (lambda o: time_grid(o), 'duration'),
    (lambda o: time_grid(9., o), 'dt')])
def test_odd_numbers(f, name):
    for o in odd + [-1, 0]:
        with pytest.raises(ValueError, match=f'`{name}`'): f(o)

def test_odd_sines():
    for o in (None, 'x', 3, True, [None], ('x',), (True,)):
        with pytest.raises(ValueError, match='amplitudes'): sines(torch.zeros(3), o)
        if o is not None:
            with pytest.raises(ValueError, match='phases'): sines(torch.zeros(3), phases=o)
