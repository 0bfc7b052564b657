"The commands as a user types them: processes with arguments, exit codes and files."
import json, os, re, subprocess, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from snnkit import cli, data, models
from snnkit.commands import begun
from snnkit.experiments import Config
from snnkit.layers import norms
from snnkit.spikebp import by_charge, surrogates
from snnkit.store import losses
from snnkit.trained import digests, load_trained
from small_training import images

bin = Path(sys.executable).parent
commands = ['train', 'compare', 'predict', 'experiment', 'bench']

def call(command, *args, ok=True, **kwargs):
    p = subprocess.run([bin/command, *map(str, args)], capture_output=True, text=True, timeout=240, **kwargs)
    assert (p.returncode==0)==ok, p.stdout+p.stderr
    assert 'Traceback' not in p.stderr
    return p.stdout if ok else p.stderr

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Class folders of small pictures"
    root = tmp_path_factory.mktemp('bars')
    ds = images(300, 0)
    for i,(x,y) in enumerate(zip(ds.x, ds.y.tolist())):
        (root/f'class{y}').mkdir(exist_ok=True)
        Image.fromarray(x[0].numpy()).save(root/f'class{y}'/f'{i}.png')
    return root

@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    "Colour pictures of many sizes, some lying on their side: sky above or meadow above or a plain wall"
    root,draw = tmp_path_factory.mktemp('photographs'),np.random.default_rng(0)
    sky,meadow = (90, 140, 230),(70, 160, 60)
    halves = dict(outdoors=(sky, meadow), upside_down=(meadow, sky), wall=((200, 180, 150), (200, 180, 150)))
    for name,(above,below) in halves.items():
        (root/name).mkdir()
        for i in range(40):
            h,w = draw.integers(30, 90, 2)
            x = np.repeat(np.array([above]*(h//2)+[below]*(h-h//2))[:, None], w, 1) + draw.normal(0, 20, (h, w, 3))
            im,kind = Image.fromarray(x.clip(0, 255).astype(np.uint8)),('jpg', 'png')[i%2]
            exif = im.getexif()
            if i%4==0: im,exif[0x0112] = im.transpose(Image.Transpose.ROTATE_90),6 # stored lying, shown upright
            im.save(root/name/f'{i}.{kind}', exif=exif)
    return root

def test_experiment_prints_its_table_and_goes_on(folder, tmp_path):
    "A study of one seed from the shell; called again it finds all of it done."
    args = ('snnkit-experiment', 'ablation', '--data', folder, '--part', 200, '--num-steps', 5, '--epochs', 1,
            '--size', 10, '--seeds', 7, '--jobs', 1, '--store', tmp_path/'r')
    kept = tmp_path/'r'/f'ablation-{folder.name}.jsonl'
    text = call(*args)
    assert text.count('norm=')>=4 and 'augment=flip' in text and 'test (%)' in text
    before = kept.read_bytes()
    assert before.count(b'\n')==12 and before.count(b'"size": 10')==12
    assert call(*args).splitlines()[-20:]==text.splitlines()[-20:] and kept.read_bytes()==before

@pytest.mark.parametrize('wrong, text', [(dict(name='depth'), 'headline'), (dict(seeds='seven'), 'commas')], ids=str)
def test_mistakes_in_a_study_are_told(wrong, text):
    with pytest.raises(SystemExit, match=text): cli.experiment(**(dict(name='depths') | wrong))

@pytest.mark.parametrize('command', commands)
def test_help_waits_for_no_torch(command):
    "It is there before anything is imported that takes time"
    show = [sys.executable, '-X', 'importtime', bin/f'snnkit-{command}', '--help']
    done = subprocess.run(show, capture_output=True, text=True)
    assert done.returncode==0 and 'usage' in done.stdout and '--version' in done.stdout
    loaded = {o.rpartition('|')[2].strip() for o in done.stderr.splitlines()}
    assert 'snnkit.cli' in loaded and not loaded & {'torch', 'numpy', 'pandas', 'matplotlib'}

def test_version_is_told():
    from snnkit import __version__
    for o in commands: assert call(f'snnkit-{o}', '--version').strip()==f'snnkit {__version__}'

names = dict(data=data._known.values(), model=models.models, norm=norms, augment=data.augmentations,
             encoder=('poisson', 'direct'), loss=losses, optimizer=('adam', 'sgd'),
             grad=('spike_bp', 'straight_through', *by_charge, *surrogates))

def test_help_names_all_that_an_option_takes():
    "The help is typed; the kit knows better"
    text = call('snnkit-train', '--help').partition('options:')[2]
    for option,known in names.items():
        told = re.search(rf'--{option} .*?\n  --', text, re.S)[0]
        for o in known: assert re.search(rf'\b{re.escape(o)}\b', told), f'{o} is missing in the help of --{option}'
    zoo = re.search(r'--out .*?\n  --', call('snnkit-predict', '--help').partition('options:')[2], re.S)[0]
    assert all(f'zoo:{o}' in zoo for o in digests)

def test_help_tells_the_defaults():
    text,fields = ' '.join(call('snnkit-train', '--help').split()),asdict(Config())
    for o in ('num_steps', 'epochs', 'batch_size', 'lr', 'seed', 'dropout'):
        told = re.search(rf'--{o.replace("_", "-")} \(\w+\) [^-]*?; (\S+) if not given', text)[1]
        assert float(told)==fields[o], o
    for o in ('data', 'model', 'encoder', 'grad', 'loss', 'optimizer'):
        first = re.search(rf'--{o} \(\w+\) (\w+)', text)[1]
        assert first==fields[o], o

every = dict(part=180, size=12, augment='mirror', model='vgg', options='depth=5,width=4', norm='step', dropout=.1,
             encoder='direct', leak=.9, grad='atan', num_steps=3, calibrate=False, loss='cross_entropy',
             optimizer='sgd', epochs=1, batch_size=50, lr=.01, seed=3)

def test_every_setting_arrives(folder, tmp_path):
    "All of them at once, from the shell, and none is missing here"
    assert {*every, 'data', 'version'} == {*cli.settings.__annotations__}
    args = [o for k,v in every.items() for o in (f'--{k.replace("_", "-")}', v)]
    call('snnkit-train', '--data', folder, *args, '--out', tmp_path)
    found,_,_ = begun(tmp_path)
    options = dict(depth=5, width=4, leak=.9)
    want = {k: v for k,v in every.items() if k not in ('options', 'leak')} | dict(data=str(folder), options=options)
    assert found==Config(**want)
    kind = load_trained(tmp_path).prepare.kind
    assert list(kind.shape)==[1, 12, 12] and kind.classes==[f'class{i}' for i in range(len(kind.classes))]

@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
    "A training of two epochs, and what it said"
    out = tmp_path_factory.mktemp('out')/'run'
    text = call('snnkit-train', '--data', folder, '--num-steps', 5, '--epochs', 2, '--seed', 3, '--out', out)
    return out,text

def test_train_writes_what_it_did(trained):
    out,text = trained
    assert f'Begins in {out}' in text and 'epoch 2/2' in text and 'test images (95 % interval' in text
    r = json.loads((out/'result.json').read_text())
    assert r['config']['seed']==3 and len(r['history'])==2 and 0<r['test_accuracy']<=1
    assert r['cpu'] and r['torch'] and r['test_images']==60

def test_resume_takes_the_settings_of_its_folder(trained):
    out,_ = trained
    again = call('snnkit-train', '--resume', '--out', out)   # nothing left to train
    assert f'{out} had finished its 2 epochs' in again and 'epoch 1/2' not in again
    with pytest.raises(SystemExit, match='--resume'): cli.train(out=str(out))
    with pytest.raises(SystemExit, match='num_steps 5 -> 12, epochs 2 -> 3'):
        cli.train(num_steps=12, epochs=3, out=str(out), resume=True)
    with pytest.raises(SystemExit, match='leak None -> 0.9'): cli.train(leak=.9, out=str(out), resume=True)

def test_a_stopped_training_goes_on(folder, tmp_path, monkeypatch):
    from snnkit import commands as C
    whole = C.fit
    def stop(*args, on_epoch=None, **kwargs):
        def after(numbers): raise KeyboardInterrupt
        return whole(*args, on_epoch=after, **kwargs)
    monkeypatch.setattr(C, 'fit', stop)
    with pytest.raises(KeyboardInterrupt): cli.train(data=str(folder), num_steps=3, epochs=2, out=str(tmp_path/'a'))
    with pytest.raises(SystemExit, match='is not over .epoch 1 of 2.*--resume --out'):
        cli.predict(str(folder/'class0'), out=str(tmp_path/'a'))
    text = call('snnkit-train', '--resume', '--out', tmp_path/'a')
    assert f'Goes on in {tmp_path}/a after epoch 1 of 2' in text and 'epoch 2/2' in text
    whole_too = call('snnkit-train', '--data', folder, '--num-steps', 3, '--epochs', 2, '--out', tmp_path/'b')
    assert text.splitlines()[-1]==whole_too.splitlines()[-1]

def test_compare_prints_and_saves_table_and_pictures(folder, tmp_path):
    text = call('snnkit-compare', '--data', folder, '--num-steps', 5, '--epochs', 1, '--out', tmp_path)
    named = ('SNN accuracy', 'ANN accuracy', 'error increment', '95 % interval', 'parameters', 'spikes per image',
             'per neuron and step', 'never fire', 'lif3')
    for o in named: assert o in text
    assert (tmp_path/'table.txt').read_text().strip() in text
    for o in ('spike_train', 'rasters', 'membranes', 'curves', 'mistakes', 'confusion'):
        pic = Image.open(tmp_path/f'{o}.png').convert('L')
        assert min(pic.size)>200 and pic.getextrema()[0]<100   # something is drawn
    r = json.loads((tmp_path/'result.json').read_text())
    assert set(r['accuracy'])=={'SNN accuracy', 'ANN accuracy', 'error increment'} and r['layers']['lif1']['spikes']>0
    for n in ('snn', 'ann'): assert load_trained(tmp_path/n).about['config']['ann']==(n=='ann')
    assert 'had finished' in call('snnkit-compare', '--resume', '--out', tmp_path)

def scores(table):
    "The table of `snnkit-predict` as picture: classes with scores"
    rows = [o.split() for o in table.splitlines() if re.match(r'\S+\.(png|jpg) ', o)]
    return {o[0]: dict(zip(o[1:7:2], map(float, o[2:7:2]))) for o in rows}

in_python = '''
import sys
from snnkit.trained import load_trained, predict
trained = load_trained(sys.argv[1])
for picture,row in predict(trained, sys.argv[2]).iterrows():
    print(picture, *(f"{row[o]} {row[o + ' score']:.3f}" for o in ("1st", "2nd", "3rd")))
'''

def test_photographs_from_training_to_answer(photographs, tmp_path):
    "Of any size and rotation: the shell and a fresh Python give the same scores, and these are the right ones."
    settings = '--size 16 --encoder direct --num-steps 4 --epochs 8 --batch-size 16 --seed 1'.split()
    text = call('snnkit-train', '--data', photographs, *settings, '--out', 'mine', cwd=tmp_path)
    right,n = re.search(r'([\d.]+)% of (\d+) test images', text).groups()
    table = call('snnkit-predict', photographs, '--out', 'mine', cwd=tmp_path)
    assert 'leads from step' in table and 'SNN in 4 steps' in table
    told = scores(table)
    assert len(told)==120
    ask = [bin/'python', '-c', in_python, 'mine', photographs]
    fresh = subprocess.run(ask, cwd=tmp_path, capture_output=True, text=True)
    assert scores(fresh.stdout)==told, fresh.stderr
    hit = np.mean([Path(p).parent.name==[*row][0] for p,row in told.items()])
    assert hit>.9 and float(right)>80 and int(n)==24

def test_one_picture_and_its_way(photographs, trained, tmp_path):
    out,_ = trained
    text = call('snnkit-predict', photographs/'wall'/'1.png', '--out', out, '--spikes', tmp_path/'ways', '--invert')
    assert len(scores(text))==1 and str(tmp_path/'ways'/'1.png') in text
    assert Image.open(tmp_path/'ways'/'1.png').convert('L').getextrema()[0]<100
    assert 'trained on MNIST' in call('snnkit-predict', photographs/'wall'/'1.png', '--out', 'zoo:mnist', '--top', 1)

def test_what_cannot_be_asked_is_named(photographs, trained, tmp_path):
    out,picture = trained[0],photographs/'wall'/'1.png'
    (tmp_path/'words.png').write_text('not a picture')
    (tmp_path/'half').mkdir()
    raw = (out/'model.safetensors').read_bytes()
    (tmp_path/'half'/'model.safetensors').write_bytes(raw[:len(raw)//2])
    (tmp_path/'empty').mkdir()
    wrong = {'words.png cannot be read as an image': (tmp_path/'words.png', out),
             'There is no picture or folder': (tmp_path/'none.png', out), 'holds no image': (tmp_path/'empty', out),
             'There is no file or folder': (picture, tmp_path/'none'),
             'holds no model.safetensors': (picture, tmp_path/'empty'),
             'half/model.safetensors is not a whole': (picture, tmp_path/'half'),
             "one of 'mnist'": (picture, 'zoo:imagenet')}
    for text,(image,place) in wrong.items():
        with pytest.raises(SystemExit, match=text): cli.predict(str(image), out=str(place))
    with pytest.raises(SystemExit, match='must name pictures'): cli.predict(out=str(out))

def test_a_model_of_ones_own_is_asked_for(folder, tmp_path):
    "The file names it, and only the user's word lets it in"
    (tmp_path/'mynets.py').write_text('''
from torch import nn
from snnkit.layers import Flatten, Integrator, LIF, Linear, Poisson
def mine(num_steps, num_classes, size):
    hidden = [Linear(size**2, 20), LIF()]
    return nn.Sequential(Poisson(num_steps), Flatten(), *hidden, Linear(20, num_classes), Integrator())
''')
    here = dict(cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    settings = '--model mynets:mine --num-steps 3 --epochs 1 --out own'.split()
    call('snnkit-train', '--data', folder, *settings, **here)
    args = 'snnkit-predict', folder/'class0', '--out', 'own'
    for other in ([], ['--trust', 'mynets:mine2']): assert '--trust' in call(*args, *other, ok=False, **here)
    assert len(scores(call(*args, '--trust', 'mynets:mine', **here)))>10

both = pytest.mark.parametrize('command', ['train', 'compare'])

@both
def test_mistake_gets_one_clear_line(command, tmp_path):
    err = call(f'snnkit-{command}', '--num-steps', 0, '--out', tmp_path/'out', ok=False)
    assert 'num_steps' in err and not (tmp_path/'out').exists()

@pytest.mark.parametrize('wrong, text', [
    (dict(data='mnits'), 'must be one of digits'),
    (dict(model='alexnet'), "one of 'lenet'"),
    (dict(num_steps=0), 'num_steps'),
    (dict(epochs=0), 'epochs'),
    (dict(lr=-1), 'lr'),
    (dict(options='depth'), 'must be like depth=7'),
    (dict(options='dept=7'), 'dept'),
    (dict(data='/no/such/folder'), '/no/such/folder')], ids=str)
@both
def test_mistakes_leave_nothing(command, wrong, text, tmp_path):
    with pytest.raises(SystemExit, match=text): getattr(cli, command)(**wrong, out=str(tmp_path/'out'))
    assert not (tmp_path/'out').exists()
