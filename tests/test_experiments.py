"One run, many, and the store: what is recorded can be repeated, a kill loses only its run, and wrong names are told."
import inspect,json,math,os,random,signal,subprocess,sys,time,warnings
from dataclasses import asdict,replace
from pathlib import Path
import pytest,torch
from joblib import parallel_backend
from snnkit import experiments as E, studies, training
from snnkit.experiments import Config,Pictures,Store,key,run,run_all
from snnkit.layers import QCFS
from snnkit.measures import firing_rates
from common import root
from repeat import cheapest,differs,repeat
from test_data import folder

tiny = Config(part=300, num_steps=6, epochs=1)
compared = 'config', 'split', 'history', 'best_epoch', 'valid_accuracy', 'test_accuracy', 'right', 'rates', 'operations'
def same(a, b): return all(a[o]==b[o] for o in compared)

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    "Checkpoints and records of these tests lie in a folder of their own."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.chdir(tmp_path)

@pytest.fixture(scope='module')
def record(tmp_path_factory):
    "A record of `tiny`."
    d = tmp_path_factory.mktemp('record')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('XDG_CACHE_HOME', str(d/'cache'))
        return run(tiny, Store(d), quiet=True)

# Configurations

@pytest.mark.parametrize('wrong', [
    dict(model='alexnet'),
    dict(norm='batch'),
    dict(augment='mixup'),
    dict(encoder='rank'),
    dict(grad='relu'),
    dict(dropout=1.),
    dict(dropout=-.1),
    dict(epochs=0),
    dict(num_steps=0),
    dict(num_steps=2.5),
    dict(lr=0.),
    dict(seed=-1),
    dict(batch_size=0),
    dict(threads=0),
    dict(lr='1e-3'),
    dict(lr=True),
    dict(lr=float('nan')),
    dict(dropout='a'),
    dict(grad=len),
    dict(grad=None),
    dict(options=None),
    dict(options=3),
    dict(options=dict(leak=float('nan'))),
    dict(data=None),
    dict(data=3),
    dict(part=0),
    dict(part='all'),
    dict(part=True),
    dict(fold=5),
    dict(fold=-1),
    dict(folds=1),
    dict(model=None),
    dict(model=len),
    dict(model='nowhere.nets:mine'),
    dict(model='snnkit.models:nothing'),
    dict(model='snnkit.models:models'),
    dict(model='__main__:mine'),
    dict(ann=1),
    dict(ann=None),
    dict(augment=3),
    dict(norm=[]),
    dict(loss='hinge'),
    dict(loss=None),
    dict(loss='nowhere:loss'),
    dict(calibrate='yes'),
    dict(seed=None),
    dict(seed=2**32),
    dict(epochs=True),
    dict(epochs='4'),
    dict(threads=None),
    dict(size=0),
    dict(options=dict(widths={1})),
    dict(options=dict(norm='shared')),
    dict(options=dict(num_classes=3)),
    dict(readout=0.),
    dict(kappa=0.),
    dict(norm_head=1),
    dict(smoothing=1., loss='tet'),
    dict(smoothing=.1),
    dict(distill=2.),
    dict(distill=.5, ann=True),
    dict(distill=.5, loss='tet'),
    dict(weight_decay=-1.),
    dict(schedule='step'),
    dict(precision='half'),
    dict(mixup=-1.),
    dict(mixup=.2, loss='tet'),
    dict(mixup=.2, distill=.5),
    dict(optimizer='lion'),
    dict(levels=0, ann=True),
    dict(levels=4),
    dict(late=.5, ann=True),
    dict(late=1., levels=4, ann=True),
    dict(convert='by luck'),
    dict(convert='qcfs'),
    dict(convert='percentile', ann=True),
    dict(tune=1),
    dict(tune_lr=0.),
    dict(wait=.25),
    dict(leave=-1.),
    dict(leave=.2, ann=True),
    dict(wait=1., convert='percentile'),
    dict(distill=.5, convert='percentile')])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f'`{next(iter(wrong))}`'): Config(**wrong)

def test_every_field_counts():
    other = dict(
        data='MNIST', part=1, fold=0, folds=3, model='vgg', options=dict(depth=5), ann=True, norm='shared', dropout=.1,
        augment='shift', encoder='direct', grad='atan', num_steps=1, epochs=1, batch_size=1, lr=.1, seed=1, threads=2,
        loss='cross_entropy', calibrate=False, readout=2., kappa=3., norm_head=False, smoothing=.2, distill=.3,
        weight_decay=.1, schedule='cosine', precision='bf16', optimizer='sgd', levels=4, convert='percentile', tune=1,
        tune_lr=.1, wait=.25, signed=True, penalty=.1, late=.5, leave=.2, half=True, mixup=.5, size=16)
    beside = dict(smoothing=dict(loss='tet'), levels=dict(ann=True), late=dict(ann=True, levels=4)) # what it needs
    beside |= dict.fromkeys(('tune', 'wait'), dict(convert='percentile'))
    beside |= dict(signed=dict(convert='percentile', grad='rate'))
    assert other.keys()==asdict(Config()).keys()
    def at(k): return Config(**{k: other[k]} | beside.get(k, {}))
    assert len({key(at(k)) for k in other} | {key(Config())})==len(other)+1

def test_blends_are_of_the_first_training_alone():
    "A network that was made spiking learns on from images as they are, or from a teacher"
    c = replace(tiny, mixup=.5, smoothing=.1, loss='cross_entropy')
    assert isinstance(E.objective(c), training.Mixup) and E.objective(c).alpha==.5
    made = replace(c, convert='percentile', tune=1)
    assert type(E.objective(made)) is training.Objective
    assert isinstance(E.objective(replace(made, **E.its_twin(made))), training.Mixup)
    assert repr(E.objective(replace(c, penalty=.1, precision='bf16'))).startswith('BFloat16(OpsPenalty(Mixup(')

