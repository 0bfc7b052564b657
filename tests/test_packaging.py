"What a user gets from PyPI: the sdist and the wheel made from it, with every requirement and command."
import subprocess,sys,tarfile
from configparser import ConfigParser
from email import message_from_bytes
from zipfile import ZipFile
import pytest
from packaging.requirements import Requirement
from common import project_copy,root

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
    assert meta.get_payload().strip() == (root/'README.md').read_text(encoding='utf-8').strip()

def test_commands(wheel):
    points = read(wheel, 'entry_points.txt').decode()
    for o in ('train = snnkit.cli:train', 'compare = snnkit.cli:compare', 'bench = snnkit.bench:bench'): assert f'snnkit-{o}' in points
    assert 'snnkit = snnkit._modidx:d' in points # so other projects' docs link to ours

def test_files(wheel, built):
    made = {o for o in wheel.namelist() if '.dist-info' not in o}
    assert made == {p.relative_to(root).as_posix() for o in ('*.py', 'weights/*.safetensors') for p in (root/'snnkit').glob(o)}
    assert any(o.endswith('/settings.ini') for o in tarfile.open(next(built.glob('*.tar.gz'))).getnames())
