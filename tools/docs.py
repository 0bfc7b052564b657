"""Builds the docs site in a copy of the project and checks it: every notebook is in the sidebar and has a page with
content, every figure has alt text, every link leads somewhere; every exported function and class has its entry, and an
example: code that a reader sees on some page uses it. No page asks another host for anything. (That a badge opens each
page in Colab is for readme.py to check.) The publisher is Quarto (`nbdev-docs`), a large program; here PyPI's smalldocs
renders what nbdev hands to Quarto, and pages.py makes it readable from a file. `--out _docs` keeps the site, with
sliders under the explorers (frames.py)."""
import ast,inspect,os,re,sys,warnings
from importlib import import_module
from shutil import copytree,rmtree
from fastcore.nbio import nb_frontmatter,read_nb
from fastcore.script import call_parse
from fastcore.xtras import working_directory
from nbdev.config import get_config,nbpath2html
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from smalldocs.site import build
from common import alts,exported,notebooks,project_copy,report
from frames import add_frames
from pages import finish,strangers

# A link to a notebook, in markdown or in the sidebar, up to the number in the notebook's name
numbered = re.compile(r'((?:\]\((?!\w+:)|- )(?:[^)\s/]*/)*)\d+[a-zA-Z0-9]*_(?=[^)\s/]*\.ipynb)')

def process(d):
    "Make from the project at `d` what Quarto would render, with pages named as nbdev links them; also nbdev's warnings"
    sys.path.insert(0, str(d)) # the copy's modules, not the installed ones
    os.environ['IPYTHONDIR'] = str(d/'.ipython')
    with working_directory(d), warnings.catch_warnings(record=True) as found:
        refresh_quarto_yml()
        proc = proc_nbs(n_workers=0)
    url = get_config(d).doc_url
    for p in [proc/'_quarto.yml', *proc.rglob('*.ipynb')]:
        text = numbered.sub(r'\1', p.read_text(encoding='utf-8'))
        p.write_text(text.replace(url, '/') if url else text, encoding='utf-8')
        if p.suffix == '.ipynb': p.rename(p.with_name(nbpath2html(p).stem + '.ipynb'))
    return proc,[str(o.message) for o in found if re.search(r'\W(nbdev|fastcore)\W', o.filename)]

def unseen(name, nb):
    "The figures that the notebook `nb`, processed for the page `name`, shows without saying what is to be seen"
    for c in nb.cells:
        bare = c.cell_type == 'markdown' and re.search(r'!\[\s*\]\(', c.source)
        if bare: yield f'{name}, cell {c.id}: a picture without alt text'
        for o,alt in zip(c.get('outputs', []), alts(c, c.directives)):
            if any(k.startswith('image/') for k in o.get('data', {})) and len(alt.split()) < 5:
                yield f'{name}, cell {c.id}: a figure without alt text; `#| fig-alt: "..."` says what is seen'

def undocumented(mod, name, d):
    "Is `name` a method of a class that `mod` exports, without a docstring? (The tests see to functions and classes.)"
    kind,_,method = name.partition('.')
    if kind not in exported(mod, d) or not method: return False
    if method[0] == '_' or method in ('forward', 'extra_repr'): return False # torch's own interface
    return not inspect.getdoc(getattr(getattr(import_module(mod), kind), method)) # its own, or a parent's

def nodes(cell): return (o for tree in cell.parsed_() or () for o in ast.walk(tree))

def starred(mod, d):
    "What `from mod import *` brings, as name: (module, name), from `mod` or from the modules that it takes all of"
    body = ast.parse((d/mod.replace('.', '/')).with_suffix('.py').read_text(encoding='utf-8')).body
    taken = [o for o in body if isinstance(o, ast.ImportFrom) and o.level and o.names[0].name == '*']
    if not taken: return {n: (mod, n) for n in exported(mod, d)}
    return {k: v for o in taken for k,v in starred(f'snnkit.{o.module}', d).items()}

def stands_for(nb, mod, d):
    "What names mean in `nb`, which exports `mod`: (module, name) of its own and of imports, (module, '') of modules"
    known = {o: (mod, o) for o in exported(mod, d)} if mod else {}
    for o in (o for c in nb.cells for o in nodes(c)):
        if isinstance(o, ast.Import):
            named = [a for a in o.names if a.asname and a.name.startswith('snnkit.')]
            known |= {a.asname: (a.name, '') for a in named}
        if not isinstance(o, ast.ImportFrom) or not (o.module or '').startswith('snnkit'): continue
        for a in o.names:
            if a.name == '*': known |= starred(o.module, d)
            else:
                module = f'{o.module}.{a.name}'
                is_module = (d/module.replace('.', '/')).with_suffix('.py').exists()
                known[a.asname or a.name] = (module, '') if is_module else (o.module, a.name)
    return known