def test_rounded_weights_are_what_was_measured(tmp_path):
    "A file of half the size gives the answers of the record"
    c = replace(tiny, half=True)
    r = run(c, tmp_path, 'half', quiet=True, weights=tmp_path/'half.safetensors')
    net,data = E.network(c, E.data_for(c)),E.data_for(c)
    E.load_weights(net, tmp_path/'half.safetensors')
    assert all(v.half().to(v.dtype).equal(v) for v in net.state_dict().values() if v.is_floating_point())
    with E.steady(1): assert training.evaluate(net.eval(), data.test).accuracy==r['test_accuracy']
    assert not replace(c, **E.its_twin(c)).half

def test_levels_may_come_late(tmp_path):
    "From the second of two epochs on"
    c = replace(tiny, ann=True, part=100, epochs=2, levels=4, late=.5, optimizer='sgd', lr=1e-9, batch_size=16)
    net = E.network(c, data := E.data_for(c))
    after = -(-len(data.train)//16)
    stairs = [m for m in net.modules() if isinstance(m, QCFS)]
    assert {m.after for m in stairs}=={after} and {m.cut for m in stairs}=={.02}
    again = E.network(c, Pictures(data.name, data.classes, data.shape, data.test.signed)) # as a file tells it
    assert again.state_dict().keys()==net.state_dict().keys()
    r = run(c, tmp_path, 'late', quiet=True, weights=tmp_path/'late.safetensors')
    E.load_weights(net, tmp_path/'late.safetensors')
    assert [o.get('unready', False) for o in r['history']]==[True, False] and r['best_epoch']==2
    assert all(m.begun and m.seen==after+1 for m in stairs)

def test_images_may_leave_early(tmp_path):
    "The record tells what comes of it, in place of the answers after all steps"
    c = replace(tiny, encoder='direct', grad='atan', num_steps=4, options=dict(reset='subtract', pool_neurons=False))
    all_,some = (run(replace(c, leave=o), tmp_path, 'leaving', quiet=True) for o in (None, 10.))
    assert 'early' not in all_ and all_['history']==some['history'] and all_['operations']==some['operations']
    assert all_['steps'] and not some['steps'] and some['valid_loss'] is None and some['test_loss'] is None
    assert 1<=some['early']['first']<=some['early']['steps']<4 and 0<=some['early']['limit']<=1
    assert some['energies']['added']<all_['energies']['added'] and some['spikes']<all_['spikes']
    assert some['energy']==some['energies']['effective']
    assert some['valid_accuracy']>=all_['valid_accuracy']-.1-1e-6
    assert E.unpack(some).double().mean().item()==some['test_accuracy']
    assert E.its_twin(E.config_of(some))['leave'] is None

def test_who_cannot_answer_early_is_told(tmp_path):
    c = Config(part=300, model='snnkit.stdp:DiehlCook', options=dict(neurons=10), epochs=1, leave=.1)
    with pytest.raises(ValueError, match='`leave` is 0.1'): run(c, tmp_path, quiet=True)

def test_neurons_are_checked_with_their_options():
    counts = replace(tiny, grad='rate', options=dict(leak=1., reset='subtract'))
    for signed in (False, True):
        neurons = E.network(replace(counts, signed=signed), E.data_for(tiny)).lif1
        assert neurons.leak==1 and neurons.signed==signed
    with pytest.raises(ValueError, match='`signed` is True and `ann` True'): replace(counts, ann=True, signed=True)
    assert not replace(replace(counts, signed=True), **E.its_twin(counts)).signed
    for wrong,text in {'leak': 1.5, 'reset': 'soft'}.items():
        with pytest.raises(ValueError, match=f'`{wrong}`'): Config(options={wrong: text})
    with pytest.raises(ValueError, match="`grad` is 'rate' with leak=0.99"): Config(grad='rate')

def test_options_reach_the_model():
    c = replace(tiny, model='vgg', options=dict(depth=5, width=4))
    d = E.data_for(c)
    assert E.network(c, d).conv1.out_channels==4
    with pytest.raises(ValueError, match="no argument 'breadth'"): E.network(replace(c, options=dict(breadth=4)), d)

@pytest.mark.parametrize('changes', [
    dict(readout=1.),
    dict(norm='shared', norm_head=False),
    dict(norm='shared', kappa=2.)], ids=str)
def test_how_a_network_begins(changes):
    c = replace(tiny, **changes)
    d = E.data_for(c)
    new,old = E.network(replace(c, readout=None, norm_head=True, kappa=None), d),E.network(c, d)
    ann,old_ann = (E.network(replace(o, ann=True), d) for o in (replace(c, readout=None), c))
    if 'readout' in changes:
        assert new.fc2.weight.equal(old.fc2.weight)
        assert ann.fc2.weight.equal(.1*old_ann.fc2.weight) and old_ann.fc2.weight.equal(old.fc2.weight)
    elif 'kappa' in changes:
        plain = new.fc2.weight.std().item()
        assert old.fc2.weight.std().item()==pytest.approx(6**.5*plain, rel=1e-4)
    else: assert hasattr(new, 'norm3') and hasattr(old, 'norm2') and not hasattr(old, 'norm3')

def test_a_run_learns_from_its_twin(tmp_path, monkeypatch):
    "Its teacher is trained first, and kept for the next run that asks for it."
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    c = replace(tiny, part=100, num_steps=2, loss='cross_entropy', smoothing=.1, distill=.5, weight_decay=.01,
                schedule='warm_cosine')
    store = Store(tmp_path/'r')
    r = E.run(c, store, quiet=True)
    made = store.read()
    assert made.keys()=={key(c), key(replace(c, ann=True, distill=0.))} and len(E.increments([*made.values()]))==1
    teacher, = (tmp_path/'cache').rglob('teachers/*.safetensors')
    before = teacher.stat().st_mtime_ns
    again = E.run(replace(c, distill=.25), store, quiet=True)
    assert teacher.stat().st_mtime_ns==before and again['history']!=r['history']
    assert r['silent'].keys()==r['rates'].keys() and all(0<=o<=1 for o in r['silent'].values())

def test_every_step_is_judged(tmp_path):
    "By TET; for the twin, which has no steps, it is the loss itself."
    c = replace(tiny, part=100, num_steps=2, loss='tet')
    r,same = (E.run(o, Store(tmp_path), quiet=True) for o in (c, replace(c, loss='cross_entropy')))
    assert r['history']!=same['history']
    r,same = (E.run(replace(o, ann=True), Store(tmp_path), quiet=True) for o in (c, replace(c, loss='cross_entropy')))
    assert r['history']==same['history']

def test_what_means_the_same_is_the_same():
    names = {'mnist': 'MNIST', 'fashion-mnist': 'FashionMNIST', 'Digits': 'digits', 'cifar10 jpeg': 'CIFAR10-JPEG'}
    for name,usual in names.items():
        assert Config(data=name)==Config(data=usual)
        assert studies.base_for(name)==studies.base_for(usual)
        assert studies.augment_for(name)==studies.augment_for(usual)
        for o in studies.studies: assert studies.study(o, name)==studies.study(o, usual)
    path = Path('some')/'folder'
    assert Config(data=path).data==str(path)
    whole = Config(dropout=0, lr=1, options=dict(widths=(1, 2)))
    assert key(whole)==key(Config(dropout=0., lr=1., options=dict(widths=[1, 2])))

def test_descriptions_tell_apart():
    vgg = Config(model='vgg', options=dict(depth=7, width=16))
    others = [
        Config(),
        Config(model='vgg'),
        replace(vgg, options=dict(depth=7)),
        replace(vgg, threads=2),
        replace(vgg, ann=True),
        replace(vgg, options=vgg.options | dict(depth=9))]
    assert len({E.describe(c, vgg) for c in others} | {E.describe(vgg, vgg)})==len(others)+1

# One run

def test_run_again_gives_the_same(record, tmp_path):
    again = run(tiny, Store(tmp_path/'again'), quiet=True)
    assert same(again, record) and E.unpack(record).float().mean().item()==pytest.approx(record['test_accuracy'])

def test_folder_of_checkpoints_goes_with_the_record(record, tmp_path):
    run(replace(tiny, seed=7), Store(tmp_path/'a'), quiet=True)
    assert not E.workplace(replace(tiny, seed=7)).exists()

def test_folds_cover_all_and_share_nothing():
    folds = [E.data_for(replace(tiny, fold=i, folds=3)) for i in range(3)]
    seen = [bytes(x.numpy().tobytes()) for o in folds for x in o.valid.x]
    assert len(seen)==len(set(seen))==300 and len({o.split_hash for o in folds})==3

def test_seed_changes_the_training_and_not_the_split(record, tmp_path):
    other = run(replace(tiny, seed=43), Store(tmp_path/'s'), quiet=True)
    assert other['split']==record['split'] and other['history']!=record['history']

def test_seconds_go_on(tmp_path):
    "A session's seconds to its last checkpoint count, what came after is lost; without a checkpoint none counts."
    home,now = tmp_path/'home',time.time()
    assert E.clock(home)==pytest.approx(now, abs=5)
    (home/'checkpoint.safetensors').touch()
    os.utime(home/'checkpoint.safetensors', (now+100, now+100))
    assert E.clock(home)==pytest.approx(now-100, abs=5)
    os.utime(home/'checkpoint.safetensors', (now-50, now-50))
    assert E.clock(home)==pytest.approx(now-100, abs=5)

def test_weights_of_another_run_stay(record, tmp_path):
    s,file = Store(tmp_path),tmp_path/'net.safetensors'
    run(replace(tiny, seed=7), s, quiet=True, weights=file)
    before = file.read_bytes()
    s.add(record)
    with pytest.raises(ValueError, match='`weights`.*another name'): run(tiny, s, quiet=True, weights=file)
    with pytest.raises(ValueError, match='`weights`.*another name'):
        run(replace(tiny, seed=8), s, quiet=True, weights=file)
    assert file.read_bytes()==before

@pytest.mark.filterwarnings('ignore:Layer')
def test_images_that_have_changed_are_trained_again(tmp_path):
    "A folder gets more images: its record is old, and an interrupted run of before is told how to begin anew."
    photos,s = folder(tmp_path/'photos', n=20, shape=(12, 12)),Store(tmp_path/'s')
    c = Config(data=str(photos), num_steps=2, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        warnings.filterwarnings('ignore', 'Layer')
        old = run(c, s, quiet=True)
        assert run_all([c], store=s)==[old]
    folder(photos, n=24, shape=(12, 12), seed=1)
    with pytest.warns(UserWarning, match='photos have changed'): new, = run_all([c], store=s, jobs=1)
    assert new['split']!=old['split'] and run(c, s)==new
    cut = replace(c, epochs=2, seed=3)
    E.fit(E.network(cut, d := E.data_for(cut)), d, 1, c.batch_size, c.lr, cut.seed, E.workplace(cut), quiet=True)
    with pytest.raises(ValueError, match='`fresh=True` begins anew'): run(cut, s, quiet=True)
    assert run(cut, s, fresh=True, quiet=True)['best_epoch']

def test_two_ask_for_the_same_run(record, tmp_path):
    "Two processes that ask for one run at the same moment: one makes it, both have it."
    code = f"""if 1:
        import json
        from snnkit.experiments import *
        r = run(Config(part=300, num_steps=6, epochs=1), {str(tmp_path/"s")!r}, quiet=True)
        print(json.dumps(r))"""
    ps = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    a,b = (json.loads(p.communicate()[0]) for p in ps)
    assert same(a, record) and a==b and len((tmp_path/'s'/'runs.jsonl').read_text().splitlines())==1

# The store

def test_kill_while_writing(record, tmp_path):
    "A process that adds records is killed at any moment: every whole line stays a record, and the next one is added."
    code = f'''if 1:
        import json
        from snnkit.experiments import Store
        r = json.loads({json.dumps(json.dumps(record))})
        r['pad'] = 'x'*200_000
        s = Store({str(tmp_path/"k")!r})
        for i in range(10_000):
            r['config']['seed'] = i
            s.add(r, 'a')
            print(i, flush=True)'''
    rng = random.Random(0)
    for life in range(3):
        p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
        for _ in range(3): p.stdout.readline()
        time.sleep(rng.random()*.05)
        p.send_signal(signal.SIGKILL)
        said = p.stdout.read().split()
        p.wait()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            have = Store(tmp_path/'k').read()
        assert len(have)>=3+len(said)
        assert all(r['pad']=='x'*200_000 for r in have.values() if r['config']['seed']<99_000)
        Store(tmp_path/'k').add(record | dict(config=asdict(replace(tiny, seed=99_000+life))), 'a')
        assert {99_000+i for i in range(life+1)} <= {r['config']['seed'] for r in Store(tmp_path/'k').read().values()}

@pytest.mark.parametrize('cut', [1, 50, -2])
def test_a_line_cut_short_is_set_aside(record, tmp_path, cut):
    s = Store(tmp_path/'c')
    s.add(record, 'a')
    file = tmp_path/'c'/'a.jsonl'
    line = file.read_bytes()
    file.write_bytes(line + line[:cut])
    with pytest.warns(UserWarning, match='left out, all others are kept'): assert len(s.read())==1
    with pytest.warns(UserWarning, match='cut short'): s.add(record | dict(config=asdict(replace(tiny, seed=1))), 'a')
    assert len(s.read())==2 and file.with_suffix('.broken').read_bytes()==line[:cut]+b'\n'

def test_a_whole_line_without_an_end_stays(record, tmp_path):
    s = Store(tmp_path/'c')
    s.add(record, 'a')
    file = tmp_path/'c'/'a.jsonl'
    file.write_bytes(file.read_bytes()[:-1])
    s.add(record | dict(config=asdict(replace(tiny, seed=1))), 'a')
    assert len(s.read())==2 and not file.with_suffix('.broken').exists()

def test_a_line_without_results_is_no_record(record, tmp_path):
    (tmp_path/'a.jsonl').write_text(json.dumps(dict(config=asdict(tiny)))+'\n')
    with pytest.warns(UserWarning, match='right'): assert Store(tmp_path).read()=={}

def test_records_of_a_data_set_by_its_path_are_found(record, tmp_path):
    s = Store(tmp_path/'s')
    s.add(record, 'ablation-/some/where/photos')
    assert len(s.read())==1 and [p.name for p in s.folder.glob('*.jsonl')]==['ablation-some-where-photos.jsonl']

def test_records_of_a_newer_kit_are_left_out(record, tmp_path):
    s = Store(tmp_path/'n')
    s.add(record, 'a')
    newer = record | dict(config=record['config'] | dict(colour='red'))
    with open(s.folder/'a.jsonl', 'a') as f: f.write(json.dumps(newer)+'\n')
    with pytest.warns(UserWarning, match='colour'): assert len(s.read())==1

def test_two_writers(record, tmp_path):
    code = f'''if 1:
        import json,sys
        from snnkit.experiments import Store
        r = json.loads({json.dumps(json.dumps(record))})
        s = Store({str(tmp_path/"w")!r})
        for i in range(50):
            r['config']['seed'] = int(sys.argv[1])+i
            s.add(r, 'a')'''
    ps = [subprocess.Popen([sys.executable, '-c', code, str(100*i)]) for i in range(2)]
    assert [p.wait() for p in ps]==[0, 0] and len(Store(tmp_path/'w').read())==100

def test_no_room_for_the_record(record, tmp_path):
    (tmp_path/'full').write_text('a file where the folder should be')
    with pytest.raises(OSError, match='training is kept'): Store(tmp_path/'full').add(record)

def test_results_are_found_from_below(tmp_path, monkeypatch):
    (tmp_path/'results').mkdir()
    (tmp_path/'results'/'a.jsonl').touch()
    (tmp_path/'nbs'/'deep').mkdir(parents=True)
    monkeypatch.chdir(tmp_path/'nbs'/'deep')
    monkeypatch.delenv('SNNKIT_RESULTS', raising=False)
    assert Store().folder==tmp_path/'results'
    monkeypatch.setenv('SNNKIT_RESULTS', str(tmp_path/'other'))
    assert Store().folder==tmp_path/'other'

# Many runs

def test_killed_and_called_again(tmp_path):
    "A list of runs is killed when some are done; called again it does the others, and all are as without the kill."
    code = f'''if 1:
        from snnkit.experiments import *
        configs = seeds([Config(part=300, num_steps=6, epochs=1)], range(3))
        run_all(configs, 'a', Store({str(tmp_path/"r")!r}), jobs=1)'''
    p = subprocess.Popen([sys.executable, '-c', code])
    end = time.time()+120
    file = tmp_path/'r'/'a.jsonl'
    def some_done(): return file.exists() and file.read_text().count('\n')>=1
    while not some_done() and time.time()<end: time.sleep(.02)
    p.send_signal(signal.SIGKILL)
    p.wait()
    done = len(Store(tmp_path/'r').read())
    assert 1<=done<3
    configs = E.seeds([tiny], range(3))
    rs = run_all(configs, 'a', Store(tmp_path/'r'), jobs=1)
    assert [r['config']['seed'] for r in rs]==[0, 1, 2] and file.read_text().count('\n')==3
    assert same(rs[2], run(configs[2], Store(tmp_path/'alone'), quiet=True))

def test_ctrl_c_at_the_end_of_a_run_stops_them_all(record, tmp_path, monkeypatch):
    "It comes while the last epoch of the first run is validated: the second does not begin, and the same call goes on."
    ended,starts = training.end_epoch,[]
    def hit(*args):
        signal.raise_signal(signal.SIGINT)
        return ended(*args)
    def fit(*args, **kw):
        starts.append(args)
        return training.fit(*args, **kw)
    def call(): return run_all([tiny, replace(tiny, seed=43)], 'a', Store(tmp_path/'c'), jobs=1)
    with monkeypatch.context() as m:
        m.setattr(training, 'end_epoch', hit)
        m.setattr(E, 'fit', fit)
        with pytest.raises(KeyboardInterrupt): call()
    assert len(starts)==1 and not Store(tmp_path/'c').read()
    first,_ = call()
    assert same(first, record)

@pytest.mark.filterwarnings('ignore:Layer') # networks as small as these may fall silent
@pytest.mark.parametrize('backend', ['loky', 'threading', 'multiprocessing'])
def test_every_backend_finds_the_same(record, tmp_path, backend):
    configs = [tiny, replace(tiny, seed=1), replace(tiny, ann=True)]
    with parallel_backend(backend, n_jobs=2): rs = run_all(configs, 'a', tmp_path/'p', jobs=2)
    assert ['rates' in r for r in rs]==[True, True, False] and rs[2]['config']['ann']
    assert same(rs[0], record) and [r['config']['seed'] for r in rs]==[42, 1, 42] and len(Store(tmp_path/'p').read())==3

def test_an_error_in_a_run_is_told(tmp_path):
    with pytest.raises(ValueError, match='`name`'):
        run_all([replace(tiny, data='mnits')], 'a', Store(tmp_path/'e'), jobs=1)

def test_twins_begin_with_the_same_draw():
    "And stay as drawn, calibrated or not; weights for spikes are too large for ReLUs."
    d = E.data_for(tiny)
    def weights(c, **changes): return dict(E.network(replace(c, readout=1., **changes), d).named_parameters())
    vgg = replace(tiny, model='vgg', options=dict(depth=5, width=4))
    for c in (tiny, replace(tiny, norm='shared', dropout=.2), vgg):
        drawn = weights(c, calibrate=False)
        for twin in (weights(c, ann=True, calibrate=o) for o in (False, True)):
            assert twin.keys()==drawn.keys() and all(v.equal(drawn[k]) for k,v in twin.items())

# What they found

def made_up(record, **changes):
    "`record` as if it were another configuration's."
    own = {k: v for k,v in changes.items() if k in record and k!='images'}
    config = {k: v for k,v in changes.items() if k in record['config']}
    return record | own | dict(config=record['config'] | config)

def test_a_run_counts_once(record):
    rs = [made_up(record, seed=i, test_accuracy=.5+i/100, ann=a) for i in range(3) for a in (False, True)]
    for f in (E.table, E.increments, E.differences, E.one_by_one): assert f(rs).equals(f(rs+rs))
    for f in (E.table, E.increments, E.differences, E.one_by_one, E.best):
        with pytest.raises(ValueError, match='`records` is empty'): f([])

networks = dict(ablation=12, norms=16, depths=16, bounded=12, folds=10, families=12, depthwise=4, recipe=35, headline=2,
                rivals=10, tuned=11, photographs=10, economy=17, cures=16, efficient=5, accurate=3)

@pytest.mark.parametrize('name, n', networks.items())
def test_a_study_has_every_run_once(name, n):
    "From every seed, whatever two of its lists share; and each twin stands beside its spiking network."
    cs = studies.study(name, 'digits', of=(1, 2))
    seeds = [c.seed for c in cs]
    assert len({*map(key, cs)})==len(cs)==2*n and seeds.count(1)==seeds.count(2)==len(cs)/2
    own = {key(replace(c, **E.its_twin(c))) for c in cs if not c.ann}
    assert {key(c) for c in cs if c.ann} <= own

def test_the_best_may_be_the_base(record):
    "Where no feature helps."
    def valid_accuracy(c): return .8 if c.norm or c.augment or c.dropout else .9
    configs = studies.ablation(studies.base_for('digits'), 'shift')
    rs = [made_up(record, **asdict(c), valid_accuracy=valid_accuracy(c)) for c in configs]
    assert E.best(rs)==studies.base_for('digits')

def test_equal_accuracies_go_by_the_error(record):
    "Means of accuracies differ in their last bits where the images answered rightly are as many."
    n = record['images']['valid']
    low,mid,high = [torch.tensor(k/n).item() for k in (7, 8, 9)]
    accuracies = {0.: (mid, high, low), .1: (low, mid, high)}
    rs = [made_up(record, seed=i, dropout=d, valid_accuracy=a, valid_loss=.2-d)
          for d,of_seeds in accuracies.items() for i,a in enumerate(of_seeds)]
    assert E.best(rs).dropout==.1 and E.best(rs[::-1]).dropout==.1

def test_pairs_saw_the_same_images(record):
    with pytest.raises(ValueError, match='other images'): E.increments([record, made_up(record, ann=True, split='0'*8)])
    with pytest.raises(ValueError, match='dropout=0.1 saw other images'):
        E.differences([record, made_up(record, dropout=.1, split='0'*8)])

def ahead(record, gains, folds=(None,), **changes):
    "Runs of `record`'s configuration, and of one that is ahead of it by `gains` points, a seed each, on every fold"
    first = {(i, f): 50+7*i for i in range(len(gains)) for f in folds}
    def made(percent, **kw): return made_up(record, test_accuracy=percent/100, valid_accuracy=percent/100, **kw)
    behind = [made(v, seed=i, fold=f) for (i,f),v in first.items()]
    return behind + [made(v+gains[i], seed=i, fold=f, **changes) for (i,f),v in first.items()]

def test_differences_are_between_runs_of_a_seed(record):
    "Seeds seven points apart do not hide a feature that gains one or two on each: Student's t of 1, 2, 3 is 2 +- 2.48"
    rs = ahead(record, [1, 2, 3], dropout=.1)
    for on in ('test', 'valid'):
        t = E.differences(rs, on=on).loc['dropout=0.1']
        assert (t.pairs, t.ahead)==(3, 3)
        found = t[['first (%)', 'this (%)', 'difference', 'low', 'high']].tolist()
        assert found==pytest.approx([57, 59, 2, 2-2.4841, 2+2.4841], abs=1e-3)
    assert E.differences(rs[::-1], on='valid').difference.tolist()==pytest.approx([-2]) # against the first of the list
    assert E.differences(rs[::-1], E.config_of(record), on='valid').index.tolist()==['dropout=0.1']
    with pytest.raises(ValueError, match='dropout=0.1 has a run with seed 2 and fold None'):
        E.differences(rs[:2]+rs[3:])
    with pytest.raises(ValueError, match='`on` is'): E.differences(rs, on='train')

def test_each_pair_has_a_row(record):
    rs = ahead(record, [1, -2], dropout=.1)
    t = E.differences(rs, on='valid', each=True)
    assert t.index.tolist()==[('dropout=0.1', 'seed 0'), ('dropout=0.1', 'seed 1')]
    assert t.index.names==['network', 'run']
    assert t.difference.tolist()==pytest.approx([1, -2]) and t.ahead.tolist()==[1, 0]
    assert t.low.isna().all() # validation answers are not on record
    own = E.differences(rs, each=True) # of the test images they are: the same answers in all of these
    assert (own.low<=0).all() and (own.high>=0).all()
    rs = [made_up(record, seed=i, fold=f, ann=a) for i in range(2) for f in range(2) for a in (False, True)]
    twins = E.increments(rs, each=True)
    assert twins.index.tolist()==[('baseline', f'seed {i}, fold {f}') for i in range(2) for f in range(2)]

def test_folds_have_wider_intervals(record):
    "Nadeau and Bengio's: six values of 2/3 folds, of which each validates on a part of what the others train on"
    share = record['images']['valid']/record['images']['train']
    wide = E.differences(ahead(record, [1, 2, 3], (0, 1), dropout=.1)).iloc[0]
    s = torch.tensor([1., 1, 2, 2, 3, 3]).std().item()
    assert wide.high-wide.difference==pytest.approx(2.5706*s*(1/6+share)**.5, abs=1e-3)
    t = E.table(ahead(record, [0, 0, 0], (0, 1))[:6]).iloc[0]
    s = 100*torch.tensor([.5, .5, .57, .57, .64, .64]).std().item()
    assert t.high-t['test (%)']==pytest.approx(2.5706*s*(1/6+share)**.5, abs=1e-3)

@pytest.mark.parametrize('changes', [
    dict(),
    dict(norm='step', num_steps=3),
    dict(grad='atan', encoder='direct', options=dict(leak=.5), distill=.5)], ids=str)
def test_the_textbook_has_no_spikes(changes):
    "Whatever the spiking network is like, its textbook can be built and has torch's norms if that has one"
    c = studies.textbook_for(replace(tiny, **changes))
    net = E.network(c, E.data_for(c))
    assert {type(m).__module__.split('.')[0] for m in net.modules()}=={'torch'}
    assert net(torch.rand(2, 1, 28, 28)).shape==(2, 10)
    norms = [m for m in net.modules() if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))]
    assert c.ann and len(norms)==(3 if c.norm else 0) and c.seed==tiny.seed
    assert studies.textbook_for(replace(tiny, **studies.recorded)).kappa is None
    with pytest.raises(ValueError, match='textbook is to have kappa=3.0'):
        E.network(replace(c, kappa=3.), E.data_for(c))

