"Training as a process that can be killed, stopped, starved of disk space and run twice."
import json, os, resource, signal, subprocess, sys, time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import pytest, torch
from kills import assert_same_training, finish, kill, names, start, written
from safetensors.torch import load_file, save_file
from small_training import data, model
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from snnkit import training
from snnkit.core import own_stream
from snnkit.encoding import Direct
from snnkit.data import Augmented, Images, batches, crop_flip, evenly, load
from snnkit.layers import IF, LIF, AvgPool2d, Conv2d, Flatten, Integrator, Linear, Neuron, Poisson, spike_trains, use
from snnkit.measures import costs
from snnkit.models import lenet, twin, vgg9
from snnkit.studies import textbook
from snnkit.training import (TET, BFloat16, Distilled, Mixup, OpsPenalty, Run, check_settings, computed_by, cosine,
                             cross_entropy, describe, evaluate, fit, load_weights, read_checkpoint, read_tensors,
                             save_checkpoint, save_weights, set_seed, squared_error, undisturbed, warn_of_rates,
                             write_tensors)

script = Path(__file__).with_name('small_training.py')
kills = int(os.environ.get('SNNKIT_KILLS', 2))
epochs = max(4, kills)                                    # long enough to be killed that often

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A training left alone: its folder, and how long it takes once it is ready"
    out = tmp_path_factory.mktemp('whole')
    return out, finish(out, epochs)[1]

def test_killed_at_random_moments_it_ends_the_same(whole, tmp_path):
    "SIGKILL at random moments (SNNKIT_KILLS, or 2), each followed by a resume; `tests/kills.py` does a hundred"
    out,took = whole
    hit,torn = kill(tmp_path, kills, epochs, took, int(os.environ.get('SNNKIT_SEED', 0)))
    print(f'killed {hit} times, {torn} of them in the middle of a write')
    assert hit>=kills-1                                   # it was really killed, not just run to the end
    finish(tmp_path, epochs)
    assert written(tmp_path)==names                       # and nothing half written
    assert_same_training(out, tmp_path)

def test_ctrl_c_stops_in_good_order_and_resumes(whole, tmp_path):
    p = start(tmp_path, epochs)
    assert p.stdout.readline()=='ready\n'
    while not (tmp_path/'checkpoint.safetensors').exists(): time.sleep(.01)
    p.send_signal(signal.SIGINT)
    text = p.communicate(timeout=300)[0]
    assert p.returncode==0 and 'Stopping after this step' in text and 'stopped' in text and 'Traceback' not in text
    assert read_tensors(tmp_path/'checkpoint.safetensors')[1]['run']['stopped']
    assert not (tmp_path/'model.safetensors').exists()
    finish(tmp_path, epochs)
    assert_same_training(whole[0], tmp_path)

def test_no_check_prints_a_tensor(tmp_path, monkeypatch):
    "The words for a mistake that was not made took a third of the time of a small training"
    def printed(*_, **__): raise AssertionError('a tensor was printed')
    monkeypatch.setattr(torch.Tensor, '__repr__', printed)
    net,d = model(),data()
    with use('torch'):
        fit(net, d, epochs=1, out=tmp_path, quiet=True)
        assert len(costs(net, d.test))==2 and evaluate(net, d.test).accuracy>=0
    save_weights(net, tmp_path/'again')
    load_weights(net, tmp_path/'again')
    with pytest.raises(ValueError, match="`tensors` is a dict of w, n, but"):
        write_tensors(tmp_path/'a', dict(w=torch.ones(2), n=3), {})

def test_words_for_anything():
    "Checks ask for them of whatever is given: also of a class, and of a data set that has keys of its own"
    own = SimpleNamespace(keys=['a', 'b'])
    assert training.shown(dict)==repr(dict) and training.shown(own)==repr(own)
    assert training.shown({})=='a dict of nothing'

def test_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    "The limit on a file's size stands for the full disk: the system refuses to write on, in the middle of the file"
    path = tmp_path/'a.safetensors'
    write_tensors(path, dict(w=torch.ones(1000)), dict(epoch=1))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        large = dict(w=torch.ones(1_000_000))
        with pytest.raises(OSError, match=f'Could not write {path}'): write_tensors(path, large, dict(epoch=2))
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [o.name for o in tmp_path.iterdir()]==[path.name]
    t,meta = read_tensors(path)
    assert meta['epoch']==1 and t['w'].equal(torch.ones(1000))

def test_read_only_folder_is_named(tmp_path):
    folder = tmp_path/'taken'
    folder.write_text('a file where the folder should be')
    set_seed(0)
    with pytest.raises(OSError, match=f'Could not write {folder}'):
        fit(model(), data(), epochs=1, out=folder/'run', quiet=True)

def trained(seed, kind=lambda m: m, **kw):
    set_seed(seed)
    net = kind(model())
    run = fit(net, data(), epochs=2, seed=seed, quiet=True, **kw)
    return net.state_dict(), run, evaluate(net, data().test)

first_programs = {
    'linear': lambda: nn.Sequential(nn.Flatten(), Poisson(10), Linear(784, 300), LIF(), Linear(300, 10), Integrator()),
    'convolution': lambda: nn.Sequential(Poisson(10), Conv2d(1, 8, 5, 2), LIF(), Flatten(), Linear(8*144, 128), LIF(),
                                         Linear(128, 10), Integrator())}

@pytest.mark.parametrize('name', first_programs)
def test_a_first_network_of_ones_own_learns_the_digits(name):
    "As a newcomer writes it, with torch's weights and biases: nine of ten are right after two epochs"
    d = load('digits')
    set_seed(42)
    net = first_programs[name]()
    fit(net, d, epochs=2, quiet=True, calibrate=True)
    assert evaluate(net, d.test).accuracy >= .9

def by_the_book(d, epochs=1, batch_size=32, lr=1e-3, seed=42):
    "A LeNet with ReLUs as the tutorials of PyTorch train one: nothing of the training is the kit's"
    torch.manual_seed(seed)
    net = textbook()
    opt = torch.optim.Adam(net.parameters(), lr)
    x,y = torch.stack([o for o,_ in d.train]),torch.tensor([o for _,o in d.train])
    for _ in range(epochs):
        for b in torch.randperm(len(x)).split(batch_size):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x[b]), y[b]).backward()
            opt.step()
    return net

