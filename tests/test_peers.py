"Spikes equal those of SpikingJelly, snnTorch and Norse, where their neurons and ours are defined alike."
import pytest, torch
from snnkit.core import seeded
from snnkit.spikebp import lif

# Doubles: a tie with the threshold is then out of the question
currents = torch.randn(60, 8, 40, generator=seeded(0), dtype=torch.float64)*.5 + .1

def peer(name):
    why = f'{name} is not installed; `pip install snnkit[peers]` brings it'
    return pytest.importorskip(name, reason=why, exc_type=ImportError)

def assert_fires_alike(s, x=currents, **kw):
    ours = lif(x, **kw)
    assert .02 < ours.mean() < .6                       # neither silent nor saturated
    assert torch.equal(ours, s.to(ours.dtype))

@pytest.mark.parametrize('leak', [.99, .9, .5])
@pytest.mark.parametrize('reset', ['zero', 'subtract'])
def test_spikingjelly_lif(leak, reset):
    peer('spikingjelly')
    from spikingjelly.activation_based.neuron import LIFNode
    v_reset = 0. if reset=='zero' else None
    node = LIFNode(tau=1/(1-leak), decay_input=False, v_threshold=1., v_reset=v_reset, step_mode='m').double()
    assert_fires_alike(node(currents).detach(), leak=leak, reset=reset)

@pytest.mark.parametrize('reset', ['zero', 'subtract'])
def test_spikingjelly_if(reset):
    peer('spikingjelly')
    from spikingjelly.activation_based.neuron import IFNode
    node = IFNode(v_threshold=.75, v_reset=0. if reset=='zero' else None, step_mode='m').double()
    assert_fires_alike(node(currents).detach(), leak=1., threshold=.75, reset=reset)

@pytest.mark.parametrize('leak', [.99, .9, .5])
@pytest.mark.parametrize('reset', ['zero', 'subtract'])
def test_snntorch_leaky(leak, reset):
    "Where more than a threshold is left over, snnTorch subtracts again in the next step: the currents stay below that"
    snn,x = peer('snntorch'),currents.clamp(max=.9)
    beta = torch.tensor(leak, dtype=torch.float64)
    cell = snn.Leaky(beta=beta, threshold=1., reset_mechanism=reset, reset_delay=False).double()
    mem,out = torch.zeros_like(x[0]),[]
    for x_t in x:
        s,mem = cell(x_t, mem)
        out.append(s)
    assert_fires_alike(torch.stack(out).detach(), x, leak=leak, reset=reset)

@pytest.mark.parametrize('leak', [.99, .9, .5])
def test_norse_lif_box(leak):
    peer('norse')
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
    dt = 1e-3
    one = lambda v: torch.tensor(v, dtype=torch.float64)
    p = LIFBoxParameters(tau_mem_inv=one((1-leak)/dt), v_leak=one(0.), v_th=one(1.), v_reset=one(0.))
    state,out = LIFBoxFeedForwardState(v=torch.zeros_like(currents[0])),[]
    for x_t in currents:
        s,state = lif_box_feed_forward_step(x_t/(1-leak), state, p, dt)  # Norse scales its input by dt/tau
        out.append(s)
    assert_fires_alike(torch.stack(out), leak=leak)

def test_norse_iaf():
    peer('norse')
    from norse.torch.functional.iaf import IAFFeedForwardState, IAFParameters, iaf_feed_forward_step
    p = IAFParameters(v_th=torch.tensor(1., dtype=torch.float64), v_reset=torch.tensor(0., dtype=torch.float64))
    state,out = IAFFeedForwardState(v=torch.zeros_like(currents[0])),[]
    for x_t in currents:
        s,state = iaf_feed_forward_step(x_t, state, p)
        out.append(s)
    assert_fires_alike(torch.stack(out), leak=1.)
