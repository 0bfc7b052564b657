"The store: keys never change, odd lines and files are passed over by name, what is odd is told before it is written."
import json,math,os,subprocess,sys
from dataclasses import asdict,replace
import pytest,torch
from snnkit import store as S
from snnkit.store import Config,Store,config_of,key,pack,provenance,resolve,unpack
from snnkit.layers import found, roads, use
from common import root

right = torch.arange(1000)%7>0

def record(config=Config(), **changes):
    "A record as `run` makes it, in short"
    return dict(
        config=asdict(config), split='0'*8, images=dict(train=90, valid=10, test=1000), right=pack(right),
        test_accuracy=right.float().mean().item(), test_loss=.1, valid_accuracy=.8, valid_loss=.1,
        parameters=10, energy=1., operations=dict(fc1=['AC', 1., 2.])) | changes

# Keys

def test_the_first_records_keep_their_keys(tmp_path):
    "They were made of the fields there were before `loss` and all that came later."
    import hashlib
    first = Config(**S.as_before())
    assert '40def14db63f'==key(first) and '776593c91777'==key(replace(first, seed=43))
    old = record(first)
    for name in S.as_before(): del old['config'][name]
    (tmp_path/'old.jsonl').write_text(json.dumps(old)+'\n')
    (k,r), = Store(tmp_path).read().items()
    made_of = json.dumps(old['config'], sort_keys=True).encode()
    assert k==key(first)==hashlib.blake2b(made_of, digest_size=6).hexdigest() and config_of(r)==first

@pytest.mark.skipif(not any((root/'results').glob('*.jsonl')), reason='no records yet')
def test_every_record_of_the_project_is_read(recwarn):
    lines = [o for p in (root/'results').glob('*.jsonl') for o in p.read_text().splitlines()]
    configs = {json.dumps(json.loads(o)['config'], sort_keys=True) for o in lines}
    assert len(Store(root/'results').read())==len(configs) and not recwarn.list

def test_later_fields_count_when_they_are_set():
    ways = {},dict(loss='cross_entropy'),dict(calibrate=False),dict(loss='cross_entropy', calibrate=False)
    assert len({key(Config(**o)) for o in ways})==4

def test_numbers_of_numpy_are_numbers():
    import numpy as np
    c = Config(epochs=np.int64(3), lr=np.float32(.5), dropout=np.float64(.25), seed=np.int32(1), part=np.int64(300),
               ann=np.bool_(True))
    assert c==Config(epochs=3, lr=.5, dropout=.25, seed=1, part=300, ann=True) and key(c) and type(c.epochs) is int

# Names and import paths

def test_import_paths(tmp_path, monkeypatch):
    (tmp_path/'their_nets.py').write_text('def mine(): pass\nnumber = 3\n')
    (tmp_path/'their_broken.py').write_text('raise RuntimeError("boom")\n')
    with pytest.raises(ValueError, match='`model`.*their_nets'): Config(model='their_nets:mine')
    monkeypatch.syspath_prepend(tmp_path)
    c = Config(model='their_nets:mine', loss='their_nets:mine', data='their_nets:mine', augment='their_nets:mine')
    assert resolve('model', c.model, {}).__name__=='mine' and replace(c, seed=1).model==c.model
    for wrong in ('their_nets:yours', 'their_nets:number', 'their_broken:mine', '__main__:mine'):
        for field in ('model', 'loss', 'data', 'augment'):
            with pytest.raises(ValueError, match=f'`{field}` is {wrong!r}'): Config(**{field: wrong})

def test_records_of_models_that_are_not_installed_are_read(tmp_path, recwarn):
    "Nor is anything imported because a file of results names it."
    (tmp_path/'imported_by_a_record.py').write_text('raise SystemExit("imported")\n')
    r = record() | dict(config=asdict(Config()) | dict(model='imported_by_a_record:mine'))
    s = Store(tmp_path)
    s.add(r)
    (k,read), = s.read().items()
    assert config_of(read).model=='imported_by_a_record:mine' and k==key(config_of(read))
    assert 'imported_by_a_record' not in sys.modules and not recwarn.list
    with pytest.raises(ValueError, match='cannot be imported'): replace(config_of(read), seed=1)

# What is read past

deep = b'['*100_000
huge = b'1'*5000
odd_lines = dict(
    nested=deep,
    in_a_record=json.dumps(record()).encode()[:-1]+b', "x": '+deep,
    long_number=huge,
    empty=b'',
    number=b'3',
    text=b'"right"',
    array=b'[]',
    null=b'null',
    bytes=b'\xff\xfe\x00')
