"What encoders and layers promise for any input: rates, shapes, no NaN, nothing shared between images of a batch."
import math
import pytest, torch
from hypothesis import given, settings, strategies as st
from scipy.stats import binom
from snnkit.core import seeded
from snnkit.encoding import Direct, Latency, Poisson, direct, latency, plot_encoding, poisson, raster
from snnkit.layers import IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear
from snnkit.models import twin

few = settings(max_examples=40, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)

def image(shape, seed): return torch.rand(shape, generator=seeded(seed))*2-1

@few
@given(st.floats(-1, 1), st.integers(1, 400), st.integers(0, 10**6))
def test_rate_is_the_pixel_within_its_binomial_interval(p, T, seed):
    s = poisson(torch.full((500,), p), T, generator=seeded(seed))
    lo,hi = binom.interval(1-1e-7, 500*T, abs(p)) if 0<abs(p)<1 else (abs(p)*500*T,)*2
    assert lo-1e-3*500*T*abs(p)*1e-3 <= s.abs().sum().item() <= hi+1
    assert p==0 or (s*p>=0).all()

@few
@given(shapes, st.integers(1, 30), st.integers(0, 10**6), st.sampled_from([poisson, direct, latency]))
def test_shape_and_values(shape, T, seed, encode):
    x = image(shape, seed)
    s = encode(x, T)
    assert s.shape==(T, *shape) and s.isfinite().all() and s.dtype==x.dtype
    if encode is not direct: assert set(s.unique().tolist()) <= {-1., 0., 1.}
    if encode is latency: assert (s.abs().sum(0)==(x!=0)).all()

@few
@given(st.integers(2, 30), st.integers(0, 10**6))
def test_latency_puts_brighter_pixels_first(T, seed):
    x = image((50,), seed).abs()
    when = latency(x, T).argmax(0)
    i,j = torch.combinations(torch.arange(50)).T
    assert (when[i]<=when[j])[x[i]>x[j]].all()

@pytest.mark.parametrize('encoder', [Poisson(3), Direct(3), Latency(3)])
def test_encoders_refuse_what_is_no_intensity(encoder):
    odd = [[2.], [float('nan')], [float('inf')], [1]]
    for bad in [torch.tensor([o]) for o in odd] + [torch.zeros(0, 1)]:
        with pytest.raises(ValueError, match='intensities|encode'): encoder(bad)

def network():
    first = Conv2d(2, 6, 3, padding=1),BatchNorm2d(6),LIF(.9),AvgPool2d(2),IF(),Dropout(.2),Flatten()
    last = Linear(54, 8),LIF(.95, reset='subtract', refractory=1),Linear(8, 3),Integrator()
    return torch.nn.Sequential(*first, *last)

@few
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 10**6))
def test_a_network_s_batch_is_its_images(T, B, seed):
    torch.manual_seed(seed)
    net = network().double().eval()
    s = poisson(image((B, 2, 6, 6), seed).double(), T, generator=seeded(seed))
    y = net(s)
    assert y.shape==(B, 3) and y.isfinite().all()
    for b in range(B): assert torch.allclose(net(s[:, b:b+1])[0], y[b], atol=1e-9)
    assert torch.equal(net(s), y)

@few
@given(st.integers(0, 10**6))
def test_twin_starts_from_the_same_weights_and_shares_none(seed):
    torch.manual_seed(seed)
    net = network()
    ann = twin(net)
    ours,theirs = net.state_dict(),ann.state_dict()
    assert ours.keys()==theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)
    with torch.no_grad(): [p.zero_() for p in ann.parameters()]
    assert any(p.any() for p in net.parameters())

odd_tensors = [torch.zeros(2, dtype=torch.uint8), torch.zeros(0, 3), torch.tensor([2.]), torch.tensor([math.nan])]
odd = [None, 'x', True, -1, math.nan, [], [.5], object(), *odd_tensors]

@pytest.mark.parametrize('encode', [
    lambda o: poisson(o, 3),
    lambda o: direct(o, 3),
    lambda o: latency(o, 3),
    Poisson(3),
    Poisson(3, .5),
    Direct(3),
    Latency(3)])
def test_odd_images(encode):
    for o in odd:
        with pytest.raises(ValueError, match='`x`'): encode(o)

@pytest.mark.parametrize('encode', [
    poisson,
    direct,
    latency,
    lambda x, T: Poisson(T),
    lambda x, T: Direct(T),
    lambda x, T: Latency(T)])
def test_odd_steps(encode):
    for o in (None, 'x', True, 0, -1, 1.5, math.nan, [], torch.tensor(3)):
        with pytest.raises(ValueError, match='`num_steps`'): encode(torch.zeros(1, 2), o)

def test_odd_pictures():
    for o in (None, 'x', 3, [], torch.zeros(3), torch.zeros(2, 2, 2)):
        with pytest.raises(ValueError, match='`spikes`'): raster(o)
        with pytest.raises(ValueError, match='`spikes`'): plot_encoding(torch.zeros(1, 2, 2), o)
    for o in (None, 'x', torch.zeros(2)):
        with pytest.raises(ValueError, match='`image`'): plot_encoding(o, torch.zeros(3, 1, 2, 2))
