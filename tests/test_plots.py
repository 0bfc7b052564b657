"Pictures: a neuron of one's own is drawn as the kit's are, and odd arguments are named."
import math
import pandas as pd, pytest, torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn
from snnkit import plots as P
from snnkit.encoding import Direct, Poisson
from snnkit.layers import Flatten, Integrator, LIF, Linear, Neuron, spike_trains
from snnkit.models import lenet, twin
from snnkit.training import Evaluation, undisturbed

image = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

class Own(Neuron):
    "A neuron with a learnable leak and a state of two parts"
    threshold = .5
    def __init__(self):
        super().__init__()
        self.leak = nn.Parameter(torch.tensor(.8))

    def step(self, x, state):
        u,t = (0*x, torch.tensor(0.)) if state is None else state
        u = self.leak*u + x
        s = (u>self.threshold).float()
        return s,(u*(1-s), t+1)

class Blind(Neuron):
    "A neuron without a state"
    def step(self, x, state): return (x>.5).float(),None

def net(neuron): return nn.Sequential(Poisson(12), Flatten(), Linear(784, 30), neuron, Linear(30, 10), Integrator())

def test_a_neuron_of_ones_own_is_drawn():
    torch.manual_seed(1)
    model = net(Own())
    ann = twin(model)
    rasters = P.plot_rasters(model, image, fig=Figure())
    titles = [o.get_title(loc='left') for o in rasters.axes]
    assert [o.split(':')[0] for o in titles]==['0', '3'] and '30 neurons' in titles[1]
    name,neuron,x = P.layer_current(model, image)
    u,s,threshold = P.course(neuron, x, name)
    with undisturbed(model, 0): assert s.equal(spike_trains(model, image[None], Neuron)['3'][:, 0]) and 0<s.mean()<1
    assert (name, threshold, u.requires_grad)==('3', .5, False) and not (u[s>0]).any()
    assert len(P.plot_membranes(model, image, fig=Figure()).axes)==3
    seen = P.see_image(model, ann, image)
    assert list(seen.trains)==['0', '3']
    assert P.spent(seen).loc['SNN', 'spikes']==sum(int(o.sum()) for o in seen.trains.values())

def test_a_neuron_without_a_membrane_is_told_by_name():
    with pytest.raises(ValueError, match="layer '3' is a Blind.*`step`"): P.plot_membranes(net(Blind()), image)
    assert len(P.plot_rasters(net(Blind()), image, fig=Figure()).axes)==2

def test_the_kits_neurons_are_drawn_before_their_reset():
    model = net(LIF(threshold=.4, refractory=2))
    name,neuron,x = P.layer_current(model, image)
    u,s,threshold = P.course(neuron, x, name)
    assert threshold==.4 and (u[s>0]>.4).all() and s.any()

def test_a_raster_of_a_silent_network():
    fig = P.plot_rasters(net(LIF(threshold=1e6)), image, rows=7, fig=Figure())
    assert '0 fire' in fig.axes[1].get_title(loc='left')