def test_a_twin_is_as_good_as_a_textbook_net():
    "Of the same layers, after one epoch on the same 3,600 digits: not a point behind"
    d = load('digits')
    set_seed(42)
    ann = twin(lenet(), readout=.1)
    fit(ann, d, epochs=1, batch_size=32, quiet=True)
    assert evaluate(ann, d.test).accuracy >= evaluate(by_the_book(d), d.test).accuracy-.01

def test_tet_is_the_same_however_layers_compute():
    x,y = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)),torch.arange(4)
    found = []
    for mode in ('torch', 'auto'):
        set_seed(1)
        net = lenet(num_steps=6)
        with use(mode), own_stream(2): error,scores = TET().answer(net, x, y)
        error.backward()
        found.append((error.detach(), scores.detach(), *(p.grad for p in net.parameters())))
    for a,b in zip(*found): assert (a-b).norm() <= 1e-4*b.norm()

@pytest.mark.parametrize('kind', [lambda m: m, twin], ids=['snn', 'ann'])
def test_a_seed_decides_everything(kind):
    (a,ra,ea),(b,rb,eb),(c,rc,_) = trained(1, kind),trained(1, kind),trained(2, kind)
    assert all(a[k].equal(b[k]) for k in a) and ra.history==rb.history and ea.accuracy==eb.accuracy and ea.loss==eb.loss
    assert not any(a[k].equal(c[k]) for k in a) and ra.history!=rc.history
    assert ea.accuracy>.8                                 # and it learned

def test_other_random_draws_do_not_change_training():
    "What the user draws between steps, or an evaluation within a training, leaves no trace"
    a = trained(1)[0]
    class Noisy(torch.optim.Adam):
        def step(self, *args, **kw):
            torch.rand(5)
            return super().step(*args, **kw)
    b = trained(1, opt=partial(Noisy, fused=True))[0]
    assert all(a[k].equal(b[k]) for k in a)

def test_the_best_epoch_is_chosen_on_the_validation_part():
    set_seed(3)
    net = model()
    class Ruined(torch.optim.SGD):
        "Learns for one epoch of 15 steps, then destroys the weights"
        def step(self, *args, **kw):
            self.n = getattr(self, 'n', 0)+1
            if self.n<=15: return super().step(*args, **kw)
            for p in self.param_groups[0]['params']: p.data.mul_(-.5)
    d = data()
    run = fit(net, d, epochs=3, opt=lambda p, lr: Ruined(p, lr=lr), lr=.3, quiet=True)
    v = [o['valid_accuracy'] for o in run.history]
    assert run.best_epoch==1 and v[0]>max(v[1:])
    assert evaluate(net, d.valid).accuracy==v[0]          # the model holds that epoch's weights

def test_test_images_are_not_looked_at_by_training():
    d = data()
    class Forbidden:
        def __getattr__(self, o): raise AssertionError('training looked at the test part')
        def __len__(self): raise AssertionError('training looked at the test part')
    d.test = Forbidden()
    set_seed(0)
    fit(model(), d, epochs=1, quiet=True)

def test_a_stranger_s_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path/"owned"}',)
    path = tmp_path/'run'/'checkpoint.safetensors'
    path.parent.mkdir()
    torch.save(Evil(), path)
    set_seed(0)
    net = model()
    before = {k: v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(ValueError, match='never opened'): load_weights(net, path)
    with pytest.raises(ValueError, match='never opened'): fit(net, data(), out=path.parent, resume=True, quiet=True)
    assert not (tmp_path/'owned').exists() and all(v.equal(before[k]) for k,v in net.state_dict().items())

def test_a_refused_checkpoint_leaves_the_model_untouched(tmp_path):
    trained(1, out=tmp_path)
    set_seed(5)
    net = lenet(num_classes=3, size=12, num_steps=10, leak=.9)
    before = {k: v.clone() for k,v in net.state_dict().items()}
    def resume(): fit(net, data(), epochs=2, seed=1, out=tmp_path, resume=True, quiet=True)
    with pytest.raises(ValueError, match='another training'): resume()
    path = tmp_path/'checkpoint.safetensors'
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole)//2])
    with pytest.raises(ValueError, match='not a whole safetensors file'): resume()
    assert all(v.equal(before[k]) for k,v in net.state_dict().items())

