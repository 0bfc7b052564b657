"No picture in two parts, the same split and order from the same seed, and a clear answer to files that are missing, cut short or not what they claim."
import gzip,hashlib,io,os,pickle,random,shutil,struct,subprocess,sys,tarfile,zipfile
from itertools import combinations
from pathlib import Path
from urllib.error import URLError

import numpy as np, pytest, torch, torchvision
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from torch.utils.data import DataLoader
import snnkit.data as D
from snnkit.data import (Augmented, Data, Images, Raw, Shuffle, augmentations, crop_flip, fingerprints, kfold, load, shift_rotate, split, stratified,
                         subset, turned)
from snnkit.models import lenet, twin
from snnkit.training import fit, set_seed

few = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

@pytest.fixture(autouse=True)
def no_network_no_cache(monkeypatch, tmp_path_factory):
    "No test touches the user's cache or the network."
    def urlopen(*args, **kwargs): raise URLError('no network')
    monkeypatch.setattr('urllib.request.urlopen', urlopen)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.delenv('SNNKIT_DATA', raising=False)

def noise(n, shape=(1, 8, 8), seed=0): return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
def parts(d): return d.train,d.valid,d.test
def keys(ds): return set(fingerprints(ds.x))
def disjoint(d): return not any(keys(a) & keys(b) for a,b in combinations(parts(d), 2))
def listing(path): return sorted((o.relative_to(path).as_posix(), o.stat().st_size if o.is_file() else -1) for o in path.rglob('*'))

def folder(path, n=12, classes=('cat', 'dog'), shape=(8, 8, 3), seed=0, ext='png', sub=''):
    "A folder of `n` noise images a class."
    for k,c in enumerate(classes):
        (path/sub/c).mkdir(parents=True, exist_ok=True)
        x = np.random.default_rng([seed, k]).integers(0, 256, (n, *shape), dtype=np.uint8)
        for i,o in enumerate(x): Image.fromarray(o).save(path/sub/c/f'{i:03}.{ext}')
    return path

# The parts

@pytest.fixture(scope='module')
def digits(): return load()

def test_digits(digits):
    assert [len(o) for o in parts(digits)]==[3600, 400, 1000] and disjoint(digits)
    for o,n in zip(parts(digits), (360, 40, 100)): assert o.y.bincount().tolist()==[n]*10
    assert (digits.name, digits.num_classes, digits.in_channels, digits.image_size)==('digits', 10, 1, (28, 28))
    assert len(set().union(*map(keys, parts(digits))))==5000

def test_digits_are_split_as_they_always_were(digits):
    "Results carry this name; a change of library or code that moves images between the parts must not go unnoticed."
    assert digits.split_hash=='c3a55652'

@pytest.mark.parametrize('name,title', [('mnist', 'MNIST'), ('Fashion-MNIST', 'Fashion-MNIST')])
def test_real_data(real_data, name, title):
    d = load(name, real_data)
    assert d.name==title and [len(o) for o in parts(d)]==[54000, 6000, 10000] and disjoint(d) and not d.train.signed
    for o in parts(d):
        share = o.y.bincount(minlength=10)/len(o)
        full = torch.cat([d.train.y, d.valid.y]).bincount()/60000
        assert o is d.test or (share-full).abs().max()<=1/len(o)
    e = load(name, real_data, seed=7)
    assert e.split_hash!=d.split_hash and e.test.x.equal(d.test.x) and not e.valid.x.equal(d.valid.x)

@few
@given(st.lists(st.integers(0, 5), min_size=30, max_size=120), st.integers(0, 2**32-1), st.floats(.1, .5), st.booleans())
def test_no_picture_in_two_parts(picks, seed, valid, own_test):
    "Few pictures, each many times, under random labels: whatever the split, the parts share none."
    pics,pick = noise(40), torch.tensor(picks)
    y = torch.arange(len(pick))%3
    x = pics[pick*6 + torch.arange(len(pick))%7]
    raw = Raw('copies', list('abc'), (x,y), (pics[:6],torch.arange(6)%3) if own_test else None)
    try: d = split(raw, lambda y: stratified(y, valid, seed))
    except ValueError as e: assert 'too few' in str(e); return
    assert disjoint(d)
    assert len(d.train)+len(d.valid)+sum(d.dropped.values())+len(d.test)==len(x)+6*own_test
    assert set().union(*map(keys, parts(d)))==set(fingerprints(x)) | (set(fingerprints(pics[:6])) if own_test else set())

@few
@given(st.integers(2, 6), st.integers(6, 60), st.integers(0, 2**32-1), st.floats(.2, .6))
def test_split_is_stratified_and_repeats(k, n, seed, part):
    y = torch.arange(n*k)%k
    a,b = stratified(y, part, seed)
    assert sorted([*a.tolist(), *b.tolist()])==list(range(n*k))
    assert (b.sort()[0]==b).all() and (y[b].bincount(minlength=k)-part*n).abs().max()<=1.5
    again = stratified(y, part, seed)
    assert a.equal(again[0]) and b.equal(again[1])

def test_name_of_the_split():
    a = load(valid=.1, seed=42)
    names = [load(**o).split_hash for o in ({}, dict(seed=1), dict(valid=.2), dict(fold=0), dict(fold=1), dict(fold=0, folds=4), dict(size=14))]
    assert names[0]==a.split_hash and len(set(names))==len(names) and all(len(o)==8 for o in names)
    for o in (load(signed=True), load(augment=crop_flip(28))): assert o.split_hash==a.split_hash
    assert all(o.x.equal(p.x) and o.y.equal(p.y) for o,p in zip(parts(a), parts(load())))

