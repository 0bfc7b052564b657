"""Is the prose easy to read for somebody to whom English is a second language? Lists sentences of the notebooks with
habits that make reading hard, as far as a program can tell: words from a short list, too many words, too many numbers;
also cells that are too long. Markdown cells are read, Markdown that cells have made, and what exported cells document;
not code, formulas, tables and the targets of links. Names choose pages: `tools/prose.py 02_neuron.ipynb`. A sentence
that is right as it is stands in `tools/prose_allowed.txt`, with the reason."""
import ast,io,re,tokenize
from collections import Counter,namedtuple
from pathlib import Path
from fastcore.nbio import read_nb
from fastcore.script import call_parse
from common import notebooks,report,root

allow_list = root/'tools'/'prose_allowed.txt'
some,most = 30,40    # words: a sentence in ten may have the first or more, none more than the second
numbers = 3          # in a sentence
cell_words,found_words = 200,120 # in a Markdown cell, and in one that holds findings

# Readers and writers know, want and hear. Things do not, and a reader has to guess what is meant
people = ['you', 'we', 'who', 'one', 'to', 'nobody', 'everybody', 'reader', 'readers', 'people', 'user', 'users', 'not',
          'may']
def of_things(verbs): return ''.join(rf'(?<!\b{o} )' for o in people) + rf'\b(?:{verbs})\b'

turned = r'(?:do|does|did|is|are|was|were|can|could|has|have|had|may|must|will|would)\b'
habits = {k: re.compile(v, re.I) for k,v in {
    'a thing hears': r'\b(?:hears?|heard|listens?|listened)\b',
    'a thing speaks': r'\bsa(?:y|ys|id) (?:nothing|no more|so)\b|\b(?:speaks?|spoke|without a word)\b',
    'a thing owes': r'\b(?:owes?|owed)\b',
    'a thing knows': of_things('know|knows'),
    'a thing wants': of_things('want|wants'),
    'whoever': r'\bwho(?:m|so)?ever\b|^whatever\b|: whatever\b',
    'that of': r'\bth(?:at|ose) of\b',
    'of which': r'\bof wh(?:ich|om)\b',
    'the next chapter': r'\b(?:last|next|previous|preceding) (?:chapter|lesson|page|part)s?\b',
    'inverted order': rf'(?:^|, |: |\band )(?:nor|neither|never|only (?:then|so|there|here|now)) {turned}|'
                      r'^(?:so (?:is|are|was|were|do|does|did|it is (?:for|with))|gone (?:is|are))\b',
    'What ... as the subject': r'^what (?![^?]*\?$)',
    'a rare word': r'\b(?:lest|thereof|therein|thereby|whereby|wherein|whence|hitherto|henceforth|whilst|amid|amidst|'
                   r'albeit|naught|aught|but for|by turns|anew)\b',
    'is to be': r'\b(?:is|are|was|were) (?:not )?to (?:be|have|get|give|take|become|learn|say|tell|stand|stay)\b',
}.items()}

Piece = namedtuple('Piece', 'text kind')     # some prose: a paragraph, an item, a heading, a docstring or a docment
Found = namedtuple('Found', 'cell habit text') # in the cell, or output of the cell, with this id

code_mark,formula_mark = '\ue000','\ue001'   # stand for what was taken out; read as a word each
removed = [
    (r'(?ms)^(`{3,}|~{3,}).*?^\1.*?$', '\n\n'),          # code
    (r'(?s)<(table|style|script)\b.*?</\1>', ' '),
    (r'(?s)<!--.*?-->', ' '),
    (r'(?s)(?<!\\)\$\$.*?\$\$', f' {formula_mark}\n'),   # formulas and code
    (r'(``?)(?!`).+?\1', code_mark),
    (r'(?<![\\$])\$(?!\s)[^$]*?\$', formula_mark),
    (r'!\[[^\]]*\]\([^)]*\)', ''),                       # pictures and links
    (r'\[([^\]]*)\]\([^)]*\)', r'\1'),
    (r'<https?:[^>]*>|https?://\S+', code_mark),
    (r'</?\w[^>]*>|(?m:^:::.*$)', ' '),                  # tags and callouts
    (r'(\*\*|__)(?=\S)(.+?)(?<=\S)\1', r'\2'),           # bold and italic
    (r'(?<![\w*])([*_])(?=\S)([^*_]+?)(?<=\S)\1(?!\w)', r'\2')]

def bare(text):
    "The Markdown `text` without what is no prose"
    for pattern,new in removed: text = re.sub(pattern, new, text)
    return text

marker = re.compile(r'^\s*(?:[-*+]|\d+[.)])\s+')

