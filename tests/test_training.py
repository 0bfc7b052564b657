"Training as a process that can be killed, stopped, starved of disk space and run twice."
import os, random, resource, signal, subprocess, sys, time
from functools import partial
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file
from small_training import data, model
from snnkit.data import Augmented, Images, crop_flip, load
from snnkit.core import own_stream
from snnkit.layers import spike_trains
from snnkit.models import lenet, twin
from snnkit.training import evaluate, fit, load_weights, read_tensors, save_weights, set_seed, write_tensors

script = Path(__file__).with_name('small_training.py')
kills = int(os.environ.get('SNNKIT_KILLS', 3))
epochs = str(2*max(3, kills))                             # long enough to be killed that often

def start(out, **kw): return subprocess.Popen([sys.executable, script, out, epochs], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)

def finish(out):
    p = start(out); text = p.communicate(timeout=120)[0]
    assert p.returncode==0, text
    return text

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A training left alone: its folder, and how long it takes once it is ready"
    out = tmp_path_factory.mktemp('whole')
    p = start(out)
    assert p.stdout.readline()=='ready\n'
    t = time.monotonic(); p.communicate(timeout=120)
    assert p.returncode==0
    return out, time.monotonic()-t

def assert_same_training(a, b):
    "The files of two trainings hold the same bits: weights, best weights, optimizer, history"
    for name in ('model.safetensors', 'checkpoint.safetensors'):
        (t,m),(t2,m2) = read_tensors(a/name),read_tensors(b/name)
        assert t.keys()==t2.keys() and all(t[k].equal(t2[k]) for k in t) and m==m2

def test_killed_at_random_moments_it_ends_the_same(whole, tmp_path):
    "SIGKILL at random moments (3 by default, SNNKIT_KILLS for more), each followed by a resume"
    out,took = whole; moments = random.Random(int(os.environ.get('SNNKIT_SEED', 0))); hit = 0
    for _ in range(kills):
        p = start(tmp_path)
        assert p.stdout.readline()=='ready\n'
        time.sleep(moments.uniform(0, took/kills))            # together less than the whole training takes
        p.send_signal(signal.SIGKILL); text = p.communicate(timeout=60)[0]
        hit += p.returncode==-signal.SIGKILL
        if 'done' in text: break
    print(f'killed {hit} times'); assert hit>=kills-1     # it was really killed, not just run to the end
    assert 'done' in finish(tmp_path)
    assert sorted(o.name for o in tmp_path.iterdir())==['checkpoint.safetensors', 'model.safetensors']   # and nothing half written
    assert_same_training(out, tmp_path)

def test_ctrl_c_stops_in_good_order_and_resumes(whole, tmp_path):
    p = start(tmp_path)
    assert p.stdout.readline()=='ready\n'
    while not (tmp_path/'checkpoint.safetensors').exists(): time.sleep(.01)
    p.send_signal(signal.SIGINT); text = p.communicate(timeout=60)[0]
    assert p.returncode==0 and 'Stopping after this step' in text and 'stopped' in text and 'Traceback' not in text
    assert read_tensors(tmp_path/'checkpoint.safetensors')[1]['run']['stopped'] and not (tmp_path/'model.safetensors').exists()
    finish(tmp_path)
    assert_same_training(whole[0], tmp_path)

def test_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    "The limit on a file's size stands for the full disk: the system refuses to write on, in the middle of the file"
    path = tmp_path/'a.safetensors'
    write_tensors(path, dict(w=torch.ones(1000)), dict(epoch=1))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        with pytest.raises(OSError, match=f'Could not write {path}'): write_tensors(path, dict(w=torch.ones(1_000_000)), dict(epoch=2))
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [o.name for o in tmp_path.iterdir()]==[path.name]
    t,meta = read_tensors(path)
    assert meta['epoch']==1 and t['w'].equal(torch.ones(1000))

def test_read_only_folder_is_named(tmp_path):
    folder = tmp_path/'taken'; folder.write_text('a file where the folder should be')
    set_seed(0)
    with pytest.raises(OSError, match=f'Could not write {folder}'): fit(model(), data(), epochs=1, out=folder/'run', quiet=True)

def trained(seed, kind=lambda m: m, **kw):
    set_seed(seed); net = kind(model())
    run = fit(net, data(), epochs=2, seed=seed, quiet=True, **kw)
    return net.state_dict(), run, evaluate(net, data().test)

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
        def step(self, *args, **kw): torch.rand(5); return super().step(*args, **kw)
    b = trained(1, opt=partial(Noisy, fused=True))[0]
    assert all(a[k].equal(b[k]) for k in a)

@pytest.mark.filterwarnings('ignore:Layer')
def test_the_best_epoch_is_chosen_on_the_validation_part():
    set_seed(3); net = model()
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
    set_seed(0); fit(model(), d, epochs=1, quiet=True)