def test_the_test_part_ignores_the_seed(tmp_path):
    p = folder(tmp_path/'pets', 20)
    tests = [load(p, **o).test.x for o in ({}, dict(seed=5), dict(valid=.3), dict(fold=1, folds=3))]
    assert all(o.equal(tests[0]) for o in tests) and len(tests[0])==8

def test_another_process_splits_and_shuffles_alike(digits):
    code = 'from snnkit.data import load,Shuffle; d=load(); print(d.split_hash, *list(Shuffle(d.train, 3, epoch=2))[:5])'
    env = os.environ | dict(PYTHONHASHSEED='77')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env).stdout.split()
    assert out==[digits.split_hash, *map(str, list(Shuffle(digits.train, 3, epoch=2))[:5])]

# Folds

@few
@given(st.integers(2, 5), st.integers(2, 8), st.integers(8, 30), st.integers(0, 2**32-1))
def test_folds_partition(k, folds, n, seed):
    y = torch.arange(n*k)%k
    cuts = [kfold(y, i, folds, seed) for i in range(folds)]
    assert torch.cat([b for _,b in cuts]).sort()[0].tolist()==list(range(n*k))
    for a,b in cuts:
        assert sorted([*a.tolist(), *b.tolist()])==list(range(n*k))
        assert y[b].bincount(minlength=k).amax()-y[b].bincount(minlength=k).amin()<=1

def test_folds_of_digits(digits):
    five = [load(fold=i, folds=5, seed=3) for i in range(5)]
    assert sum(len(keys(o.valid)) for o in five)==4000==len(set().union(*[keys(o.valid) for o in five]))
    assert all(disjoint(o) and o.test.x.equal(digits.test.x) for o in five)
    assert all(keys(o.train) | keys(o.valid)==keys(digits.train) | keys(digits.valid) for o in five)
    assert all(a.valid.y.bincount().tolist()==[80]*10 for a in five) and not load(fold=0, seed=4).valid.x.equal(five[0].valid.x)

@few
@given(st.lists(st.integers(0, 9), min_size=40, max_size=90), st.integers(2, 4), st.integers(0, 2**32-1))
def test_folds_of_copies(picks, folds, seed):
    "Pictures that occur many times: no fold trains on one that it validates, and over all folds each one validates."
    x,y = noise(40)[torch.tensor(picks)*4 + torch.arange(len(picks))%4],torch.arange(len(picks))%2
    raw = Raw('copies', list('ab'), (x,y), (x[:3],y[:3]))
    try: cuts = [split(raw, lambda y: kfold(y, i, folds, seed)) for i in range(folds)]
    except ValueError as e: assert 'smallest class' in str(e); return
    assert all(map(disjoint, cuts))
    assert set().union(*[keys(o.valid) for o in cuts])==set(fingerprints(x))-set(fingerprints(x[:3]))
    assert sum(len(o.valid) for o in cuts)+cuts[0].dropped['test']==len(x)

# A part of the images

@few
@given(st.lists(st.integers(0, 3), min_size=12, max_size=300), st.data())
def test_subset(labels, data):
    y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]+labels)
    n,m = sorted(data.draw(st.tuples(*[st.integers(8, len(y))]*2)))
    a,b = subset(y, n),subset(y, m)
    assert len(a)==n and len(b)==m and set(a.tolist())<=set(b.tolist()) and a.tolist()==sorted({*a.tolist()}) and subset(y, n).equal(a)
    have,all_ = y[a].bincount(minlength=4),y.bincount(minlength=4)
    assert have.min()>=2 and (have-n/len(y)*all_).abs().max()<=4
    assert subset(y, len(y)).tolist()==list(range(len(y)))

@pytest.mark.parametrize('n', [20, 37, 400, 3999, 4000])
def test_part_of_digits(digits, n):
    "The same images whatever the split, of every class alike; test stays whole."
    used = lambda d: sorted(fingerprints(d.train.x)+fingerprints(d.valid.x))
    cuts = [load(part=n, valid=.5, seed=1), load(part=n, valid=.5), load(part=n, fold=0, folds=2), load(part=n, fold=1, folds=2, seed=9)]
    assert all(used(d)==used(cuts[0]) and len(used(d))==n and disjoint(d) and d.test.x.equal(digits.test.x) for d in cuts)
    assert set(used(cuts[0]))<=keys(digits.train) | keys(digits.valid) and len({d.split_hash for d in cuts})==4
    of_each = torch.cat([cuts[0].train.y, cuts[0].valid.y]).bincount(minlength=10)
    assert of_each.max()-of_each.min()<=1 and cuts[0].name==digits.name and cuts[0].classes==digits.classes
    assert keys(load(part=n, fold=1, folds=2).valid)==keys(cuts[2].train)
    if n==4000: assert load(part=n).split_hash==digits.split_hash

def test_the_part_is_always_the_same():
    "Results name a part by its size alone, so a change of library or code that moves it must not go unnoticed."
    assert load(part=400).split_hash=='381cc886'

def test_part_of_classes_that_are_not_alike(tmp_path):
    p = folder(folder(tmp_path/'pets', 60, classes=['cat']), 30, classes=['dog'], seed=1)
    d = load(p, part=36)
    assert (torch.cat([d.train.y, d.valid.y]).bincount()).tolist()==[24, 12] and len(d.test)==18 and disjoint(d)

def test_copies_of_test_images_are_no_part():
    x,y = noise(60),torch.arange(60)%2
    d = split(Raw('copies', list('ab'), (x,y), (x[:20],y[:20])), lambda y: stratified(y, .5), part=40)
    assert d.dropped==dict(test=20, valid=0) and len(d.train)+len(d.valid)==40 and disjoint(d)
    with pytest.raises(ValueError, match='from 4, two of every class, to 40'): split(Raw('copies', list('ab'), (x,y), (x[:20],y[:20])), lambda y: stratified(y, .5), part=41)

# Batches

