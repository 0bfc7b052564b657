"The check of the prose finds each habit, leaves code and formulas alone, and keeps its list of exceptions short."
import re
import pytest
from fastcore.nbio import dict2nb
import prose

def markdown(*texts): return [dict(cell_type='markdown', id=f'm{i}', metadata={}, source=o) for i,o in enumerate(texts)]

def code(source, shown=None):
    out = [dict(output_type='display_data', data={'text/markdown': shown}, metadata={})] if shown else []
    return dict(cell_type='code', id='c', metadata={}, execution_count=None, outputs=out, source=source)

def notebook(*cells): return dict2nb(dict(cells=[*cells], metadata={}, nbformat=4, nbformat_minor=5))

def habits(*texts): return [o.habit for o in prose.read(notebook(*markdown(*texts)))[0]]

examples = {
    'a thing hears': ['A deep layer hears little.', 'The readout listens from step 4.'],
    'a thing speaks': ['A silent layer says nothing.', 'Autograd says so.',
                       'It takes the batch for time without a word.'],
    'a thing owes': ['The past owes no gradient.'],
    'a thing knows': ['The store knows the run.', 'They know nothing of neurons.', 'A kernel must know of time.'],
    'a thing wants': ['The encoder wants intensities.'],
    'whoever': ['Whoever looks finds it.', 'Whatever can be made again lies there.'],
    'that of': ['Its rate is that of the twin.', 'The spikes are those of the layer below.'],
    'of which': ['There are four blocks, of which the last is strided.'],
    'the next chapter': ['The next chapter tells more.', 'As in the last lesson, it fires.'],
    'inverted order': ['Nor does it guess.', 'It stays, and neither is it drawn.', 'So are the others.'],
    'What ... as the subject': ['What is lost is a spike.'],
    'a rare word': ['It is the same but for its class.', 'They fire by turns.'],
    'is to be': ['A twin is not to be slow.'],
    'a semicolon joins two sentences': ['The first layer fires often; the second one stays silent.'],
    'so ..., so ...': ['It is silent, so it learns nothing, so it stays silent.'],
    '4 numbers': ['It has 2 layers, 3 pools, 4.5 % and 1,000 neurons.'],
    '41 words': [' '.join(['Word', *['word']*40]) + '.']}

@pytest.mark.parametrize('habit,text', [(k, o) for k,texts in examples.items() for o in texts])
def test_finds(habit, text): assert habits(text) == [habit]

good = [
    'Readers know PyTorch. You may want to see more, and nobody knows why. It is not known.',
    'What is a spike?',
    '**What was found.** The network is faster.',
    '## What is refused',
    'It fires, so that the others rest. It is so far the best, and so on.',
    'It hands over `whoever.hears("that of")` and $a; b, 1, 2, 3, 4$ to the [reader](of_which.html).',
    '```python\nwhoever = knows; says = 1, 2, 3, 4\n```',
    '$$\\text{whoever knows}$$',
    '| whoever | knows |\n|---|---|\n| 1 | 2 |',
    '![whoever knows](x.png)',
    '<table><tr><td>whoever knows</td></tr></table>',
    'VGG9, float32, CIFAR-10, a 3x3 kernel, torch 2.13 and Python 3.11, seeds 42, 43 and 44, since 2020-01-02.',
    'The shape is [5000, 1, 28, 28], spikes lie in {-1, 0, 1}, and (0, 1) is open.',
    'Three parts; each with a name; none with two; all short.']

@pytest.mark.parametrize('text', good)
def test_leaves_alone(text): assert habits(text) == []

def test_settings_of_a_page_are_no_prose():
    assert habits('# Title\n\n> A summary\n\n- aliases: [/whoever.html]\n- description: whoever knows') == []
    assert habits('# Title\n\n> Whoever reads') == ['whoever']

split = {
    'It fires. It rests.': ['It fires.', 'It rests.'],
    'Lee et al. train it. See e.g. Fig. 3 and cf. Eq. 2, vs. Table 1.': 2,
    'A leak of 0.99 is usual. With .5 it forgets.': 2,
    'J. R. Hunsberger wrote it. He was first.': 2,
    'It is 3. The next is 4.': 2,
    'Does it fire? Yes! (It does.) "So it is." Good.': 5,
    'Spikes, pools, etc. The rest is silent, etc. and so on.': 2,
    'It stops ... and goes on.': 1,
    'The file is called a.txt. `lif` reads it. $x$ is given.': 3}

@pytest.mark.parametrize('text,parts', split.items(), ids=lambda o: str(o)[:20])
def test_splits_sentences(text, parts):
    found = [*prose.sentences(prose.bare(text))]
    assert (found if isinstance(parts, list) else len(found)) == parts