def is_example(cell):
    "Does a reader see the code of `cell`, and is it not the package's own?"
    if cell.directives.keys() & {'hide', 'export', 'exports', 'exporti'}: return False
    return 'false' not in map(cell.directives.get, ('echo', 'include'))

def examples(nb, d):
    "Which exported names, as (module, name), the code that a reader sees in the notebook `nb` uses"
    mod = next((f"snnkit.{c.directives['default_exp']}" for c in nb.cells if 'default_exp' in c.directives), None)
    known = stands_for(nb, mod, d)
    for c in nb.cells:
        if not is_example(c): continue
        for o in nodes(c):
            if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Load): yield known.get(o.id)
            if isinstance(o, ast.Attribute) and isinstance(o.value, ast.Name):
                where,name = known.get(o.value.id, ('', o.attr))
                if not name: yield where,o.attr

def entries(site, d, ids):
    "What the docs `site` of the project at `d` lacks for its functions and classes; `ids` are the anchors of its pages"
    used = {o for nb in notebooks(d) for o in examples(read_nb(nb), d)}
    from snnkit._modidx import d as index
    listed = [(mod, name, link) for mod,names in index['syms'].items() for name,(link,_) in names.items()]
    for mod,name,link in listed:
        name = name.removeprefix(mod+'.')
        to,anchor = link.split('#')
        if undocumented(mod, name, d): yield f'{to}: {name} has no docstring'
        if name not in exported(mod, d): continue # internal, or within a class
        if anchor not in ids.get(site.out.resolve()/to, ()): yield f'{to}: no entry for {name}'
        if (mod, name) not in used: yield f'{to}: no example of {name}: no code that a reader sees uses it'

def problems(site, d):
    "What is wrong with the docs `site` of the project at `d`"
    yield from (f'{src}: broken link {href}' for src,href in site.broken)
    yield from (f'{page}: asks another host for {url}' for page,url in strangers(site.out))
    def words(page): return re.sub('<[^>]+>', '', page.html).split()
    yield from (f'{p.src}: no content' for p in site.pages.values() if len(words(p)) < 20)
    nbs,sidebar = [o.relative_to(d/'nbs').as_posix() for o in notebooks(d)],(d/'nbs/_quarto.yml').read_text()
    yield from (f'{o}: not in the sidebar in nbs/_quarto.yml' for o in nbs if f'- {o}\n' not in sidebar)
    for p in sorted(site.root.rglob('*.ipynb')): yield from unseen(p.stem, read_nb(p))
    pages = {p.resolve(): p.read_text(encoding='utf-8') for p in site.out.rglob('*.html')}
    ids = {p: set(re.findall(r' id="([^"]+)"', text)) for p,text in pages.items()}
    for p,text in pages.items():
        for to,anchor in re.findall(r'<a [^>]*href="([^":#]*)#([^"]+)"', text):
            page = (p.parent/to).resolve() if to else p
            if anchor not in ids.get(page, anchor): yield f'{p.name}: broken link {to}#{anchor}'
    yield from entries(site, d, ids)

def redirects(site, d):
    "Write a page at each old address that notebooks of `d` name in `aliases`, as Quarto does; what is wrong with them"
    for nb in notebooks(d):
        fm = nb_frontmatter(read_nb(nb))
        page = nbpath2html(nb.relative_to(d/'nbs')).as_posix()
        for alias in fm.get('aliases', []):
            old = site.out/alias.strip('/')
            if old.exists(): yield f'{nb.name}: its alias {alias} is already a page'
            up = '../'*alias.strip('/').count('/')
            old.write_text(f'<!doctype html><title>Moved</title><meta http-equiv="refresh" content="0; url={up}{page}">'
                           f'<p>This page is now at <a href="{up}{page}">{page}</a>.</p>')
            if not (site.out/page).exists(): yield f'{nb.name}: there is no page {page}'

@call_parse
def main(out:str=''): # Folder to write the site to
    with project_copy() as d:
        proc,warned = process(d)
        if out: add_frames(proc) # which takes its time, and no check needs
        site = build(proc, quiet=True)
        finish(site.out)
        found = warned + list(redirects(site, d)) + list(problems(site, d))
        if out:
            rmtree(out, ignore_errors=True)
            copytree(site.out, out)
        report(found, 'The docs are made from nbs/*.ipynb and nbs/_quarto.yml.')
    print(f'docs: {len(site.pages)} pages, no broken link, alt text for every figure, an example for every name')
