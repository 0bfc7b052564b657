"What the tools share: the project's folder, a copy of it to work in, and its notebooks."
import ast,os,subprocess,sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shutil import copystat,copytree,ignore_patterns,rmtree
from tempfile import TemporaryDirectory
import yaml

root = Path(__file__).resolve().parent.parent
bin_ = Path(sys.executable).parent  # where the environment's commands are
made = ignore_patterns('.git', '.venv', 'out', '_proc', '_docs', 'build', 'dist', '*.egg-info', '__pycache__',
                       '.ipynb_checkpoints', '.pytest_cache', '.hypothesis')

@contextmanager
def project_copy():
    "A copy of the project without what commands have made in it, gone again at the end"
    with TemporaryDirectory() as d: yield Path(copytree(root, Path(d).resolve()/'project', ignore=made))

def share_kernels(package):
    "Let the snnkit in the folder `package` share what numba has compiled here: numba knows a source by its content"
    for folder in {o.parent for o in package.rglob('*.py')}:
        ours,theirs = root/'snnkit'/folder.relative_to(package)/'__pycache__',folder/'__pycache__'
        if not ours.parent.exists(): continue # the records, which lie elsewhere in the project
        ours.mkdir(exist_ok=True)
        rmtree(theirs, ignore_errors=True)
        theirs.symlink_to(ours)
    for o in package.rglob('*.py'):
        ours = root/'snnkit'/o.relative_to(package)
        if ours.exists(): copystat(ours, o) # Python's own bytecode, which lies there too, goes by the time

def run(cmd, cwd, **env):
    "Run `cmd` of this environment on the copy of the project at `cwd`; end with all it printed if it fails"
    own = dict(PYTHONPATH=str(cwd), IPYTHONDIR=str(cwd/'.ipython'), PATH=f"{bin_}:{os.environ['PATH']}")
    r = subprocess.run(cmd, cwd=cwd, env=os.environ | own | env, text=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if r.returncode: sys.exit(f"{r.stdout}\n`{' '.join(map(str, cmd))}` failed")

def files(d, *folders):
    "Path and content of every file in `folders` of the project at `d`"
    paths = [p for o in folders for p in (d/o).rglob('*') if p.is_file()]
    return {p.relative_to(d).as_posix(): p.read_bytes() for p in sorted(paths)}

def notebooks(d):
    "The notebooks of the project at `d`: the home page, the one to play with, the chapters, the lessons"
    first = 'index.ipynb','play.ipynb'
    nbs = (p.relative_to(d/'nbs') for p in (d/'nbs').rglob('*.ipynb'))
    nbs = [p for p in nbs if not any(o[0] in '_.' for o in p.parts)]
    return [d/'nbs'/p for p in sorted(nbs, key=lambda p: (p.name not in first, p.parent.name=='walkthrough', p.name))]

def badge(nb, cfg):
    "The badge that opens `nb`, a path within nbs/, in Colab; nbdev's configuration `cfg` knows the repository"
    colab = f'https://colab.research.google.com/github/{cfg.user}/{cfg.repo}/blob/{cfg.branch}/nbs/{nb}'
    return f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})'

def alts(cell, directives):
    "The alt text of each output of `cell`, as Quarto gives it: `fig-alt` is one for all, or a list with one for each"
    alt,n = yaml.safe_load(directives.get('fig-alt', '')) or '',len(cell.get('outputs', []))
    return (alt + n*[''])[:n] if isinstance(alt, list) else n*[alt]

@cache
def exported(mod, d=root):
    "The names that the module `mod` of the project at `d` exports, found without importing it"
    body = ast.parse((d/mod.replace('.', '/')).with_suffix('.py').read_text(encoding='utf-8')).body
    return next(ast.literal_eval(o.value) for o in body if isinstance(o, ast.Assign) and o.targets[0].id == '__all__')

def report(problems, mend):
    "End with the `problems` found and what mends them, if there are any"
    if problems: sys.exit('\n'.join(problems) + f'\n{mend}')