def test_images():
    x,y = noise(5, (3, 4, 6)),torch.arange(5)
    for signed in (False, True):
        ds = Images(x, y, signed)
        full,lab = ds[:]
        assert full.dtype==torch.float32 and full.shape==(5, 3, 4, 6) and lab.dtype==torch.int64
        assert -signed<=full.min() and full.max()<=1
        assert (full*127.5+127.5 if signed else full*255).round().to(torch.uint8).equal(x)
        for i in (0, -1, torch.tensor(2), np.int64(3)): assert ds[i][0].equal(full[i]) and ds[i][1]==lab[i]
        for i in ([0, 3], torch.tensor([4, 1]), slice(1, 4)): assert ds[i][0].equal(full[i]) and ds[i][1].equal(lab[i])
        for workers in (0, 2):
            xb,yb = map(torch.cat, zip(*DataLoader(ds, 2, num_workers=workers)))
            assert xb.equal(full) and yb.equal(lab)

@pytest.mark.parametrize('x,y,says', [(torch.rand(2, 1, 4, 4), torch.arange(2), 'uint8 of shape'), (noise(2)[:,0], torch.arange(2), r'\[N, C, H, W\]'),
    (noise(2), torch.arange(3), r'int64 of shape \[2\]'), (noise(2), torch.rand(2), 'int64')])
def test_images_refuse(x, y, says):
    with pytest.raises(ValueError, match=says): Images(x, y)

@few
@given(st.integers(1, 50), st.integers(0, 2**63), st.integers(0, 1000), st.data())
def test_shuffle(n, seed, epoch, data):
    ds,skip = Images(noise(n), torch.zeros(n).long()),data.draw(st.integers(0, n))
    whole = list(Shuffle(ds, seed, epoch))
    assert sorted(whole)==list(range(n))
    part = Shuffle(ds, seed, epoch, skip)
    assert list(part)==whole[skip:]==list(part) and len(part)==n-skip
    part.set_epoch(epoch+1)
    assert list(part)==list(Shuffle(ds, seed, epoch+1)) and len(part)==n
    part.set_epoch(epoch)
    assert list(part)==whole[skip:]

def test_shuffle_refuses():
    for skip in (-1, 11):
        with pytest.raises(ValueError, match=r'0\.\.10'): Shuffle(Images(noise(10), torch.arange(10)), skip=skip)

def test_shuffle_under_accelerate():
    "Accelerate passes the epoch on, to sampler and images alike, and begins where it is told."
    from accelerate import Accelerator
    ds = Augmented(Images(noise(20, (1, 8, 8)), torch.arange(20)), crop_flip(8, 2))
    loader = Accelerator(cpu=True).prepare(DataLoader(ds, 4, sampler=Shuffle(ds, 5, epoch=3, skip=8)))
    for epoch in (3, 4, 5):
        loader.set_epoch(epoch)
        n = len(loader)
        got = [*loader]
        want = Shuffle(ds, 5, epoch, 8*(epoch==3))
        assert torch.cat([y for _,y in got]).tolist()==list(want) and n==len(got)==len(want)//4
        assert torch.cat([x for x,_ in got]).equal(ds[list(want)][0]) and ds.epoch==epoch

def test_augment(digits):
    base = Images(digits.train.x[:30], digits.train.y[:30])
    ds = Augmented(base, crop_flip(28), seed=1)
    first = ds[:][0]
    state = torch.get_rng_state()
    assert ds[:][0].equal(first) and ds[7][0].equal(first[7]) and ds[-1][0].equal(first[-1]) and ds[[3, 5]][0].equal(first[[3, 5]])
    assert torch.get_rng_state().equal(state)
    assert torch.cat([x for x,_ in DataLoader(ds, 7, num_workers=2)]).equal(first)
    ds.epoch = 1
    assert not ds[:][0].equal(first) and ds.x.equal(base.x)
    assert not Augmented(base, crop_flip(28), seed=2)[:][0].equal(first)

def test_only_train_is_augmented(digits):
    d = load(augment=lambda x: 255-x)
    assert d.train[:][0].equal(1-digits.train[:][0]) or torch.allclose(d.train[:][0], 1-digits.train[:][0], atol=1e-6)
    for a,b in zip(parts(d)[1:], parts(digits)[1:]): assert a[:][0].equal(b[:][0])
    for bad in (lambda x: x/255, lambda x: x[:,1:]):
        with pytest.raises(ValueError, match='`augment` makes'): load(augment=bad)

def test_crop_flip_makes_crops_and_mirrors():
    "With one bright pixel in the middle every look is a shift of at most 2 pixels."
    x = torch.zeros(1, 1, 9, 9, dtype=torch.uint8); x[...,4,4] = 255
    ds = Augmented(Images(x, torch.zeros(1).long()), crop_flip(9, 2))
    seen = set()
    for ds.epoch in range(300): seen.add(tuple(ds.pixels(0)[0].nonzero()[0].tolist()))
    assert seen=={(i,j) for i in range(2, 7) for j in range(2, 7)}
    half = torch.zeros(1, 1, 4, 4, dtype=torch.uint8); half[...,:2] = 255
    ds = Augmented(Images(half, torch.zeros(1).long()), crop_flip(4, 0))
    left = 0
    for ds.epoch in range(400): left += int(ds.pixels(0)[0,0,0]>0)
    assert 140<left<260

changes = dict(shift=shift_rotate(), flip=crop_flip(28), turn=shift_rotate(180, 20))