damages = { # what a stranger may write into a checkpoint, and what is said of it
    'a tensor too short': (dict(tensors={'opt/0/exp_avg': torch.zeros(2)}), r"'exp_avg' of weight 0 is \[2\]"),
    'one number for a weight': (dict(tensors={'opt/0/exp_avg': torch.zeros(())}), r"'exp_avg' of weight 0 is \[\]"),
    'a tensor too long': (dict(tensors={'opt/0/exp_avg': torch.zeros(21, 1, 5, 5)}), "'exp_avg' of weight 0"),
    'a number for a tensor': (dict(numbers=[[0, 'exp_avg', 3.]]), "'exp_avg' of weight 0 is 3.0"),
    'many steps': (dict(tensors={'opt/0/step': torch.zeros(2)}), "'step' of weight 0"),
    'a tensor missing': (dict(drop='opt/0/exp_avg_sq'), 'of weight 1 it keeps'),
    'a weight too many': (dict(tensors={'opt/99/exp_avg': torch.zeros(2)}), "weight '99' of 4"),
    'a weight below 0': (dict(tensors={'opt/-1/exp_avg': torch.zeros(3, 200)}), "weight '-1' of 4"),
    'a name too few': (dict(tensors={'opt/0': torch.zeros(2)}), "'' of weight 0"),
    'two numbers': (dict(numbers=[[0, 'a']]), 'index, name and value'),
    'no numbers': (dict(numbers=7), 'index, name and value'),
    'other best weights': (dict(tensors={'best/conv1.weight': torch.zeros(2)}), 'best weights'),
    'one best weight more': (dict(tensors={'best/foo': torch.zeros(2)}), 'best weights'),
    'another weight': (dict(tensors={f'{o}/conv1.weight': torch.zeros(2) for o in ('model', 'best')}), 'another model'),
    'no run': (dict(run=[]), 'fields of a `Run`'),
    'a field too many': (dict(run=dict(foo=1)), 'fields of a `Run`'),
    'images of nowhere': (dict(seen=10**6, epoch=0, history=[], best_epoch=0, drop_best=True),
                          'seen 1000000 images of 240'),
    'images as text': (dict(seen='9'), '`seen`'),
    'too few totals': (dict(totals=[1]), '`totals`'),
    'an epoch beyond the last': (dict(epoch=2, more=1), '`epoch` is 2 of 1'),
    'images after the last epoch': (dict(seen=16), '`epoch` is 1 of 1'),
    'images below 0': (dict(seen=-16), '`seen`'),
    'an error that is no number': (dict(totals=[float('nan'), 0.]), '`totals`'),
    'more right than seen': (dict(totals=[1., 1.]), '`totals`'),
    'an epoch twice': (dict(row=dict(epoch=2)), '`history`'),
    'an accuracy of 2': (dict(row=dict(valid_accuracy=2.)), '`history`'),
    'a loss that is no number': (dict(row=dict(valid_loss=float('nan'))), '`history`'),
    'a loss as text': (dict(row=dict(valid_loss='1')), '`history`'),
    'a weight that is no number': (dict(nan='model/conv1.weight'), 'model/conv1.weight is not finite'),
    'a moment that is no number': (dict(nan='opt/0/exp_avg'), 'opt/0/exp_avg is not finite'),
    'steps below 0': (dict(tensors={'opt/0/step': torch.tensor(-1.)}), "'step' of weight 0"),
    'an epoch too few': (dict(epoch=0), '`history`'),
    'an empty epoch': (dict(history=[{}]), '`history`'),
    'best of none': (dict(best_epoch=2), '`best_epoch`'),
    'half an epoch': (dict(best_epoch=1.), '`best_epoch`'),
    'perhaps stopped': (dict(stopped=None), '`stopped`')}

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    "What a training of one epoch keeps: tensors, and what is told beside them"
    out = tmp_path_factory.mktemp('checkpoint')
    set_seed(1)
    fit(model(), data(), epochs=1, seed=1, quiet=True, out=out)
    return read_tensors(out/'checkpoint.safetensors')

@pytest.mark.parametrize('damage', damages)
def test_of_a_damaged_checkpoint_nothing_is_taken(damage, checkpoint, tmp_path):
    "A fused optimizer writes as many numbers as the weight has: beyond a tensor too short, over other memory"
    (tensors,meta),(how,said) = checkpoint,damages[damage]
    def dropped(k): return k==how.get('drop') or how.get('drop_best') and k.startswith('best/')
    tensors = {k: v for k,v in (tensors | how.get('tensors', {})).items() if not dropped(k)}
    if 'nan' in how: tensors[how['nan']] = torch.full_like(tensors[how['nan']], float('nan'))
    meta = meta | {k: how[k] for k in ('run', 'numbers') if k in how}
    if 'run' in how: meta['run'] = how['run']
    else: meta['run'] = meta['run'] | {k: v for k,v in how.items() if k in meta['run']}
    if 'row' in how: meta['run']['history'] = [meta['run']['history'][0] | how['row']]
    if 'more' in how: meta['run']['history'] = meta['run']['history'] + [meta['run']['history'][0] | dict(epoch=2)]
    told = json.dumps(meta)                               # as a stranger would write it: with NaN,
    right = training.checksum(training.apart(tensors), told) # and with a checksum that is right
    raw = training.save(training.apart(tensors), dict(snnkit=told, blake2b=right))
    (tmp_path/'checkpoint.safetensors').write_bytes(raw)
    set_seed(5)
    net,made = model(),[]
    before = {k: v.clone() for k,v in net.state_dict().items()}
    def opt(p, lr):
        made.append(torch.optim.Adam(p, lr=lr, fused=True))
        return made[0]
    with pytest.raises(ValueError, match=said):
        fit(net, data(), epochs=1, seed=1, out=tmp_path, resume=True, quiet=True, opt=opt)
    assert all(v.equal(before[k]) for k,v in net.state_dict().items()) and not made[0].state

@pytest.mark.parametrize('opt', [
    partial(torch.optim.SGD, momentum=.9, fused=True),
    partial(torch.optim.Adagrad, fused=True),
    torch.optim.Adafactor,
    torch.optim.ASGD,
    torch.optim.NAdam])
def test_what_an_optimizer_keeps_is_taken_back(opt, tmp_path):
    "Tensors like the weight, rows and columns, single numbers"
    kept = []
    def keep(p, lr):
        kept.append(opt(p, lr=lr))
        return kept[-1]
    for resume in (False, True):
        set_seed(1)
        fit(model(), data(), epochs=1, seed=1, quiet=True, out=tmp_path, resume=resume, opt=keep)
    a,b = (o.state_dict()['state'] for o in kept)
    assert a and a.keys()==b.keys()
    for i,state in a.items():
        for k,v in state.items(): assert torch.equal(torch.as_tensor(v), torch.as_tensor(b[i][k]))

def test_a_resumed_training_sees_the_same_images(tmp_path):
    "Augmentation, its seed and signed intensities are compared, and an augmentation made anew is the same"
    def session(resume=True, **kw):
        set_seed(1)
        d = data()
        signed = kw.pop('signed', False)
        d.train,d.valid = (Images(o.x, o.y, signed) for o in (d.train, d.valid))
        if kw: d.train = Augmented(d.train, crop_flip(12, padding=kw.get('padding', 1)), kw.get('seed', 1))
        net = model()
        fit(net, d, epochs=1, seed=1, quiet=True, out=tmp_path, resume=resume)
        return net.state_dict()
    first = session(False, padding=1)
    again = session(padding=1)
    assert all(first[k].equal(again[k]) for k in first)
    for other in (dict(), dict(padding=2), dict(padding=1, seed=2), dict(padding=1, signed=True)):
        with pytest.raises(ValueError, match='data bars .* -> bars'): session(**other)

class Interrupting(Images):
    "Presses Ctrl-C when `train` is in epoch `when` and these images are looked at"
    def __init__(self, ds, train, when):
        super().__init__(ds.x, ds.y)
        self.train,self.when = train,when
    def pixels(self, i):
        if getattr(self.train, 'epoch', -1)==self.when:
            self.when = None
            signal.raise_signal(signal.SIGINT)
        return self.x[i]

