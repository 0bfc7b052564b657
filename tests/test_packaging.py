"What a user gets from PyPI: the sdist and the wheel made from it, every requirement and command, and that it works where nothing else is installed."
import os,subprocess,sys,tarfile
from configparser import ConfigParser
from email import message_from_bytes
from zipfile import ZipFile
import pytest
from PIL import Image
from packaging.requirements import Requirement
from colab import private
from common import project_copy,root,run
from environment import environment,wheel as build_wheel
from snnkit.experiments import Store

commands = ['snnkit-train', 'snnkit-compare', 'snnkit-experiment', 'snnkit-bench']

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A folder with the sdist, and the wheel that was built from the sdist and nothing else"
    out = tmp_path_factory.mktemp('dist')
    with project_copy() as d:
        r = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, d], capture_output=True, text=True)
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
    have = map(Requirement, meta.get_all('Requires-Dist'))
    ours = f'extra == "{extra}"'
    have = [o for o in have if str(o.marker).endswith(ours)] if extra else [o for o in have if 'extra' not in str(o.marker)]
    marker = lambda o: f'{o.marker} and {ours}' if extra and o.marker else ours if extra else str(o.marker)
    assert {(o.name, o.specifier, str(o.marker)) for o in have} == {(o.name, o.specifier, marker(o)) for o in want}

def test_facts(meta, settings):
    assert meta['Requires-Python'] == '>=3.10' and meta['License-Expression'] == 'Apache-2.0' and meta['Summary']
    assert set(meta.get_all('Provides-Extra')) == {'lab', 'dev', 'peers'}
    assert any(o.startswith('Repository, https://') for o in meta.get_all('Project-URL'))
    assert any(o.startswith('Development Status') for o in meta.get_all('Classifier'))
    assert any(o.startswith('Intended Audience') for o in meta.get_all('Classifier'))
    pythons = [o.split(' :: ')[-1] for o in meta.get_all('Classifier') if o.startswith('Programming Language :: Python')]
    assert pythons == ['3', *settings['pythons'].split()] and len(pythons)>1
    assert meta.get_payload(decode=True).decode().strip() == (root/'README.md').read_text(encoding='utf-8').strip()

def test_entry_points(wheel):
    points = read(wheel, 'entry_points.txt').decode()
    for o in commands: assert f'{o} = snnkit.' in points
    assert 'snnkit = snnkit._modidx:d' in points # so other projects' docs link to ours

def contents(wheel): return {o: wheel.read(o) for o in wheel.namelist()}

def test_files(wheel, built):
    "The modules, the trained weights and the records: no notebook, picture, data set or test."
    made = {k: v for k,v in contents(wheel).items() if '.dist-info' not in k}
    ours = [*(root/'snnkit').glob('*.py'), *(root/'snnkit/weights').glob('*.safetensors'), *(root/'results').glob('*.jsonl')]
    assert made == {f"snnkit/{p.relative_to(root).as_posix().removeprefix('snnkit/')}": p.read_bytes() for p in ours}
    assert any(o.endswith('/settings.ini') for o in tarfile.open(next(built.glob('*.tar.gz'))).getnames())

def test_sdist_builds_the_same_wheel_as_the_project(wheel):
    with project_copy() as d: assert contents(ZipFile(build_wheel(d))) == contents(wheel)

# Installed, with what it requires and nothing else

@pytest.fixture(scope='module')
def home(tmp_path_factory): return tmp_path_factory.mktemp('home')

@pytest.fixture
def call(home, tmp_path):
    "Runs a command of the folder `bin` for a user of whom nothing is known, far from the project, and gives what it prints"
    env = {k: v for k,v in os.environ.items() if not k.startswith(private)} | dict(HOME=str(home))
    def call(bin, command, *args):
        p = subprocess.run([bin/command, *map(str, args)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert p.returncode == 0 and 'Traceback' not in p.stderr, p.stdout + p.stderr
        return p.stdout
    return call

@pytest.fixture(scope='module')
def user(built, tmp_path_factory):
    "The commands of an environment that has the wheel"
    return environment(tmp_path_factory.mktemp('user')/'env', next(built.glob('*.whl'))).parent

def test_every_module_is_there(call, user, wheel):
    mods = [o.removesuffix('.py').removesuffix('/__init__').replace('/', '.') for o in wheel.namelist() if o.endswith('.py')]
    call(user, 'python', '-c', f"""if 1:
        import sys; from importlib import import_module
        for o in {mods}:
            try: assert import_module(o).__file__.startswith(sys.prefix)
            except ModuleNotFoundError as e:
                if (o, e.name) != ('snnkit.engine.fused', 'triton'): raise # on Linux the torch of PyPI brings it""")

def test_import_costs_little_more_than_torch(call, user):
    code = 'import time, torch; t = time.process_time(); import snnkit.layers; print((time.process_time()-t)/t)'
    assert float(call(user, 'python', '-c', code)) < .5

@pytest.mark.parametrize('command', commands)
def test_help(call, user, command): assert '--data' in call(user, command, '--help')

def test_train(call, user, tmp_path):
    text = call(user, 'snnkit-train', '--num-steps', 2, '--epochs', 1, '--batch-size', 100)
    assert 'of 1,000 test images' in text and (tmp_path/'out/train/result.json').exists()

def test_bench(call, user, tmp_path):
    call(user, 'snnkit-bench', *'--libraries snnkit --data digits --num-steps 4 --batch-size 2 --threads 1 --runs 1 --steps 1'.split())
    assert Image.open(tmp_path/'out/bench/bench.png').size[0] > 200

@pytest.fixture
def records(call):
    "The keys of the records that an installation with the commands `bin` finds in an empty folder"
    def records(bin): return call(bin, 'python', '-c', 'from snnkit.experiments import Store; print(*Store().read())').split()
    return records

def test_records_are_in_the_wheel(call, records, user, home):
    "The ablation took a night, and a user has it at once."
    assert records(user) == list(Store(root/'results').read())
    assert call(user, 'snnkit-experiment', 'ablation').count('norm=') >= 3 and not (home/'.cache/snnkit/runs').exists()

def test_installed_in_place(call, records, built, tmp_path):
    "An installation for work on the project itself has its modules and its records."
    py = environment(tmp_path/'env', next(built.glob('*.whl')), ['setuptools'])
    with project_copy() as d:
        run([sys.executable, '-m', 'pip', '--python', py, 'install', '-q', '--no-deps', '--no-index', '--no-build-isolation', '-e', d], d)
        assert records(py.parent) == list(Store(root/'results').read())
        assert call(py.parent, 'python', '-c', 'import snnkit; print(snnkit.__file__)').strip() == str(d/'snnkit/__init__.py')