@pytest.mark.parametrize('name', changes)
def test_a_look_depends_on_seed_epoch_and_image_alone(digits, name):
    "Alone or in any batch, in any order, in a worker process, after any other draw, to the last bit."
    ds = Augmented(Images(digits.train.x[:40], digits.train.y[:40]), changes[name], seed=5)
    full = ds.pixels(slice(None))
    for i in ([7], [39, 0, 7], list(range(40))[::-1], torch.arange(3, 20), slice(1, 40, 4)):
        torch.rand(3)
        assert ds.pixels(i).equal(full[i])
    assert all(ds.pixels(i).equal(full[i]) for i in range(40))
    assert torch.cat([x for x,_ in DataLoader(ds, 9, num_workers=2)]).equal(ds[:][0])
    ds.epoch = 1
    assert not ds.pixels([3]).equal(full[[3]]) and not Augmented(ds, changes[name], seed=6).pixels([3]).equal(full[[3]])

@pytest.mark.parametrize('name', augmentations)
def test_an_snn_and_its_twin_see_the_same_looks(digits, name):
    "In real training, whatever else a network draws."
    few = Images(digits.train.x[::60], digits.train.y[::60])
    def looks(net):
        ds,seen = Augmented(few, augmentations[name]((28, 28)), seed=3),[]
        net.register_forward_pre_hook(lambda m, x: seen.append(x[0].clone()) if m.training else None)
        fit(net, Data('few', digits.classes, ds, few, few, dict(test=0, valid=0)), epochs=2, batch_size=16, seed=3, quiet=True)
        return torch.cat(seen)
    set_seed(0); snn = lenet(num_steps=4, kappa=4.); ann = twin(snn)
    a,b = looks(snn),looks(ann)
    assert a.equal(b) and len(a)==120 and not a[:60].sort(0)[0].equal(a[60:].sort(0)[0])

@few
@given(st.floats(-180, 180), st.floats(-9, 9), st.floats(-9, 9), st.sampled_from([(1, 28, 28), (3, 8, 13), (1, 9, 6)]), st.integers(0, 99))
def test_turned_is_torchvisions_affine(angle, dx, dy, shape, seed):
    "To one grey level, and but for pixels at the very edge of the image, where rounding decides whether they are inside."
    from torchvision.transforms.v2 import InterpolationMode, functional
    x = noise(1, shape, seed)
    d = (turned(x, [(angle, dx, dy)]).int()-functional.affine(x, angle, [dx, dy], 1., [0., 0.], InterpolationMode.BILINEAR).int()).abs()
    assert (d>1).sum()<=1

def test_shift_rotate_stays_within_its_limits():
    draws = torch.tensor([shift_rotate(10, 2).draw(torch.Generator().manual_seed(i)) for i in range(2000)])
    for v,limit in zip(draws.T, (10, 2, 2)):
        assert v.abs().max()<=limit and v.min()<-.97*limit and v.max()>.97*limit and v.mean().abs()<.06*limit
        assert v.std().item()==pytest.approx(limit/3**.5, rel=.05)
    assert draws.T.corrcoef().sub(torch.eye(3)).abs().max()<.08
    x = noise(4)
    assert Augmented(Images(x, torch.arange(4)), shift_rotate(0, 0)).pixels([0, 1, 2, 3]).equal(x)
    white = torch.full((1, 1, 9, 9), 255, dtype=torch.uint8)
    assert turned(white, [(45., 0., 0.)])[0,0,0,0]==0==turned(white, [(0., 3., 0.)])[0,0,4,2] and turned(white, [(45., 1., 1.)])[0,0,4,4]==255

def test_augmentations_go_by_name(digits):
    for name,by_hand in (('shift', shift_rotate()), ('mirror', crop_flip((28, 28), 0)), ('flip', crop_flip((28, 28)))):
        d = load(augment=name, seed=7)
        assert d.train.pixels([0, 9]).equal(Augmented(d.train, by_hand, seed=7).pixels([0, 9])) and not isinstance(d.valid, Augmented)
    assert load(augment='flip', size=(14, 20)).train.pixels([0]).shape==(1, 1, 14, 20)
    with pytest.raises(ValueError, match="`augment` is 'turn'.*'shift', 'mirror', 'flip'"): load(augment='turn')
    for kw,says in ((dict(degrees=-1), '`degrees` is -1'), (dict(degrees=181), r'\[0, 180\]'), (dict(shift=-.5), '`shift` is'), (dict(shift=float('nan')), '`shift` is')):
        with pytest.raises(ValueError, match=says): shift_rotate(**kw)

# Arguments

@pytest.mark.parametrize('kw,says', [(dict(name='mnizt'), 'digits, MNIST, FashionMNIST, CIFAR10, CIFAR10-JPEG'), (dict(name='no/such/folder'), 'Check the spelling'), (dict(name=''), 'a name or a path'),
    (dict(name=3), 'a name or a path'), (dict(name=Path('digits-of-mine')), 'the path of a folder'), *[(dict(valid=o), '`valid` is') for o in (0, 1, -.1, 1.5, float('nan'))],
    (dict(valid=.0001), 'too few'), (dict(fold=5), r'0\.\.4'), (dict(fold=-1), r'0\.\.4'), (dict(fold=.5), 'integer'), (dict(fold=0, folds=1), 'at least 2'), (dict(fold=0, folds=401), 'smallest class has 400'),
    (dict(seed=-1), '`seed` is -1'), (dict(seed=2**32), '`seed`'), (dict(seed=1.5), '`seed`'), (dict(size=0), '`size`'), (dict(size=(3, 4, 5)), '`size`'),
    *[(dict(part=o), 'from 20, two of every class, to 4000') for o in (0, 19, 4001, -5, .5, 100.)], (dict(part=20), 'too few')])
def test_bad_arguments(kw, says):
    with pytest.raises(ValueError, match=says): load(**kw)

@pytest.mark.parametrize('name', ['digits', 'Digits', ' digits '.strip(), 'DIGITS'])
def test_names_are_forgiving(name): assert load(name).name=='digits'