def test_ctrl_c_in_the_last_validation_is_told(tmp_path):
    "The training is whole, and so are its files; that somebody wants to stop is told all the same"
    _,whole,_ = trained(1, out=tmp_path/'whole')
    d = data()
    d.valid = Interrupting(d.valid, d.train, 1)
    set_seed(1)
    run = fit(model(), d, epochs=2, seed=1, quiet=True, out=tmp_path/'hit')
    assert run.stopped and run.history==whole.history and not whole.stopped
    assert_same_training(tmp_path/'whole', tmp_path/'hit')
    _,again,_ = trained(1, out=tmp_path/'hit', resume=True)
    assert not again.stopped and again.history==whole.history
    assert_same_training(tmp_path/'whole', tmp_path/'hit')

def test_images_sorted_by_class_do_not_warn_in_vain(capsys):
    "The first class is black, and so are all of its images that lie in front"
    d = data()
    black = torch.zeros_like(d.valid.x[:30])
    d.valid = Images(torch.cat([black, d.valid.x]), torch.cat([torch.zeros(30, dtype=torch.int64), d.valid.y]))
    set_seed(1)
    fit(model(), d, epochs=1, seed=1, quiet=True)
    assert capsys.readouterr().err==''

@pytest.mark.parametrize('out', [False, True], ids=['saved', 'trained'])
def test_tied_weights(out, tmp_path):
    "Layers that share a weight share it still when it was saved and read, or trained and taken up again"
    def tied():
        set_seed(1)
        first,second,last = nn.Linear(144, 144),nn.Linear(144, 144),nn.Linear(144, 3)
        second.weight = first.weight
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)
    a,b = tied(),tied()
    nn.init.zeros_(b[1].weight)
    if out:
        fit(a, data(), epochs=2, seed=1, quiet=True, out=tmp_path)
        fit(b, data(), epochs=2, seed=1, quiet=True, out=tmp_path, resume=True)
        c = tied()
        load_weights(c, tmp_path/'model.safetensors')
        assert c[1].weight.equal(a[1].weight)
    else:
        save_weights(a, tmp_path/'a')
        load_weights(b, tmp_path/'a')
    assert b[3].weight is b[1].weight and all(v.equal(b.state_dict()[k]) for k,v in a.state_dict().items())

def test_a_folder_is_no_file(tmp_path):
    (tmp_path/'run'/'checkpoint.safetensors').mkdir(parents=True)
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match='is a folder, but it must be a safetensors file'): read_tensors(path)
    with pytest.raises(ValueError, match='is a folder'):
        fit(model(), data(), out=tmp_path/'run', resume=True, quiet=True)

def test_weights_are_plain_safetensors_for_anyone(tmp_path):
    set_seed(0)
    net = model()
    save_weights(net, tmp_path/'w.safetensors')
    theirs = load_file(tmp_path/'w.safetensors')
    assert all(v.equal(theirs[k]) for k,v in net.state_dict().items())

def test_a_model_answers_for_a_batch_as_for_each_image_alone():
    "Given the same spikes: the encoder is taken off and its spike train put in"
    set_seed(0)
    net = lenet(num_steps=12).eval()
    x = torch.stack([load('digits').test[i][0] for i in range(0, 1000, 200)])
    with own_stream(1), torch.no_grad():
        spikes = net.encoder(x)
        whole = net[1:](spikes)
        assert spike_trains(net[1:], spikes)['lif3'].any()
        for i in range(5): assert torch.allclose(net[1:](spikes[:, i:i+1])[0], whole[i], atol=1e-5)

def test_two_processes_train_the_same_network(tmp_path):
    "torchrun with two CPU processes: both halves of every batch count, and the first process writes the files"
    env = os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', ACCELERATE_USE_CPU='true')
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', script, tmp_path, '2']
    p = subprocess.run(cmd, env=env, capture_output=True, text=True, timeout=180)
    assert p.returncode==0, p.stdout+p.stderr
    assert p.stdout.count('epoch 2/2')==1 and p.stdout.count('done')==2
    net = model()
    meta = load_weights(net, tmp_path/'model.safetensors')
    assert len(meta['history'])==2 and evaluate(net, data().test).accuracy>.6
    assert .2 < meta['history'][0]['train_accuracy'] <= 1  # counted over both processes

# What can be chosen

def stop(numbers): raise RuntimeError('enough')

def test_a_loss_a_schedule_and_a_listener():
    "The loss is what learns and is told, the schedule sets the rate of every step, the listener hears every epoch"
    rates,heard,asked = [], [], []
    class Listening(torch.optim.SGD):
        def step(self, *args, **kw):
            rates.append(self.param_groups[0]['lr'])
            return super().step(*args, **kw)
    def falling(progress):
        asked.append(progress)
        return 1-progress
    set_seed(1)
    net,d = model(),data()
    chosen = dict(lr=.1, loss=cross_entropy, schedule=falling, on_epoch=heard.append)
    run = fit(net, d, epochs=2, seed=1, quiet=True, opt=lambda p, lr: Listening(p, lr=lr), **chosen)
    assert heard==run.history and [o['epoch'] for o in heard]==[1, 2]
    assert rates==pytest.approx([.1*(1-i/30) for i in range(30)])
    assert run.config['loss']=='cross_entropy' and run.config['schedule']=='falling'
    assert run.config['calibrate'] is False
    best = run.history[run.best_epoch-1]
    assert evaluate(net, d.valid, loss=cross_entropy).loss==best['valid_loss']!=evaluate(net, d.valid).loss

def test_what_is_given_to_the_listener_is_its_own():
    def spoil(numbers): numbers.clear()
    numbers = trained(1, on_epoch=spoil)[1].history[0]
    assert set(numbers)=={'epoch', 'train_loss', 'train_accuracy', 'valid_loss', 'valid_accuracy'}

def test_a_listener_that_breaks_loses_no_epoch(tmp_path):
    def broken(numbers): raise RuntimeError('no network')
    with pytest.raises(RuntimeError, match='no network'): trained(1, out=tmp_path, on_epoch=broken)
    assert read_tensors(tmp_path/'checkpoint.safetensors')[1]['run']['epoch']==1
    again = trained(1, out=tmp_path, resume=True)[0]
    left_alone = trained(1)[0]
    assert all(v.equal(left_alone[k]) for k,v in again.items())

