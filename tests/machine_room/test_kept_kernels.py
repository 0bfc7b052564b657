"""What has been compiled is kept: whole, of this source, in a folder that nobody else may write. Where that cannot be,
kernels are compiled anew, and the network runs."""
import importlib.util,os,resource,shutil,subprocess,sys,warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
import numpy as np
import pytest
from numba.core.serialize import dumps
import snnkit
from snnkit.engine import kept
from snnkit.engine.kept import Compiled

root = kept.me()==0
why = 'only root may give files away or become another user'
as_root = pytest.mark.skipif(not root or not shutil.which('setpriv'), reason=why)
posix = pytest.mark.skipif(kept.me() is None, reason='Windows has no owners and modes')
nobody = 65534

source = '''
from snnkit.engine.kept import inner, kernel

@inner
def _next(x): return x + 1

@kernel
def advance(x):
    for i in range(len(x)): x[i] = _next(x[i])
'''

@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    "Nothing is known of folders, no warning was given, and the user's cache folder is empty"
    def clear():
        for o in kept.kept_in, kept.warn_once, kept.sources: o.cache_clear()
    monkeypatch.setattr(kept.numba.config, 'CACHE_DIR', '')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    clear()
    yield clear
    clear()

@pytest.fixture
def work(tmp_path, forget):
    "Import a module of kernels anew, as another process would, and call one: was it on disk, and what was said?"
    folder = tmp_path/'work'
    folder.mkdir()
    (folder/'mine.py').write_text(source)
    def work():
        forget()
        spec = importlib.util.spec_from_file_location('mine', folder/'mine.py')
        module = importlib.util.module_from_spec(spec)
        sys.modules['mine'] = module
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter('always')
                spec.loader.exec_module(module)
                x = np.zeros(3)
                module.advance(x)
                module.advance(x.astype(np.float32))
        finally: del sys.modules['mine']
        assert (x==1).all()
        stats = module.advance.stats
        return sum(stats.cache_hits.values()), [str(o.message) for o in said]
    work.folder = folder
    work.kernels = folder/f'__pycache__/kernels-{kept.me()}'
    return work

def files(folder): return sorted(folder.glob('mine.advance.*.nbc'))

class Trap:
    "A kernel that somebody else has left: to unpickle it is to run it, and here to make the file `mark`"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return Path.touch, (self.mark,)
    def data(self): return kept._sealed(dumps((None, None, self)))

@pytest.fixture
def trap(tmp_path):
    "Put traps in the place of files; then: has any been run?"
    mark = tmp_path/'run'
    def trap(*files):
        for o in files:
            o.write_bytes(Trap(mark).data())
            kept.loads(kept._unsealed(o.read_bytes()))
            assert mark.exists(), 'the trap does not work'
            mark.unlink()
        return mark.exists()
    return trap

# Whole, and of this source

def test_processes_that_compile_at_once_keep_what_is_theirs(tmp_path):
    "Each finds for its types what it kept for them, however the writing of two falls together"
    def work(i):
        kernels = Compiled(tmp_path, 'kernel', 'stamp')
        for j in range(100): kernels.save((i, j), f'{i}, {j}')
    tmp_path.chmod(0o700)
    with ThreadPoolExecutor(4) as pool: list(pool.map(work, range(4)))
    kernels = Compiled(tmp_path, 'kernel', 'stamp')
    assert all(kernels.load((i, j))==f'{i}, {j}' for i in range(4) for j in range(100))

def test_kept_kernels_are_of_this_source(tmp_path):
    "Another source, another file in its place: compiled anew"
    tmp_path.chmod(0o700)
    new,old,other = (Compiled(tmp_path, *o) for o in (('kernel', 'new'), ('kernel', 'old'), ('another', 'new')))
    assert new.load('a') is None
    old.save('a', 1)
    assert old.load('a')==1 and new.load('a') is None
    new.save('a', 2)
    assert new.load('a')==2 and old.load('a') is None
    new.save('b', 3)
    new.path('b').write_bytes(new.path('a').read_bytes())
    assert new.load('b') is None
    other.save('a', 4)
    new.flush()
    assert not new.path('a').exists() and not new.path('b').exists() and other.load('a')==4

def test_kernels_are_found_again(work):
    assert work()==(0, [])
    assert len(files(work.kernels))==2 and work()==(2, [])