def test_a_stranger_s_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path/"owned"}',)
    (tmp_path/'run').mkdir(); torch.save(Evil(), tmp_path/'run'/'checkpoint.safetensors')
    set_seed(0); net = model(); before = {k: v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(ValueError, match='never opened'): load_weights(net, tmp_path/'run'/'checkpoint.safetensors')
    with pytest.raises(ValueError, match='never opened'): fit(net, data(), out=tmp_path/'run', resume=True, quiet=True)
    assert not (tmp_path/'owned').exists() and all(v.equal(before[k]) for k,v in net.state_dict().items())

def test_a_refused_checkpoint_leaves_the_model_untouched(tmp_path):
    trained(1, out=tmp_path)
    set_seed(5); net = lenet(num_classes=3, image_size=12, num_steps=10, leak=.9); before = {k: v.clone() for k,v in net.state_dict().items()}
    with pytest.raises(ValueError, match='another training'): fit(net, data(), epochs=2, seed=1, out=tmp_path, resume=True, quiet=True)
    whole = (tmp_path/'checkpoint.safetensors').read_bytes(); (tmp_path/'checkpoint.safetensors').write_bytes(whole[:len(whole)//2])
    with pytest.raises(ValueError, match='not a whole safetensors file'): fit(net, data(), epochs=2, seed=1, out=tmp_path, resume=True, quiet=True)
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
    'another weight': (dict(tensors={'model/conv1.weight': torch.zeros(2), 'best/conv1.weight': torch.zeros(2)}), 'another model'),
    'no run': (dict(run=[]), 'fields of a `Run`'), 'a field too many': (dict(run=dict(foo=1)), 'fields of a `Run`'),
    'images of nowhere': (dict(seen=10**6), 'seen 1000000 images of 240'), 'images as text': (dict(seen='9'), '`seen`'), 'too few totals': (dict(totals=[1]), '`totals`'),
    'an epoch too few': (dict(epoch=0), '`history`'), 'an empty epoch': (dict(history=[{}]), '`history`'), 'best of none': (dict(best_epoch=2), '`best_epoch`'), 'half an epoch': (dict(best_epoch=1.), '`best_epoch`'),
    'perhaps stopped': (dict(stopped=None), '`stopped`')}

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    "What a training of one epoch keeps: tensors, and what is told beside them"
    out = tmp_path_factory.mktemp('checkpoint')
    set_seed(1); fit(model(), data(), epochs=1, seed=1, quiet=True, out=out)
    return read_tensors(out/'checkpoint.safetensors')

@pytest.mark.parametrize('damage', damages)
def test_of_a_damaged_checkpoint_nothing_is_taken(damage, checkpoint, tmp_path):
    "A fused optimizer writes as many numbers as the weight has: a tensor too short would let a file write over other memory"
    (tensors,meta),(how,said) = checkpoint,damages[damage]
    tensors = {k: v for k,v in (tensors | how.get('tensors', {})).items() if k!=how.get('drop')}
    meta = meta | {k: how[k] for k in ('run', 'numbers') if k in how}
    meta['run'] = meta['run'] | {k: v for k,v in how.items() if k in meta['run']} if 'run' not in how else how['run']
    write_tensors(tmp_path/'checkpoint.safetensors', tensors, meta)
    set_seed(5); net = model(); before = {k: v.clone() for k,v in net.state_dict().items()}; made = []
    with pytest.raises(ValueError, match=said): fit(net, data(), epochs=1, seed=1, out=tmp_path, resume=True, quiet=True, opt=lambda p, lr: made.append(torch.optim.Adam(p, lr=lr, fused=True)) or made[0])
    assert all(v.equal(before[k]) for k,v in net.state_dict().items()) and not made[0].state

@pytest.mark.parametrize('opt', [partial(torch.optim.SGD, momentum=.9, fused=True), partial(torch.optim.Adagrad, fused=True), torch.optim.Adafactor, torch.optim.ASGD, torch.optim.NAdam])
def test_what_an_optimizer_keeps_is_taken_back(opt, tmp_path):
    "Tensors like the weight, rows and columns, single numbers"
    kept = []
    def keep(p, lr): kept.append(opt(p, lr=lr)); return kept[-1]
    for resume in (False, True): set_seed(1); fit(model(), data(), epochs=1, seed=1, quiet=True, out=tmp_path, resume=resume, opt=keep)
    a,b = (o.state_dict()['state'] for o in kept)
    assert a and a.keys()==b.keys() and all(torch.equal(*map(torch.as_tensor, (v, b[i][k]))) for i,s in a.items() for k,v in s.items())

def test_a_resumed_training_sees_the_same_images(tmp_path):
    "Augmentation, its seed and signed intensities are compared, and an augmentation made anew is the same"
    def session(resume=True, **kw):
        set_seed(1); d = data(); signed = kw.pop('signed', False)
        d.train,d.valid = (Images(o.x, o.y, signed) for o in (d.train, d.valid))
        if kw: d.train = Augmented(d.train, crop_flip(12, padding=kw.get('padding', 1)), kw.get('seed', 1))
        net = model(); fit(net, d, epochs=1, seed=1, quiet=True, out=tmp_path, resume=resume)
        return net.state_dict()
    first = session(False, padding=1)
    again = session(padding=1)
    assert all(first[k].equal(again[k]) for k in first)
    for other in (dict(), dict(padding=2), dict(padding=1, seed=2), dict(padding=1, signed=True)):
        with pytest.raises(ValueError, match='data was bars .* now bars'): session(**other)

class Interrupting(Images):
    "Presses Ctrl-C when `train` is in epoch `when` and these images are looked at"
    def __init__(self, ds, train, when): super().__init__(ds.x, ds.y); self.train,self.when = train,when
    def pixels(self, i):
        if getattr(self.train, 'epoch', -1)==self.when: self.when = None; signal.raise_signal(signal.SIGINT)
        return self.x[i]

def test_ctrl_c_in_the_last_validation_is_told(tmp_path):
    "The training is whole, and so are its files; that somebody wants to stop is told all the same"
    _,whole,_ = trained(1, out=tmp_path/'whole')
    d = data(); d.valid = Interrupting(d.valid, d.train, 1)
    set_seed(1); run = fit(model(), d, epochs=2, seed=1, quiet=True, out=tmp_path/'hit')
    assert run.stopped and run.history==whole.history and not whole.stopped
    assert_same_training(tmp_path/'whole', tmp_path/'hit')
    _,again,_ = trained(1, out=tmp_path/'hit', resume=True)
    assert not again.stopped and again.history==whole.history
    assert_same_training(tmp_path/'whole', tmp_path/'hit')

def test_images_sorted_by_class_do_not_warn_in_vain(recwarn):
    "The first class is black, and so are all of its images that lie in front"
    d = data(); black = torch.zeros_like(d.valid.x[:30])
    d.valid = Images(torch.cat([black, d.valid.x]), torch.cat([torch.zeros(30, dtype=torch.int64), d.valid.y]))
    set_seed(1); fit(model(), d, epochs=1, seed=1, quiet=True)
    assert not [o for o in recwarn if 'fell silent' in str(o.message)]

@pytest.mark.parametrize('out', [False, True], ids=['saved', 'trained'])
def test_tied_weights(out, tmp_path):
    "Layers that share a weight share it still when it was saved and read, or trained and taken up again"
    def tied():
        set_seed(1); net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 144), torch.nn.ReLU(), torch.nn.Linear(144, 144), torch.nn.ReLU(), torch.nn.Linear(144, 3))
        net[3].weight = net[1].weight
        return net
    a,b = tied(),tied(); torch.nn.init.zeros_(b[1].weight)
    if out:
        fit(a, data(), epochs=2, seed=1, quiet=True, out=tmp_path)
        fit(b, data(), epochs=2, seed=1, quiet=True, out=tmp_path, resume=True)
        load_weights(c := tied(), tmp_path/'model.safetensors'); assert c[1].weight.equal(a[1].weight)
    else: save_weights(a, tmp_path/'a'); load_weights(b, tmp_path/'a')
    assert b[3].weight is b[1].weight and all(v.equal(b.state_dict()[k]) for k,v in a.state_dict().items())

def test_a_folder_is_no_file(tmp_path):
    (tmp_path/'run'/'checkpoint.safetensors').mkdir(parents=True)
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match='is a folder, but it must be a safetensors file'): read_tensors(path)
    with pytest.raises(ValueError, match='is a folder'): fit(model(), data(), out=tmp_path/'run', resume=True, quiet=True)

def test_weights_are_plain_safetensors_for_anyone(tmp_path):
    set_seed(0); net = model()
    save_weights(net, tmp_path/'w.safetensors')
    theirs = load_file(tmp_path/'w.safetensors')
    assert all(v.equal(theirs[k]) for k,v in net.state_dict().items())

def test_a_model_answers_for_a_batch_as_for_each_image_alone():
    "Given the same spikes: the encoder is taken off and its spike train put in"
    set_seed(0); net = lenet(num_steps=12).eval()
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
    net = model(); meta = load_weights(net, tmp_path/'model.safetensors')
    assert len(meta['history'])==2 and evaluate(net, data().test).accuracy>.6
    assert .2 < meta['history'][0]['train_accuracy'] <= 1  # counted over both processes