def test_a_training_goes_on_with_the_same_loss_and_schedule_only(tmp_path):
    with pytest.raises(RuntimeError): trained(1, out=tmp_path, on_epoch=stop)
    smooth = partial(cross_entropy, smoothing=.1)
    others = {
        'loss squared_error -> cross_entropy': dict(loss=cross_entropy),
        'schedule cosine -> <lambda>': dict(schedule=lambda p: 1.),
        'calibrate False -> True': dict(calibrate=True),
        r'-> functools.partial\(<function cross_entropy>, smoothing=0.1\)': dict(loss=smooth)}
    for said,kw in others.items():
        with pytest.raises(ValueError, match=said): trained(1, out=tmp_path, resume=True, **kw)
    assert trained(1, out=tmp_path, resume=True)[1].epoch==2

def test_smoothing_is_torch_s():
    s,y = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),torch.tensor([0, 1, 2, 3, 3])
    hot = .8*torch.eye(4)[y]+.05
    assert torch.allclose(cross_entropy(s, y, .2), -(hot*s.log_softmax(1)).sum(1).mean())
    assert cross_entropy(s, y.to(torch.int32))==cross_entropy(s, y)
    assert squared_error(s, y.to(torch.uint8))==squared_error(s, y)

def test_it_says_what_computed_it(tmp_path):
    "And if a training was taken up elsewhere, it names both"
    old = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with use('torch'), pytest.raises(RuntimeError): trained(1, out=tmp_path, on_epoch=stop)
        torch.set_num_threads(2)
        run = trained(1, out=tmp_path, resume=True)[1]
    finally: torch.set_num_threads(old)
    assert run.computed_by==[dict(mode='torch', threads=1, device='cpu'), dict(mode='auto', threads=2, device='cpu')]

# A network of one's own

class Own(Neuron):
    "A neuron that does not leak."
    def step(self, x, u):
        u = x if u is None else u+x
        s = (u>1).float()
        return s, u-s

def silent(neuron=LIF):
    "Of the kit's layers, with torch's weights"
    first = [Poisson(6), Conv2d(1, 8, 3, padding=1), neuron(), AvgPool2d(2), IF(), Flatten()]
    return nn.Sequential(*first, Linear(288, 32), neuron(), Linear(32, 32), LIF(), Linear(32, 3), Integrator())

def test_silent_layers_are_told_at_every_training(capfd):
    "In words that can be followed, and without a line of code"
    for _ in range(2):
        set_seed(0)
        fit(silent(), data(), epochs=1, quiet=True)
        said = capfd.readouterr().err
        assert "Layer '9' is silent" in said and 'fit(..., calibrate=True)' in said
        assert said.count('\n')==1 and 'training.py' not in said and 'def ' not in said

def test_the_advice_works(capfd):
    set_seed(0)
    fit(silent(), data(), epochs=1, quiet=True, calibrate=True)
    assert capfd.readouterr().err==''

def test_any_neuron_counts(capfd):
    class Deaf(Own):
        def step(self, x, u): return super().step(0*x, u)
    set_seed(0)
    assert warn_of_rates(silent(Deaf), data().valid[:4][0]).keys()=={'2', '4', '7', '9'}
    assert "Layer '2' is silent" in capfd.readouterr().err

@pytest.mark.parametrize('kind', ['shared', 'threshold', 'step', 'scaled'])
def test_norms_that_have_not_learned_are_no_news(kind, capfd):
    "In evaluation a fresh norm divides by 1, and deep layers seem silent; training divides by what the batch says"
    set_seed(0)
    net,x = vgg9(num_steps=4, width=8, in_channels=1, size=8, norm=kind),data().valid[:8][0]
    before = {k: v.clone() for k,v in net.state_dict().items()}
    assert warn_of_rates(net, x)=={} and capfd.readouterr().err==''
    assert all(v.equal(before[k]) for k,v in net.state_dict().items()) and net.training
    assert warn_of_rates(net, x[:1]).keys()>={'lif8'} # one image has no statistics
    for m in net.modules():
        if hasattr(m, 'num_batches_tracked'): m.num_batches_tracked += 1
    assert warn_of_rates(net, x).keys()>={'lif8'} and "'lif8'" in capfd.readouterr().err

def test_neurons_that_never_fire_are_told(capfd):
    "Half of the neurons is no news, nearly all is"
    class Some(Neuron):
        def __init__(self, n):
            super().__init__()
            self.n = n
        def step(self, x, state): return (torch.arange(x.shape[1])<self.n).float().expand_as(x), None
    x = torch.ones(2, 3, 20)
    assert warn_of_rates(nn.Sequential(Some(10), LIF(threshold=.5)), x)=={} and capfd.readouterr().err==''
    assert warn_of_rates(nn.Sequential(Some(1)), x)=={'0': .05}
    assert "In layer '0' 95% of the neurons never fire" in capfd.readouterr().err
    assert warn_of_rates(nn.Sequential(Some(20)), x)=={'0': 1} and 'is saturated' in capfd.readouterr().err

def test_calibration_follows_the_seed_and_is_not_done_twice(tmp_path):
    def session(seed, **kw):
        set_seed(0)
        net = silent()
        run = fit(net, data(), epochs=2, seed=seed, quiet=True, calibrate=True, **kw)
        return net.state_dict(),run
    a,b,c = session(1),session(1),session(2)
    assert all(v.equal(b[0][k]) for k,v in a[0].items()) and not all(v.equal(c[0][k]) for k,v in a[0].items())
    with pytest.raises(RuntimeError, match='enough'): session(1, out=tmp_path, on_epoch=stop)
    resumed,run = session(1, out=tmp_path, resume=True)
    assert all(v.equal(resumed[k]) for k,v in a[0].items()) and run.history==a[1].history

def test_calibration_leaves_a_conventional_network_alone():
    plain,scaled = trained(1, twin)[0],trained(1, twin, calibrate=True)[0]
    assert all(v.equal(scaled[k]) for k,v in plain.items())

# Files