def test_a_change_of_the_source_is_noticed(work):
    work()
    (work.folder/'mine.py').write_text(source+'\n# another line')
    assert work()[0]==0 and work()[0]==2 and len(files(work.kernels))==2

def test_a_change_of_a_neighbour_is_noticed(tmp_path, forget):
    "A kernel calls one of another module, whose source changes"
    package = tmp_path/'pack'
    package.mkdir()
    (package/'__init__.py').write_text('')
    (package/'a.py').write_text('from snnkit.engine.kept import kernel\nfrom .b import step\n'
                                '@kernel\ndef go(x): x[0] = step(x[0])\n')
    code = 'import numpy as np; from pack.a import go; x = np.zeros(1); go(x); print(x[0])'
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]), PYTHONDONTWRITEBYTECODE='1')
    found = []
    for n in 1, 2:
        (package/'b.py').write_text(f'from snnkit.engine.kept import inner\n@inner\ndef step(x): return x + {n}\n')
        r = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
        found.append(r.stdout)
    assert found==['1.0\n', '2.0\n']

def test_what_is_typed_at_a_prompt_is_not_kept():
    space = {'__name__': '__main__'}
    exec(compile(source, '<prompt>', 'exec'), space)
    space['advance'](np.zeros(3))
    assert space['advance'].stats.cache_path is None