snn = lenet(num_steps=3)
answer = Evaluation(1., 0., torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
numbers = {'test (%)': [1., 2.], 'low': [0., 1.], 'high': [2., 3.], 'energy (µJ)': [1., 2.]}
good = pd.DataFrame(numbers, index=['a', 'b'])
things = None, 'x', True, 3, math.nan, [], {}
calls = dict(
    one_image_model=lambda o: P.one_image(o, image),
    one_image=lambda o: P.one_image(snn, o),
    rasters=lambda o: P.plot_rasters(o, image),
    rasters_image=lambda o: P.plot_rasters(snn, o),
    current=lambda o: P.layer_current(o, image),
    membranes=lambda o: P.plot_membranes(o, image),
    confusion=P.plot_confusion,
    mistakes=lambda o: P.plot_mistakes(o, [], []),
    accuracies=P.plot_accuracies,
    forest=P.plot_forest,
    costs=P.plot_costs,
    series=lambda o: P.plot_series(o or None, 'x'),
    series_table=lambda o: P.plot_series(dict(a=([1], o)), 'x'),
    encode=P.encode_image,
    code=lambda o: P.encode_image(image, o),
    encoded=P.plot_encoded,
    drive=P.drive_neuron,
    driven=P.plot_driven,
    taught=P.plot_taught,
    see=lambda o: P.see_image(o, snn, image),
    see_twin=lambda o: P.see_image(snn, o, image),
    see_image=lambda o: P.see_image(snn, snn, o),
    seen=P.plot_seen,
    spent=P.spent,
    rates=lambda o: P.result_table(answer, answer, snn, snn, o),
    read=lambda o: P.read_out(image, o))
counts = dict(
    rows=lambda o: P.plot_rasters(snn, image, rows=o),
    sample=lambda o: P.sample_rows(10, o),
    layer=lambda o: P.plot_membranes(snn, image, o),
    neurons=lambda o: P.plot_membranes(snn, image, neurons=o),
    n=lambda o: P.plot_mistakes(answer, [1]*3, ['a'], o),
    steps=lambda o: P.encode_image(image, num_steps=o),
    target=lambda o: P.teach_neuron(target=o),
    rate=lambda o: P.teach_neuron(rate=o),
    inputs=lambda o: P.teach_neuron(inputs=o),
    resistance=lambda o: P.drive_neuron(image[0, 0], resistance=o),
    capacitance=lambda o: P.drive_neuron(image[0, 0], capacitance=o),
    threshold=lambda o: P.drive_neuron(image[0, 0], threshold=o))
no_counts = 'x',True,-1,2.5j,math.nan,[],{}
lacks = dict(see_twin=[None]) # what may be left out
odd_calls = [pytest.param(f, [o for o in things if o not in lacks.get(n, ())], id=n) for n,f in calls.items()]
odd_counts = [pytest.param(f, no_counts, id=n) for n,f in counts.items()]

@pytest.mark.parametrize('call,odd', odd_calls + odd_counts)
def test_odd_calls_are_named(call, odd):
    for o in odd:
        with pytest.raises(ValueError, match=' but '): call(o)

def comparisons(names, rows): return pd.DataFrame(rows, names, ['difference', 'low', 'high'])

def test_forest():
    "A comparison's mean, and below it each of its pairs, where its numbers say, and grey if it is a pair"
    t = comparisons(['a', 'b'], [[2., 1., 3.], [0., -1., 1.]])
    index = pd.MultiIndex.from_product([['a', 'b'], ['seed 1', 'seed 2']])
    pairs = comparisons(index, [[1.5, 1., 2.], [2.5, 2., 3.], [.5, 0., 1.], [-.5, math.nan, math.nan]])
    ax = P.plot_forest(t, pairs, Figure()).axes[0]
    assert [o.get_text() for o in ax.get_yticklabels()]==['a', 'b']
    assert ax.get_xlabel().startswith('difference (points)')
    assert ax.get_xlabel().endswith('\ngrey, from above: seed 1, seed 2')
    dots = [o for o in ax.lines if o.get_marker() in 'Do']
    want = [(2., 'D'), (1.5, 'o'), (2.5, 'o'), (0., 'D'), (.5, 'o'), (-.5, 'o')]
    assert [(o.get_xdata()[0], o.get_marker()) for o in dots]==want
    heights = [o.get_ydata()[0] for o in dots]
    assert heights==sorted(heights) and [heights[0], heights[3]]==[*ax.get_yticks()]
    ends = [s[:, 0].tolist() for o in ax.collections for s in o.get_segments() if s.size]
    assert ends==[[1, 3], [1, 2], [2, 3], [-1, 1], [0, 1]] # what has no interval has a dot
    unlike = P.plot_forest(t, pairs.drop(index=('b', 'seed 1')), Figure()).axes[0]
    assert unlike.get_xlabel().endswith('\ngrey')
    assert len(P.plot_forest(t.rename(columns=dict(difference='increment')), fig=Figure()).axes[0].get_yticks())==2
    renamed = pairs.rename(columns=dict(difference='increment'))
    for each in (pairs.loc[['a']], pairs.drop(columns='low'), t, renamed, 3, pd.DataFrame()):
        with pytest.raises(ValueError, match='`each` '): P.plot_forest(t, each)

@pytest.mark.parametrize('f', [P.plot_accuracies, P.plot_costs])
def test_tables_without_rows_or_columns_are_told(f):
    with pytest.raises(ValueError, match='empty'): f(good[:0])
    with pytest.raises(ValueError, match='low'): f(good.drop(columns='low'))
    assert f(good, Figure()).axes