def blocks(text):
    "Paragraphs, items and headings of the Markdown `text`"
    lead = r'(?m)^((?:[-*+]|\d+[.)])\s+)?\*\*[^*\n]+[.?!:]\*\*(?=\s|$)' # bold words that begin a paragraph: a heading
    lines = bare(re.sub(lead, r'\1', text)).splitlines()
    now,kind = [],'text'
    for line in [*lines, '']:
        line = re.sub(r'^\s*(?:>\s?)+', '', line)
        starts = not line.strip() or line.lstrip()[0] in '#|' or marker.match(line) or kind == 'heading'
        if starts:
            if now: yield Piece(' '.join(now), kind)
            now,kind = [],'text'
        if not line.strip() or line.lstrip()[0] == '|': continue
        if line.startswith('#'): kind = 'heading'
        now.append(marker.sub('', line, 1).strip('# '))

short = 'e.g i.e cf vs al etc approx fig figs eq eqs sec no vol dr prof mr mrs st ca resp'.split()

def is_end(before, after):
    "Does a sentence end with the full stop behind `before`, where `after` follows?"
    last = before.split()[-1].lstrip('([\'"').lower() if before.split() else ''
    if re.fullmatch(r'(?:\w\.)*\w', last) and not last.isdigit() and last not in 'ai' + code_mark + formula_mark:
        return False # an initial
    return last not in short or last == 'etc' and after[:1].isupper()

def sentences(text):
    "The sentences of `text`, a paragraph that `blocks` has given"
    start,ends = 0,re.compile(r'([.!?…]+)([)\]"\'”’]*)\s+(?=(.))')
    for o in ends.finditer(text):
        begins = o[3].isupper() or o[3].isdigit() or o[3] in '([\'"“‘' + code_mark + formula_mark
        if not begins or o[1] == '.' and not is_end(text[start:o.start()], text[o.end():]): continue
        yield text[start:o.end()].strip()
        start = o.end()
    if text[start:].strip(): yield text[start:].strip()

def count(text):
    "How many words there are in `text`"
    return len(re.findall(rf"[^\W_]+(?:[-'’.,/:][^\W_]+)*|[{code_mark}{formula_mark}]", text))

# Intervals and shapes, dates, years, versions, sizes such as 3x3, and digits that belong to a name
no_amounts = [r'[\[({][^\]){}([]*[,;][^\]){}([]*\]|\{[^}]*\}|\[[^\]]*\]', r'\b\d{4}-\d\d-\d\d\b',
              r'\b(?:1[89]|20)\d\d\b(?!\.\d| (?:images|steps|neurons|%))', r'\bv?\d+\.\d+\.\d+\b', r'\b\d+x\d+\b',
              r'(?i)\b(?:python|torch|pytorch|numba|triton|cuda|jupyterlab|ipywidgets|nbdev|version|release|snnkit|'
              r'chapter|section|appendix|figure|table|equation|lesson|seeds?) v?\d+(?:\.\d+)*(?:(?:,| and| to) \d+)*',
              r'[^\W\d_][\w-]*\d[\w.-]*\w|[^\W\d_]-?\d+', r'\b\d+[^\W\d_]+', r'\d+\*\*\d+(?:-1)?']

def amounts(text):
    "How many numbers there are in `text`"
    for o in no_amounts: text = re.sub(o, ' ', text)
    return len(re.findall(r'\d+(?:[.,]\d+)*', text))

def joins(text):
    "Does one semicolon join what could be two sentences?"
    parts = re.sub(r'\([^)]*\)', '', text).split(';')
    return len(parts) == 2 and min(map(count, parts)) >= 4

def problems(text, kind):
    "What makes the sentence `text` hard to read"
    yield from (k for k,o in habits.items() if o.search(text) and not (k.startswith('What') and kind != 'text'))
    if kind == 'heading': return
    if (n := count(text)) > most: yield f'{n} words'
    if kind != 'docment' and (n := amounts(text)) > numbers: yield f'{n} numbers'
    if kind == 'text' and joins(text): yield 'a semicolon joins two sentences'
    chained = re.findall(r'\bso\b(?! (?:that|far|much|many|few|little|on)\b)', text, re.I)
    if len(chained) > 1: yield 'so ..., so ...'

def opens(cell):
    "The Markdown of `cell` that opens a page, without the list of its settings"
    return re.sub(r'(?m)^- [\w-]+: .*$', '', cell.source) if re.match(r'# .', cell.source) else cell.source

def shown(cell):
    "The Markdown that the code `cell` has made"
    for o in cell.get('outputs', []):
        text = o.get('data', {}).get('text/markdown', '')
        yield text if isinstance(text, str) else ''.join(text)

def comments(source, tree):
    "What stands beside the parameters and fields in the code `source`, parsed as `tree`"
    lines = set()
    for o in ast.walk(tree):
        if isinstance(o, ast.FunctionDef): lines.update(range(o.lineno, o.body[0].lineno))
        if isinstance(o, ast.ClassDef): lines.update(p.lineno for p in o.body if isinstance(p, ast.AnnAssign))
    for o in tokenize.generate_tokens(io.StringIO(source).readline):
        if o.type == tokenize.COMMENT and o.start[0] in lines: yield o.string.lstrip('# ')

