"""Runs notebooks as Colab does: in a kernel with Colab's IPython and ipywidgets, with snnkit as pip installs it and without what only
its developers have, in an empty folder, with empty caches."""
import json,os,re,sys
from contextlib import contextmanager
from functools import partial
from tempfile import mkdtemp
from filelock import FileLock
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from common import root,run
from environment import environment

colabs = dict(ipython='7.34.0', ipywidgets='7.7.1', ipykernel='6.17.1', traitlets='5.7.1')
alone = ['backcall', 'decorator', 'ipython-genutils', 'nest-asyncio', 'pickleshare'] # what today's versions of these no longer need
unused = ['debugpy', 'jupyterlab-widgets', 'widgetsnbextension']                     # what a kernel does without
besides = ['triton; sys_platform == "linux"', 'snnkit[peers]']                       # what Colab's torch brings, and what one notebook compares
private = 'PYTHON', 'JUPYTER', 'IPYTHON', 'IN_TEST', 'XDG_', 'MPL', 'SNNKIT_'        # variables that a user has not set
pins = [f'{k}=={v}' for k,v in colabs.items()]

def pinned():
    "The folder with Colab's old packages, filled on first use"
    at,want = root/'.venv/colab','\n'.join(pins + alone)
    at.mkdir(parents=True, exist_ok=True)
    with FileLock(at/'lock'):
        if not (at/'made').exists() or (at/'made').read_text() != want:
            run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--upgrade', '--target', at, *pins, *alone], root)
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

def collect(outputs, message):
    "Add to `outputs` what `message` shows for good: no progress bar, and nothing that will be drawn over"
    kind,c = message['msg_type'],message['content']
    if kind == 'stream' and outputs and outputs[-1].get('name') == c['name']: outputs[-1]['text'] += c['text']
    elif kind == 'stream': outputs.append(dict(output_type=kind, **c))
    elif kind in ('display_data', 'execute_result') and not c.get('transient') and not re.search(r'\d%\|', c['data'].get('text/plain', '')):
        view = {'image/png': ''} if any('widget' in o for o in c['data']) else {} # an explorer, of which a page has a picture
        outputs.append(dict(output_type=kind, data={k: v for k,v in c['data'].items() if 'widget' not in k} | view))

def ask(client, code, outputs):
    "Run `code`, keep what it shows in `outputs`; the error, if it ended in one"
    try: r = client.execute_interactive(code, allow_stdin=False, timeout=1800, output_hook=partial(collect, outputs))['content']
    except TimeoutError as e: return str(e)
    return '' if r['status'] == 'ok' else f"{r.get('ename')}: {r.get('evalue')}"

check = f"""import IPython,ipywidgets,snnkit,sys
from importlib.util import find_spec
assert IPython.__version__ == '{colabs['ipython']}' and ipywidgets.__version__ == '{colabs['ipywidgets']}' and not find_spec('nbdev'), 'not as in Colab'
assert snnkit.__file__.startswith(sys.prefix), 'not the snnkit that was installed'"""

def play(specs, home, nb, **env):
    "Run the code cells of `nb` from first to last and keep their outputs in it; the error that ended it, if one did"
    with kernel(specs, home, **env) as client:
        for c in nb.cells:
            if c.cell_type != 'code': continue
            c['outputs'] = []
            if error := ask(client, c.source, c['outputs']): return f'cell {c.id}: {error}'
        return ask(client, check, [])