def test_size(tmp_path):
    assert load(size=(20, 30)).image_size==(20, 30) and load(size=14).image_size==(14, 14)
    p = folder(tmp_path/'pets')
    Image.new('RGB', (30, 20)).save(p/'cat/wide.png')
    with pytest.raises(ValueError, match=r'8 x 8 \(24 images\), 20 x 30 \(1 images\).*size=32'): load(p)
    assert load(p, size=(10, 12)).image_size==(10, 12)

# Sets that torchvision knows

def write_idx(path, a):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f'>HBB{a.ndim}I', 0, 8, a.ndim, *a.shape)+a.astype(np.uint8).tobytes())

def little_mnist(root, name='MNIST'):
    for p,n in (('train', 60), ('t10k', 20)):
        write_idx(root/name/f'raw/{p}-images-idx3-ubyte', noise(n, (28, 28), seed=n).numpy())
        write_idx(root/name/f'raw/{p}-labels-idx1-ubyte', np.arange(n)%10)
    return root

def test_root(tmp_path, monkeypatch):
    "The argument comes before SNNKIT_DATA, which comes before the cache folder."
    a,b,c = (little_mnist(tmp_path/o) for o in ('a', 'b', 'c/snnkit'))
    for o,n in ((b, 1), (c, 2)): write_idx(o/'MNIST/raw/t10k-images-idx3-ubyte', np.full((20, 28, 28), n))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'c'))
    pixel = lambda *o: load('MNIST', *o, valid=.2).test.x[0].unique().tolist()
    assert pixel()==[2]
    monkeypatch.setenv('SNNKIT_DATA', str(b))
    assert pixel()==[1] and len(pixel(a))>2

def test_read_only_root(tmp_path):
    root = little_mnist(tmp_path/'ro')
    before = listing(root)
    for o in [root, *root.rglob('*')]: o.chmod(0o555 if o.is_dir() else 0o444)
    try: d = load('MNIST', root, valid=.2)
    finally:
        for o in [root, *root.rglob('*')]: o.chmod(0o755)
    assert [len(o) for o in parts(d)]==[48, 12, 20] and listing(root)==before

@pytest.mark.parametrize('name,missing,url', [('MNIST', 'MNIST/raw/train-images-idx3-ubyte', 'train-images-idx3-ubyte.gz'), ('FashionMNIST', 'FashionMNIST/raw/train-images-idx3-ubyte', 'train-images'),
    ('CIFAR10', 'cifar-10-batches-py/data_batch_1', 'cifar-10-python.tar.gz')])
def test_missing_and_no_network(name, missing, url, tmp_path, capfd):
    with pytest.raises(FileNotFoundError) as e: load(name, tmp_path/'root')
    assert all(o in str(e.value) for o in (str(tmp_path/'root'/missing), url, 'no network', 'SNNKIT_DATA')) and '\n' not in str(e.value)
    assert listing(tmp_path/'root')==[]

def test_one_file_missing_and_no_network(tmp_path):
    root = little_mnist(tmp_path)
    (root/'MNIST/raw/t10k-labels-idx1-ubyte').unlink()
    before = listing(root)
    with pytest.raises(FileNotFoundError, match='t10k-labels-idx1-ubyte is missing.*t10k-labels-idx1-ubyte.gz'): load('MNIST', root)
    assert listing(root)==before