def documented(cell):
    "The prose in an exported code `cell`"
    if not {'export', 'exports', 'exporti'} & cell.directives.keys(): return
    tree = ast.parse(cell.source)
    defined = [o for o in ast.walk(tree) if isinstance(o, (ast.FunctionDef, ast.ClassDef))]
    for o in filter(None, map(ast.get_docstring, defined)): yield Piece(bare(o), 'docstring')
    for o in comments(cell.source, tree): yield Piece(bare(o), 'docment')

def pieces(cell):
    "The prose of `cell`: a list of pieces for each text in it"
    if cell.cell_type == 'markdown': return [[*blocks(opens(cell))]]
    if cell.cell_type != 'code': return []
    return [[*blocks(o)] for o in shown(cell)] + [[*documented(cell)]]

def too_long(cell, text):
    "What is wrong with the number of words in the pieces `text` of `cell`, if it is Markdown"
    n = sum(count(o.text) for o in text if o.kind == 'text')
    found = re.search(r'(?m)^(?:\*\*|#+ )What was found', cell.source + ''.join(shown(cell)))
    if n > (found_words if found else cell_words): yield f'{n} words in {"the findings" if found else "a cell"}'

def read(nb):
    "What was found in the notebook `nb`, and the number of words of each of its sentences"
    found,sizes = [],[]
    for cell in nb.cells:
        for text in pieces(cell):
            found += [Found(cell.id, o, text[0].text) for o in too_long(cell, text)]
            for piece in text:
                for o in [piece.text] if piece.kind == 'docment' else sentences(piece.text):
                    found += [Found(cell.id, p, o) for p in problems(o, piece.kind)]
                    if piece.kind in ('text', 'docstring'): sizes.append((count(o), cell.id, o))
    return found,sizes

def allowed(path):
    "The entries of the allow-list at `path`: page, a part of the sentence, the reason"
    lines = [o for o in path.read_text(encoding='utf-8').splitlines() if o.strip() and not o.startswith('#')]
    entries = [tuple(map(str.strip, o.split('|'))) for o in lines]
    wrong = [o for o,parts in zip(lines, entries) if len(parts) != 3 or not all(parts)]
    report([f'{path.name}: {o}' for o in wrong], 'A line there is: page | a part of the sentence | the reason')
    return entries

def plain(text):
    "`text` as it can be found: words alone"
    return ' '.join(re.findall(r'\w+', text)).lower()

def check(page, nb, entries):
    "What is left to mend in the notebook `nb`, called `page`; the entries that were of use; its sentences' words"
    found,sizes = read(nb)
    ours = [o for o in entries if o[0] == page]
    def fits(entry, text): return plain(entry[1]) in plain(text)
    lengthy = [o for o in sizes if o[0] >= some and not any(fits(e, o[2]) for e in ours)]
    if len(lengthy) > len(sizes)/10: # these, as they are too many
        found += [Found(i, f'{n} words', text) for n,i,text in lengthy if n <= most]
    texts = [o.text for o in found] + [text for n,_,text in sizes if n >= some]
    used = {e for e in ours if any(fits(e, o) for o in texts)}
    return [o for o in found if not any(fits(e, o.text) for e in ours)],used,[n for n,_,_ in sizes]

def cut(text, n=110):
    text = re.sub(f'[{code_mark}{formula_mark}]', '…', text)
    return text if len(text) <= n else text[:n].rsplit(' ', 1)[0] + ' ...'

def is_chosen(path, names):
    "Is the notebook at `path` among the `names`, each a path or a file's name, with or without its ending?"
    return not names or any(path.stem == Path(o).stem for o in names)

@call_parse
def main(*names:str): # Only these pages
    entries,wrong,table,total = allowed(allow_list),[],[],Counter()
    paths = [o for o in notebooks(root) if is_chosen(o, names)]
    for path in paths:
        found,used,sizes = check(path.stem, read_nb(path), entries)
        page = path.relative_to(root/'nbs').as_posix()
        wrong += [f'{page} {o.cell}  {o.habit}: {cut(o.text)}' for o in found]
        wrong += [f'{allow_list.name}: {" | ".join(e)}: nothing to allow there any more'
                  for e in entries if e[0] == path.stem and e not in used]
        total.update(o.habit.lstrip('0123456789 ') for o in found)
        below = sum(n < some for n in sizes)/max(1, len(sizes))
        table.append(f'{page:42} {len(sizes):9} {below:8.1%} {max(sizes, default=0):7} {len(found):7}')
    stems = {o.stem for o in notebooks(root)}
    wrong += [f'{allow_list.name}: no page {e[0]!r}' for e in entries if e[0] not in stems]
    print(*wrong, sep='\n')
    print(f'\n{"page":42} sentences below {some} longest to mend', *table, sep='\n')
    if total: print('\n' + ', '.join(f'{k} {n}' for k,n in total.most_common()))
    told = [f'prose: {len(wrong)} to mend'] if wrong else []
    report(told, f'Mend them, or give a reason in tools/{allow_list.name}.')