def test_the_textbook_may_lack_biases():
    "As layers of the kit do: one less for every channel, hidden neuron and class"
    c = replace(studies.textbook_for(tiny), options=dict(bias=False))
    def size(c): return sum(p.numel() for p in E.network(c, E.data_for(c)).parameters())
    assert size(replace(c, options={}))-size(c)==20+50+200+10

def test_one_seed_is_enough():
    assert [c.seed for c in E.seeds([tiny], 7)]==[7] and {c.seed for c in studies.study('norms', of=7)}=={7}

def test_a_headline_may_be_smaller():
    "All images of digits and clothes unless it is told otherwise; everything from five seeds."
    whole,part = studies.study('headline', 'MNIST'),studies.study('headline', 'MNIST', part=100, of=(1,))
    assert len(whole)==10 and {c.part for c in whole}=={None} and {c.part for c in part}=={100}
    assert len(studies.study('headline', 'CIFAR10'))==10 and studies.study('headline', 'CIFAR10')[0].part==20_000

# The records that come with the project

def test_records_of_the_project_are_found_from_anywhere(monkeypatch, tmp_path):
    "A store that is told no folder has them; what is added goes into its own folder, and counts there."
    monkeypatch.delenv('SNNKIT_RESULTS', raising=False)
    ours,s = Store(root/'results').read(),Store()
    assert ours and s.read()==ours and Store(s.folder).read()=={} and s.folder==tmp_path/'cache'/'snnkit'/'results'
    k,r = next(iter(ours.items()))
    new = r | dict(seconds=-1)
    assert run(E.config_of(r))==r
    s.add(new)
    assert run(E.config_of(r))==new and s.read()==ours | {k: new}
    assert Store(s.folder).read()=={k: new} and Store(root/'results').read()==ours