def test_root_that_cannot_be_made(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(FileNotFoundError, match='is missing and the download failed'): load('MNIST', tmp_path/'file/root')

def served(monkeypatch, folder):
    "Let torchvision 'download' from `folder`."
    def urlretrieve(url, filename, *args, **kwargs):
        p = folder/Path(url).name
        if not p.exists(): raise URLError('connection lost')
        shutil.copy(p, filename)
    monkeypatch.setattr('torchvision.datasets.utils._urlretrieve', urlretrieve)
    monkeypatch.setattr('torchvision.datasets.utils._get_redirect_url', lambda url, **kw: url)

def test_download(tmp_path, monkeypatch):
    "Whole files arrive, nothing else; a broken or forged one leaves nothing."
    src,web = little_mnist(tmp_path/'src'),tmp_path/'web'; web.mkdir()
    for o in (src/'MNIST/raw').iterdir(): (web/f'{o.name}.gz').write_bytes(gzip.compress(o.read_bytes(), mtime=0))
    md5 = lambda n: hashlib.md5((web/n).read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.MNIST, 'resources', [(n, md5(n)) for n,_ in torchvision.datasets.MNIST.resources])
    served(monkeypatch, web)
    a = load('MNIST', tmp_path/'root', valid=.2)
    assert a.split_hash==load('MNIST', src, valid=.2).split_hash
    assert listing(tmp_path/'root')==listing(src)
    last = web/'t10k-labels-idx1-ubyte.gz'
    whole = last.read_bytes()
    for damage in (lambda: last.write_bytes(whole[:-5]), last.unlink):
        damage()
        with pytest.raises(FileNotFoundError, match='download failed'): load('MNIST', tmp_path/'root2')
        assert listing(tmp_path/'root2')==[]

@pytest.mark.parametrize('file', ['train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'])
@pytest.mark.parametrize('damage', [lambda b: b[:-1], lambda b: b[:5], lambda b: b'', lambda b: b+b'x', lambda b: b'\x1f\x8b'+b[2:], lambda b: b[:4]+b'\xff'*4+b[8:]], ids=['cut', 'header cut', 'empty', 'longer', 'gz', 'count'])
def test_damaged_idx(file, damage, tmp_path):
    p = little_mnist(tmp_path)/f'MNIST/raw/{file}-ubyte'
    p.write_bytes(damage(p.read_bytes()))
    with pytest.raises(ValueError) as e: load('MNIST', tmp_path)
    assert str(p) in str(e.value) and 'Delete' in str(e.value).replace('delete', 'Delete')

def test_labels_that_do_not_fit(tmp_path):
    p = little_mnist(tmp_path)/'MNIST/raw/train-labels-idx1-ubyte'
    for bad,says in ((np.arange(59)%10, '60 images, but .* 59 labels'), (np.arange(60)%11, 'labels below 10'), (np.zeros((60, 1)), r'\[N\]')):
        write_idx(p, bad)
        with pytest.raises(ValueError, match=says): load('MNIST', tmp_path)

class Bomb:
    "A pickle that would run a program when opened."
    def __init__(self, path): self.path = path
    def __reduce__(self): return (open, (str(self.path), 'w'))

@pytest.fixture
def cifar(tmp_path, monkeypatch):
    "CIFAR-10 in its own format with 40 images, whose checksums torchvision is told."
    C = torchvision.datasets.CIFAR10
    root,rnd = tmp_path/'cifar-10-batches-py',np.random.default_rng(0); root.mkdir()
    def put(name, **kw):
        (root/name).write_bytes(pickle.dumps(kw))
        return [name, hashlib.md5((root/name).read_bytes()).hexdigest()]
    batch = lambda name, n: put(name, data=rnd.integers(0, 256, (n, 3072), dtype=np.uint8), labels=[i%10 for i in range(n)])
    monkeypatch.setattr(C, 'train_list', [batch(f'data_batch_{i}', 20) for i in (1, 2)])
    monkeypatch.setattr(C, 'test_list', [batch('test_batch', 10)])
    monkeypatch.setattr(C, 'meta', dict(C.meta, md5=put('batches.meta', label_names=[f'c{i}' for i in range(10)])[1]))
    return tmp_path

def test_cifar(cifar):
    d = load('cifar10', cifar, valid=.25)
    assert (d.name, d.in_channels, d.image_size, d.classes[3])==('CIFAR-10', 3, (32, 32), 'c3') and [len(o) for o in parts(d)]==[30, 10, 10]
    assert all(o.signed for o in parts(d)) and d.train[:][0].min()==-1
    assert not load('CIFAR-10', cifar, valid=.25, signed=False).train.signed
    with open(cifar/'cifar-10-batches-py/test_batch', 'rb') as f: assert d.test.x.flatten(1).numpy().tolist()==pickle.load(f)['data'].tolist()

@pytest.mark.parametrize('file', ['data_batch_2', 'test_batch', 'batches.meta'])
def test_forged_cifar_runs_nothing(cifar, file):
    p = cifar/'cifar-10-batches-py'/file
    p.write_bytes(pickle.dumps(Bomb(cifar/'boom')))
    with pytest.raises(ValueError, match=f'{file} has a wrong md5.*Delete'): load('CIFAR10', cifar)
    assert not (cifar/'boom').exists()

# Folders and archives

def pack(path, kind):
    "The folder `path` as an archive beside it."
    return Path(shutil.make_archive(str(path), kind, path))

@pytest.mark.parametrize('kind', ['zip', 'tar', 'gztar', 'bztar', 'xztar'])
def test_archives_are_as_good_as_folders(kind, tmp_path, monkeypatch):
    p = folder(tmp_path/'pets')
    a,arc = load(p),pack(p, kind)
    b = load(arc)
    assert a.split_hash==b.split_hash and a.classes==b.classes==['cat', 'dog'] and a.name==b.name=='pets'
    monkeypatch.setattr(D, '_decode', lambda *args: pytest.fail('decoded again'))
    assert load(str(arc)).split_hash==a.split_hash

def test_train_and_test_folders(tmp_path):
    p = folder(folder(tmp_path/'pets', 20, sub='train'), 5, seed=1, sub='test')
    d = load(p)
    assert [len(o) for o in parts(d)]==[36, 4, 10] and disjoint(d)
    want = [np.asarray(Image.open(o)) for o in sorted((p/'test').rglob('*.png'))]
    assert d.test.x.permute(0, 2, 3, 1).numpy().tolist()==np.stack(want).tolist()
    outer = tmp_path/'outer/deep'; shutil.copytree(p, outer/'pets')
    assert load(pack(tmp_path/'outer', 'zip')).split_hash==d.split_hash==load(tmp_path/'outer').split_hash

def test_copies_across_folders_leave_train(tmp_path):
    p = folder(folder(tmp_path/'pets', 20, sub='train'), 5, seed=1, sub='test')
    for i in range(3): shutil.copy(p/f'test/cat/00{i}.png', p/f'train/dog/copy{i}.png')
    d = load(p)
    assert d.dropped['test']==3 and disjoint(d) and len(d.test)==10 and len(d.train)+len(d.valid)==40

def test_what_is_no_image_is_passed_over(tmp_path):
    p = folder(tmp_path/'pets')
    name = load(p).split_hash
    for o in ('README.txt', 'cat/notes.md', '.DS_Store', 'cat/.hidden.png', '.git/x.png', '__MACOSX/cat/y.png'):
        (p/o).parent.mkdir(parents=True, exist_ok=True); (p/o).write_text('no image')
    for o in (p, pack(p, 'zip'), pack(p, 'gztar')): assert load(o).split_hash==name

def test_links_to_folders_are_followed(tmp_path):
    p = folder(tmp_path/'pets')
    os.makedirs(tmp_path/'linked'); [os.symlink(p/c, tmp_path/'linked'/c) for c in ('cat', 'dog')]
    assert load(tmp_path/'linked').split_hash==load(p).split_hash

def test_grey_and_colour(tmp_path):
    grey = load(folder(tmp_path/'grey', shape=(8, 8)))
    assert grey.in_channels==1 and not grey.train.signed
    p = tmp_path/'mixed'; shutil.copytree(tmp_path/'grey', p)
    Image.new('RGBA', (8, 8), (1, 2, 3, 0)).save(p/'cat/zz.png')
    raw = D._read(p)
    x = raw.rest[0]
    assert x.shape==(25, 3, 8, 8) and x[12,:,0,0].tolist()==[1, 2, 3] and x[0,0].equal(x[0,1]) and load(p).train.signed
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(p/'cat/deep.png')
    with pytest.raises(ValueError, match='deep.png has pixels of mode I;16.*8 bits'): load(p)

def broken_layouts():
    yield 'no image', lambda p: p.mkdir()
    yield 'no image', lambda p: folder(p, 0)
    yield 'unexpected places, such as', lambda p: folder(p, sub='a') and folder(p, sub='b') # 2 levels, not train and test
    yield 'unexpected places, such as loose.png', lambda p: Image.new('L', (8, 8)).save(folder(p)/'loose.png')
    yield 'unexpected places, such as val/', lambda p: folder(folder(p, sub='train'), sub='val')
    yield 'unexpected places, such as test/', lambda p: folder(p, classes=['train', 'test'])
    yield 'single class, cat', lambda p: folder(p, classes=['cat'])
    yield 'no image in mouse', lambda p: (folder(p)/'mouse').mkdir()
    yield 'no image in test/dog', lambda p: folder(folder(p, sub='train'), classes=['cat'], sub='test')
    yield 'no image in train/ape', lambda p: folder(folder(p, sub='train'), classes=['ape', 'cat', 'dog'], sub='test')
    yield 'no image in test/cat, test/dog', lambda p: folder(p, sub='train')
    yield 'too few', lambda p: folder(p, 1)

@pytest.mark.parametrize('says,make', [*broken_layouts()])
def test_broken_layout(says, make, tmp_path):
    make(tmp_path/'pets')
    with pytest.raises(ValueError, match=says): load(tmp_path/'pets')
    if (tmp_path/'pets').is_dir() and 'no image' not in says:
        with pytest.raises(ValueError, match=says): load(pack(tmp_path/'pets', 'tar'))

@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b'', lambda b: b'hello'*20, lambda b: b[:40]+b'\0'*20+b[60:]], ids=['cut', 'empty', 'text', 'zeroed'])
@pytest.mark.parametrize('ext', ['png', 'jpg'])
def test_damaged_image(damage, ext, tmp_path):
    p = folder(tmp_path/'pets', ext=ext, shape=(16, 16, 3))
    bad = p/f'dog/004.{ext}'
    bad.write_bytes(damage(bad.read_bytes()))
    if ext=='jpg' and damage(b'ab'*50)[40:60]==bytes(20): return # a JPEG with wrong quantisation still is one
    with pytest.raises(ValueError, match=f'pets/dog/004.{ext} cannot be read as an image.*[Rr]eplace') as e: load(p)
    assert '0x' not in str(e.value)
    arc = pack(p, 'zip')
    with pytest.raises(ValueError, match=f'pets.zip/dog/004.{ext}'): load(arc)
    assert listing(D.cache_home())==[]

