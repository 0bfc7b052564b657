"Every lesson of the walkthrough trains what it shows when it is told to: on a few digits, one epoch each, one lesson after the other in one store."
import re
import pytest
from execnb.shell import CaptureShell
from fastcore.nbio import read_nb
from common import root
from snnkit.engine import use

lessons = sorted((root/'nbs'/'walkthrough').glob('*.ipynb'), key=lambda p: p.stem.strip('_'))
knobs = {r"datasets = .*": "datasets = ['digits']", r"datasets,deep = .*": "datasets,deep = ['digits'],['digits']", r"changes = dict\(.*?\)": "changes = dict(part=200, epochs=1, num_steps=5)",
         r"large = dict\(.*?\)": "large = dict(part=200, epochs=1, num_steps=5)", r"of,fresh = .*": "of,fresh = (42,),True",
         r"test = load.*": "test = few = Subset(load('digits').test, range(50))"}

def turn(code, turned):
    "The cell `code` with its knobs turned; those found are added to `turned`"
    for k,v in knobs.items():
        code,n = re.subn(k, v, code)
        if n: turned.add(k[:5])
    return code

def lines(place): return sum(p.read_text().count('\n') for p in (place/'results').glob('*.jsonl'))

@pytest.mark.slow
def test_lessons_train(tmp_path, monkeypatch):
    "In one test, as the later lessons ask what the earlier ones found"
    monkeypatch.setenv('SNNKIT_RESULTS', str(tmp_path/'results')); monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache')); monkeypatch.setenv('IN_TEST', '1')
    monkeypatch.setenv('LOKY_MAX_CPU_COUNT', '1') # in this process, and by torch: for so few images no kernel is worth its compilation
    for lesson in lessons:
        before,turned,shell = lines(tmp_path),set(),CaptureShell()
        for c in read_nb(lesson).cells:
            if c.cell_type!='code' or c.source.startswith('#| hide'): continue
            code = turn(c.source, turned)
            with use('torch'): shell.run(code)
            assert shell.exc is None, f'{lesson.name}:\n{code}\n{shell.exc}'
        assert turned>={'datas', 'chang', 'of,fr'} and lines(tmp_path)>before, lesson.name