damages = dict(
    empty=lambda b: b'',
    short=lambda b: b[:len(b)//2],
    checksum_only=lambda b: b[:32],
    garbage=lambda b: os.urandom(len(b)),
    longer=lambda b: b+b'\0',
    old=lambda b: b[32:])

@pytest.mark.parametrize('damage', damages)
def test_damaged_kernels_are_compiled_anew_and_replaced(work, damage):
    work()
    for o in files(work.kernels): o.write_bytes(damages[damage](o.read_bytes()))
    assert work()==(0, []) and work()==(2, [])

def test_no_flipped_bit_is_overlooked(tmp_path):
    tmp_path.chmod(0o700)
    kernels = Compiled(tmp_path, 'kernel', 'stamp')
    kernels.save('key', os.urandom(1000))
    whole = kernels.path('key').read_bytes()
    places = np.random.default_rng(0).integers(0, 8*len(whole), 200)
    for o in places:
        damaged = bytearray(whole)
        damaged[o//8] ^= 1<<o%8
        kernels.path('key').write_bytes(bytes(damaged))
        assert kernels.load('key') is None
    kernels.path('key').write_bytes(whole)
    assert kernels.load('key') is not None

@posix
@pytest.mark.parametrize('what', ['folder', 'pipe', 'link to nothing', 'device'])
def test_what_is_no_file_is_passed_over(work, what):
    "It neither holds up the process nor stops it"
    work()
    for o in files(work.kernels):
        o.unlink()
        if what=='folder': o.mkdir()
        elif what=='pipe': os.mkfifo(o, 0o600)
        else: o.symlink_to('/dev/zero' if what=='device' else 'nowhere')
    hits,said = work()
    assert hits==0 and len(said)==(what=='folder') # a folder stays in the way, and that is told
    if what!='folder': assert work()==(2, [])

# Written by nobody else

@posix
def test_folders_and_files_are_the_user_s_own(work):
    "Whatever the user's mask is"
    before = os.umask(0)
    try: work()
    finally: os.umask(before)
    assert work.kernels.stat().st_mode & 0o777 == 0o700
    assert {o.stat().st_mode & 0o777 for o in files(work.kernels)}=={0o600}

def others(work, what):
    "Let others write the kernels' folder, or a file in it"
    if what=='writable folder': work.kernels.chmod(0o777)
    if what=='group': work.kernels.chmod(0o770)
    if what=='owner of the folder': os.chown(work.kernels, nobody, -1)
    for o in files(work.kernels):
        if what=='writable file': o.chmod(0o666)
        if what=='owner of the file': os.chown(o, nobody, -1)

whose = [
    'writable folder',
    'group',
    'writable file',
    pytest.param('owner of the folder', marks=as_root),
    pytest.param('owner of the file', marks=as_root)]

@posix
@pytest.mark.parametrize('what', whose)
def test_kernels_that_others_may_write_are_not_read(work, trap, what):
    "They are not even unpickled; one warning tells where they are and what to do; the rest goes on as ever"
    work()
    trap(*files(work.kernels))
    others(work, what)
    hits,said = work()
    assert hits==0 and not trap()
    if 'file' in what: assert len(said)==2 and all(str(work.kernels) in o for o in said)
    else: assert len(said)==1 and str(work.kernels) in said[0]
    assert all('NUMBA_CACHE_DIR' in o and 'Delete it' in o for o in said)
    hits,_ = work() # from the user's own cache folder, or the mended file
    assert hits==2 and not trap()

@posix
def test_files_of_another_user_are_not_read_whoever_tests(work, trap, monkeypatch):
    "For those who are not root: it is not the files that change, but the user"
    work()
    trap(*files(work.kernels))
    folder = work.kernels
    monkeypatch.setattr(kept, 'me', lambda: os.geteuid()+1)
    folder.rename(folder.with_name(f'kernels-{kept.me()}'))
    hits,said = work()
    assert hits==0 and not trap() and f'belongs to user {os.geteuid()}' in said[0]

@posix
def test_links_are_not_followed(work, trap, tmp_path):
    "A file of my own elsewhere, to which somebody's link leads, is not a kernel; nor is a folder"
    work()
    for o in files(work.kernels):
        trap(o)
        elsewhere = tmp_path/o.name
        o.rename(elsewhere)
        o.symlink_to(elsewhere)
    assert work()[0]==0 and not trap()
    assert work()[0]==2 and not any(o.is_symlink() for o in files(work.kernels))
    elsewhere = tmp_path/'elsewhere'
    work.kernels.rename(elsewhere)
    work.kernels.symlink_to(elsewhere)
    hits,said = work()
    assert hits==0 and 'is a link' in said[0]

# Anything, wherever Python lies; but write nothing
may_read = ['--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search']

def run_as(uid, code, folder, limit=None, **env):
    "Run `code` in a process of user `uid`, who finds this kit's source, or a copy, in `folder`"
    def prepare():
        if limit is not None: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    paths = [str(folder), *(o for o in sys.path if o and Path(o).name!=Path(snnkit.__path__[0]).parent.name)]
    own = dict(PATH=os.environ['PATH'], PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE='1',
               HOME='/nonexistent', OMP_NUM_THREADS='1')
    become = [] if uid is None else ['setpriv', f'--reuid={uid}', f'--regid={uid}', '--clear-groups', *may_read]
    cmd = [*become, sys.executable, '-c', dedent(code)]
    r = subprocess.run(cmd, env=own | env, capture_output=True, text=True, cwd=folder, preexec_fn=prepare)
    assert r.returncode==0, r.stderr[-3000:]
    return r.stdout.split(),r.stderr

call = '''
    import numpy as np, mine
    x = np.zeros(3)
    mine.advance(x)
    print(int(x[0]), sum(mine.advance.stats.cache_hits.values()), mine.advance.stats.cache_path)
'''

def found_again(uid, folder, **env):
    "The kernel that one process of user `uid` compiles, and the next one finds without a warning: its path"
    (first,_),(second,said) = (run_as(uid, call, folder, **env) for _ in range(2))
    assert [first[:2], second[:2]]==[['1', '0'], ['1', '1']] and 'UserWarning' not in said
    return second[2]

@pytest.fixture
def house(tmp_path_factory):
    "A folder with a copy of the kit and the module of kernels, which only its owner may write"
    folder = tmp_path_factory.mktemp('house')
    left_out = shutil.ignore_patterns('__pycache__', 'weights', 'digits')
    shutil.copytree(snnkit.__path__[0], folder/'snnkit', ignore=left_out)
    (folder/'mine.py').write_text(source)
    return folder

@as_root
def test_users_share_an_installation(house, tmp_path):
    "Who cannot write beside the source keeps kernels in a folder of their own; without one, the kernel runs as well"
    home = house/'home'
    home.mkdir()
    os.chown(home, nobody, nobody)
    assert found_again(nobody, house, HOME=str(home)).startswith(str(home))
    (values,hits,path),said = run_as(nobody, call, house)
    assert (values, hits, path)==('1', '0', 'None')
    assert said.count('Compiled kernels cannot be kept')==1 and 'NUMBA_CACHE_DIR' in said

@as_root
def test_users_share_a_cache_folder(house, tmp_path):
    "Each has kernels of their own in it; those that another has put in their place are not read"
    shared = house/'shared'
    shared.mkdir()
    shared.chmod(0o777)
    for uid in 0, nobody:
        assert found_again(uid, house, NUMBA_CACHE_DIR=str(shared)).endswith(f'-{uid}')
    mine,theirs = (next(shared.glob(f'*-{o}')) for o in (0, nobody))
    shutil.rmtree(mine)
    theirs.rename(mine) # as another user may in a folder that all may write
    for o in mine.glob('mine.advance.*.nbc'):
        o.write_bytes(Trap(tmp_path/'run').data())
        os.chown(o, nobody, nobody)
    (value,hits,path),said = run_as(0, call, house, NUMBA_CACHE_DIR=str(shared))
    assert (value, hits)==('1', '0') and not (tmp_path/'run').exists() and f'belongs to user {nobody}' in said
    assert said.count('are not used')==1 and str(mine) in said and path!=str(mine)

# Where nothing can be kept

network = '''
    import torch, warnings
    from snnkit.layers import LIF, Linear, use
    torch.manual_seed(0)
    net = torch.nn.Sequential(Linear(12, 3, bias=False), LIF(threshold=.1))
    with use('numba'): y = net((torch.rand(4, 2, 12)<.5).float())
    print(y.shape==(4, 2, 3))
'''

@posix
@pytest.mark.parametrize('room', [0, 100])
def test_full_disk(tmp_path, room):
    "With files that cannot grow a layer runs, one warning tells why it will be slow again, and nothing is left behind"
    out,said = run_as(None, network, Path(snnkit.__path__[0]).parent, limit=room, NUMBA_CACHE_DIR=str(tmp_path))
    assert out==['True'] and said.count('cannot be kept')==1 and str(tmp_path) in said
    assert not [o for o in tmp_path.rglob('*') if o.is_file()]

def test_disk_that_fills_up(work, monkeypatch):
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', full)
        hits,said = work()
        assert hits==0 and len(said)==1 and 'No space left' in said[0]
    assert not list(work.kernels.iterdir()) and work()==(0, [])

@pytest.mark.parametrize('home', [True, False])
def test_no_folder_at_all(work, monkeypatch, home):
    "Nothing may be written, or the user has no home even"
    def refuse(*args, **kw): raise PermissionError(13, 'Permission denied')
    def homeless(): raise RuntimeError('no home')
    monkeypatch.setattr(os, 'mkdir', refuse)
    if not home:
        monkeypatch.delenv('XDG_CACHE_HOME')
        monkeypatch.setattr(Path, 'home', homeless)
    hits,said = work()
    assert hits==0 and len(said)==1 and 'NUMBA_CACHE_DIR' in said[0] and not work.kernels.exists()

def test_a_file_where_the_folder_should_be(work, tmp_path):
    (work.folder/'__pycache__').write_text('')
    assert work()==(0, []) and work()==(2, []) and len(list((tmp_path/'cache').rglob('mine.advance.*.nbc')))==2

def test_windows(work, monkeypatch):
    "No owners, no modes: files are read as they are, whole or not at all"
    monkeypatch.setattr(kept, 'me', lambda: None)
    assert work()==(0, []) and work()==(2, [])
    folder = work.folder/'__pycache__/kernels'
    for o in files(folder): o.write_bytes(o.read_bytes()[:-1])
    assert work()==(0, []) and work()==(2, [])

# The kit's own kernels

def test_importing_writes_nothing(tmp_path):
    code = f'import os; os.environ["NUMBA_CACHE_DIR"] = {str(tmp_path/"new")!r}; import snnkit.engine.events'
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, '-c', code], check=True, env=env)
    assert not (tmp_path/'new').exists()

def test_kernels_are_compiled_once():
    "Another process finds all of them on disk, by the same names"
    code = '''
import torch
from snnkit.engine import events
from snnkit.layers import use
from snnkit.models import lenet
torch.manual_seed(0)
with use('numba'): lenet(num_steps=6)(torch.rand(3, 1, 28, 28)).sum().backward()
found = [o.stats for o in vars(events).values() if hasattr(o, 'stats')]
print(sum(sum(o.cache_hits.values()) for o in found), sum(sum(o.cache_misses.values()) for o in found))'''
    def call():
        r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        return [int(o) for o in r.stdout.split()]
    call()
    hits,misses = call()
    assert hits>=10 and misses==0