@few
@given(st.sampled_from(['zip', 'tar', 'gztar', 'bztar', 'xztar']), st.floats(0, 1, exclude_max=True))
def test_truncated_archive(tmp_path_factory, kind, share):
    "However much of it arrived, a part of an archive is refused by name, and nothing stays behind."
    p = tmp_path_factory.getbasetemp()/'truncated/pets'
    if not p.exists(): folder(p, 4)
    whole = pack(p, kind).read_bytes()
    keep = len(whole)-10240 if kind=='tar' and share>.9 else int(share*len(whole)) # a tar's end is padding
    if kind=='tar' and keep>len(whole)-10240: keep = len(whole)//2
    bad = tmp_path_factory.mktemp('cut')/f'half.{"zip" if kind=="zip" else "tar"}'
    bad.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r'half\..* cannot be read .*fetch or pack it again'): load(bad)
    assert listing(bad.parent)==[(bad.name, keep)] and listing(D.cache_home())==[]

@pytest.mark.parametrize('kind', ['gztar', 'bztar', 'xztar'])
def test_tar_without_its_checksum(kind, tmp_path):
    "Every file arrived, only the end of the compressed stream did not."
    arc = pack(folder(tmp_path/'pets'), kind)
    arc.write_bytes(arc.read_bytes()[:-4])
    with pytest.raises(ValueError, match='pets.tar.* cannot be read'): load(arc)

def test_tar_cut_between_two_files(tmp_path):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode='w') as t: t.add(folder(tmp_path/'pets', 20), 'pets'); end = t.offset
    (tmp_path/'cut.tar').write_bytes(buf.getvalue()[:end])
    with pytest.raises(ValueError, match='no end-of-archive'): load(tmp_path/'cut.tar')
    (tmp_path/'whole.tar').write_bytes(buf.getvalue()[:end+1024])
    assert len(load(tmp_path/'whole.tar').test)==8

@few
@given(st.sampled_from(['zip', 'tar', 'gztar', 'xztar']), st.integers(0, 2**32), st.integers(1, 20))
def test_corrupt_archive(tmp_path_factory, kind, seed, n):
    "Bytes overwritten at random: a ValueError that names the file, or data; never another exception."
    p = tmp_path_factory.getbasetemp()/'corrupt/pets'
    if not p.exists(): folder(p, 4)
    b,rnd = bytearray(pack(p, kind).read_bytes()),random.Random(seed)
    for _ in range(n): b[rnd.randrange(len(b))] = rnd.randrange(256)
    bad = tmp_path_factory.mktemp('bad')/f'bad.{"zip" if kind=="zip" else "tar"}'
    bad.write_bytes(b)
    try: load(bad)
    except ValueError as e: assert 'bad.' in str(e) or 'too few' in str(e)

