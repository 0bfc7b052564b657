"""Makes README.md from nbs/index.ipynb, and the table of notebooks in it.

The markdown cell of index.ipynb that starts with `<!-- notebooks -->` is filled in here: a row for each notebook, with its title,
its `>` summary and a badge that opens it in Colab. So the table also shows in Jupyter and on the docs site, and the repository's
address stands in pyproject.toml alone. README.md then is the notebook as nbdev would show it: pictures go to images/, links to
notebooks lead into nbs/. `--check` changes nothing, and fails if something would change."""
import re
from base64 import b64decode
from difflib import unified_diff
from fastcore.nbio import nb2str,nb_frontmatter,read_nb
from fastcore.script import call_parse
from nbdev.config import get_config
from nbdev.process import NBProcessor
from nbdev.processors import clean_magics,filter_stream_,hide_,hide_line,rm_export,rm_header_dash,strip_ansi
from common import alts,files,notebooks,report,root

cfg,marker = get_config(root),'<!-- notebooks -->'
top = '<!-- Made from nbs/index.ipynb by `make readme`: edit that. -->'
procs = [hide_, hide_line, filter_stream_, strip_ansi, rm_export, clean_magics, rm_header_dash]

def row(path):
    "The line of the table for the notebook at `path`"
    fm,path = nb_frontmatter(read_nb(path)),path.relative_to(root/'nbs')
    colab = f'https://colab.research.google.com/github/{cfg.user}/{cfg.repo}/blob/{cfg.branch}/nbs/{path}'
    badge = f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})'
    return f"| [{fm.get('title', path.stem)}]({path}) | {fm.get('description', '')} | {badge} |"

def home():
    "index.ipynb with its table of notebooks filled in"
    nb = read_nb(root/'nbs/index.ipynb')
    cells = [c for c in nb.cells if c.source.startswith(marker)]
    if len(cells) != 1: report(['nbs/index.ipynb'], f'One markdown cell must start with `{marker}`, for the table of notebooks.')
    cells[0].source = '\n'.join([marker, '', '| Notebook | What it shows | |', '|---|---|---|', *map(row, notebooks(root))])
    return nb

def output(o, alt, pics):
    "One output of a cell as markdown; a picture is added to `pics`, and shown with its `alt` text"
    data = o.get('data', {'text/plain': o.get('text', '')})
    if 'text/markdown' in data: return data['text/markdown']
    if 'image/png' not in data: return f"```\n{data.get('text/plain', '').rstrip()}\n```"
    name = f'images/index-{len(pics)+1}.png'
    pics[name] = b64decode(data['image/png'])
    return f'![{alt}]({name})'

def parts(cell, pics):
    "The pieces of markdown that `cell` becomes"
    off = {k for k,v in cell.directives_.items() if v == 'false'} # Quarto's `echo: false`, `output: false`, `include: false`
    if cell.cell_type == 'markdown': yield re.sub(r'\]\((?!\w+:|[#/])', '](nbs/', cell.source)
    if cell.cell_type != 'code' or 'include' in off: return
    if 'echo' not in off: yield f'```python\n{cell.source.strip()}\n```'
    if 'output' not in off: yield from (output(o, alt, pics) for o,alt in zip(cell.outputs, alts(cell, cell.directives_)))

@call_parse
def main(check:bool=False): # Change nothing, and fail if something would change?
    nb,pics = home(),{}
    new = {'nbs/index.ipynb': nb2str(nb).encode()} # now, as processing changes `nb`
    shown = NBProcessor(nb=nb, procs=procs, process=True).nb
    readme = '\n\n'.join([top, *(p for c in shown.cells for p in parts(c, pics))]) + '\n'
    new |= {'README.md': readme.encode(), **pics}
    old = files(root, 'images') | {o: (root/o).read_bytes() for o in ('nbs/index.ipynb', 'README.md') if (root/o).exists()}
    todo = [o for o in sorted(old.keys() | new.keys()) if old.get(o) != new.get(o)]
    readmes = [o.get('README.md', b'').decode().splitlines() for o in (old, new)]
    if check: report([f'{o}: out of date' for o in todo] + list(unified_diff(*readmes, n=1, lineterm='')), '`make readme` mends that.')
    for o in todo:
        (root/o).parent.mkdir(exist_ok=True)
        (root/o).write_bytes(new[o]) if o in new else (root/o).unlink()
    print('readme: README.md is what index.ipynb says' + (f"; made {', '.join(todo)}" if todo else ''))
