"The commands as a user types them: processes with arguments, exit codes and files."
import json, subprocess, sys
from pathlib import Path
import pytest
from PIL import Image
from snnkit import cli
from small_training import images

bin = Path(sys.executable).parent

def call(command, *args, ok=True):
    p = subprocess.run([bin/command, *map(str, args)], capture_output=True, text=True, timeout=240)
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

def test_experiment_prints_its_table_and_goes_on(folder, tmp_path):
    "A study of one seed from the shell; called again it finds all of it done."
    args = ('snnkit-experiment', 'ablation', '--data', folder, '--part', 200, '--num-steps', 5, '--epochs', 1,
            '--seeds', 7, '--jobs', 1, '--store', tmp_path/'r')
    kept = tmp_path/'r'/f'ablation-{folder.name}.jsonl'
    text = call(*args)
    assert text.count('norm=')>=4 and 'augment=flip' in text and 'test (%)' in text
    before = kept.read_bytes()
    assert before.count(b'\n')==12
    assert call(*args).splitlines()[-20:]==text.splitlines()[-20:] and kept.read_bytes()==before

@pytest.mark.parametrize('wrong, text', [(dict(name='depth'), 'headline'), (dict(seeds='seven'), 'commas')], ids=str)
def test_mistakes_in_a_study_are_told(wrong, text):
    with pytest.raises(SystemExit, match=text): cli.experiment(**(dict(name='depths') | wrong))

def test_help_names_every_option():
    for command in ('snnkit-train', 'snnkit-compare'):
        text = call(command, '--help')
        for o in ('--data', '--model', '--num-steps', '--epochs', '--seed', '--out', '--resume'): assert o in text

def test_train_writes_what_it_did_and_resumes(folder, tmp_path):
    args = 'snnkit-train', '--data', folder, '--num-steps', 5, '--epochs', 2, '--seed', 3, '--out', tmp_path/'run'
    text = call(*args)
    assert 'epoch 2/2' in text and 'test images (95 % interval' in text
    r = json.loads((tmp_path/'run'/'result.json').read_text())
    assert r['config']['seed']==3 and len(r['history'])==2 and 0<r['test_accuracy']<=1
    assert r['cpu'] and r['torch'] and r['test_images']==60
    again = call(*args, '--resume')   # nothing left to train
    assert 'epoch' in again and 'epoch 1/2' not in again
    same = dict(data=str(folder), num_steps=5, epochs=2, seed=3, out=str(tmp_path/'run'))
    with pytest.raises(SystemExit, match='--resume'): cli.train(**same)
    with pytest.raises(SystemExit, match='epochs was 2, now 3'): cli.train(**same | dict(epochs=3, resume=True))

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
    for n in ('snn', 'ann'): assert (tmp_path/n/'model.safetensors').exists()

commands = pytest.mark.parametrize('command', ['train', 'compare'])

@commands
def test_mistake_gets_one_clear_line(command, tmp_path):
    err = call(f'snnkit-{command}', '--num-steps', 0, '--out', tmp_path/'out', ok=False)
    assert 'num_steps' in err and not (tmp_path/'out').exists()

@pytest.mark.parametrize('wrong, text', [
    (dict(data='mnits'), 'must be one of digits'),
    (dict(model='alexnet'), "one of 'lenet'"),
    (dict(num_steps=0), 'num_steps'),
    (dict(epochs=0), 'epochs'),
    (dict(lr=-1), 'lr'),
    (dict(data='/no/such/folder'), '/no/such/folder')], ids=str)
@commands
def test_mistakes_leave_nothing(command, wrong, text, tmp_path):
    with pytest.raises(SystemExit, match=text): getattr(cli, command)(**wrong, out=str(tmp_path/'out'))
    assert not (tmp_path/'out').exists()
