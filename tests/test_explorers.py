"Every control of every explorer, without a browser: a value goes in, a picture and its numbers come out."
import io,time
import ipywidgets as W
import pytest,torch
from PIL import Image
from snnkit.explorers import (
    ConversionExplorer, EconomyExplorer, EncoderExplorer, FieldsExplorer, GradientExplorer, NetworkExplorer,
    NeuronExplorer, TrainExplorer, as_mnist, handwriting, sample_digits, strokes_of, styles)

digit_kinds = NetworkExplorer,ConversionExplorer,FieldsExplorer # which have a pad
kinds = EncoderExplorer,NeuronExplorer,GradientExplorer,*digit_kinds,EconomyExplorer
moves = { # control: another value at which the picture must be another one
    EncoderExplorer: dict(digit='8', example=7, code='direct', num_steps=40, seed=5),
    NeuronExplorer: dict(
        drive='three_sines', amplitude=-3., resistance=4., capacitance=9., threshold=.4, refractory=0., dt=1.),
    GradientExplorer: dict(rule='rectangle', leak=.6, threshold=.5, rate=.25, target=.9, step=1.5, seed=7),
    NetworkExplorer: dict(digit='8', example=7, num_steps=9, moment=5, intensity=.5, threshold=1.4, seed=5),
    ConversionExplorer: dict(digit='8', example=7, num_steps=3, moment=2, intensity=.5),
    FieldsExplorer: dict(digit='8', example=7, intensity=.5, seed=5),
    EconomyExplorer: dict(data='CIFAR10-JPEG', num_steps=1, penalty=1.)}
cases = [(k, c, v) for k,m in moves.items() for c,v in m.items()]

@pytest.fixture(scope='module')
def explorers(): return {k: k() for k in kinds}

def test_all_controls_are_tried(explorers):
    tried = {k: {*m} for k,m in moves.items()}
    tried[NeuronExplorer].add('on')
    for o in digit_kinds: tried[o].add('source')
    assert {k: {*e.controls} for k,e in explorers.items()} == tried

@pytest.mark.parametrize('kind,control,value', cases, ids=lambda o: getattr(o, '__name__', str(o)))
def test_control(explorers, kind, control, value):
    e = explorers[kind]
    e.set()
    c = e.controls[control]
    old,picture,words = c.value,e.picture.value,e.words.value
    c.value = value
    assert e.picture.value != picture
    assert Image.open(io.BytesIO(e.picture.value)).size == tuple(int(125*o) for o in e.size)
    assert e.words.value != words or control in ('digit', 'code', 'dt', 'moment') # which may leave all numbers alone
    assert (e.before is not None) == (control not in (*kind.other, *kind.quiet))
    assert not c.disabled
    e.set(**{control: old})
    assert (e.picture.value, e.words.value) == (picture, words) # nothing is left of what was shown in between

@pytest.mark.parametrize('kind', kinds)
def test_axes_hold_still(explorers, kind):
    "A slider goes there and back: the axes grow if they must, and do not shrink"
    e = explorers[kind]
    for k,c in e.controls.items():
        if not isinstance(c, (W.IntSlider, W.FloatSlider)): continue
        e.set()
        old = c.value
        for v in (c.min, c.max, old):
            limits = dict(e.limits)
            c.value = v
            assert all(e.limits[i][0] <= a and e.limits[i][1] >= b for i,(a,b) in limits.items()), (k, v)
            assert e.before is None or v != old
        e.set(**{k: old})

greyed = {
    EncoderExplorer: [(dict(code='direct'), 'seed'), (dict(code='latency'), 'seed')],
    NeuronExplorer: [(dict(drive=o), 'on') for o in ('pulse', 'sine', 'constant', 'three_sines')],
    NetworkExplorer: [(dict(intensity=0.), 'seed'), ({}, 'source')],
    ConversionExplorer: [({}, 'source')],
    FieldsExplorer: [(dict(intensity=0.), 'seed'), ({}, 'source')]}
grey_cases = [(k, v, c) for k,o in greyed.items() for v,c in o]

@pytest.mark.parametrize('kind,values,control', grey_cases, ids=lambda o: getattr(o, '__name__', str(o)))
def test_what_has_no_effect_is_greyed(kind, values, control):
    "And moving it all the same changes nothing"
    e = kind(**values)
    c = e.controls[control]
    grey = {k for k,o in e.controls.items() if o.disabled}
    assert control in grey and grey <= {control, 'source'}
    picture = e.picture.value
    e.set(**{control: dict(seed=77, on=(10., 95.), source='drawing')[control]})
    assert e.picture.value == picture

