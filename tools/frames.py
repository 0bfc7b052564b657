"""Lets a slider move the explorers' pictures on pages that have no kernel behind them.

Each explorer of `ranges` that a processed notebook shows is made again, and draws one picture for each value of one of
its controls. The still picture of the page becomes these pictures, one of which is seen, above a slider that chooses
among them; without scripts the still one stays. The pictures lie within the page, so that it can be read from a file,
and smalldocs and Quarto treat it alike. On the command line: `tools/frames.py _proc`, between `nbdev-proc-nbs` and
`nbdev-docs`."""
import ast,base64,html,sys
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from fastcore.nbio import read_nb,write_nb
from fastcore.script import call_parse
from PIL import Image
from common import alts

tenths = tuple(i/10 for i in range(11))
# The control that a page's slider moves, and where it stops (see `stops`)
ranges = dict(
    EncoderExplorer=('num_steps', (1, 2, 4, 8, 12, 16, 25, 40, 64, 100)),
    NeuronExplorer=('amplitude', (0., .4, .6, 1., 1.5, 2., 3., 4., 6., 10.)),
    GradientExplorer=('threshold', (.2, .4, .6, .8, 1., 1.2, 1.5, 2., 3., 5.)),
    NetworkExplorer=('intensity', tenths),
    ConversionExplorer=('num_steps', (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)),
    FieldsExplorer=('intensity', tenths),
    EconomyExplorer=('num_steps', (1, 2, 4, 8)))
script = (Path(__file__).parent/'site/frames.js').read_text(encoding='utf-8')

def shown(cell):
    "The call that makes the explorer which `cell` shows, as code; nothing for any other cell"
    if cell.cell_type != 'code' or not any('image/png' in o.get('data', {}) for o in cell.outputs): return ''
    body = (cell.parsed_() or [None])[-1:]
    call = getattr(body[0], 'value', None) if body else None
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ranges
    return ast.unparse(call) if named else ''

def stops(control, values):
    "Those of `values` that `control` takes, and the one that it has"
    if hasattr(control, 'options'): taken = {v for v in values if v in control.options}
    else: taken = {v for v in values if control.min<=v<=control.max}
    return sorted(taken | {control.value})

def made(call):
    "The explorer that the code `call` makes, the name of the control to move, and its values"
    e = eval(call, vars(import_module('snnkit.explorers')))
    name,values = ranges[type(e).__name__]
    if name not in e.controls:
        sys.exit(f'tools/frames.py: {type(e).__name__} has no control {name!r}, it has {", ".join(e.controls)}')
    return e,name,stops(e.controls[name], values)

def webp(png):
    "The picture in the bytes `png` as a smaller one without loss, ready for a page"
    with BytesIO() as f, Image.open(BytesIO(png)) as image:
        image.convert('RGB').save(f, format='webp', lossless=True, method=4)
        return f'data:image/webp;base64,{base64.b64encode(f.getvalue()).decode()}'

@cache
def drawn(call):
    "Of the explorer that `call` makes: its slider's name and values, the place of the first one, a picture for each"
    e,name,values = made(call)
    label,first,pictures = e.controls[name].description,values.index(e.controls[name].value),[]
    for v in values:
        e.set(**{name: v})
        pictures.append(webp(e.picture.value))
    return label,[f'{v:g}' for v in values],first,pictures

def figure(call, alt):
    "The explorer that `call` makes as a piece of a page, its picture described by `alt`"
    label,values,first,pictures = drawn(call)
    def picture(i):
        text,state = (alt, '') if i==first else (f'The same for {label} = {values[i]}', 'hidden ')
        return f'<img {state}class="img-fluid" src="{pictures[i]}" alt="{html.escape(text)}">'
    slider = f'<input type="range" min="0" max="{len(values)-1}" value="{first}" data-values="{" ".join(values)}">'
    moved = f'<label hidden><span>{html.escape(label)}</span> {slider} <output>{values[first]}</output></label>'
    parts = '\n'.join([*map(picture, range(len(values))), moved])
    return f'<figure class="frames">\n{parts}\n<script>\n{script}</script>\n</figure>'

def add_frames(proc):
    "Put a slider under each explorer of the processed notebooks in the folder `proc`; how many there are now"
    n = 0
    for path in sorted(proc.rglob('*.ipynb')):
        nb = read_nb(path)
        found = [(c, call) for c in nb.cells if (call := shown(c))]
        for c,call in found:
            i,o = next((i, o) for i,o in enumerate(c.outputs) if 'image/png' in o.get('data', {}))
            o['data'] = {'text/html': figure(call, alts(c, c.directives)[i])}
        if found: write_nb(nb, path)
        n += len(found)
    return n

@call_parse
def main(proc:str): # Folder of the notebooks that nbdev has processed
    print(f'frames: {add_frames(Path(proc))} explorers follow a slider')
