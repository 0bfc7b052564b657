"Environments that hold what a user would have and no more: the wheel, and links to what it requires of what is here."
import sys,venv
from importlib.metadata import distributions
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from common import run,share_kernels

def wheel(d):
    "The wheel of the project at `d`"
    run([sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', d/'dist', d], d)
    return next((d/'dist').glob('*.whl'))

def needs(dist, extras=('',)):
    "What `dist` requires here"
    for r in map(Requirement, dist.requires or []):
        if not r.marker or any(r.marker.evaluate(dict(extra=o)) for o in extras): yield r

def closure(reqs, folders, skip=()):
    "All that `reqs` need, and what that needs in turn, but for `skip`; of two in `folders` the first counts"
    have = {canonicalize_name(o.name): o for o in reversed([*distributions(path=list(map(str, folders)))])}
    todo,found = [o for o in map(Requirement, reqs) if not o.marker or o.marker.evaluate()],{}
    while todo:
        r = todo.pop()
        n,extras = canonicalize_name(r.name),tuple(sorted(r.extras)) or ('',)
        if n in skip or (n, extras) in found: continue
        fits = n in have and r.specifier.contains(have[n].version, prereleases=True)
        if not fits: sys.exit(f'{r} is not installed')
        found[n, extras] = have[n]
        todo += needs(have[n], extras)
    return [*dict.fromkeys(found.values())]

def link(dist, site):
    "Link what `dist` has installed into the folder `site`"
    for top in {o.parts[0] for o in dist.files} - {'..', 'bin', '__pycache__'}:
        if not (site/top).exists(): (site/top).symlink_to(Path(dist.locate_file(top)).resolve())

def environment(at, wheel, more=(), folders=(), skip=()):
    "A new environment in `at`: `wheel`, what it requires, and `more`, from `folders` and from here; its Python"
    venv.create(at, symlinks=True)
    py,site = at/'bin/python',next(at.glob('lib/python*/site-packages'))
    run([sys.executable, '-m', 'pip', '--python', py, 'install', '-q', '--no-deps', '--no-index', wheel], at)
    for o in closure(['snnkit', *more], [site, *folders, *sys.path], skip): link(o, site)
    share_kernels(site/'snnkit')
    return py
