"The house stands without its machine room: the chapters before it, by plain torch alone."
import os,subprocess,sys
from shutil import rmtree
import pytest
from common import project_copy

parts = 'core encoding neuron spikebp layers store'.split() # of a few seconds each

# An installation in place lets Python find the project's own modules where the copy has none
blind = "import sys; sys.meta_path[:] = [o for o in sys.meta_path if 'Editable' not in str(o)]"

@pytest.fixture(scope='module')
def house():
    "A copy of the project in which there is no engine"
    with project_copy() as d:
        for o in 'snnkit/engine', 'tests/machine_room', 'nbs/machine_room': rmtree(d/o)
        (d/'sitecustomize.py').write_text(blind)
        yield d

def python(d, *args):
    "What Python prints in the copy of the project at `d`"
    env = os.environ | dict(PYTHONPATH=str(d), OMP_NUM_THREADS='1')
    cmd = [sys.executable, *args]
    r = subprocess.run(cmd, cwd=d, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    return r.stdout

def test_every_other_module_is_there(house):
    code = '''
import pkgutil, snnkit
from importlib import import_module
names = [o.name for o in pkgutil.walk_packages(snnkit.__path__, 'snnkit.')]
for o in names: import_module(o)
from snnkit.layers import roads, use
assert 'snnkit.engine.roads' not in names and 'snnkit.experiments' in names
try:
    with use('numba'): pass
except ValueError as e: print(e)'''
    assert 'is not installed' in python(house, '-c', code)

def test_other_parts(house):
    "Their tests are green"
    files = [f'tests/test_{o}.py' for o in parts]
    assert ' passed' in python(house, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'not slow', *files)
