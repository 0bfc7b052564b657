"""Runs notebooks as Colab does: in a kernel with Colab's IPython, ipywidgets, numpy, pandas, matplotlib and whatever
else pip leaves in place there, with snnkit as pip installs it and without what only its developers have, in an empty
folder, with empty caches."""
import json,os,re,sys
from contextlib import contextmanager
from functools import partial
from shutil import rmtree
from tempfile import mkdtemp
from filelock import FileLock
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from packaging.requirements import Requirement
from bounds import colab as releases,required
from common import root,run
from environment import environment

# What pip finds too old in Colab, as numba, it replaces by the newest release, which is what is installed here. Colab's
# torch is left to `make bounds`: PyPI has it with CUDA only, 3 GB that `make test` has no time for. And for Python 3.13
# there is no numpy 2.0
heavy = 'torch', 'torchvision'
def stays(release):
    "Does pip leave `release` in place when it installs snnkit?"
    name,version = release.split('==')
    return any(o.name == name and o.specifier.contains(version) for o in map(Requirement, required()))

kept = [o for o in releases if stays(o) and not o.startswith(heavy)] if sys.version_info < (3, 13) else []
fixed = dict(ipython='7.34.0', ipywidgets='7.7.1', ipykernel='6.17.1', traitlets='5.7.1')
colabs = fixed | dict(o.split('==') for o in kept)
# What today's versions of these no longer need
alone = ['backcall', 'decorator', 'ipython-genutils', 'nest-asyncio', 'pickleshare', 'pytz', 'tzdata']
unused = ['debugpy', 'jupyterlab-widgets', 'widgetsnbextension'] # what a kernel does without
besides = ['triton; sys_platform == "linux"', 'snnkit[peers]']   # what Colab's torch brings, and one notebook compares
private = 'PYTHON', 'JUPYTER', 'IPYTHON', 'IN_TEST', 'XDG_', 'MPL', 'SNNKIT_' # variables that a user has not set
pins = [f'{k}=={v}' for k,v in colabs.items()]

def pinned():
    "The folder with Colab's old packages, filled on first use"
    at,want = root/'.venv/colab','\n'.join(pins + alone)
    at.mkdir(parents=True, exist_ok=True)
    with FileLock(at/'lock'):
        if not (at/'made').exists() or (at/'made').read_text() != want:
            for o in at.iterdir(): # of another set of releases nothing must stay
                if o.name != 'lock': rmtree(o) if o.is_dir() else o.unlink()
            pip = sys.executable, '-m', 'pip', 'install', '-q', '--no-compile', '--no-deps', '--upgrade'
            run([*pip, '--target', at, *pins, *alone], root)
            (at/'made').write_text(want)
    return at

def colab(at, wheel):
    "An environment like Colab's in the folder `at`; where its kernel is described"
    py,spec = environment(at, wheel, pins + besides, [pinned()], unused),at/'kernels/colab/kernel.json'
    spec.parent.mkdir(parents=True)
    argv = [str(py), '-m', 'ipykernel_launcher', '-f', '{connection_file}', '--log-level=ERROR']
    spec.write_text(json.dumps(dict(argv=argv, display_name='Colab', language='python')))
    return KernelSpecManager(kernel_dirs=[str(at/'kernels')])

@contextmanager
def kernel(specs, home, **env):
    "A client of a new kernel, which has `home` as its home directory and works in an empty folder"
    env = {k: v for k,v in os.environ.items() if not k.startswith(private)} | dict(HOME=str(home)) | env
    manager = KernelManager(kernel_name='colab', kernel_spec_manager=specs)
    manager.start_kernel(env=env, cwd=mkdtemp(dir=home))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(300)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel()

def passes(c):
    "Will what a message's content `c` shows be drawn over, or is it a progress bar?"
    return bool(c.get('transient') or re.search(r'\d%\|', c['data'].get('text/plain', '')))

def collect(outputs, message):
    "Add to `outputs` what `message` shows for good: no progress bar, and nothing that will be drawn over"
    kind,c = message['msg_type'],message['content']
    if kind == 'stream' and outputs and outputs[-1].get('name') == c['name']: outputs[-1]['text'] += c['text']
    elif kind == 'stream': outputs.append(dict(output_type=kind, **c))
    elif kind in ('display_data', 'execute_result') and not passes(c):
        is_explorer = any('widget' in o for o in c['data'])
        view = {'image/png': ''} if is_explorer else {} # a page has a picture of it
        outputs.append(dict(output_type=kind, data={k: v for k,v in c['data'].items() if 'widget' not in k} | view))

def ask(client, code, outputs):
    "Run `code`, keep what it shows in `outputs`; the error, if it ended in one"
    hook = partial(collect, outputs)
    try: reply = client.execute_interactive(code, allow_stdin=False, timeout=1800, output_hook=hook)
    except TimeoutError as e: return str(e)
    r = reply['content']
    return '' if r['status'] == 'ok' else f"{r.get('ename')}: {r.get('evalue')}"

check = f"""import snnkit,sys
from importlib.metadata import version
from importlib.util import find_spec
other = {{k: version(k) for k,v in {colabs}.items() if version(k) != v}}
assert not other and not find_spec('nbdev'), f'not as in Colab: {{other}}'
assert snnkit.__file__.startswith(sys.prefix), 'not the snnkit that was installed'"""

def play(specs, home, nb, **env):
    "Run the code cells of `nb` from first to last and keep their outputs in it; the error that ended it, if one did"
    with kernel(specs, home, **env) as client:
        for c in nb.cells:
            if c.cell_type != 'code': continue
            c['outputs'] = []
            if error := ask(client, c.source, c['outputs']): return f'cell {c.id}: {error}'
        return ask(client, check, [])