def test_a_named_store_has_nothing_else(tmp_path): assert Store(tmp_path).read()=={} and Store(str(tmp_path)).read()=={}

@pytest.mark.skipif(not any((root/'results').glob('*.jsonl')), reason='no records yet')
@pytest.mark.parametrize('i', range(2))
def test_the_cheapest_records_can_be_repeated(tmp_path, i):
    "Run again: the same numbers on the same kind of processor and versions, near ones elsewhere"
    r = cheapest([r for r in Store(root/'results').read().values() if r['config']['data']=='digits'], 2)[i]
    assert repeat(r, tmp_path/'again')==[], r['config']
    assert differs(r | dict(test_accuracy=r['test_accuracy']-.1), r)==['test_accuracy']

# Models, data and losses of one's own

theirs = '''
import torch
from torch import nn
from snnkit.data import load
from snnkit.layers import Flatten, Linear, Integrator, Neuron, Poisson
from snnkit.training import squared_error

class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v>0).float()
    @staticmethod
    def backward(ctx, g): return g*(ctx.saved_tensors[0].abs()<.5)

class Leaky(Neuron):
    def __init__(self, leak=.9):
        super().__init__()
        self.leak = leak
    def step(self, x, state):
        u = x if state is None else self.leak*state+x
        s = Fire.apply(u-.2)
        return s,u*(1-s)

def net(num_steps, num_classes, width=30, leak=.9):
    return nn.Sequential(
        Poisson(num_steps),
        Flatten(),
        Linear(784, width),
        Leaky(leak),
        Linear(width, num_classes),
        Integrator())

def fixed(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

def digits(part): return load('digits', part=part)
def table(): return [1, 2]
def thrice(scores, y): return 3*squared_error(scores, y)
'''