def test_economy_shows_what_the_store_holds():
    "The same numbers as the lesson, which counts an image that stays the same once"
    from snnkit.experiments import Store,key,seeds
    from snnkit.studies import base_for,economy
    e,kept = EconomyExplorer(data='FashionMNIST', num_steps=8, penalty=.3),Store().read()
    c = economy(base_for('FashionMNIST', epochs=4), .3)['converted']
    records = [kept[key(o)] for o in seeds([c], (42, 43, 44))]
    right = sum(100*r['test_accuracy'] for r in records)/3
    assert e.seen.every.loc[e.seen.snn, 'test (%)'] == pytest.approx(right)
    assert e.numbers['SNN'].startswith(f'{right:.1f} %')
    assert {n for n,_,_ in e.seen.every.index} == {'SNN', 'twin'} and len(e.seen.every) == 5*(4+1)

@pytest.fixture
def student():
    e = TrainExplorer()
    yield e
    e.close()
    if e.thread: e.thread.join(20)

def test_a_network_learns_while_other_explorers_answer(student, explorers):
    student.go.value = True
    encoder,start = explorers[EncoderExplorer],time.monotonic()
    encoder.set(num_steps=10)
    while len(student.seen.images) < 3 and time.monotonic()-start < 60: encoder.controls['num_steps'].value ^= 1
    student.go.value = False
    student.thread.join(20)
    assert len(student.seen.images) >= 3 and student.go.description == 'start' and not student.thread.is_alive()
    images = student.seen.images[-1]
    assert images == student.learner.seen and f'{images:,} images' in student.numbers['right']

def test_each_knob_of_a_learning_network_turns(student):
    before = None
    for k in ('leak', 'threshold', 'rule', 'norm', 'readout'):
        c = student.controls[k]
        for v in getattr(c, 'options', (c.min, c.max) if k in ('leak', 'threshold') else ()):
            c.value = v
            student.learn(1)
            assert student.picture.value != before
            before = student.picture.value
        student.set(**{k: dict(leak=.99, threshold=1., rule='spike_bp', norm='none', readout=1.)[k]})

def test_a_high_threshold_kills_a_layer_and_a_low_one_revives_it(student):
    student.learn(3)
    student.set(threshold=5.)
    student.learn(1)
    dead = student.seen.dead[-1]
    student.set(threshold=.2)
    student.learn(1)
    assert dead['lif3'] > student.seen.dead[-1]['lif3']

def test_an_error_while_learning_is_shown(student):
    def fail(): raise RuntimeError('no <memory>')
    student.learner.learn = fail
    student.go.value = True
    student.thread.join(20)
    assert 'Stopped: no &lt;memory&gt;' in student.words.value and not student.go.value

def test_closing_stops_learning():
    e = TrainExplorer()
    e.go.value = True
    e.close()
    e.thread.join(20)
    assert not e.thread.is_alive()

def test_the_same_seed_learns_the_same():
    courses = []
    for _ in range(2):
        e = TrainExplorer()
        e.learn(3)
        courses.append(e.seen)
    assert courses[0] == courses[1]

def test_moment_follows_the_number_of_steps():
    e = NetworkExplorer(digit='5')
    moment = e.controls['moment']
    seen = e.seen
    moment.value = 5
    assert e.seen is seen # it is shown, not computed again
    e.controls['num_steps'].value = 10
    assert (moment.max, moment.value, len(e.seen.scores)) == (10, 5, 10)
    e.controls['num_steps'].value = 3
    assert (moment.max, moment.value) == (3, 3)
    e.controls['num_steps'].value = 30
    assert (moment.max, moment.value) == (30, 30) # it was at the end
    e.set(moment=12)
    with pytest.raises(ValueError, match='`seed` is 100'): e.set(num_steps=5, seed=100)
    assert (moment.max, moment.value, e.controls['num_steps'].value) == (30, 12, 30)

def test_drawn_step():
    e = NeuronExplorer(drive='step')
    before = e.numbers['spikes']
    e.controls['on'].value = 10.,95.
    assert e.numbers['spikes'] > before
    e.controls['on'].value = 50.,50.
    assert e.numbers['spikes'] == 0

@pytest.mark.parametrize('kind', kinds)
def test_ends_of_every_slider(kind):
    e = kind()
    for k,c in e.controls.items():
        if not isinstance(c, (W.IntSlider, W.FloatSlider)): continue
        old = c.value
        for v in (c.min, c.max):
            e.set(**{k: v})
            assert e.controls[k].value == v and all('nan' not in str(o) for o in e.numbers.values()), (k, v, e.numbers)
        e.set(**{k: old})