odd_values = {
    'test_accuracy': '1e999',
    'valid_accuracy': 'NaN',
    'energy': '-1',
    'images': '[]',
    'right': '3',
    'parameters': '"many"',
    'config': '{"seed": 1e999}',
    'energy ': '1e999',
    'parameters ': '1'+400*'0',
    'images ': '{"test": 3}',
    'test_accuracy ': '1'+400*'0',
    'config ': '{"lr": 1'+400*'0'+'}',
    'right ': '"§"',
    'config  ': '[]',
    'config   ': '{"seed": 1'+400*'0'+'}',
    'valid_accuracy ': 'true'}

def with_value(field, value): return json.dumps(record() | {field: '?'}).replace('"?"', value).encode()

lines = [pytest.param(v, id=k) for k,v in odd_lines.items()]
lines += [pytest.param(with_value(k.strip(), v), id=k) for k,v in odd_values.items()]

@pytest.mark.parametrize('line', lines)
def test_odd_lines_are_passed_over(tmp_path, line):
    good = json.dumps(record()).encode()
    (tmp_path/'a.jsonl').write_bytes(line + b'\n' + good + b'\n')
    says = r'a\.jsonl, line 1 is no record.*all others are kept'
    with pytest.warns(UserWarning, match=says): have = Store(tmp_path).read()
    assert have=={key(Config()): record()}

def test_folders_and_pipes_are_passed_over(tmp_path):
    "In a process of its own, which would wait for ever at a pipe."
    s = Store(tmp_path)
    s.add(record())
    (tmp_path/'photos.jsonl').mkdir()
    os.mkfifo(tmp_path/'pipe.jsonl')
    (tmp_path/'gone.jsonl').symlink_to(tmp_path/'nowhere')
    (tmp_path/'zero.jsonl').symlink_to('/dev/zero')
    code = f'''if 1:
        import warnings
        from snnkit.experiments import Store
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            n = len(Store({str(tmp_path)!r}).read())
        print(n, *sorted(str(o.message) for o in told), sep=chr(10))'''
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    said = p.stdout.splitlines()
    passed_over = [str(tmp_path/f'{o}.jsonl') for o in ('gone', 'photos', 'pipe', 'zero')]
    assert said[0]=='1' and [o.split(' is ')[0] for o in said[1:]]==passed_over
    for name in ('photos', 'pipe', 'zero'):
        with pytest.raises(OSError, match=f'{name}.jsonl.*training is kept'): s.add(record(), name)

# What is written

def test_no_nan_is_written(tmp_path):
    s = Store(tmp_path)
    s.add(record(valid_loss=math.nan, history=[dict(epoch=1, train_loss=math.inf)]))
    def refuse(text): raise AssertionError(text)
    json.loads((tmp_path/'runs.jsonl').read_text(), parse_constant=refuse)
    r, = s.read().values()
    assert r['valid_loss'] is None and r['history']==[dict(epoch=1, train_loss=None)]

def test_records_with_nan_are_read(tmp_path, recwarn):
    "Older versions wrote them so."
    (tmp_path/'a.jsonl').write_text(json.dumps(record(valid_loss=math.nan))+'\n')
    r, = Store(tmp_path).read().values()
    assert math.isnan(r['valid_loss']) and not recwarn.list

@pytest.mark.parametrize('odd', [
    None,
    3,
    'x',
    [],
    {},
    record() | dict(right=None),
    record() | dict(images=None),
    record() | dict(config=None),
    record() | dict(config=dict(colour='red')),
    record() | dict(x=torch.zeros(1)),
    record() | dict(test_accuracy=math.nan),
    record() | dict(parameters=True)])
def test_what_is_no_record_is_not_written(tmp_path, odd):
    with pytest.raises(ValueError): Store(tmp_path).add(odd)
    assert not list(tmp_path.glob('*.jsonl'))

@pytest.mark.parametrize('call', [
    lambda: Store(3),
    lambda: Store(True),
    lambda: Store([]),
    lambda: Store('x').add(record(), None),
    lambda: Store('x').add(record(), 3),
    lambda: unpack(None),
    lambda: unpack({}),
    lambda: unpack(record(right='')),
    lambda: config_of(None),
    lambda: config_of({}),
    lambda: config_of(record(), colour='red'),
    lambda: pack(torch.zeros(3)),
    lambda: resolve('model', None, {}),
    lambda: resolve('model', 3, {}),
    lambda: resolve('model', [], {})])
def test_odd_arguments_are_named(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=' but '): call()

def test_a_home_folder_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert Store('~/records').folder==tmp_path/'records'

# What computed it

def test_provenance_names_what_computes():
    with use('torch'):
        here = {k: provenance()[k] for k in ('mode', 'engine', 'threads')}
        assert here==dict(mode='torch', engine='torch', threads=torch.get_num_threads())

@pytest.mark.skipif(not found(roads['numba'].take), reason='there is no engine')
def test_provenance_names_the_engine():
    import numba
    with use('numba'): here = provenance()
    assert (here['mode'], here['engine'])==('numba', f'numba {numba.__version__}')