def flip(path, bit):
    "The file at `path` with one bit flipped."
    raw = bytearray(path.read_bytes())
    raw[bit//8] ^= 1<<bit%8
    return bytes(raw)

@pytest.mark.parametrize('name', names)
def test_no_flipped_bit_goes_unseen(name, tmp_path):
    "100 of 100 are refused, wherever they are; the first 50 in the header, where the names are"
    run = trained(1, out=tmp_path/'whole')[1]
    whole = tmp_path/'whole'/name
    size,header = whole.stat().st_size, 8+int.from_bytes(whole.read_bytes()[:8], 'little')
    place = torch.Generator().manual_seed(0)
    bits = [torch.randint(8*(header if i<50 else size), (1,), generator=place).item() for i in range(100)]
    refused,bad = 0,tmp_path/name
    for bit in bits:
        bad.write_bytes(flip(whole, bit))
        try: read_checkpoint(bad, run.config) if name==names[0] else load_weights(model(), bad)
        except ValueError: refused += 1
    assert refused==100

def test_no_flipped_bit_of_a_checkpoint_is_resumed(tmp_path):
    with pytest.raises(RuntimeError): trained(1, out=tmp_path, on_epoch=stop)
    path = tmp_path/names[0]
    path.write_bytes(flip(path, 8*(path.stat().st_size-1000)))
    set_seed(1)
    net = model()
    before = {k: v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(ValueError, match='has changed since it was written'):
        fit(net, data(), epochs=2, seed=1, quiet=True, out=tmp_path, resume=True)
    assert all(v.equal(before[k]) for k,v in net.state_dict().items())

def as_before_02(path):
    "Write the file at `path` as version 0.1 did: without a checksum, and without what it did not know."
    tensors,meta = read_tensors(path)
    if 'numbers' in meta:
        del meta['run']['computed_by']
        for k in ('loss', 'schedule', 'calibrate'): del meta['run']['config'][k]
    else:
        del meta['computed_by']
        for k in ('loss', 'schedule', 'calibrate'): del meta['config'][k]
    save_file({k: v.clone() for k,v in tensors.items()}, path, dict(snnkit=json.dumps(meta)))

def test_files_of_version_01_are_read(tmp_path):
    "Their trainings go on to the same bits"
    with pytest.raises(RuntimeError): trained(1, out=tmp_path/'half', on_epoch=stop)
    as_before_02(tmp_path/'half'/names[0])
    trained(1, out=tmp_path/'whole')
    resumed = trained(1, out=tmp_path/'half', resume=True)[0]
    for name in names: as_before_02(tmp_path/'whole'/name)
    net = model()
    load_weights(net, tmp_path/'whole'/names[1])
    assert all(v.equal(resumed[k]) for k,v in net.state_dict().items())
    assert trained(1, out=tmp_path/'whole', resume=True)[1].epoch==2
    with pytest.raises(ValueError, match='loss squared_error -> cross_entropy'):
        trained(1, out=tmp_path/'whole', resume=True, loss=cross_entropy)

def test_weights_of_other_programs_are_read(tmp_path):
    set_seed(0)
    a,b = model(),model()
    for meta in (None, dict(format='pt')):
        save_file({k: v.contiguous() for k,v in a.state_dict().items()}, tmp_path/'theirs', meta)
        assert load_weights(b, tmp_path/'theirs') is None
    assert all(v.equal(b.state_dict()[k]) for k,v in a.state_dict().items())

def test_any_kind_of_number_is_written_and_checked(tmp_path):
    kinds = dict(
        a=torch.ones(()),
        b=torch.zeros(0, 3),
        c=torch.tensor([True, False]),
        d=torch.ones(3, dtype=torch.bfloat16),
        e=torch.ones(2, dtype=torch.float64),
        f=torch.arange(6).view(2, 3).T,
        g=torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
        h=torch.ones(2, dtype=torch.int8))
    write_tensors(tmp_path/'a', kinds, {})
    back,_ = read_tensors(tmp_path/'a')
    assert back.keys()==kinds.keys() and all(v.dtype==kinds[k].dtype and v.equal(kinds[k]) for k,v in back.items())

def test_two_trainings_in_one_folder(tmp_path):
    "The second is refused and takes nothing from the first; when a process dies, its folder is free"
    p = start(tmp_path, 100)
    assert p.stdout.readline()=='ready\n'
    while not (tmp_path/names[0]).exists(): time.sleep(.01)
    with pytest.raises(ValueError, match='another training is at work'): trained(7, out=tmp_path, resume=True)
    q = start(tmp_path, 100)
    text = q.communicate(timeout=300)[0]
    assert q.returncode and 'another training is at work' in text
    assert p.poll() is None
    p.kill()
    p.communicate()
    with pytest.raises(ValueError, match='is of another training'): trained(7, out=tmp_path, resume=True)

def test_the_disk_is_tried_before_the_first_step(tmp_path):
    "A limit on a file's size stands for the full disk"
    stepped = []
    class Watched(torch.optim.Adam):
        def step(self, *args, **kw):
            stepped.append(1)
            return super().step(*args, **kw)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, old[1]))
        with pytest.raises(OSError, match='Could not write .*trial'): trained(1, out=tmp_path, opt=Watched)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not stepped and not written(tmp_path)

def test_what_is_not_its_own_stays(tmp_path):
    "Other files, those of other programs that look like leftovers, and weights of another training"
    mine = {
        '.mine.safetensors.7': 'x',
        '.model.safetensors.old': 'y',
        '.checkpoint.safetensors': 'z',
        'notes.txt': 'n',
        'trial.safetensors': 't'}
    for name,text in mine.items(): (tmp_path/name).write_text(text)
    (tmp_path/'.checkpoint.safetensors.12').write_text('half written')
    (tmp_path/'.model.safetensors.34').write_text('half written')
    trained(1, out=tmp_path)
    assert written(tmp_path)==sorted([*mine, *names]) and all((tmp_path/k).read_text()==v for k,v in mine.items())
    for case in ('weights alone', 'of another'):
        folder = tmp_path/case
        folder.mkdir()
        if case=='of another': trained(1, out=folder)
        save_weights(model(), folder/names[1], mine=True)
        before = (folder/names[1]).read_bytes()
        with pytest.raises(ValueError, match='already holds weights'): trained(1, out=folder, resume=case=='of another')
        assert (folder/names[1]).read_bytes()==before

