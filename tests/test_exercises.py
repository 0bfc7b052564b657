"""Each lesson has three exercises, with answers that are code, folded, and assert what they tell. (That they run is for
`tools/notebooks.py` to check, which runs the lessons.)"""
import ast,re
import pytest
from fastcore.nbio import read_nb
from common import root

lessons = sorted((root/'nbs'/'walkthrough').glob('*.ipynb'))
each_lesson = pytest.mark.parametrize('cells', [pytest.param(read_nb(p).cells, id=p.stem) for p in lessons])
asked = re.compile(r'\*\*Exercise (\d)\.\*\* ')
folded = '<details><summary>Result</summary>'

def exercises(cells):
    "Number, question and answer: the cell behind the question"
    for question,answer in zip(cells, cells[1:]):
        if number := asked.match(question.source): yield int(number[1]),question,answer

@each_lesson
def test_three_exercises(cells): assert [number for number,_,_ in exercises(cells)]==[1, 2, 3]

@each_lesson
def test_an_exercise_asks(cells):
    for number,question,answer in exercises(cells):
        assert question.cell_type=='markdown' and '?' in question.source, number
        assert len(question.source.split())<=60, number

@each_lesson
def test_an_answer_is_folded(cells):
    "In the docs by its directives, in Jupyter and in Colab by its metadata, and so is its result, everywhere"
    for number,_,cell in exercises(cells):
        assert cell.source.startswith(f'#| code-summary: "Answer {number}"\n#| code-fold: true\n')
        assert cell.metadata==dict(cellView='form', jupyter=dict(source_hidden=True)), number
        out, = cell.outputs # nothing that would give the answer away
        assert ''.join(out.data['text/markdown']).startswith(folded), number

@each_lesson
def test_an_answer_asserts_and_says_why(cells):
    for number,_,cell in exercises(cells):
        body = ast.parse(cell.source).body
        assert any(isinstance(o, ast.Assert) for o in body), number
        said = body[-1].value
        assert isinstance(said, ast.Call) and said.func.id=='answer', number
        result = ''.join(cell.outputs[0].data['text/markdown']).split('</summary>')[1]
        assert re.search(r'\d', result) and 20<=len(result.split())<=90, number

@each_lesson
def test_only_answers_are_folded(cells):
    hidden = [c.id for c in cells if c.cell_type=='code' and 'code-fold' in c.source]
    assert hidden==[answer.id for _,_,answer in exercises(cells)]