def test_a_file_that_is_no_archive(tmp_path):
    for name in ('a.zip', 'a.tar.xz', 'a.txt', 'a.png'):
        (tmp_path/name).write_text('hello')
        with pytest.raises(ValueError, match=f'{name} cannot be read'): load(tmp_path/name)

def test_a_strangers_archive_writes_nowhere(tmp_path):
    "Absolute paths, climbing paths and links in an archive are names, no more."
    arc,png = tmp_path/'in/evil.tar',io.BytesIO(); arc.parent.mkdir()
    Image.new('RGB', (8, 8)).save(png, 'png')
    with tarfile.open(arc, 'w') as t:
        def add(name, data=png.getvalue(), **kw):
            m = tarfile.TarInfo(name); m.size = 0 if kw else len(data)
            for k,v in kw.items(): setattr(m, k, v)
            t.addfile(m, io.BytesIO(data))
        for i in range(20): add(f'cat/{i}.png'); add(f'dog/{i}.png', png.getvalue()+bytes([i]))
        add('../../escaped.png'); add('cat/link.png', type=tarfile.SYMTYPE, linkname='/etc/passwd'); add('dog/fifo.png', type=tarfile.FIFOTYPE)
    before = listing(tmp_path)
    try: load(arc)
    except ValueError as e: assert 'too few' in str(e) # the pictures are all the same
    with zipfile.ZipFile(tmp_path/'in/evil.zip', 'w') as z: z.writestr('/tmp/../x/evil.png', png.getvalue())
    with pytest.raises(ValueError): load(tmp_path/'in/evil.zip')
    assert listing(tmp_path)==sorted(before+[('in/evil.zip', (tmp_path/'in/evil.zip').stat().st_size)])

def test_encrypted_zip(tmp_path):
    arc = pack(folder(tmp_path/'pets'), 'zip')
    b = bytearray(arc.read_bytes())
    for sig,at in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        i = -1
        while (i := b.find(sig, i+1))>=0: b[i+at] |= 1
    arc.write_bytes(b)
    with pytest.raises(ValueError, match='pets.zip cannot be read .*encrypted'): load(arc)

# The cache of decoded images

def test_cache_follows_the_content(tmp_path):
    a = pack(folder(tmp_path/'pets'), 'zip')
    first,stat = load(a),a.stat()
    assert len(listing(D.cache_home()/'decoded'))==1
    shutil.copy(a, tmp_path/'copy.zip')
    assert load(tmp_path/'copy.zip').split_hash==first.split_hash
    pack(folder(tmp_path/'pets', seed=9), 'zip')
    os.utime(a, ns=(stat.st_atime_ns, stat.st_mtime_ns)) # the same time, perhaps the same size
    second = load(a)
    assert second.split_hash!=first.split_hash==load(tmp_path/'copy.zip').split_hash
    assert load(a, size=16).image_size==(16, 16) and load(a).image_size==(8, 8)

@pytest.mark.parametrize('damage', [lambda b: b[:100], lambda b: b'', lambda b: b'\xff'*8+b[8:], lambda b: b[:-1]], ids=['cut', 'empty', 'header', 'short'])
def test_damaged_cache_is_made_anew(damage, tmp_path):
    a = pack(folder(tmp_path/'pets'), 'zip')
    first = load(a).split_hash
    file, = (D.cache_home()/'decoded').iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert load(a).split_hash==first and file.read_bytes()==whole

def test_without_room_for_a_cache(tmp_path, monkeypatch):
    a = pack(folder(tmp_path/'pets'), 'zip')
    first = load(a).split_hash
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'file'))
    assert load(a).split_hash==first
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'full'))
    def full(*args, **kw): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('safetensors.torch.save', full)
    assert load(a).split_hash==first and not any(o.is_file() for o in (tmp_path/'full').rglob('*')) and listing(tmp_path/'full/snnkit/decoded')==[]

# The JPEG form of CIFAR-10

def test_jpeg_cifar_never_passes_for_cifar(tmp_path):
    "By name or by path, it is called what it is, and asking for CIFAR-10 does not find it."
    p = folder(folder(tmp_path/'all', 20, shape=(32, 32, 3), ext='jpg', sub='train'), 5, seed=1, shape=(32, 32, 3), ext='jpg', sub='test')
    with pytest.raises(FileNotFoundError, match='cifar10-jpeg75.tar.xz is missing'): load('CIFAR10-JPEG', tmp_path)
    arc = pack(p, 'xztar').rename(tmp_path/'cifar10-jpeg75.tar.xz')
    for d in (load('CIFAR10-JPEG', tmp_path), load('CIFAR-10 (JPEG)', tmp_path), load(arc), load(str(arc))):
        assert d.name=='CIFAR-10 (JPEG)' and d.train.signed and [len(o) for o in parts(d)]==[36, 4, 10]
    with pytest.raises(FileNotFoundError, match='data_batch_1'): load('CIFAR10', tmp_path)

def test_a_folder_of_yours_never_passes_for_mnist(tmp_path, monkeypatch):
    folder(tmp_path/'mnist'); monkeypatch.chdir(tmp_path)
    assert load('./mnist').name==load(Path('mnist')).name=='mnist (own)'
    with pytest.raises(FileNotFoundError, match='MNIST/raw'): load('mnist', tmp_path/'root')

@pytest.mark.slow
def test_the_real_jpeg_cifar(real_data):
    if not (real_data/'cifar10-jpeg75.tar.xz').is_file(): pytest.skip(f'cifar10-jpeg75.tar.xz is not in {real_data}')
    d = load('CIFAR10-JPEG', real_data)
    assert d.name=='CIFAR-10 (JPEG)' and [len(o) for o in parts(d)]==[45000, 5000, 10000] and disjoint(d)
    assert [o.y.bincount().tolist() for o in parts(d)]==[[n]*10 for n in (4500, 500, 1000)]
