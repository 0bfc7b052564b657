"The house rules: chapters import only earlier ones, what is public is documented, cells are short, names as agreed."
import ast,inspect,re,subprocess,sys
from dataclasses import is_dataclass
from importlib import import_module
from io import StringIO
from itertools import chain
from textwrap import dedent
from token import OP
from tokenize import TokenError,generate_tokens
import pytest
from fastcore.docments import docments
from fastcore.nbio import nb_frontmatter,read_nb
import common
from common import notebooks,root

names = {
    'core': 'need check_choice check_whole check_number seeded own_stream atomic cache_home',
    'encoding': 'digits poisson direct latency Poisson Direct Latency',
    'neuron': 'simulate',
    'spikebp': 'lif',
    'layers': 'use dense Conv2d Linear AvgPool2d Flatten Dropout BatchNorm2d LIF IF Integrator norms fold Residual',
    'models': 'lenet vgg vgg9 resnet9 resnet11 efficientnet twin calibrate',
    'data': 'load',
    'training': 'fit evaluate set_seed',
    'measures': 'firing_rates synaptic_ops energy error_increment accuracy_interval mcnemar break_even',
    'experiments': 'Config Store run run_all table',
    'trained': 'load_trained predict Prepare Trained load_pretrained card',
    'commands': 'settings train_one compare_two ask do_study',
    'cli': 'train compare predict experiment',
    'bench': 'bench',
    'engine.events': 'Spikes Geometry Neuron Buffers',
    'engine.memory': 'share scratch fresh free',
    'engine.trains': 'to_train Train',
    'engine.roads': 'peak_rate through',
    'engine.fused': 'fused_lif through',
    'engine.bench': 'measure'}

def module(nb):
    "The module that notebook `nb` exports, or None"
    return next((c.directives['default_exp'] for c in nb.cells if 'default_exp' in c.directives), None)

nbs = {p: read_nb(p) for p in notebooks(root)}
chapters = [o for o in map(module, nbs.values()) if o] # in the order of the book

def file(mod): return (root/'snnkit'/mod.replace('.', '/')).with_suffix('.py')

def tree(mod): return ast.parse(file(mod).read_text(encoding='utf-8'))

def public(mod):
    "The functions and classes that `mod` exports, found without importing it"
    names = common.exported(f'snnkit.{mod}')
    return [(mod, o.name) for o in tree(mod).body if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and o.name in names]

known = {f'snnkit.{o}' for o in chapters}
symbols = list(chain.from_iterable(map(public, chapters)))

def get(mod, name): return inspect.unwrap(getattr(import_module(f'snnkit.{mod}'), name))

def imported(mod):
    "The chapters that `mod` imports, anywhere within it"
    package = f'snnkit.{mod}'.split('.')
    for o in ast.walk(tree(mod)):
        if isinstance(o, ast.Import): names = [a.name for a in o.names]
        elif isinstance(o, ast.ImportFrom):
            at = package[:-o.level] if o.level else []
            path = '.'.join(at + [o.module]*bool(o.module))
            names = [path if path in known else f'{path}.{a.name}' for a in o.names]
        else: continue
        yield from (n.removeprefix('snnkit.') for n in names if n.startswith('snnkit.'))

@pytest.mark.parametrize('mod', chapters)
def test_imports_only_earlier_chapters(mod):
    assert set(imported(mod)) <= set(chapters[:chapters.index(mod)]) | {'__version__'}

@pytest.mark.parametrize('mod', [o for o in names if o in chapters])
def test_has_the_agreed_names(mod):
    assert set(names[mod].split()) <= set(import_module(f'snnkit.{mod}').__all__)

def gives_something(f):
    "Does function `f` return or yield a value?"
    def walk(node): # without the functions inside it
        for o in ast.iter_child_nodes(node):
            if isinstance(o, (ast.FunctionDef, ast.Lambda, ast.ClassDef)): continue
            if isinstance(o, (ast.Yield, ast.YieldFrom)) or isinstance(o, ast.Return) and o.value: return True
            if walk(o): return True
    return walk(ast.parse(dedent(inspect.getsource(f))).body[0])

@pytest.mark.parametrize('mod,name', symbols)
def test_is_documented(mod, name):
    o = get(mod, name)
    assert o.__doc__ and '\n' not in o.__doc__.strip(), 'the docstring is to be one line'
    if inspect.isclass(o) and '__init__' not in vars(o): return # built as its parent is
    docs = docments(o, args_kwargs=True)
    for parent in inspect.getmro(o)[1:] if is_dataclass(o) else (): # which says what its own fields are
        if is_dataclass(parent): docs |= {k: v for k,v in docments(parent, args_kwargs=True).items() if v}
    gives = docs.pop('return', None)
    assert [k for k,v in docs.items() if not v and k != 'self'] == [], 'parameters without a comment'
    assert gives or inspect.isclass(o) or not gives_something(o), 'no comment on what it returns'

