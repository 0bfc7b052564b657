"""Do the notebooks run, and do they show what they give? Runs all of them as Colab does, each in an empty folder, and
compares their outputs with the stored ones: the same words, nearly the same numbers (CPUs round differently), as many
pictures. A cell that says `# numbers vary between CPUs`, because it trains, is held to its words and pictures. With
`--save` the outputs are those of `nbdev-test` in a copy of the project, and are stored. Names choose notebooks:
`tools/notebooks.py --save 02_neuron.ipynb`."""
import re
from concurrent.futures import ThreadPoolExecutor
from math import isclose
from shutil import copy,copytree
from time import perf_counter
from fastcore.nbio import read_nb
from fastcore.script import call_parse
from colab import colab,play
from common import notebooks,project_copy,report,root,run,share_kernels
from environment import wheel

# One thread and one instruction set, so that a training run rounds as alike as can be on different x86 CPUs. Threads
# that a page asks for let go of their processor while they wait, since several pages run at a time
same = dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive', ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2',
            MKL_CBWR='COMPATIBLE')
number = re.compile(r'[-+]?\d+(?:,\d{3})*(?:\.\d*)?(?:e[-+]?\d+)?', re.I)
unwanted = {'a progress bar': r'\d ?(it/s|s/it)|\d%\|', 'a line drawn over another': r'\r', 'a warning': r'Warning\b',
            'a path of a machine': rf'/(home|root|tmp|Users)/|site-packages|{re.escape(str(root))}'}

def texts_of(data):
    "The texts in the `data` of an output, each as (kind, text); of a table that has two, the one in HTML"
    kinds = [k for k in data if k.startswith('text')]
    if 'text/html' in data: kinds = [k for k in kinds if k != 'text/plain']
    return [(k, data[k]) for k in kinds]

def shown(cell):
    "What a reader sees below `cell`: its text, and the number of pictures"
    outs = cell.get('outputs', [])
    data = [o.get('data', {'text': o.get('text', '')}) for o in outs]
    texts = [text for o in data for text in texts_of(o)]
    texts.sort(key=lambda o: (o[0], words(o[1]))) # kernels differ in what comes first, a figure or a result
    return '\n'.join(o[1] for o in texts), sum('image/png' in o for o in data)

def words(text):
    "`text` without its numbers, and without what follows from their width"
    return re.sub(r'-{2,}', '--', number.sub('#', text)).split()

def numbers(text): return [float(o.replace(',', '')) for o in number.findall(text)]

def differs(old, new, vary):
    "How the stored text `old` differs from the `new` one, if it does; numbers may if they `vary`"
    if words(old) != words(new): return f'stored  {old.strip()[:500]!r}\n    now     {new.strip()[:500]!r}'
    if vary: return ''
    far = [f'{a:g} -> {b:g}' for a,b in zip(numbers(old), numbers(new)) if not isclose(a, b, rel_tol=.05, abs_tol=.02)]
    return 'numbers changed: ' + ', '.join(far[:5]) if far else ''

# The kit's own words on a network that it trains; a page may show them
spoken = re.compile(r'^Warning: In layer .*\n?', re.M)

def heard(out):
    "What the output `out` says beside the results, but for the kit's own words"
    return spoken.sub('', out['text']) if out.get('name') == 'stderr' else ''

def problems(old, new):
    "What is wrong with the stored outputs of notebook `old`, of which `new` is a fresh run"
    if 'plt.' in str(new.cells) and not any(shown(c)[1] for c in old.cells): yield 'shows no picture'
    for a,b in zip(old.cells, new.cells):
        (text,pics),(now,made) = shown(a),shown(b)
        found = [f'shows {what}' for what,pat in unwanted.items() if re.search(pat, spoken.sub('', text))]
        found += ['wrote to stderr' for o in a.get('outputs', []) if heard(o).strip()]
        found += ['shows an error' for o in a.get('outputs', []) if o.output_type == 'error']
        if pics != made: found.append(f'has {pics} pictures stored and draws {made}')
        found.append(differs(text, now, '# numbers vary between CPUs' in a.source))
        yield from (f'cell {a.id}: {o}' for o in found if o)

def save_outputs(d, nbs, names):
    "Store in `nbs` what the same notebooks show in the copy of the project at `d`"
    share_kernels(d/'snnkit')
    chosen = ['--file-re', '|'.join(map(re.escape, names))] if names else []
    run(['nbdev-test', '--save', '--n-workers', '2', *chosen], d, **same)
    run(['nbdev-clean'], d)
    for o in nbs: copy(d/o.relative_to(root), o)

def fresh(d, nbs):
    "Runs of `nbs` as in Colab, with the wheel of the copy at `d`; the error that ended each, if one did, and seconds"
    specs,home = colab(d.parent/'colab', wheel(d)),d.parent/'home'
    copytree(root/'zoo', home/'.cache/snnkit/zoo') # what a reader would fetch
    new = [read_nb(o) for o in nbs]
    def timed(nb):
        start = perf_counter()
        return play(specs, home, nb, **same),perf_counter()-start
    with ThreadPoolExecutor(3) as ex: done = [*ex.map(timed, reversed(new))] # the longest, which come last, first
    return new,*zip(*reversed(done))

@call_parse
def main(*names:str,       # Only these notebooks
         save:bool=False): # Store the outputs instead of comparing them?
    nbs = [o for o in notebooks(root) if not names or o.name in names]
    with project_copy() as d:
        if save:
            save_outputs(d, nbs, names)
            return print(f'notebooks: outputs of {len(nbs)} stored')
        new,errors,seconds = fresh(d, nbs)
    ended = [f'{o.name}, {e}' for o,e in zip(nbs, errors) if e]
    report(ended, 'In Colab, which has no package that only developers need, they would end there.')
    wrong = [f'{o.name}, {p}' for o,nb in zip(nbs, new) for p in problems(read_nb(o), nb)]
    report(wrong, '`make outputs` runs the notebooks and stores what they show.')
    slowest = sorted(zip(seconds, nbs), reverse=True)[:5]
    times = [f'{o.stem} {s:.0f} s' for s,o in slowest]
    print(f'notebooks: {len(nbs)} run as in Colab, and show what they give; slowest:', *times)
