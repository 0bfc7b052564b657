"""Makes README.md from nbs/index.ipynb, the tables of notebooks in it, and how every notebook begins in Colab: badge
and installation.

Each part of the book has a markdown cell in index.ipynb with a line such as `<!-- notebooks: network -->`. What follows
that line is filled in here: a row for each notebook of the part, with its title, its `>` summary and a badge that opens
it in Colab. So the tables also show in Jupyter and on the docs site, and the repository's address stands in
pyproject.toml alone. Every notebook has the same badge in a cell of its own below its title, and a first cell that
installs, where it runs in Colab, the package of the same repository. README.md then is the home page as nbdev would
show it: pictures go to images/, links to notebooks lead into nbs/. `--check` changes nothing, and fails if something
would change."""
import re
from base64 import b64decode
from difflib import unified_diff
from fastcore.nbio import mk_cell,nb2str,nb_frontmatter,read_nb
from fastcore.script import call_parse
from nbdev.config import get_config
from nbdev.process import NBProcessor
from nbdev.processors import clean_magics,filter_stream_,hide_,hide_line,rm_export,rm_header_dash,strip_ansi
from common import alts,badge,files,notebooks,report,root

cfg,marker = get_config(root),re.compile(r'<!-- notebooks: (\w+) -->')
install = f'#| hide\n! [ -e /content ] && pip install -Uqq git+{cfg.git_url}'
top = '<!-- Made from nbs/index.ipynb by `make readme`: edit that. -->'
procs = [hide_, hide_line, filter_stream_, strip_ansi, rm_export, clean_magics, rm_header_dash]

def row(path):
    "The line of the table for the notebook at `path`"
    fm,path = nb_frontmatter(read_nb(path)),path.relative_to(root/'nbs')
    return f"| [{fm.get('title', path.stem)}]({path}) | {fm.get('description', '')} | {badge(path, cfg)} |"

def headed(path):
    "The notebook at `path` with its installation first, and its badge in a cell of its own below the title's"
    nb,want = read_nb(path),badge(path.relative_to(root/'nbs'), cfg)
    if not nb.cells[0].source.startswith('#| hide\n! [ -e /content ]'): nb.cells.insert(0, mk_cell(install))
    nb.cells[0].source = install
    title = next(i for i,c in enumerate(nb.cells) if c.cell_type == 'markdown') # of which nbdev makes front matter
    nb.cells[title].source = re.sub(r'\s*\[!\[Open in Colab\]\S*', '', nb.cells[title].source)
    if not nb.cells[title+1].source.startswith('[![Open in Colab]'): nb.cells.insert(title+1, mk_cell(want, 'markdown'))
    nb.cells[title+1].source = want
    return nb

def parts_of_the_book():
    "The notebooks of each part, by the name of its folder; those that lie in none are the start"
    found = {}
    for o in notebooks(root): found.setdefault(o.relative_to(root/'nbs').parent.name or 'start', []).append(o)
    return found

def home(nb):
    "The notebook `nb`, which is index.ipynb, with its tables of notebooks filled in"
    book,cells = parts_of_the_book(),{m[1]: c for c in nb.cells if (m := marker.search(c.source))}
    wrong = [f'nbs/index.ipynb: <!-- notebooks: {o} -->' for o in book.keys() ^ cells.keys()]
    if wrong: report(wrong, 'Each part of the book has one markdown cell with such a line, for its table of notebooks.')
    for part,c in cells.items():
        head = c.source[:marker.search(c.source).end()],'','| Notebook | What it shows | |','|---|---|---|'
        c.source = '\n'.join([*head, *map(row, book[part])])
    return nb

def linked(text):
    "`text` with links to notebooks as they lead there from the README"
    return re.sub(r'\]\((?!\w+:|[#/])', '](nbs/', text)

def output(o, alt, pics):
    "One output of a cell as markdown; a picture is added to `pics`, and shown with its `alt` text"
    data = o.get('data', {'text/plain': o.get('text', '')})
    if 'text/markdown' in data: return linked(data['text/markdown'])
    if 'image/png' not in data: return f"```\n{data.get('text/plain', '').rstrip()}\n```"
    name = f'images/index-{len(pics)+1}.png'
    pics[name] = b64decode(data['image/png'])
    return f'![{alt}]({name})'

def parts(cell, pics):
    "The pieces of markdown that `cell` becomes"
    off = {k for k,v in cell.directives_.items() if v == 'false'} # of Quarto's `echo`, `output` and `include`
    if cell.cell_type == 'markdown': yield linked(cell.source)
    if cell.cell_type != 'code' or 'include' in off: return
    if 'echo' not in off: yield f'```python\n{cell.source.strip()}\n```'
    if 'output' in off: return
    for o,alt in zip(cell.outputs, alts(cell, cell.directives_)): yield output(o, alt, pics)

@call_parse
def main(check:bool=False): # Change nothing, and fail if something would change?
    nbs,pics = {p.relative_to(root).as_posix(): headed(p) for p in notebooks(root)},{}
    nb = home(nbs['nbs/index.ipynb'])
    new = {k: nb2str(o).encode() for k,o in nbs.items()} # now, as processing changes `nb`
    shown = NBProcessor(nb=nb, procs=procs, process=True).nb
    readme = '\n\n'.join([top, *(p for c in shown.cells for p in parts(c, pics))]) + '\n'
    new |= {'README.md': readme.encode(), **pics}
    old = files(root, 'images') | {o: (root/o).read_bytes() for o in (*nbs, 'README.md') if (root/o).exists()}
    todo = [o for o in sorted(old.keys() | new.keys()) if old.get(o) != new.get(o)]
    readmes = [o.get('README.md', b'').decode().splitlines() for o in (old, new)]
    if check:
        changes = unified_diff(*readmes, n=1, lineterm='')
        report([*(f'{o}: out of date' for o in todo), *changes], '`make readme` mends that.')
    for o in todo:
        (root/o).parent.mkdir(exist_ok=True)
        (root/o).write_bytes(new[o]) if o in new else (root/o).unlink()
    print('readme: README.md is what index.ipynb says' + (f"; made {', '.join(todo)}" if todo else ''))