@pytest.fixture
def own(tmp_path, monkeypatch):
    "A module `their_module` somewhere on the path, as a user has it"
    (tmp_path/'path').mkdir()
    (tmp_path/'path'/'their_module.py').write_text(theirs)
    monkeypatch.syspath_prepend(tmp_path/'path')
    sys.modules.pop('their_module', None)
    return tmp_path

@pytest.mark.filterwarnings('ignore:Layer')
def test_a_model_of_ones_own_runs_in_other_processes(own):
    c = Config(model='their_module:net', data='their_module:digits', part=300, num_steps=5, epochs=1,
               options=dict(leak=.8))
    configs = E.with_twins(E.grid(c, leak=(.8, .95)))
    rs = run_all(configs, store=own/'s', jobs=2)
    assert [E.config_of(r) for r in rs]==configs and same(rs[0], run(c, own/'again', quiet=True))
    assert ['rates' in r for r in rs]==[True, False]*2
    t = E.table(rs[::2])
    assert list(t.leak)==[.8, .95] and list(E.increments(rs).index)==['baseline', 'leak=0.95']

def test_what_a_model_does_not_take_is_told(own):
    d = E.data_for(tiny)
    c = replace(tiny, model='their_module:net', options=dict(width=7))
    assert E.network(c, d)[2].out_features==7 and E.network(replace(c, num_steps=9), d)[0].num_steps==9
    for k,v in dict(norm='shared', dropout=.2, grad='atan', encoder='direct').items():
        with pytest.raises(ValueError, match=f'net is to have {k}=.*it takes num_steps, num_classes, width'):
            E.network(replace(c, **{k: v}), d)
    assert len(E.network(replace(tiny, model='their_module:fixed', num_steps=20), d))==2
    with pytest.raises(ValueError, match='num_steps=6'): E.network(replace(tiny, model='their_module:fixed'), d)
    with pytest.raises(ValueError, match='must give a module'):
        E.network(replace(tiny, model='their_module:table', num_steps=20), d)
    with pytest.raises(ValueError, match='must give a `Data`'):
        E.data_for(replace(tiny, data='their_module:table', part=None))
    with pytest.raises(ValueError, match='fold=1'): E.data_for(replace(tiny, data='their_module:digits', fold=1))