def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    trained(1, out='~/run')
    net = model()
    assert load_weights(net, '~/run/model.safetensors')['epoch']==2 and (tmp_path/'run'/names[1]).exists()

# Before the first step

def never(*args, **kw): raise AssertionError('a step was taken')

def refused(said, net=None, d=None, **kw):
    "`fit` raises a ValueError that says so, before the first step."
    class Never(torch.optim.SGD): step = never
    set_seed(1)
    net = model() if net is None else net
    d = data() if d is None else d
    def opt(p, lr): return Never(p, lr=lr)
    with pytest.raises(ValueError, match=said): fit(net, d, epochs=1, quiet=True, opt=opt, **kw)

def with_labels(part, **change):
    "The bars, with the labels of a part changed."
    d = data()
    o = getattr(d, part)
    y = o.y.clone()
    for i,v in change.items(): y[int(i[1:])] = v
    changed = Images(o.x, o.y)
    changed.y = y                                         # `Images` itself refuses a label below 0
    setattr(d, part, changed)
    return d

@pytest.mark.parametrize('part', ['train', 'valid'])
def test_labels_are_looked_at(part):
    refused(f'labels of `data.{part}` go from 0 to 3, but the model has 3 outputs', d=with_labels(part, i7=3))
    refused(f'labels of `data.{part}` go from -1 to 2', d=with_labels(part, i7=-1))
    d = data()
    o = getattr(d, part)
    y = o.y.clone()
    y[0] = 9
    setattr(d, part, TensorDataset(o.x.float()/255, y))      # that keeps its labels elsewhere
    refused(f'labels of `data.{part}`', d=d)
    setattr(d, part, Images(o.x[:0], o.y[:0]))
    refused(f'`data.{part}` is empty', d=d)
    setattr(d, part, None)
    refused(f'`data.{part}` is None', d=d)

def test_weights_and_scores_are_looked_at():
    net = model()
    net.conv2.weight.data[0, 0, 0, 0] = float('inf')
    refused("the weight 'conv2.weight' of `model` is not finite", net)
    refused('`model` gives .*Integrator', model()[:-1])
    refused("torch's", nn.Sequential(Poisson(4), nn.Conv2d(1, 2, 3), LIF(), Flatten(), Linear(200, 3), Integrator()))
    refused('`loss` gives float32 of shape', loss=lambda s, y: (s-1).pow(2).mean(1))
    refused('`loss` gives 3', loss=lambda s, y: 3)

def test_one_step_a_batch():
    refused('`gradient_accumulation_steps` is 4', accelerator=training.new_accelerator(gradient_accumulation_steps=4))

odd_arguments = dict(
    epochs=[None, True, '2', 0, -1, 1.5],
    batch_size=[None, 0, []],
    lr=[None, '1', True, -1, float('nan'), float('inf')],
    seed=[None, -1, 'x', 2**32],
    save_every=[0, None],
    out=[3, '', []],
    opt=[None, 'adam'],
    loss=[None, 'mse'],
    schedule=[None, 1.],
    on_epoch=[3, []],
    accelerator=[0],
    model=[None, 'lenet'],
    data=[None, []])

@pytest.mark.parametrize('kw', [{name: o} for name,odd in odd_arguments.items() for o in odd], ids=str)
def test_odd_arguments_of_fit(kw):
    name = [*kw][0]
    said = '`data.train` is None' if name=='data' else f'`{name}` is'
    with pytest.raises(ValueError, match=said): fit(**dict(model=model(), data=data(), quiet=True) | kw)

x4,y4 = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
odd_calls = {
    'scores None': ('scores', lambda: squared_error(None, y4)),
    'scores a list': ('scores', lambda: squared_error([[1.]], torch.tensor([0]))),
    'scores over time': ('scores', lambda: cross_entropy(torch.zeros(5, 4, 3), y4)),
    'labels one-hot': ('y', lambda: squared_error(x4, x4)),
    'labels bool': ('y', lambda: cross_entropy(x4, y4>0)),
    'labels None': ('y', lambda: squared_error(x4, None)),
    'smoothing': ('smoothing', lambda: cross_entropy(x4, y4, True)),
    'smoothing text': ('smoothing', lambda: cross_entropy(x4, y4, '0.1')),
    'seed text': ('seed', lambda: set_seed('3')),
    'seed True': ('seed', lambda: set_seed(True)),
    'seed half': ('seed', lambda: set_seed(.5)),
    'evaluate a function': ('model', lambda: evaluate(len, data().test)),
    'evaluate None': ('dataset', lambda: evaluate(model(), None)),
    'evaluate a number': ('dataset', lambda: evaluate(model(), 3)),
    'batch of 0': ('batch_size', lambda: evaluate(model(), data().test, 0)),
    'evaluate seed': ('seed', lambda: evaluate(model(), data().test, seed='a')),
    'save nothing': ('model', lambda: save_weights(None, 'a')),
    'save nowhere': ('path', lambda: save_weights(model(), None)),
    'load a number': ('path', lambda: read_tensors(3)),
    'load into None': ('model', lambda: load_weights(None, 'a')),
    'write a list': ('tensors', lambda: write_tensors('a', [1], {})),
    'write what JSON lacks': ('meta', lambda: write_tensors('a', {}, dict(a=object()))),
    'undisturbed': ('model', lambda: undisturbed('net').__enter__()),
    'describe': ('opt', lambda: describe(model(), data(), None)),
    'rates of None': ('model', lambda: warn_of_rates(None, x4)),
    'rates low': ('low', lambda: warn_of_rates(model(), x4, low='0')),
    'cosine': ('progress', lambda: cosine(None)),
    'cosine nan': ('progress', lambda: cosine(float('nan'))),
    'settings': ('threads', lambda: check_settings(1e-3, 0, threads=[])),
    'a checkpoint of None': ('path', lambda: read_checkpoint(None, {}))}

@pytest.mark.parametrize('name', odd_calls)
def test_odd_calls_are_told_by_name(name):
    argument,call = odd_calls[name]
    with pytest.raises(ValueError, match=f'`{argument}` (is|cannot)'): call()

