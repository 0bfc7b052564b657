"Every lesson trains what it shows when told to: on a few digits, an epoch each, one after the other in one store."
import re
from itertools import islice
import pytest
from execnb.shell import CaptureShell
from fastcore.nbio import read_nb
from PIL import Image
from common import root
from snnkit.data import load
from snnkit.layers import use

walkthrough = root/'nbs'/'walkthrough'
numbered = sorted(walkthrough.glob('[0-9]_*.ipynb'))
# side by side; a lesson asks for what the earlier ones of its chain found
later = [*numbered[6:], walkthrough/'recipe.ipynb']
alone = [walkthrough/f'{o}.ipynb' for o in ('economy', 'depthwise')]
chains = dict(first=numbered[:6], later=later, alone=alone)
knobs = {
    r"datasets = .*": "datasets = ['few']",
    r"datasets,deep = .*": "datasets,deep = ['few'],['few']",
    r"photos = .*": "photos = ['few']",
    r"beside = .*": "beside = ['few']",
    r"changes = dict\(.*?\)": "changes = dict(part=60, epochs=1, num_steps=2)",
    r"large = dict\(.*?\)": "large = dict(part=60, epochs=1, num_steps=2)",
    r"trial = dict\(.*?\)": "trial = dict(part=60, epochs=1)",
    r"of,fresh = .*": "of,fresh = (42,),True",
    r"single = .*": "single = (42,)",
    r"neurons = .*": "neurons = (100,)",
    r"test = load.*": "test = some = counted(load('digits').test, 50)",
    r"shown = counted.*": "shown = counted(load('digits').train, 50)"}

def turn(code, turned):
    "The cell `code` with its knobs turned; those found are added to `turned`"
    for k,v in knobs.items():
        code,n = re.subn(k, v, code)
        if n: turned.add(k[:5])
    return code

def few_digits(folder):
    "Of six digits ten small pictures to learn and three to test: the test is of the training, not of many answers"
    d = load('digits')
    for part,images,n in ('train', d.train, 10), ('test', d.test, 3):
        for c in range(6):
            (place := folder/part/str(c)).mkdir(parents=True)
            of_digit = (x for x,y in images if y==c)
            for i,x in enumerate(islice(of_digit, n)):
                picture = Image.fromarray((255*x[0]).byte().numpy())
                picture.resize((16, 16)).save(place/f'{i}.png')

def lines(place): return sum(p.read_text().count('\n') for p in (place/'results').glob('*.jsonl'))

@pytest.mark.slow
@pytest.mark.parametrize('chain', chains)
def test_lessons_train(tmp_path, monkeypatch, chain):
    "Nothing is left out, and all of it is trained"
    monkeypatch.setenv('SNNKIT_RESULTS', str(tmp_path/'results'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setenv('IN_TEST', '1')
    few_digits(tmp_path/'few')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1') # in this process, by torch: so few images are worth no compilation
    monkeypatch.setattr('snnkit.experiments.use', lambda _: use('torch'))
    for lesson in chains[chain]:
        before,turned,shell = lines(tmp_path),set(),CaptureShell()
        for c in read_nb(lesson).cells:
            if c.cell_type!='code' or c.source.startswith('#| hide'): continue
            code = turn(c.source, turned)
            with use('torch'): shell.run(code)
            assert shell.exc is None, f'{lesson.name}:\n{code}\n{shell.exc}'
        assert turned>={'datas', 'chang', 'of,fr'} and lines(tmp_path)>before, lesson.name