def test_calibrated_networks_fire():
    c = replace(tiny, model='vgg', options=dict(depth=5, width=4), calibrate=True)
    d = E.data_for(c)
    rates = firing_rates(E.network(c, d), d.valid).rate[1:]
    plain = firing_rates(E.network(replace(c, calibrate=False), d), d.valid).rate[1:]
    assert rates.max()<.3 and rates[rates.index[::2]].min()>.01>plain.min()

@pytest.mark.skipif('loss' not in inspect.signature(training.fit).parameters, reason='`fit` takes no loss yet')
def test_losses_are_resolved_by_name(own):
    a = run(replace(tiny, part=100), own/'s', quiet=True)
    b = run(replace(tiny, part=100, loss='their_module:thrice'), own/'s', quiet=True)
    assert b['history']!=a['history'] and b['config']['loss']=='their_module:thrice' and len(Store(own/'s').read())==2

@pytest.mark.parametrize('ann', [False, True])
def test_recipes_reach_the_training(own, ann):
    "Products in bfloat16, or another optimizer; what is kept is float32, and answers as the record says."
    base = replace(tiny, part=100, loss='cross_entropy', ann=ann)
    changes = {}, dict(precision='bf16'), dict(optimizer='sgd', lr=.1, weight_decay=5e-4), dict(mixup=.5)
    kinds = [replace(base, **o) for o in changes]
    found = [run(c, own/'s', quiet=True, weights=own/key(c)) for c in kinds]
    assert len({r['history'][0]['train_loss'] for r in found})==4
    assert found[0]['history'][0]['train_loss']==pytest.approx(found[1]['history'][0]['train_loss'], rel=.1)
    for c,r in zip(kinds, found):
        net = E.network(c, E.data_for(c))
        training.load_weights(net, own/key(c))
        assert {p.dtype for p in net.parameters()}=={torch.float32} and all(p.is_contiguous() for p in net.parameters())
        with E.steady(1): assert training.evaluate(net, E.data_for(c).test).accuracy==r['test_accuracy']

