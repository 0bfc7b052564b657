"""Does snnkit work with all the releases that settings.ini allows? Makes the wheel, lets pip install it into a new
environment, imports every module there and runs the tests of the network, its gradients and its training. Needs Python
and pip alone, and a gigabyte or more from PyPI: `make bounds` for the lowest releases,
`make bounds PYTHON=python3.13 ARGS=newest`, `make bounds PYTHON=python3.12 ARGS=colab`."""
import argparse,os,re,subprocess,sys
from configparser import ConfigParser
from pathlib import Path
from shutil import copytree,ignore_patterns
from tempfile import TemporaryDirectory

root = Path(__file__).resolve().parent.parent
chapters = 'encoding', 'neuron', 'spikebp', 'layers', 'models', 'training'
tested = *(f'test_{o}' for o in chapters), 'machine_room/test_engine'
runners = 'pytest', 'pytest-xdist', 'hypothesis'

# What Colab's image of February 2026 (Python 3.12.12) has of what snnkit requires. It is what a user's
# `pip install snnkit` meets: numba 0.60 is replaced, as snnkit requires a newer one, and numpy and torch stay. The
# image's torch is this release for CUDA 12.8
colab = '''torch==2.10.0 torchvision==0.25.0 numba==0.60.0 llvmlite==0.43.0 numpy==2.0.2 matplotlib==3.10.0
    Pillow==11.3.0 ipython==7.34.0 ipywidgets==7.7.1 traitlets==5.7.1 fastcore==1.12.16 accelerate==1.12.0
    scikit-learn==1.6.1 scipy==1.16.3 pandas==2.2.2 tqdm==4.67.3 joblib==1.5.3 filelock==3.24.3
    safetensors==0.7.0'''.split()
stays = 'torch==', 'numpy==' # which thousands of notebooks rely on: snnkit must not move them

def required():
    "The lines of settings.ini that say what a user needs"
    cfg = ConfigParser()
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']['requirements'].split()

def lowest(reqs):
    "The lowest releases that `reqs` allow; ends if one has no lower bound"
    odd = [o for o in reqs if not re.fullmatch(r'[\w.-]+>=[\w.]+', o)]
    if odd: sys.exit(f'settings.ini: no lower bound in {odd}')
    return [o.replace('>=', '==') for o in reqs]

def run(*cmd, **kw):
    "Run `cmd`, show what it prints, end if it fails"
    print('$', *cmd, flush=True)
    done = subprocess.run(cmd, stdin=subprocess.DEVNULL, **kw)
    if done.returncode: sys.exit(f'bounds: {" ".join(map(str, cmd))} failed')

def wheel(d):
    "The wheel of the project, made in the folder `d` from a copy, so that nothing is left in the project"
    made = ignore_patterns('.git', '.venv', 'out', '_proc', '_docs', 'build', 'dist', '*.egg-info', '__pycache__')
    copytree(root, d/'project', ignore=made)
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', d, d/'project')
    return next(d.glob('snnkit-*.whl'))

def install(d, which):
    "A new environment in `d` with snnkit, as pip installs it with the releases that `which` names; its Python"
    run(sys.executable, '-m', 'venv', d/'env')
    py,limits = d/'env/bin/python',d/'limits.txt'
    pip = py, '-m', 'pip', 'install', '-q'
    fixed = dict(lowest=lowest(required()), newest=[], colab=[o for o in colab if o.startswith(stays)])
    limits.write_text('\n'.join(fixed[which]))
    run(*pip, '--upgrade', 'pip')
    if which == 'colab': run(*pip, *colab)
    run(*pip, '-c', limits, wheel(d), *runners)
    return py

everything = """import importlib,pkgutil,sys,snnkit
assert snnkit.__file__.startswith(sys.prefix), snnkit.__file__
for o in pkgutil.walk_packages(snnkit.__path__, 'snnkit.'):
    try: importlib.import_module(o.name)
    except ModuleNotFoundError as e:
        if e.name != 'triton': raise # which kernels for a GPU need, and torch for a CPU does not bring
from importlib.metadata import version
print(sys.version.split()[0], *(f'{o} {version(o)}' for o in sys.argv[1:]), sep=', ')"""

def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument('which', nargs='?', default='lowest', choices=['lowest', 'newest', 'colab'],
                      help='releases to install (default: lowest)')
    which = args.parse_args().which
    with TemporaryDirectory() as d:
        d = Path(d).resolve()
        py = install(d, which)
        env = {k: v for k,v in os.environ.items() if not k.startswith(('PYTHON', 'SNNKIT_'))}
        env |= dict(HOME=str(d), OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive')
        run(py, '-c', everything, *(re.split('[>=]', o)[0] for o in required()), cwd=d, env=env)
        copytree(root/'tests', d/'tests', ignore=ignore_patterns('__pycache__'))
        pytest = py, '-m', 'pytest', '-q', '-n', 'auto', '--maxprocesses', '4', '-p', 'no:cacheprovider'
        run(*pytest, *(f'tests/{o}.py' for o in tested), cwd=d, env=env)
    print(f'bounds: snnkit works with the {which} releases on Python {sys.version.split()[0]}')

if __name__ == '__main__': main()