@pytest.mark.parametrize('kind', kinds)
def test_out_of_range(explorers, kind):
    e = explorers[kind]
    values = {k: c.value for k,c in e.controls.items()}
    for k,c in e.controls.items():
        if isinstance(c, (W.IntSlider, W.FloatSlider)):
            for v in (c.min-1, c.max+1):
                with pytest.raises(ValueError, match=f'`{k}` is {v}.*between {c.min:g} and {c.max:g}'): e.set(**{k: v})
        elif isinstance(c, W.Dropdown):
            with pytest.raises(ValueError, match=f'`{k}` is .*one of {c.options[0]!r}'): e.set(**{k: 'nothing'})
    with pytest.raises(ValueError, match='`control` is .*one of'): kind(nothing=1)
    assert values == {k: c.value for k,c in e.controls.items()}

@pytest.mark.parametrize('kind', kinds)
def test_static_picture(explorers, kind, monkeypatch):
    monkeypatch.setenv('IN_TEST', '1')
    shown = explorers[kind]._repr_mimebundle_()
    first = next(iter(explorers[kind].numbers.values()))
    assert {*shown} == {'image/png', 'text/plain'} and str(first) in shown['text/plain']
    monkeypatch.delenv('IN_TEST')
    live = explorers[kind]._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in live

def test_pretrained_networks_know_the_digits():
    "On digits that no training has seen; the record of the run says more exactly"
    from snnkit.conversion import convert,convertible
    from snnkit.data import load
    from snnkit.models import lenet,twin
    from snnkit.stdp import DiehlCook
    from snnkit.training import evaluate
    test = load('digits').test
    for net in (lenet(num_steps=20, pretrained='digits'), twin(lenet(), pretrained='digits')):
        assert evaluate(net, test).accuracy > .97
    ann = convertible()
    for net in (ann, convert(ann, num_steps=4, how='qcfs')): assert evaluate(net, test).accuracy > .98
    assert evaluate(DiehlCook(pretrained='MNIST'), test).accuracy > .87

def test_drawings_have_the_strokes_of_mnist():
    "As large, as far from the edge and about as much ink as its own digits"
    sizes = {k: torch.stack([x.sum() for x in images]).mean() for k,images in sample_digits(20).items()}
    for k,strokes in handwriting.items():
        x = as_mnist(strokes)[0]
        high,wide = x.amax(1).sum(),x.amax(0).sum()
        assert 19 < max(high, wide) < 21 and .6 < x.sum()/sizes[k] < 1.7, k

@pytest.mark.parametrize('style', [k for k in styles if not k.startswith(('th', 'rot'))])
def test_place_and_size_of_a_drawing_do_not_matter(style):
    for k,o in handwriting.items():
        assert (as_mnist(styles[style](o))-as_mnist(o)).abs().max() < .01, (style, k)

def test_a_click_is_a_dot():
    for x in ('500,500', '3,998', '500,500 502,501'): assert 5 <= (as_mnist(strokes_of(x))>.1).sum() <= 20, x

def test_text_that_is_no_drawing_is_named(explorers):
    e = explorers[NetworkExplorer]
    for bad in ('x', '1,2;;3,4', '1', '1e9,4', 'inf,3', '0.5.5,3'):
        with pytest.raises(ValueError, match='the drawing is .*Draw on the pad first'): e.pad.field.value = bad
    e.pad.field.value = ''
    e.set(source='digit')

def test_the_network_reads_each_style():
    "What a browser draws is held to the same answers, see test_browser"
    e = NetworkExplorer()
    e.pad.write(handwriting['0'])
    e.held = True # it looks, and needs no picture
    for style,write in styles.items():
        right = 0
        for k,o in handwriting.items():
            e.pad.write(write(o))
            right += str(e.look(**e.values).answer)==k
        assert right >= 9, style

def test_a_spoiled_file_of_weights_is_refused(tmp_path, monkeypatch):
    import snnkit.models as models
    (tmp_path/'weights').mkdir()
    good = (models.files('snnkit')/'weights/lenet-snn-digits.safetensors').read_bytes()
    (tmp_path/'weights/lenet-snn-digits.safetensors').write_bytes(good[:-1]+bytes([good[-1]^1]))
    monkeypatch.setattr(models, 'files', lambda name: tmp_path)
    with pytest.raises(ValueError, match='not the file that belongs to this version.*Install'):
        models.lenet(pretrained='digits')
