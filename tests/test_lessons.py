"Every lesson of the walkthrough trains what it shows when it is told to: on a few digits, one epoch each, one lesson after the other in one store."
import os,re
import pytest
from execnb.shell import CaptureShell
from fastcore.nbio import read_nb
from common import root

lessons = sorted((root/'nbs'/'walkthrough').glob('*.ipynb'))
knobs = {r"datasets = .*": "datasets = ['digits']", r"datasets,deep = .*": "datasets,deep = ['digits'],['digits']", r"changes = dict\(.*?\)": "changes = dict(part=200, epochs=1, num_steps=5)",
         r"large = dict\(.*?\)": "large = dict(part=200, epochs=1, num_steps=5)", r"of,fresh = .*": "of,fresh = (42,),True"}

@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('lessons')

@pytest.mark.slow
@pytest.mark.parametrize('lesson', lessons, ids=lambda o: o.stem)
def test_lesson_trains(lesson, place, monkeypatch):
    monkeypatch.setenv('SNNKIT_RESULTS', str(place/'results')); monkeypatch.setenv('XDG_CACHE_HOME', str(place/'cache')); monkeypatch.setenv('IN_TEST', '1')
    before,turned = {p: p.read_text().count('\n') for p in (place/'results').glob('*.jsonl')},set()
    shell = CaptureShell()
    for c in read_nb(lesson).cells:
        if c.cell_type!='code' or c.source.startswith('#| hide'): continue
        code = c.source
        for k,v in knobs.items():
            code,n = re.subn(k, v, code)
            if n: turned.add(k)
        shell.run(code)
        assert shell.exc is None, f'{code}\n{shell.exc}'
    assert {o[:5] for o in turned}>={'datas', 'chang', 'of,fr'}
    after = {p: p.read_text().count('\n') for p in (place/'results').glob('*.jsonl')}
    assert sum(after.values())>sum(before.values())