def lines(source):
    "How many lines of code are in `source`"
    return sum(bool(o.strip()) and not o.strip().startswith('#') for o in source.splitlines())

kinds = {'export', 'exports', 'exporti'}
exported = [(p.name, c) for p,nb in nbs.items() for c in nb.cells if kinds & c.directives.keys()]

@pytest.mark.parametrize('cell', [pytest.param(c, id=f'{nb} {c.id}') for nb,c in exported])
def test_exported_cell_is_short(cell): assert lines(cell.source) <= 30

def semicolons(source):
    "What stands on its line behind each semicolon of `source`"
    try: tokens = [*generate_tokens(StringIO(source).readline)]
    except (TokenError, IndentationError): return [] # a cell of IPython's, such as `! pip`
    return [o.line[o.end[1]:].strip() for o in tokens if o.type == OP and o.string == ';']

prose = re.compile(r'Markdown\(f""".*?"""\)', flags=re.S)

def crowded(code):
    "The lines of `code` that hold a second statement, or that a screen cuts"
    return [o for o in semicolons(code) if o] + [o for o in code.splitlines() if len(o) > 120]

@pytest.mark.parametrize('nb', [pytest.param(nb, id=p.name) for p,nb in nbs.items()])
def test_cells_are_plain(nb):
    "A paragraph that is made of numbers is one line"
    code = {c.id: re.sub(r'^#\|.*$', '', c.source, flags=re.M) for c in nb.cells if c.cell_type == 'code'}
    assert {k: found for k,o in code.items() if (found := crowded(prose.sub('', o)))} == {}

scripts = [p for o in ('tests', 'tools') for p in sorted((root/o).rglob('*.py'))]

@pytest.mark.parametrize('path', scripts, ids=lambda p: p.name)
def test_scripts_are_plain(path): assert crowded(path.read_text()) == []

@pytest.mark.parametrize('cell', [pytest.param(c, id=f'{nb} {c.id}') for nb,c in exported])
def test_modules_need_no_semicolon(cell):
    "In a notebook one at the end keeps a cell silent"
    assert semicolons(cell.source) == []

parts = 'network', 'experiment', 'rivals', 'doors', 'machine_room' # in the order of the book

def test_the_book_is_in_order():
    "Numbers run through the parts without a gap, and each part follows the one before"
    paths = [p.relative_to(root/'nbs') for p in nbs if p.parent.name in parts]
    assert [int(re.match(r'\d+', p.name)[0]) for p in paths] == list(range(len(paths)))
    order = [parts.index(p.parts[0]) for p in paths]
    assert order == sorted(order)

def test_the_idea_comes_before_the_machine():
    "Nothing before the machine room names the engine's rooms, not in a hidden cell and not within a function"
    for p,nb in nbs.items():
        if p.parent.name == 'machine_room': continue
        code = '\n'.join(c.source for c in nb.cells if c.cell_type == 'code')
        assert re.findall(r'(?:from|import) snnkit\.engine\b.*', code) == [], p.name

old_pages = ('encoding neuron spikebp events fused engine layers models data training measures experiments plots '
             'explorers cli bench')

def test_old_pages_lead_to_the_new():
    "Addresses from before the parts were folders; Quarto makes the pages that redirect"
    aliases = [o for nb in nbs.values() for o in nb_frontmatter(nb).get('aliases', [])]
    assert sorted(aliases) == sorted(f'/{o}.html' for o in old_pages.split())

python = [*(root/'snnkit').rglob('*.py'), *(root/'tools').glob('*.py'), *(root/'tests').glob('*.py')]
sources = [*nbs, *python, root/'Makefile']

@pytest.mark.parametrize('path', sources, ids=lambda p: p.name)
def test_no_work_left_for_later(path): assert not re.search(r'\b(TO[D]O|FIX[M]E)\b', path.read_text())

def test_imports_lightly():
    "The models, and with them all chapters that they build on"
    heavy = 'sklearn', 'accelerate', 'pandas', 'IPython', 'nbdev', 'numba', 'llvmlite', 'triton'
    code = f'import sys, snnkit.models; print(*[o for o in {heavy} if o in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert r.stdout.split() == []