# Grids and columns

def test_options_that_vary_are_columns(record):
    rs = [made_up(record, options=o) for o in (dict(leak=.9), dict(leak=.95, threshold=2.), {}, dict(refractory=2))]
    t = E.table(rs, tiny)
    columns = dict(leak=[.9, .95, .99, .99], threshold=[1., 2., 1., 1.], refractory=[0, 0, 0, 2])
    assert t.iloc[:, :3].to_dict('list')==columns
    assert list(t.index)==['leak=0.9', 'leak=0.95, threshold=2.0', 'baseline', 'refractory=2']
    assert list(E.table(rs[:1]))[0]=='runs'
    assert list(E.table([rs[0], made_up(record, model='vgg', options=dict(depth=5))]))[0]=='runs'

def test_a_grid_has_every_combination():
    cs = E.grid(tiny, leak=(.9, .99), num_steps=(5, 6), reset=['zero', 'subtract'])
    assert len({*map(key, cs)})==8
    assert cs[1]==replace(tiny, num_steps=5, options=dict(leak=.9, reset='subtract'))
    assert E.grid(tiny)==[tiny]
    d = E.data_for(tiny)
    assert E.network(cs[1], d).lif1.leak==.9 and E.network(cs[1], d).lif1.reset=='subtract'

# Without an engine, and odd calls

