"""Every lesson asks a question and answers it in few words, with numbers that its cells make from the records. And it
trains what it shows when told to: on a few digits, an epoch each, one after the other in one store. (That numbers in
prose are what the records hold is for `tools/notebooks.py` to check, which compares them with those of a fresh run;
answers to exercises run there too.)"""
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
    r"part=600": "part=200",
    r"mean_currents\(tried\[n\], 32\)": "mean_currents(tried[n], 8)",
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

def is_answer(cell):
    "Is the code of `cell` the answer to an exercise? Such answers tell of the networks that were recorded"
    return cell.cell_type=='code' and 'code-summary' in cell.source

def lines(place): return sum(p.read_text().count('\n') for p in (place/'results').glob('*.jsonl'))

lessons = [*numbered, *(walkthrough/f'{o}.ipynb' for o in ('recipe', 'economy', 'depthwise'))]
each_lesson = pytest.mark.parametrize('lesson', [pytest.param(read_nb(p), id=p.stem) for p in lessons])

def outputs(cell, kind): return [o.data[kind] for o in cell.get('outputs', []) if kind in o.get('data', {})]

def prose(nb):
    "The Markdown that a reader sees: cells, and what code has made, each in one string"
    for c in nb.cells:
        if c.cell_type=='markdown': yield c.source
        else: yield from (''.join(o) for o in outputs(c, 'text/markdown'))

@each_lesson
def test_shape(lesson):
    "Question, hypothesis, findings, limits, details, exercises and something to try, in this order"
    text = '\n'.join(prose(lesson))
    parts = ['**The question.**', '**The hypothesis.**', *(f'\n## {o}\n' for o in (
        'What was found', 'What it does not show', 'Details', 'Exercises', 'Try it yourself'))]
    assert [text.count(o) for o in parts]==len(parts)*[1]
    places = [text.index(o) for o in parts]
    assert places==sorted(places)

@each_lesson
def test_a_picture_comes_before_a_table(lesson):
    shows = [kind for c in lesson.cells for kind in ('image/png', 'text/html') if outputs(c, kind)]
    assert shows[0]=='image/png' and 'text/html' in shows

@each_lesson
def test_findings_are_short(lesson):
    "And the first sentence of the main finding says yes, no or not decided"
    found = [o for o in prose(lesson) if 'What was found' in o]
    said = [re.sub(r'\]\(.*?\)', ']', o.split('What was found')[1].strip('.* \n')) for o in found]
    assert {o: n for o in said if (n := len(o.split()))>120}=={}
    assert {o: n for o in said if not 2<=(n := len(re.findall(r'[.?](?=\s|$)', o+'.')))<=8}=={}
    main, = [s for s,o in zip(said, found) if '## What was found' in o]
    assert re.match('(Yes|No|Not decided)\\b', main), main

# a number with what results are counted in
result = re.compile(r'[\d.,]*\d *(?:%|points?\b|µJ|microjoules?\b|times (?:the|its)\b|(?:hours?|minutes?|seconds?)\b)')
source = re.compile(r'\b(?:et al\.|(?:19|20)\d\d\b)') # of a number that a paper reports

def typed(text):
    "Results in `text` that stand in a sentence without a source; code, links and tables are left out"
    text = re.sub(r'`[^`]*`|\]\([^)]*\)|^\|.*$|\$[^$]*\$', ' ', text, flags=re.M)
    sentences = re.split(r'(?<!et al)(?<=[.?!])\s+|\n+', text)
    return [o for s in sentences if not source.search(s) for o in result.findall(s)]

def test_typed_results_are_found():
    assert typed('It has 98.5 % of them right, 0.3 points more.')==['98.5 %', '0.3 points']
    assert typed('Lee et al. (2020) report 99.59 % on MNIST. It learns `.5 %` for 8 epochs with T = 20.')==[]

allowed = '0.3 points', '0.1 points', '96 %' # what was supposed, what is asked for, what an earlier version said

@each_lesson
def test_no_result_is_typed(lesson):
    "Results in Markdown cells would stay as they are when records change"
    cells = [c.source for c in lesson.cells if c.cell_type=='markdown']
    assert [o for c in cells for o in typed(c) if o not in allowed]==[]

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
            if c.cell_type!='code' or c.source.startswith('#| hide') or is_answer(c): continue
            code = turn(c.source, turned)
            with use('torch'): shell.run(code)
            assert shell.exc is None, f'{lesson.name}:\n{code}\n{shell.exc}'
        assert turned>={'datas', 'chang', 'of,fr'} and lines(tmp_path)>before, lesson.name