def test_splits_paragraphs_and_items():
    text = 'One\nline.\n\n- an item\n- another\n  that goes on\n\n1. first\n2. second\n\n> quoted\n# Head\nText'
    found = [(o.text, o.kind) for o in prose.blocks(text)]
    items = ['One line.', 'an item', 'another that goes on', 'first', 'second', 'quoted']
    assert found == [*[(o, 'text') for o in items], ('Head', 'heading'), ('Text', 'text')]

def test_a_number_at_a_line_s_start_is_no_item():
    assert [o.text for o in prose.blocks('from 1.8 to 3.3) by it')] == ['from 1.8 to 3.3) by it']

def test_counts_words():
    assert prose.count(prose.bare("It's a well-known 0.99, `x = 1; y = 2` and $a + b$.")) == 7

def test_cells_may_not_be_long():
    many = 'It fires again and again. '
    assert habits(many*40) == [] and habits(many*41) == ['205 words in a cell']
    assert habits('**What was found.** ' + many*25) == ['125 words in the findings']
    assert habits('## What was found\n\n' + many*24) == []

def test_reads_what_cells_have_made():
    made = code('display(Markdown(f"..."))', 'Whoever looks finds it.')
    found,sizes = prose.read(notebook(made, code('whoever = 1 # whoever')))
    assert [(o.cell, o.habit) for o in found] == [('c', 'whoever')] and len(sizes) == 1

source = '''#| export
def f(
    x, # whoever knows
    y  # the rest; as the first, with more words
):
    "Give what whoever gives; raises ValueError for the rest of them."
    return x # whoever
class A:
    "One."
    z:int # a thing that owes'''

def test_reads_documentation():
    found,sizes = prose.read(notebook(code(source)))
    assert sorted(o.habit for o in found) == ['a thing knows', 'a thing owes', 'whoever', 'whoever']
    assert len(sizes) == 2
    assert prose.read(notebook(code(source.replace('#| export', '# plain')))) == ([], [])

lengthy = 'Long ' + 'and long '*14 + 'it goes.' # 31 words

def found(texts, entries=()):
    left,used,_ = prose.check('page', notebook(*markdown(*texts)), [*entries])
    return [o.habit for o in left],used

def test_a_tenth_may_be_long():
    few = ['It fires.']*18 + [lengthy]*2
    assert found(few) == ([], set())
    assert found([*few, lengthy])[0] == ['31 words']*3

def test_allows_with_a_reason():
    entry = 'page', 'deep layer hears', 'quoted'
    assert found(['A deep layer hears little.'], [entry]) == ([], {entry})
    assert found(['A deep layer hears little.'], [('other', *entry[1:])])[0] == ['a thing hears']
    assert found(['A deep layer is silent.'], [entry]) == ([], set()) # the entry is of no use any more
    assert found([lengthy], [('page', 'Long and long', 'a list')])[0] == []

def test_the_allow_list_has_three_parts(tmp_path):
    path = tmp_path/'allowed.txt'
    path.write_text('# a remark\n\npage | some words | why\n')
    assert prose.allowed(path) == [('page', 'some words', 'why')]
    for bad in 'page | some words', 'page | some words |', 'some words':
        path.write_text(bad)
        with pytest.raises(SystemExit, match='the reason'): prose.allowed(path)

def test_pages_are_chosen_by_name():
    names = 'nbs/network/02_neuron.ipynb', '03_spikebp'
    paths = [o for o in prose.notebooks(prose.root) if prose.is_chosen(o, names)]
    assert [o.stem for o in paths] == ['02_neuron', '03_spikebp']

def told(capsys, entries, monkeypatch, tmp_path):
    path = tmp_path/'prose_allowed.txt'
    path.write_text(entries)
    monkeypatch.setattr(prose, 'allow_list', path)
    page = tmp_path/'nbs'/'page.ipynb'
    page.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(prose, 'root', tmp_path)
    monkeypatch.setattr(prose, 'notebooks', lambda d: [page])
    monkeypatch.setattr(prose, 'read_nb', lambda path: notebook(*markdown('Whoever looks finds it.')))
    try: prose.main()
    except SystemExit as e: return capsys.readouterr().out + str(e)
    return capsys.readouterr().out

def test_complains_of_what_is_found_and_of_entries_without_use(capsys, monkeypatch, tmp_path):
    out = told(capsys, '', monkeypatch, tmp_path)
    assert 'page.ipynb m0  whoever: Whoever looks finds it.' in out and '1 to mend' in out
    assert 'to mend' not in told(capsys, 'page | Whoever looks | an example', monkeypatch, tmp_path).splitlines()[-1]
    out = told(capsys, 'page | Whoever looks | why\npage | no such words | why\nnowhere | a | b', monkeypatch, tmp_path)
    assert 'no such words | why: nothing to allow' in out and "no page 'nowhere'" in out and '2 to mend' in out

def test_the_table_counts_sentences(capsys, monkeypatch, tmp_path):
    assert re.search(r'page\.ipynb +1 +100\.0% +4 +1', told(capsys, '', monkeypatch, tmp_path))