def test_without_an_engine_a_run_is_by_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(E, 'found', lambda take: None)
    with E.steady(1): here = E.provenance()
    assert (here['mode'], here['engine'], here['threads'])==('torch', 'torch', 1)

def test_a_record_tells_what_computed_it(record):
    with E.steady(1): here = E.provenance()
    named = 'mode', 'engine', 'threads', 'torch'
    assert {k: record[k] for k in named}=={k: here[k] for k in named}

def test_a_training_without_an_error_loses_against_one_with(record):
    found = (0., math.nan),(.1, None),(.2, 5.)
    rs = [made_up(record, seed=i, dropout=d, valid_accuracy=.5, valid_loss=loss) for i,(d,loss) in enumerate(found)]
    assert E.best(rs).dropout==.2

def test_weights_of_nobody_are_told(tmp_path):
    from safetensors.torch import save_file
    save_file(dict(a=torch.zeros(1)), tmp_path/'w.safetensors')
    with pytest.raises(ValueError, match='holds no run'): run(tiny, tmp_path/'s', weights=tmp_path/'w.safetensors')

nothing = None, 3, True, 'x', -1, math.nan, [], {}, torch.zeros(2)
no_count = True, 'x', -2, math.nan, [], {}, torch.zeros(2)
asked = dict(
    run=run,
    run_all=lambda o: run_all([o]),
    seeds=lambda o: E.seeds([o]),
    folds=lambda o: E.folds([o]),
    with_twins=lambda o: E.with_twins([o]),
    grid=E.grid,
    table=E.table,
    records=lambda o: E.table([o]),
    increments=E.increments,
    differences=E.differences,
    one_by_one=E.one_by_one,
    best=E.best,
    groups=E.groups,
    study=studies.study,
    ablation=lambda o: studies.ablation(o, 'shift'),
    depths=studies.depths)
counts = dict(
    jobs=lambda o: run_all([tiny], jobs=o),
    k=lambda o: E.folds([tiny], o),
    time_text=E.time_text,
    counted=lambda o: E.counted(E.data_for(tiny).test, o),
    steady=lambda o: E.steady(o).__enter__())

def cases(calls, odd): return [pytest.param(f, odd, id=n) for n,f in calls.items()]

@pytest.mark.parametrize('call,odd', cases(asked, nothing)+cases(counts, no_count))
def test_odd_calls_are_named(call, odd):
    for o in odd:
        with pytest.raises(ValueError, match=' but '): call(o)
