"""Opens the explorers in JupyterLab: a copy of nbs/play.ipynb in out/play, so that the notebook of the project stays as
it is. tools/play.js, an extension of JupyterLab's for this page alone, runs the copy at once and hides its code. Your
own settings of JupyterLab are left alone. Options are JupyterLab's: `tools/play.py --no-browser`."""
import json,os,re,sys
from shutil import copy,rmtree
from fastcore.nbio import read_nb,write_nb
from common import root

out = root/'out/play'
settings = {
    'notebook-extension/tracker': {'windowingMode': 'none'}, # all explorers on the page, not only those in view
    'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False}}

def page():
    "The notebook to play with, as a page without code: links lead from the copy to the notebooks of the project"
    nb = read_nb(root/'nbs/play.ipynb')
    nb.cells = [o for o in nb.cells if o.cell_type == 'code' or 'Colab' not in o.source]
    for o in nb.cells:
        if o.cell_type == 'code': o.metadata['jupyter'],o['outputs'] = dict(source_hidden=True),[]
        else: o.source = re.sub(r'\]\((?=[\w/]+\.ipynb)', '](../../nbs/', o.source)
    return nb

def extension():
    "JupyterLab's folder of extensions, with that of this page"
    at = out/'labextensions/snnkit-play'
    (at/'static').mkdir(parents=True)
    copy(root/'tools/play.js', at/'static')
    build = dict(load='static/play.js', extension='./extension')
    (at/'package.json').write_text(json.dumps(dict(name='snnkit-play', version='1.0.0', jupyterlab=dict(_build=build))))
    return at.parent

def prepare():
    "Write all that the page needs; the options that let JupyterLab find it"
    rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_nb(page(), out/'play.ipynb')
    for name,conf in settings.items():
        at = out/'settings/@jupyterlab'/f'{name}.jupyterlab-settings'
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(json.dumps(conf))
    lab = dict(default_url='/doc/tree/out/play/play.ipynb', user_settings_dir=out/'settings',
               workspaces_dir=out/'workspaces', extra_labextensions_path=extension())
    return [f'--ServerApp.root_dir={root}', *(f'--LabApp.{k}={v}' for k,v in lab.items())]

if __name__ == '__main__':
    options = prepare()
    os.chdir(root)
    lab = [sys.executable, '-m', 'jupyterlab', *options, *sys.argv[1:]]
    os.execv(sys.executable, lab)
