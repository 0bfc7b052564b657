"""What a user gets from PyPI: the sdist and the wheel made from it, every requirement and command, and that it works
where nothing else is installed."""
import ast,os,subprocess,sys,tarfile
from configparser import ConfigParser
from functools import partial
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile
import pytest
from PIL import Image
from nbdev.config import get_config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from bounds import colab as in_colab,lowest,tested
from colab import private
from common import project_copy,root,run
from environment import environment,wheel as build_wheel
from snnkit.encoding import digits
from snnkit.experiments import Store

commands = ['snnkit-train', 'snnkit-compare', 'snnkit-predict', 'snnkit-experiment', 'snnkit-bench']

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A folder with the sdist, and the wheel that was built from the sdist and nothing else"
    out = tmp_path_factory.mktemp('dist')
    with project_copy() as d:
        build = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, d]
        r = subprocess.run(build, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return out

@pytest.fixture(scope='module')
def wheel(built): return ZipFile(next(built.glob('*.whl')))

def read(wheel, name):
    "The file `name` of the wheel's metadata"
    return wheel.read(next(o for o in wheel.namelist() if o.endswith(f'.dist-info/{name}')))

@pytest.fixture(scope='module')
def meta(wheel): return message_from_bytes(read(wheel, 'METADATA'))

@pytest.fixture(scope='module')
def settings():
    cfg = ConfigParser()
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

@pytest.mark.parametrize('extra', ['', 'lab', 'dev', 'peers'])
def test_requirements(meta, settings, extra):
    want = {Requirement(o) for o in settings[f'{extra}_requirements'.strip('_')].splitlines() if o.strip()}
    ours = f'extra == "{extra}"'
    def is_ours(o): return str(o.marker).endswith(ours) if extra else 'extra' not in str(o.marker)
    have = filter(is_ours, map(Requirement, meta.get_all('Requires-Dist')))
    marker = lambda o: f'{o.marker} and {ours}' if extra and o.marker else ours if extra else str(o.marker)
    assert {(o.name, o.specifier, str(o.marker)) for o in have} == {(o.name, o.specifier, marker(o)) for o in want}

def test_facts(meta, settings):
    assert meta['Requires-Python'] == '>=3.10' and meta['License-Expression'] == 'Apache-2.0' and meta['Summary']
    assert set(meta.get_all('Provides-Extra')) == {'lab', 'dev', 'peers'}
    assert any(o.startswith('Development Status') for o in meta.get_all('Classifier'))
    assert any(o.startswith('Intended Audience') for o in meta.get_all('Classifier'))
    language = 'Programming Language :: Python'
    pythons = [o.split(' :: ')[-1] for o in meta.get_all('Classifier') if o.startswith(language)]
    assert pythons == ['3', *settings['pythons'].split()] and len(pythons)>1
    assert meta.get_payload(decode=True).decode().strip() == (root/'README.md').read_text(encoding='utf-8').strip()

def test_addresses(meta):
    "PyPI shows them, and nbdev writes the site's in every module"
    urls = dict(o.split(', ') for o in meta.get_all('Project-URL'))
    repo,cfg = urls['Repository'],get_config(root)
    user,name = repo.removeprefix('https://github.com/').split('/')
    assert urls['Documentation'] == f'https://{user.lower()}.github.io/{name}/' == f'{cfg.doc_host}{cfg.doc_baseurl}/'
    assert urls['Changelog'] == f'{repo}/blob/{cfg.branch}/CHANGELOG.md' and (root/'CHANGELOG.md').exists()
    assert urls['Issues'] == f'{repo}/issues'

def listed(settings, *keys):
    "The packages that the lists `keys` of settings.ini name, written as PyPI does"
    return {canonicalize_name(Requirement(o).name) for k in keys for o in settings[k].splitlines() if o.strip()}

def sources(node):
    "The modules from which the syntax `node` imports, by their full names"
    if isinstance(node, ast.Import): return [o.name for o in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level: return [node.module]
    return []

def imported():
    "The packages from which a module of snnkit imports anything, even where it does so only when that is needed"
    trees = [ast.parse(p.read_text(encoding='utf-8')) for p in (root/'snnkit').rglob('*.py')]
    names = {n for tree in trees for o in ast.walk(tree) for n in sources(o)}
    tops = {o.split('.')[0] for o in names} - sys.stdlib_module_names - {'snnkit'}
    known = packages_distributions()
    missing = tops - known.keys() - {'triton', 'spikingjelly', 'norse'} # of which not every Python and system has one
    assert not missing, f'not installed here: {missing}'
    return {canonicalize_name(known[o][0]) if o in known else o for o in tops}

def test_requirements_are_what_is_imported(settings):
    "Triton comes with torch where there is a GPU; peers are for the benchmark alone"
    needed = imported() - {'triton'} - listed(settings, 'peers_requirements')
    assert needed == listed(settings, 'requirements')

def test_lowest_releases(settings):
    "Every requirement has a lower bound, which `make bounds` can install, and no upper one"
    assert len(lowest(settings['requirements'].split())) == len(listed(settings, 'requirements'))
    with pytest.raises(SystemExit, match='numba'): lowest(['torch>=2.5', 'numba'])
    with pytest.raises(SystemExit, match='numba'): lowest(['numba>=0.62,<0.70'])

def test_what_the_bounds_are_tested_with_is_there():
    for o in tested: assert (root/f'tests/{o}.py').exists(), f'tools/bounds.py runs tests/{o}.py'

def test_colab_is_known_by_its_releases(settings):
    "Numba's is too old, so pip has to replace it; numpy and torch are new enough, so they stay"
    have = {canonicalize_name(n): v for n,v in (o.split('==') for o in in_colab)}
    assert listed(settings, 'requirements') <= have.keys()
    def is_too_old(r): return not r.specifier.contains(have[canonicalize_name(r.name)])
    old = {r.name for r in map(Requirement, settings['requirements'].split()) if is_too_old(r)}
    assert {'numba', 'llvmlite'} <= old <= {'numba', 'llvmlite', 'fastcore'}

def test_entry_points(wheel):
    points = read(wheel, 'entry_points.txt').decode()
    for o in commands: assert f'{o} = snnkit.' in points
    assert 'snnkit = snnkit._modidx:d' in points # so other projects' docs link to ours

def contents(wheel): return {o: wheel.read(o) for o in wheel.namelist()}

def packed(folder, *patterns):
    "The files below `folder` that match one of `patterns`, but for what Python and numba keep there"
    return [p for o in patterns for p in folder.glob(o) if p.is_file() and '__pycache__' not in p.parts]

def test_files(wheel, built):
    "Every file of the package and of its folders, and the records: no notebook, picture or test."
    made = {k: v for k,v in contents(wheel).items() if '.dist-info' not in k}
    ours = packed(root/'snnkit', '**/*') + packed(root/'results', '*.jsonl')
    assert made == {f"snnkit/{p.relative_to(root).as_posix().removeprefix('snnkit/')}": p.read_bytes() for p in ours}
    some = {'snnkit/py.typed', 'snnkit/weights/lenet-snn-digits.safetensors', 'snnkit/results/ablation-digits.jsonl'}
    assert some <= set(made)
    sdist = {o.partition('/')[2] for o in tarfile.open(next(built.glob('*.tar.gz'))).getnames()}
    assert {'settings.ini', 'CHANGELOG.md', 'CITATION.cff', 'LICENSE'} <= sdist

def test_subpackages_and_data_are_packed(tmp_path):
    "A folder of modules, and one of data with its source and licence, are in the wheel."
    modules = 'room/__init__.py', 'room/inner/__init__.py', 'room/door.py'
    added = *modules, 'stuff/data.npz', 'stuff/LICENSE', 'stuff/README.md'
    with project_copy() as d:
        for o in added:
            (d/'snnkit'/o).parent.mkdir(parents=True, exist_ok=True)
            (d/'snnkit'/o).write_text('')
        (d/'snnkit/room/__pycache__').mkdir()
        (d/'snnkit/room/__pycache__/door.pyc').write_text('')
        names = set(ZipFile(build_wheel(d)).namelist())
    want = {f'snnkit/{o}' for o in added}
    assert want <= names and not [o for o in names if '__pycache__' in o]

def test_sdist_builds_the_same_wheel_as_the_project(wheel):
    with project_copy() as d: assert contents(ZipFile(build_wheel(d))) == contents(wheel)

# Installed, with what it requires and nothing else

@pytest.fixture(scope='module')
def home(tmp_path_factory): return tmp_path_factory.mktemp('home')

@pytest.fixture
def call(home, tmp_path):
    "Runs a command of the folder `bin` for a user of whom nothing is known, far from the project; gives what it prints"
    env = {k: v for k,v in os.environ.items() if not k.startswith(private)} | dict(HOME=str(home))
    def call(bin, command, *args):
        cmd = [bin/command, *map(str, args)]
        p = subprocess.run(cmd, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert p.returncode == 0 and 'Traceback' not in p.stderr, p.stdout + p.stderr
        return p.stdout
    return call

@pytest.fixture(scope='module')
def user(built, tmp_path_factory):
    "The commands of an environment that has the wheel"
    return environment(tmp_path_factory.mktemp('user')/'env', next(built.glob('*.whl'))).parent

def test_every_module_is_there(call, user, wheel):
    files = [o.removesuffix('.py') for o in wheel.namelist() if o.endswith('.py')]
    mods = [o.removesuffix('/__init__').replace('/', '.') for o in files]
    call(user, 'python', '-c', f"""if 1:
        import sys
        from importlib import import_module
        for o in {mods}:
            try: assert import_module(o).__file__.startswith(sys.prefix)
            except ModuleNotFoundError as e:
                if (o, e.name) != ('snnkit.engine.fused', 'triton'): raise # on Linux the torch of PyPI brings it""")

def test_import_costs_little_more_than_torch(call, user):
    code = 'import time, torch; t = time.process_time(); import snnkit.layers; print((time.process_time()-t)/t)'
    assert float(call(user, 'python', '-c', code)) < .5

@pytest.mark.parametrize('command', commands)
def test_help(call, user, command): assert '--seed' in call(user, command, '--help')

def test_train(call, user, tmp_path):
    text = call(user, 'snnkit-train', '--num-steps', 2, '--epochs', 1, '--batch-size', 100)
    assert 'of 1,000 test images' in text and (tmp_path/'out/train/result.json').exists()

def test_a_network_moves_to_another_environment(call, user, tmp_path):
    "Trained here, asked there: the same scores of the same pictures"
    ours = partial(call, Path(sys.executable).parent)
    for i in range(3): Image.fromarray(digits()[0][900*i, 0].numpy()).save(tmp_path/f'{i}.png')
    ours('snnkit-train', '--part', 200, '--num-steps', 4, '--epochs', 1, '--out', tmp_path/'mine')
    ask = 'snnkit-predict', tmp_path/'0.png', tmp_path/'1.png', tmp_path/'2.png', '--out', tmp_path/'mine'
    said = ours(*ask)
    assert 'SNN in 4 steps' in said and said.count('.png')==3 and call(user, *ask)==said

def test_bench(call, user, tmp_path):
    options = '--libraries snnkit --data digits --num-steps 4 --batch-size 2 --threads 1 --runs 1 --steps 1'
    call(user, 'snnkit-bench', *options.split())
    assert Image.open(tmp_path/'out/bench/bench.png').size[0] > 200

@pytest.fixture
def records(call):
    "The keys of the records that an installation with the commands `bin` finds in an empty folder"
    code = 'from snnkit.experiments import Store; print(*Store().read())'
    def records(bin): return call(bin, 'python', '-c', code).split()
    return records

def test_records_are_in_the_wheel(call, records, user, home):
    "The ablation took a night, and a user has it at once."
    assert records(user) == list(Store(root/'results').read())
    assert call(user, 'snnkit-experiment', 'ablation').count('norm=') >= 3 and not (home/'.cache/snnkit/runs').exists()

def test_installed_in_place(call, records, built, tmp_path):
    "An installation for work on the project itself has its modules, its subpackages and its records."
    py = environment(tmp_path/'env', next(built.glob('*.whl')), ['setuptools'])
    with project_copy() as d:
        (d/'snnkit/room').mkdir()
        (d/'snnkit/room/__init__.py').write_text('')
        pip = [sys.executable, '-m', 'pip', '--python', py, 'install', '-q']
        run([*pip, '--no-deps', '--no-index', '--no-build-isolation', '-e', d], d)
        assert records(py.parent) == list(Store(root/'results').read())
        def file(mod): return call(py.parent, 'python', '-c', f'import {mod}; print({mod}.__file__)').strip()
        assert file('snnkit') == str(d/'snnkit/__init__.py')
        assert file('snnkit.room') == str(d/'snnkit/room/__init__.py')