def test_numbers_of_numpy_are_numbers():
    import numpy as np
    kinds = dict(epochs=np.int64(2), batch_size=np.int32(16), seed=np.int64(1), save_every=np.uint8(7))
    lr = np.float32(.5)/512
    set_seed(np.int64(1))
    net = model()
    run = fit(net, data(), quiet=True, lr=lr, **kinds)
    theirs = net.state_dict()
    set_seed(1)
    net = model()
    again = fit(net, data(), epochs=2, batch_size=16, lr=.5/512, seed=1, save_every=7, quiet=True)
    assert all(v.equal(theirs[k]) for k,v in net.state_dict().items()) and again.config==run.config
    assert all(type(run.config[k]) in (int, float) for k in ('epochs', 'batch_size', 'lr', 'seed'))
    assert evaluate(net, data().test, np.int64(100), np.int64(3)).loss==evaluate(net, data().test, 100, 3).loss

# Other data

class Trains(Dataset):
    "Bars as spike trains: [T, C] an image, batched along the second dimension"
    time_first = True
    def __init__(self, images): self.x,self.labels = images.x,images.y
    def __len__(self): return len(self.x)
    def __getitem__(self, i):
        row = self.x[i].float().mean(-1).flatten()/255
        return (row>.3).float().expand(6, -1), self.labels[i]

def test_a_model_without_encoder_learns_from_spike_trains(capfd):
    "And data without a name or a hash is told by its sizes"
    parts = {k: Trains(getattr(data(), k)) for k in ('train', 'valid', 'test')}
    d = SimpleNamespace(**parts)
    set_seed(0)
    net = nn.Sequential(Linear(12, 32), LIF(), Linear(32, 3), Integrator())
    run = fit(net, d, epochs=3, lr=1e-2, quiet=True, calibrate=True)
    e = evaluate(net, d.test)
    assert run.config['data']=='SimpleNamespace [no hash, 240 train and 60 valid]' and capfd.readouterr().err==''
    assert e.accuracy>.9 and len(e.labels)==60 and e.labels.equal(d.test.labels)
    assert next(iter(batches(evenly(d.valid, 5), 5)))[0].shape==(6, 5, 12)

def test_where_it_is_watched(monkeypatch):
    places = [
        ('1', True, True, 'log'),
        ('', True, True, 'notebook'),
        ('', False, True, 'terminal'),
        ('', False, False, 'log')]
    for test,notebook,tty,where in places:
        monkeypatch.setenv('IN_TEST', test)
        monkeypatch.setattr(training, 'IN_NOTEBOOK', notebook)
        monkeypatch.setattr(sys.stderr, 'isatty', lambda tty=tty: tty, raising=False)
        assert training.show_where()==where

def test_looking_draws_by_its_own_seed():
    net = model()
    def look(*parts):
        with undisturbed(net, *parts): return torch.rand(3)
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    a,b,c = look(1),look(1),look(2)
    assert a.equal(b) and not a.equal(c) and torch.rand(3).equal(want) and not a.equal(want)

rules = [(o, False) for o in ('spike_bp', 'bounded', 'rate', 'atan')] + [('rate', True)]

@pytest.mark.parametrize('grad,signed', rules)
def test_operations_are_asked_for_under_every_rule(grad, signed):
    "The penalty's gradient reaches the first layer, by events as by plain torch, and a step along it saves operations"
    soft = dict(leak=1., reset='subtract') if grad=='rate' else {}
    found = []
    for mode in ('torch', 'numba'):
        torch.manual_seed(0)
        net = lenet(num_steps=6, kappa=6., grad=grad, encoder=Direct(6), signed=signed, **soft)
        x,y = torch.rand(8, 1, 28, 28),torch.arange(8)
        def asked(weight): return OpsPenalty(cross_entropy, weight).answer(net, x, y)[0]
        with use(mode):
            more = asked(1.)-asked(0.)
            grads = torch.autograd.grad(more, [*net.parameters()][:-1])
            with torch.no_grad():
                for p,g in zip(net.parameters(), grads): p -= 1e-3*g/g.norm()
            less = asked(1.)-asked(0.)
        assert 0<less<more and grads[0].norm()>0
        found.append([more.detach(), *grads])
    for a,b in zip(*found): assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)

@pytest.mark.parametrize('loss', [cross_entropy, partial(cross_entropy, smoothing=.1), squared_error])
def test_a_blend_is_of_images_and_of_labels(loss):
    "The error is that of soft labels, in the shares in which the images were blended; draws follow torch's generator"
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    x,y = torch.eye(16)[:10].reshape(10, 1, 4, 4),torch.arange(10)
    errors = []
    for _ in range(2):
        torch.manual_seed(3)
        error,scores = Mixup(loss, .7).answer(net, x, y)
        errors.append(error.item())
    assert errors[0]==errors[1]
    torch.manual_seed(3)
    share = torch.distributions.Beta(.7, .7).sample().item()
    share = max(share, 1-share)
    other = torch.randperm(10)
    assert torch.equal(scores, net(share*x + (1-share)*x[other]))
    by_hand = share*loss(scores, y) + (1-share)*loss(scores, y[other])
    assert error.item()==pytest.approx(by_hand.item(), rel=1e-6)
    if loss is cross_entropy:
        soft = share*torch.eye(10) + (1-share)*torch.eye(10)[other]
        assert error.item()==pytest.approx(nn.functional.cross_entropy(scores, soft).item(), rel=1e-5)

def test_a_penalty_is_wrapped_by_bfloat16_and_wraps_a_teacher():
    "Objectives nest: the same error as the parts have, and their names tell all of it"
    net,x,y = twin(lenet()),torch.rand(8, 1, 28, 28),torch.arange(8)
    inner = Distilled(net, share=.5)
    nested = BFloat16(OpsPenalty(inner, .3))
    assert str(nested)=='BFloat16(OpsPenalty(Distilled(cross_entropy, 0.5, 2.0), 0.3))'
    alone = BFloat16(OpsPenalty(inner, 0.)).answer(net, x, y)[0]
    assert nested.answer(net, x, y)[0]>alone and torch.isfinite(alone)
    assert torch.equal(nested(torch.eye(10), torch.arange(10)), inner(torch.eye(10), torch.arange(10)))
