"No picture in two parts, one split and order a seed, and a clear answer to files that are missing, cut or forged."
import gzip,hashlib,io,json,os,pickle,random,shutil,signal,struct,subprocess,sys,tarfile,time,zipfile,zlib
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from urllib.error import URLError

import matplotlib.pyplot as plt, numpy as np, pytest, torch, torchvision
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from torch.utils.data import DataLoader
import snnkit.data as D
from snnkit.data import (Augmented, Data, Images, Raw, Shuffle, Trains, augmentations, batches, crop_flip, fingerprints,
                         from_dataset, from_tensors, kfold, load, shift_rotate, split, stratified, subset, turned)
from snnkit.models import lenet, twin
from snnkit.training import fit, set_seed

fixtures_are_shared = [HealthCheck.function_scoped_fixture]
few = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=fixtures_are_shared)
seeds = st.integers(0, 2**32-1)

@pytest.fixture(autouse=True)
def no_network_no_cache(monkeypatch, tmp_path_factory):
    "No test touches the user's cache or the network."
    def urlopen(*args, **kwargs): raise URLError('no network')
    monkeypatch.setattr('urllib.request.urlopen', urlopen)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    monkeypatch.delenv('SNNKIT_DATA', raising=False)

def noise(n, shape=(1, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator)

def parts(d): return d.train,d.valid,d.test
def keys(ds): return set(fingerprints(ds.x))
def disjoint(d): return not any(keys(a) & keys(b) for a,b in combinations(parts(d), 2))

def listing(path):
    def size(o): return o.stat().st_size if o.is_file() else -1
    return sorted((o.relative_to(path).as_posix(), size(o)) for o in path.rglob('*'))

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
    assert (digits.name, digits.num_classes, digits.in_channels, digits.size)==('digits', 10, 1, (28, 28))
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
@given(st.lists(st.integers(0, 5), min_size=30, max_size=120), seeds, st.floats(.1, .5), st.booleans())
def test_no_picture_in_two_parts(picks, seed, valid, own_test):
    "Few pictures, each many times, under random labels: whatever the split, the parts share none."
    pics,pick = noise(40), torch.tensor(picks)
    y = torch.arange(len(pick))%3
    x = pics[pick*6 + torch.arange(len(pick))%7]
    raw = Raw('copies', list('abc'), (x,y), (pics[:6],torch.arange(6)%3) if own_test else None)
    try: d = split(raw, lambda y: stratified(y, valid, seed))
    except ValueError as e:
        assert 'too few' in str(e) or 'is empty' in str(e)
        return
    assert disjoint(d)
    assert len(d.train)+len(d.valid)+sum(d.dropped.values())+len(d.test)==len(x)+6*own_test
    in_test = set(fingerprints(pics[:6])) if own_test else set()
    assert set().union(*map(keys, parts(d)))==set(fingerprints(x)) | in_test

@few
@given(st.integers(2, 6), st.integers(6, 60), seeds, st.floats(.2, .6))
def test_split_is_stratified_and_repeats(k, n, seed, part):
    y = torch.arange(n*k)%k
    a,b = stratified(y, part, seed)
    assert sorted([*a.tolist(), *b.tolist()])==list(range(n*k))
    assert (b.sort()[0]==b).all() and (y[b].bincount(minlength=k)-part*n).abs().max()<=1.5
    again = stratified(y, part, seed)
    assert a.equal(again[0]) and b.equal(again[1])

def test_name_of_the_split():
    a = load(valid=.1, seed=42)
    ways = ({}, dict(seed=1), dict(valid=.2), dict(fold=0), dict(fold=1), dict(fold=0, folds=4), dict(size=14))
    names = [load(**o).split_hash for o in ways]
    assert names[0]==a.split_hash and len(set(names))==len(names) and all(len(o)==8 for o in names)
    for o in (load(signed=True), load(augment=crop_flip(28))): assert o.split_hash==a.split_hash
    assert all(o.x.equal(p.x) and o.y.equal(p.y) for o,p in zip(parts(a), parts(load())))

def test_the_test_part_ignores_the_seed(tmp_path):
    p = folder(tmp_path/'pets', 20)
    tests = [load(p, **o).test.x for o in ({}, dict(seed=5), dict(valid=.3), dict(fold=1, folds=3))]
    assert all(o.equal(tests[0]) for o in tests) and len(tests[0])==8

def test_another_process_splits_and_shuffles_alike(digits):
    code = '''if 1:
        from snnkit.data import load,Shuffle
        d = load()
        print(d.split_hash, *list(Shuffle(d.train, 3, epoch=2))[:5])'''
    env = os.environ | dict(PYTHONHASHSEED='77')
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env)
    out = other.stdout.split()
    assert out==[digits.split_hash, *map(str, list(Shuffle(digits.train, 3, epoch=2))[:5])]

# Folds

@few
@given(st.integers(2, 5), st.integers(2, 8), st.integers(8, 30), seeds)
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
    assert all(a.valid.y.bincount().tolist()==[80]*10 for a in five)
    assert not load(fold=0, seed=4).valid.x.equal(five[0].valid.x)

@few
@given(st.lists(st.integers(0, 9), min_size=40, max_size=90), st.integers(2, 4), seeds)
def test_folds_of_copies(picks, folds, seed):
    "Pictures that occur many times: no fold trains on one that it validates, and over all folds each one validates."
    x,y = noise(40)[torch.tensor(picks)*4 + torch.arange(len(picks))%4],torch.arange(len(picks))%2
    raw = Raw('copies', list('ab'), (x,y), (x[:3],y[:3]))
    try: cuts = [split(raw, lambda y: kfold(y, i, folds, seed)) for i in range(folds)]
    except ValueError as e:
        assert 'smallest class' in str(e) or 'is empty' in str(e)
        return
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
    assert len(a)==n and len(b)==m and set(a.tolist())<=set(b.tolist())
    assert a.tolist()==sorted({*a.tolist()}) and subset(y, n).equal(a)
    have,all_ = y[a].bincount(minlength=4),y.bincount(minlength=4)
    assert have.min()>=2 and (have-n/len(y)*all_).abs().max()<=4
    assert subset(y, len(y)).tolist()==list(range(len(y)))

@pytest.mark.parametrize('n', [20, 37, 400, 3999, 4000])
def test_part_of_digits(digits, n):
    "The same images whatever the split, of every class alike; test stays whole."
    used = lambda d: sorted(fingerprints(d.train.x)+fingerprints(d.valid.x))
    ways = [dict(valid=.5, seed=1), dict(valid=.5), dict(fold=0, folds=2), dict(fold=1, folds=2, seed=9)]
    cuts = [load(part=n, **o) for o in ways]
    assert all(used(d)==used(cuts[0]) and len(used(d))==n for d in cuts)
    assert all(disjoint(d) and d.test.x.equal(digits.test.x) for d in cuts)
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
    raw = Raw('copies', list('ab'), (x,y), (x[:20],y[:20]))
    def cut(part): return split(raw, lambda y: stratified(y, .5), part=part)
    d = cut(40)
    assert d.dropped==dict(test=20, valid=0) and len(d.train)+len(d.valid)==40 and disjoint(d)
    with pytest.raises(ValueError, match='from 4, two of every class, to 40'): cut(41)

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

@pytest.mark.parametrize('x,y,says', [
    (torch.rand(2, 1, 4, 4)*9, torch.arange(2), 'from -1 to 1'),
    (noise(2).int(), torch.arange(2), 'must be uint8'),
    (noise(2)[0, 0, 0], torch.arange(8), 'uint8 of shape'),
    (noise(2)[:,0], torch.arange(2), r'\[N, C, H, W\]'),
    (noise(2), torch.arange(3), r'int64 of shape \[2\]'),
    (noise(2), torch.rand(2), 'int64')])
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
        with pytest.raises(ValueError, match='from 0 to 10'): Shuffle(Images(noise(10), torch.arange(10)), skip=skip)

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
    assert ds[:][0].equal(first) and ds[7][0].equal(first[7])
    assert ds[-1][0].equal(first[-1]) and ds[[3, 5]][0].equal(first[[3, 5]])
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
    x = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    x[...,4,4] = 255
    ds = Augmented(Images(x, torch.zeros(1).long()), crop_flip(9, 2))
    seen = set()
    for ds.epoch in range(300): seen.add(tuple(ds.pixels(0)[0].nonzero()[0].tolist()))
    assert seen=={(i,j) for i in range(2, 7) for j in range(2, 7)}
    half = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    half[...,:2] = 255
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
        data = Data('few', digits.classes, ds, few, few, dict(test=0, valid=0))
        fit(net, data, epochs=2, batch_size=16, seed=3, quiet=True)
        return torch.cat(seen)
    set_seed(0)
    snn = lenet(num_steps=4, kappa=4.)
    ann = twin(snn)
    a,b = looks(snn),looks(ann)
    assert a.equal(b) and len(a)==120 and not a[:60].sort(0)[0].equal(a[60:].sort(0)[0])

shapes = st.sampled_from([(1, 28, 28), (3, 8, 13), (1, 9, 6)])

@few
@given(st.floats(-180, 180), st.floats(-9, 9), st.floats(-9, 9), shapes, st.integers(0, 99))
def test_turned_is_torchvisions_affine(angle, dx, dy, shape, seed):
    "To one grey level, but for pixels at the very edge of the image, where rounding decides whether they are inside."
    from torchvision.transforms.v2 import InterpolationMode, functional
    x = noise(1, shape, seed)
    ours = turned(x, [(angle, dx, dy)])
    theirs = functional.affine(x, angle, [dx, dy], 1., [0., 0.], InterpolationMode.BILINEAR)
    d = (ours.int()-theirs.int()).abs()
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
    def turn(*move): return turned(white, [move])[0,0]
    assert turn(45., 0., 0.)[0,0]==0==turn(0., 3., 0.)[4,2]
    assert turn(45., 1., 1.)[4,4]==255

def test_augmentations_go_by_name(digits):
    for name,by_hand in (('shift', shift_rotate()), ('mirror', crop_flip((28, 28), 0)), ('flip', crop_flip((28, 28)))):
        d = load(augment=name, seed=7)
        assert d.train.pixels([0, 9]).equal(Augmented(d.train, by_hand, seed=7).pixels([0, 9]))
        assert not isinstance(d.valid, Augmented)
    assert load(augment='flip', size=(14, 20)).train.pixels([0]).shape==(1, 1, 14, 20)
    with pytest.raises(ValueError, match="`augment` is 'turn'.*'shift', 'mirror', 'flip'"): load(augment='turn')
    wrong = [(dict(degrees=-1), '`degrees` is -1'),
             (dict(degrees=181), r'\[0, 180\]'),
             (dict(shift=-.5), '`shift` is'),
             (dict(shift=float('nan')), '`shift` is')]
    for kw,says in wrong:
        with pytest.raises(ValueError, match=says): shift_rotate(**kw)

# Arguments

@pytest.mark.parametrize('kw,says', [
    (dict(name='mnizt'), 'digits, MNIST, FashionMNIST, CIFAR10, CIFAR10-JPEG'),
    (dict(name='no/such/folder'), 'Check the spelling'),
    (dict(name=''), 'a name or a path'),
    (dict(name=3), 'a name or a path'),
    (dict(name=Path('digits-of-mine')), 'the path of a folder'),
    *[(dict(valid=o), '`valid` is') for o in (0, 1, -.1, 1.5, float('nan'))],
    (dict(valid=.0001), 'too few'),
    (dict(fold=5), 'from 0 to 4'),
    (dict(fold=-1), 'from 0 to 4'),
    (dict(fold=.5), 'integer'),
    (dict(fold=0, folds=1), 'at least 2'),
    (dict(fold=0, folds=401), 'smallest class has 400'),
    (dict(seed=-1), '`seed` is -1'),
    (dict(seed=2**32), '`seed`'),
    (dict(seed=1.5), '`seed`'),
    (dict(size=0), '`size`'),
    (dict(size=(3, 4, 5)), '`size`'),
    *[(dict(part=o), 'from 20, two of every class, to 4000') for o in (0, 19, 4001, -5, .5, 100.)],
    (dict(part=20), 'too few')])
def test_bad_arguments(kw, says):
    with pytest.raises(ValueError, match=says): load(**kw)

@pytest.mark.parametrize('name', ['digits', 'Digits', ' digits '.strip(), 'DIGITS'])
def test_names_are_forgiving(name): assert load(name).name=='digits'

def test_size(tmp_path):
    assert load(size=(20, 30)).size==(20, 30) and load(size=14).size==(14, 14)
    p = folder(tmp_path/'pets')
    Image.new('RGB', (30, 20)).save(p/'cat/wide.png')
    with pytest.raises(ValueError, match=r'8 x 8 \(24 images\), 20 x 30 \(1 images\).*size=32'): load(p)
    assert load(p, size=(10, 12)).size==(10, 12)

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

@pytest.mark.parametrize('name,missing,url', [
    ('MNIST', 'MNIST/raw/train-images-idx3-ubyte', 'train-images-idx3-ubyte.gz'),
    ('FashionMNIST', 'FashionMNIST/raw/train-images-idx3-ubyte', 'train-images'),
    ('CIFAR10', 'cifar-10-batches-py/data_batch_1', 'cifar-10-python.tar.gz')])
def test_missing_and_no_network(name, missing, url, tmp_path, capfd):
    with pytest.raises(FileNotFoundError) as e: load(name, tmp_path/'root')
    told = str(e.value)
    assert all(o in told for o in (str(tmp_path/'root'/missing), url, 'no network', 'SNNKIT_DATA'))
    assert '\n' not in told
    assert listing(tmp_path/'root')==[]

def test_one_file_missing_and_no_network(tmp_path):
    root = little_mnist(tmp_path)
    (root/'MNIST/raw/t10k-labels-idx1-ubyte').unlink()
    before = listing(root)
    says = 't10k-labels-idx1-ubyte is missing.*t10k-labels-idx1-ubyte.gz'
    with pytest.raises(FileNotFoundError, match=says): load('MNIST', root)
    assert listing(root)==before

def test_root_that_cannot_be_made(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(FileNotFoundError, match='is missing and the download failed'):
        load('MNIST', tmp_path/'file/root')

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
    src,web = little_mnist(tmp_path/'src'),tmp_path/'web'
    web.mkdir()
    for o in (src/'MNIST/raw').iterdir(): (web/f'{o.name}.gz').write_bytes(gzip.compress(o.read_bytes(), mtime=0))
    md5 = lambda n: hashlib.md5((web/n).read_bytes()).hexdigest()
    mnist = torchvision.datasets.MNIST
    monkeypatch.setattr(mnist, 'resources', [(n, md5(n)) for n,_ in mnist.resources])
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
@pytest.mark.parametrize('damage', [
    pytest.param(lambda b: b[:-1], id='cut'),
    pytest.param(lambda b: b[:5], id='header cut'),
    pytest.param(lambda b: b'', id='empty'),
    pytest.param(lambda b: b+b'x', id='longer'),
    pytest.param(lambda b: b'\x1f\x8b'+b[2:], id='gz'),
    pytest.param(lambda b: b[:4]+b'\xff'*4+b[8:], id='count')])
def test_damaged_idx(file, damage, tmp_path):
    p = little_mnist(tmp_path)/f'MNIST/raw/{file}-ubyte'
    p.write_bytes(damage(p.read_bytes()))
    with pytest.raises(ValueError) as e: load('MNIST', tmp_path)
    assert str(p) in str(e.value) and 'Delete' in str(e.value).replace('delete', 'Delete')

def test_labels_that_do_not_fit(tmp_path):
    p = little_mnist(tmp_path)/'MNIST/raw/train-labels-idx1-ubyte'
    wrong = [(np.arange(59)%10, '60 images, but .* 59 labels'),
             (np.arange(60)%11, 'labels below 10'),
             (np.zeros((60, 1)), r'\[N\]')]
    for bad,says in wrong:
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
    root,rnd = tmp_path/'cifar-10-batches-py',np.random.default_rng(0)
    root.mkdir()
    def put(name, **kw):
        (root/name).write_bytes(pickle.dumps(kw))
        return [name, hashlib.md5((root/name).read_bytes()).hexdigest()]
    def batch(name, n):
        pixels = rnd.integers(0, 256, (n, 3072), dtype=np.uint8)
        return put(name, data=pixels, labels=[i%10 for i in range(n)])
    monkeypatch.setattr(C, 'train_list', [batch(f'data_batch_{i}', 20) for i in (1, 2)])
    monkeypatch.setattr(C, 'test_list', [batch('test_batch', 10)])
    md5 = put('batches.meta', label_names=[f'c{i}' for i in range(10)])[1]
    monkeypatch.setattr(C, 'meta', dict(C.meta, md5=md5))
    return tmp_path

def test_cifar(cifar):
    d = load('cifar10', cifar, valid=.25)
    assert (d.name, d.in_channels, d.size, d.classes[3])==('CIFAR-10', 3, (32, 32), 'c3')
    assert [len(o) for o in parts(d)]==[30, 10, 10]
    assert all(o.signed for o in parts(d)) and d.train[:][0].min()==-1
    assert not load('CIFAR-10', cifar, valid=.25, signed=False).train.signed
    with open(cifar/'cifar-10-batches-py/test_batch', 'rb') as f: want = pickle.load(f)['data']
    assert d.test.x.flatten(1).numpy().tolist()==want.tolist()

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
    outer = tmp_path/'outer/deep'
    shutil.copytree(p, outer/'pets')
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
        (p/o).parent.mkdir(parents=True, exist_ok=True)
        (p/o).write_text('no image')
    for o in (p, pack(p, 'zip'), pack(p, 'gztar')): assert load(o).split_hash==name

def test_links_to_folders_are_followed(tmp_path):
    p = folder(tmp_path/'pets')
    os.makedirs(tmp_path/'linked')
    for c in ('cat', 'dog'): os.symlink(p/c, tmp_path/'linked'/c)
    assert load(tmp_path/'linked').split_hash==load(p).split_hash

def test_grey_and_colour(tmp_path):
    grey = load(folder(tmp_path/'grey', shape=(8, 8)))
    assert grey.in_channels==1 and not grey.train.signed
    p = tmp_path/'mixed'
    shutil.copytree(tmp_path/'grey', p)
    Image.new('RGBA', (8, 8), (1, 2, 3, 0)).save(p/'cat/zz.png')
    raw = D._read(p)
    x = raw.rest[0]
    assert x.shape==(25, 3, 8, 8) and x[12,:,0,0].tolist()==[1, 2, 3] and x[0,0].equal(x[0,1]) and load(p).train.signed
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(p/'cat/deep.png')
    with pytest.raises(ValueError, match='deep.png has pixels of mode I;16.*8 bits'): load(p)

def broken_layouts():
    yield 'no image', lambda p: p.mkdir()
    yield 'no image', lambda p: folder(p, 0)
    yield 'unexpected places, such as', lambda p: folder(p, sub='a') and folder(p, sub='b') # 2 levels, but no train
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

@pytest.mark.parametrize('damage', [
    pytest.param(lambda b: b[:len(b)//2], id='cut'),
    pytest.param(lambda b: b'', id='empty'),
    pytest.param(lambda b: b'hello'*20, id='text'),
    pytest.param(lambda b: b[:40]+b'\0'*20+b[60:], id='zeroed')])
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
    with tarfile.open(fileobj=buf, mode='w') as t:
        t.add(folder(tmp_path/'pets', 20), 'pets')
        end = t.offset
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
    arc,png = tmp_path/'in/evil.tar',io.BytesIO()
    arc.parent.mkdir()
    Image.new('RGB', (8, 8)).save(png, 'png')
    with tarfile.open(arc, 'w') as t:
        def add(name, data=png.getvalue(), **kw):
            m = tarfile.TarInfo(name)
            m.size = 0 if kw else len(data)
            for k,v in kw.items(): setattr(m, k, v)
            t.addfile(m, io.BytesIO(data))
        for i in range(20):
            add(f'cat/{i}.png')
            add(f'dog/{i}.png', png.getvalue()+bytes([i]))
        add('../../escaped.png')
        add('cat/link.png', type=tarfile.SYMTYPE, linkname='/etc/passwd')
        add('dog/fifo.png', type=tarfile.FIFOTYPE)
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
    assert load(a, size=16).size==(16, 16) and load(a).size==(8, 8)

@pytest.mark.parametrize('damage', [
    pytest.param(lambda b: b[:100], id='cut'),
    pytest.param(lambda b: b'', id='empty'),
    pytest.param(lambda b: b'\xff'*8+b[8:], id='header'),
    pytest.param(lambda b: b[:-1], id='short')])
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
    assert load(a).split_hash==first
    assert not any(o.is_file() for o in (tmp_path/'full').rglob('*'))
    assert listing(tmp_path/'full/snnkit/decoded')==[]

# The JPEG form of CIFAR-10

def test_jpeg_cifar_never_passes_for_cifar(tmp_path):
    "By name or by path, it is called what it is, and asking for CIFAR-10 does not find it."
    photos = dict(shape=(32, 32, 3), ext='jpg')
    p = folder(folder(tmp_path/'all', 20, sub='train', **photos), 5, seed=1, sub='test', **photos)
    with pytest.raises(FileNotFoundError, match='cifar10-jpeg75.tar.xz is missing'): load('CIFAR10-JPEG', tmp_path)
    arc = pack(p, 'xztar').rename(tmp_path/'cifar10-jpeg75.tar.xz')
    for d in (load('CIFAR10-JPEG', tmp_path), load('CIFAR-10 (JPEG)', tmp_path), load(arc), load(str(arc))):
        assert d.name=='CIFAR-10 (JPEG)' and d.train.signed and [len(o) for o in parts(d)]==[36, 4, 10]
    with pytest.raises(FileNotFoundError, match='data_batch_1'): load('CIFAR10', tmp_path)

def test_a_folder_of_yours_never_passes_for_mnist(tmp_path, monkeypatch):
    folder(tmp_path/'mnist')
    monkeypatch.chdir(tmp_path)
    assert load('./mnist').name==load(Path('mnist')).name=='mnist (own)'
    with pytest.raises(FileNotFoundError, match='MNIST/raw'): load('mnist', tmp_path/'root')

# Splits stay what they were

def records():
    "The split that each kind of data has in the records of this repository."
    for f in sorted((Path(__file__).parents[1]/'results').glob('*.jsonl')):
        for r in map(json.loads, f.read_text().splitlines()):
            c = r['config']
            yield (c['data'], c['fold'], c['folds'], c['part']),r['split']

known_splits = sorted(dict(records()).items(), key=str)
photographs = {k: s for k,s in known_splits if k[0]=='CIFAR10-JPEG'}
others = [pytest.param(k, s, id='-'.join(map(str, k))) for k,s in known_splits if k not in photographs]

def split_hash(kind, root):
    data,fold,folds,part = kind
    return load(data, root, fold=fold, folds=folds, part=part).split_hash

@pytest.mark.parametrize('kind,name', others)
def test_splits_of_the_records(kind, name, request):
    "Whoever repeats a run of the book trains on the same images."
    root = None if kind[0]=='digits' else request.getfixturevalue('real_data')
    assert split_hash(kind, root)==name

@pytest.mark.slow
def test_the_real_jpeg_cifar(real_data):
    "In one test, as the photographs are decoded once"
    if not (real_data/'cifar10-jpeg75.tar.xz').is_file(): pytest.skip(f'cifar10-jpeg75.tar.xz is not in {real_data}')
    d = load('CIFAR10-JPEG', real_data)
    assert d.name=='CIFAR-10 (JPEG)' and [len(o) for o in parts(d)]==[45000, 5000, 10000] and disjoint(d)
    assert [o.y.bincount().tolist() for o in parts(d)]==[[n]*10 for n in (4500, 500, 1000)]
    for kind,name in photographs.items(): assert split_hash(kind, real_data)==name

# Tensors of one's own

def shades(n=60, classes=3, shape=(1, 8, 8)): return noise(n, shape),torch.arange(n)%classes

def test_from_tensors():
    "The same object as `load` gives, the same split as of the same pixels in a folder or in `Raw`."
    x,y = shades()
    d = from_tensors(x, y, valid=.2, seed=5)
    e = split(Raw('tensors', list('012'), (x,y)), lambda y: stratified(y, .2, 5))
    assert type(d) is Data and d.split_hash==e.split_hash and d.classes==['0', '1', '2'] and disjoint(d)
    assert all(a.x.equal(b.x) and a.y.equal(b.y) for a,b in zip(parts(d), parts(e)))
    for same in ((x.numpy(), y.numpy()), (x, y.tolist()), (x, y.int()), (x.to('cpu', copy=True), y.to(torch.uint8))):
        assert from_tensors(*same, valid=.2, seed=5).split_hash==d.split_hash
    for how in (dict(seed=6), dict(valid=.3), dict(fold=0), dict(part=24)):
        other = from_tensors(x, y, **dict(valid=.2, seed=5) | how)
        assert other.split_hash!=d.split_hash and other.test.x.equal(d.test.x) and disjoint(other)
    assert from_tensors(x, y, 'mnist').name=='mnist (own)'
    assert from_tensors(x, y, 'shades', list('abc')).classes==list('abc')

def test_from_tensors_with_a_test_part():
    x,y = shades()
    d = from_tensors(x[:40], y[:40], test=(x[36:], y[36:]))
    assert d.test.x.equal(x[36:]) and d.dropped['test']==4 and disjoint(d) and len(d.train)+len(d.valid)==36
    with pytest.raises(ValueError, match='samples of shape'): from_tensors(x, y, test=(x[:, :, :5], y))
    with pytest.raises(ValueError, match='a label is 2, but there are 2 classes'):
        from_tensors(x, y%2, classes=['a', 'b'], test=(x, y))

@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_floats_are_taken_as_they_are(dtype):
    x = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).to(dtype)
    d = from_tensors(x, torch.arange(60)%2)
    got,_ = d.train[:]
    assert got.dtype==torch.float32 and disjoint(d) and not d.train.signed
    assert set(got.flatten().tolist())<=set(x.float().flatten().tolist())
    got.zero_()
    assert d.train[:][0].abs().sum()>0 # a network that works in place does not reach the data
    with pytest.raises(ValueError, match='floats are taken as they are'):
        from_tensors(x, torch.arange(60)%2, signed=True)

def test_bytes_of_colour_are_signed_by_default():
    x,y = shades(shape=(3, 4, 4))
    assert from_tensors(x, y).train.signed and not from_tensors(x, y, signed=False).train.signed
    assert from_tensors(x, y).split_hash==from_tensors(x, y, signed=False).split_hash

def test_vectors():
    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    d = from_tensors(x, torch.arange(60)%3, augment=lambda o: o.mul_(0))
    assert d.in_channels==4 and d.size==() and d.train[[0, 1]][0].eq(0).all()
    assert next(iter(batches(d.valid, 2)))[0].shape==(2, 4)

bad_x,bad_y = shades()
@pytest.mark.parametrize('x,y,kw,says', [
    (bad_x.int(), bad_y, {}, '`x` is torch.int32.*uint8'),
    (bad_x*1., bad_y, {}, 'values from 0 to 255.*`x/255`'),
    (bad_x/255*float('nan'), bad_y, {}, 'finite'),
    (bad_x/255+float('inf'), bad_y, {}, 'inf'),
    (bad_x[:, 0], bad_y, {}, r'`x\[:, None\]`'),
    (bad_x[0, 0, 0, 0], bad_y, {}, 'single number'),
    (bad_x[:, :, :0], bad_y, {}, r'shape \[60, 1, 0, 8\]'),
    (bad_x, bad_y[:9], {}, r'int64 of shape \[60\]'),
    (bad_x, bad_y*1., {}, r'float32.*`y.long\(\)`'),
    (bad_x, bad_y>0, {}, 'torch.bool'),
    (bad_x, torch.nn.functional.one_hot(bad_y), {}, r'shape \[60, 3\].*argmax'),
    (bad_x, bad_y-1, {}, 'the label -1'),
    (bad_x, bad_y+1, {}, 'labels are 1, 2, 3.*without a gap'),
    (bad_x, bad_y, dict(classes=['a', 'b']), 'label is 2, but there are 2 classes'),
    (bad_x, bad_y, dict(classes='abc'), '`classes` is'),
    (bad_x, bad_y, dict(name=''), '`name` is'),
    (bad_x, bad_y, dict(test=bad_x), '`test` is Tensor'),
    (bad_x, bad_y, dict(valid=2), '`valid` is 2'),
    (bad_x, bad_y, dict(fold=7), '`fold` is 7'),
    (bad_x, bad_y, dict(part=3), '`part` is 3'),
    (bad_x, bad_y, dict(augment='turn'), '`augment` is'),
    (bad_x, bad_y, dict(signed='yes'), '`signed` is'),
    (bad_x, bad_y, dict(events='yes'), '`events` is'),
    (bad_x[:2], bad_y[:2], {}, 'too few'),
    (bad_x[:0], bad_y[:0], {}, 'too few'),
    (bad_x.to_sparse(), bad_y, {}, '`x` is Tensor'),
    ('x', bad_y, {}, '`x` is str'),
    (bad_x, ['a']*60, {}, '`y` is list')])
def test_from_tensors_refuses(x, y, kw, says):
    with pytest.raises(ValueError, match=says): from_tensors(x, y, **kw)

# Spike trains

def trains(n=40, steps=7, seed=0):
    x = (torch.rand(n, steps, 2, 5, 5, generator=torch.Generator().manual_seed(seed))<.3)
    return x,torch.arange(n)%2

@pytest.mark.parametrize('dtype', [torch.bool, torch.uint8, torch.int16, torch.float32])
def test_trains(dtype):
    "Whatever they came as, kept as small integers, the same split, and handed out as floats, time first."
    x,y = trains()
    d = from_tensors(x.to(dtype), y)
    assert d.train.x.dtype==torch.int8 and d.split_hash==from_tensors(x, y).split_hash and disjoint(d)
    assert (d.num_steps, d.in_channels, d.size)==(7, 2, (5, 5)) and [len(o) for o in parts(d)]==[28, 4, 8]
    assert 'trains of 7 steps of 2 x 5 x 5' in repr(d)
    one,label = d.train[0]
    assert one.shape==(7, 2, 5, 5) and one.dtype==torch.float32 and set(one.unique().tolist())=={0., 1.}
    for workers in (0, 2):
        got = [*batches(d.train, 8, Shuffle(d.train, 3), num_workers=workers)]
        assert [list(o.shape) for o,_ in got]==[[7, 8, 2, 5, 5]]*3+[[7, 4, 2, 5, 5]]
        assert all(o.is_contiguous() for o,_ in got)
        order = list(Shuffle(d.train, 3))
        assert torch.cat([o for o,_ in got], 1).equal(d.train[order][0].transpose(0, 1))
        assert torch.cat([o for _,o in got]).equal(d.train.y[order])
    xb,_ = next(iter(batches(D.evenly(d.train, 5), 5)))
    assert xb.shape==(7, 5, 2, 5, 5)

def test_trains_under_accelerate():
    "A batch keeps its size and its axis in a loader that Accelerate made, the last one too."
    from accelerate import Accelerator
    d = from_tensors(*trains())
    loader = Accelerator(cpu=True).prepare(batches(d.train, 8, Shuffle(d.train, 5)))
    assert [list(x.shape) for x,_ in loader]==[[7, 8, 2, 5, 5]]*3+[[7, 4, 2, 5, 5]]

def test_a_model_without_encoder_learns_from_trains():
    from snnkit.layers import Flatten, Integrator, Linear
    x = torch.zeros(80, 6, 1, 2, 2)
    y = torch.arange(80)%2
    for i in range(80):
        x[i, i%6, 0, y[i]] = 1
        x[i, (i//6)%6, 0, 1-y[i], i%2] = 1
    d = from_tensors(x, y, valid=.2)
    torch.manual_seed(0)
    net = torch.nn.Sequential(Flatten(), Linear(4, 2), Integrator(leak=1.))
    opt = torch.optim.Adam(net.parameters(), lr=.1)
    for e in range(20):
        for xb,yb in batches(d.train, 8, Shuffle(d.train, epoch=e)):
            opt.zero_grad()
            torch.nn.functional.cross_entropy(net(xb), yb).backward()
            opt.step()
    xb,yb = next(iter(batches(d.valid, 100)))
    assert (net(xb).argmax(1)==yb).float().mean()>.9

def test_trains_may_be_changed_while_training():
    d = from_tensors(*trains(), augment=lambda x: x.flip(-1))
    assert d.train.time_first and d.train[:][0].equal(d.train.ds[:][0].flip(-1))
    assert next(iter(batches(d.train, 4)))[0].shape==(7, 4, 2, 5, 5)

@pytest.mark.parametrize('x,kw,says', [
    (trains()[0].int()*3, {}, r'values from 0 to 3.*clamp'),
    (trains()[0][:, :, 0, 0], {}, r'\[N, C, H, W\].*Trains'),
    (trains()[0][:, 0], dict(events=True), None),
    (trains()[0][:, 0, 0, 0], dict(events=True), r'\[N, T, \.\.\.\]'),
    (trains()[0], dict(events=False), r'\[N, C, H, W\]'),
    (trains()[0], dict(signed=True), '`signed`')])
def test_trains_refused(x, kw, says):
    if says is None:
        assert from_tensors(x, torch.arange(40)%2, **kw).num_steps==2
        return
    with pytest.raises(ValueError, match=says): from_tensors(x, torch.arange(40)%2, **kw)

def test_trains_of_unequal_length():
    class Ragged(torch.utils.data.Dataset):
        time_first = True
        def __len__(self): return 4
        def __getitem__(self, i): return torch.zeros(5+i%2, 3),i
    with pytest.raises(ValueError, match='5, 6 steps.*equally long'): next(iter(batches(Ragged(), 4)))

# A torch Dataset

class Made(torch.utils.data.Dataset):
    "Samples that are made on the spot, and counted."
    def __init__(self, make=lambda i: noise(60)[i], label=lambda i: i%3, n=60):
        self.make,self.label,self.n,self.asked = make,label,n,0
    def __len__(self): return self.n
    def __getitem__(self, i):
        if not 0<=i<self.n: raise IndexError(i)
        self.asked += 1
        return self.make(i),self.label(i)

def test_from_dataset_stays_where_it_is():
    made,(x,y) = Made(),shades()
    d,e = from_dataset(made, seed=3),from_tensors(x, y, seed=3)
    assert made.asked==60 and d.name=='Made' and len(d.split_hash)==8
    assert d.split_hash==from_dataset(Made(), seed=3).split_hash!=from_dataset(Made(), seed=4).split_hash
    assert not any(torch.is_tensor(o) and o.numel()>60 for o in vars(d.train).values())
    for a,b in zip(parts(d), parts(e)): assert a.y.equal(b.y) and torch.cat([o for o,_ in batches(a, 7)]).equal(b[:][0])
    assert made.asked==120 and d.train[3][0].equal(e.train[3][0]) and d.train[[5, 1]][0].equal(e.train[[5, 1]][0])
    order = Shuffle(d.train, 7, epoch=2)
    for workers in (0, 2):
        got = torch.cat([o for o,_ in batches(d.train, 7, order, num_workers=workers)])
        assert got.equal(e.train[list(order)][0])
    assert from_dataset(made, seed=3, in_memory=True, name='tensors').split_hash==e.split_hash

@pytest.mark.parametrize('label', [
    lambda i: i%3,
    lambda i: torch.tensor(i%3),
    lambda i: np.int64(i%3),
    lambda i: np.array(i%3),
    lambda i: torch.tensor(i%3, dtype=torch.uint8)])
def test_labels_of_a_dataset(label):
    assert from_dataset(Made(label=label)).split_hash==from_dataset(Made()).split_hash

@pytest.mark.parametrize('label,says', [
    (lambda i: torch.eye(3)[i%3], r'sample 0 of Made has a label of shape \[3\].*argmax'),
    (lambda i: i/3, 'the label 0.0'),
    (lambda i: 'cat', "the label 'cat'"),
    (lambda i: None, 'the label None'),
    (lambda i: i>5, 'the label False'),
    (lambda i: 5-i, 'sample 6 of Made has the label -1'),
    (lambda i: 2*(i%2), 'without a gap')])
def test_labels_of_a_dataset_refused(label, says):
    with pytest.raises(ValueError, match=says): from_dataset(Made(label=label))

@pytest.mark.parametrize('make,says', [
    (lambda i: noise(60)[i]*1., 'sample 0 of Made: .x. has values from'),
    (lambda i: noise(60)[i, :, i//7:], r'sample 7 of Made is torch.uint8 \[1, 7, 8\]'),
    (lambda i: 'x', 'sample 0 of Made. is str'),
    (lambda i: noise(60)[i]/(255. if i<9 else 1.), 'sample 9 of Made: .x. has values'),
    (lambda i: noise(60)[i]/255 if i<9 else noise(60)[i], 'sample 9 of Made is torch.uint8'),
    (lambda i: {}, 'sample 0 of Made. is dict')])
def test_samples_of_a_dataset_refused(make, says):
    with pytest.raises(ValueError, match=says): from_dataset(Made(make))

def test_other_datasets():
    "Pictures of Pillow's, TensorDataset, lists, Subset, a test part, event data; and what has no length."
    x,y = shades()
    pictures = from_dataset(Made(lambda i: Image.fromarray(x[i, 0].numpy())))
    assert all(a[:][0].equal(b[:][0]) for a,b in zip(parts(pictures), parts(from_tensors(x, y))))
    assert from_dataset(torch.utils.data.TensorDataset(x, y), name='tensors').split_hash==from_tensors(x, y).split_hash
    assert from_dataset(list(zip(x, y))).split_hash==from_dataset(Made()).split_hash
    assert len(from_dataset(torch.utils.data.Subset(Made(), range(30))).test)==6
    d = from_dataset(Made(), Made(lambda i: noise(9, seed=1)[i], n=9))
    assert len(d.test)==9 and len(d.train)==54 and disjoint_lazily(d)
    tx,ty = trains()
    e = from_dataset(Made(lambda i: tx[i].float(), lambda i: ty[i], 40))
    assert e.num_steps==7 and next(iter(batches(e.train, 4)))[0].shape==(7, 4, 2, 5, 5)
    assert e.test.y.equal(from_tensors(tx, ty).test.y)
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): return iter([])
    for odd in (Stream(), None, 3, 'digits', Made(n=0), x):
        with pytest.raises(ValueError, match='`dataset`'): from_dataset(odd)

def disjoint_lazily(d): return not any(set(a.keys()) & set(b.keys()) for a,b in combinations(parts(d), 2))

def test_copies_in_a_dataset():
    d = from_dataset(Made(lambda i: noise(60)[i//2 if i<40 else i], lambda i: (i//2)%3))
    assert disjoint_lazily(d) and sum(d.dropped.values())>0

def test_transforms_that_toss_coins():
    "Their looks depend on seed, epoch and sample alone, as `Augmented`'s do."
    make = lambda i: (noise(60)[i]/300+torch.rand(1, 8, 8)*.1)
    d = from_dataset(Made(make), seed=1)
    first = d.train[:][0]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert d.train[:][0].equal(first) and d.train[[7, 2]][0].equal(first[[7, 2]]) and torch.get_rng_state().equal(state)
    assert torch.cat([o for o,_ in batches(d.train, 9, num_workers=2)]).equal(first)
    Shuffle(d.train, epoch=1)
    assert not d.train[:][0].equal(first) and d.valid.epoch==0
    assert d.split_hash==from_dataset(Made(make), seed=1).split_hash
    e = from_dataset(Made(make), seed=1, augment=lambda x: x.flip(-1))
    assert e.train[:][0].equal(first.flip(-1))
    Shuffle(e.train, epoch=1)
    assert e.train[:][0].equal(d.train[:][0].flip(-1))

# What is told at once

def test_changes_in_place_do_not_reach_the_images(digits):
    x,y = noise(6),torch.arange(6)
    for change in (lambda o: o.zero_(), lambda o: o.fill_(9), lambda o: o[:, :4].mul_(0) is None or o):
        ds = Augmented(Images(x.clone(), y), change)
        ds[0], ds[:], ds[[1, 2]]
        assert ds.x.equal(x)
    dark = D.Batched(lambda g: None, lambda o, drawn: o.zero_())
    ds = Augmented(Images(x.clone(), y), dark)
    ds[0], ds[:], ds[[1, 2]], ds[1:4]
    assert ds.x.equal(x) and ds[:][0].sum()==0
    image = x[0].clone()
    dark(image)
    assert image.equal(x[0])

@pytest.mark.parametrize('change,says', [
    (lambda o: None, 'makes NoneType'),
    (lambda o: o.numpy(), 'makes ndarray'),
    (lambda o: o[:, 1:], r'\[1, 7, 8\]'),
    (lambda o: o/255, 'float32')])
def test_changes_refused(change, says):
    with pytest.raises(ValueError, match=says): Augmented(Images(noise(6), torch.arange(6)), change)

def test_parts_that_do_not_belong_together():
    a,b = Images(noise(6), torch.arange(6)%2),Images(noise(6, (1, 8, 9)), torch.arange(6)%2)
    none,far = Images(noise(6)[:0], torch.arange(0)),Images(noise(6), torch.arange(6))
    train = Trains(noise(6)[:, None].clamp(max=1), torch.arange(6)%2)
    wrong = [((none, a, a), "'train' of mine is empty"),
             ((a, none, a), "'valid' of mine is empty"),
             ((a, a, none), "'test' of mine is empty"),
             ((a, b, a), r"'valid' of mine has samples of shape \[1, 8, 9\]"),
             ((a, a, b), "'test' of mine has samples"),
             ((a, far, a), "'valid' of mine has the label 5, but there are 2"),
             ((train, a, a), 'must be alike'),
             ((a, a, [1]), '`test` is list')]
    for bad,says in wrong:
        with pytest.raises(ValueError, match=says): Data('mine', ['a', 'b'], *bad)
    with pytest.raises(ValueError, match='the label -1'): Images(noise(2), torch.tensor([0, -1]))
    def cut(rest, test): return split(Raw('mine', ['a', 'b'], rest, test), stratified)
    rest,test = (noise(40), torch.arange(40)%2),(noise(4, seed=2), torch.arange(4)%2)
    larger,unknown = (noise(4, (1, 9, 9)), torch.arange(4)%2),(noise(4, seed=2), torch.arange(4)+4)
    with pytest.raises(ValueError, match="'test' of mine has samples of shape"): cut(rest, larger)
    with pytest.raises(ValueError, match="'test' of mine has the label 7"): cut(rest, unknown)
    x = noise(10)[[0]*20+[1]*20] # when copies of valid leave train, nothing is left
    with pytest.raises(ValueError, match="'train' of mine is empty"): cut((x, torch.arange(40)//20), test)

# Traps on the disk

@contextmanager
def within(seconds):
    "An answer, or a TimeoutError: nothing may wait for ever."
    def late(*args): raise TimeoutError(f'no answer in {seconds} s')
    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)

def traps():
    def loops(p):
        for c in ('cat', 'dog'):
            for i in range(6): (p/c/f'l{i}').symlink_to(p)
    def endless(p):
        (p/'dog/x.png').touch()
        os.truncate(p/'dog/x.png', 1<<40)
    yield 'loop', lambda p: (p/'cat/loop').symlink_to(p), 'cat/loop is a link to .*pets.*Remove the link'
    yield 'loops', loops, 'is a link to .*pets'
    yield 'same folder twice', lambda p: (p/'mouse').symlink_to(p/'cat'), 'is a link to .*pets'
    yield 'link to itself', lambda p: (p/'cat/x.png').symlink_to(p/'cat/x.png'), 'cat/x.png'
    yield 'link to nothing', lambda p: (p/'cat/x.png').symlink_to(p/'nothing.png'), 'cat/x.png'
    yield 'pipe', lambda p: os.mkfifo(p/'cat/x.png'), 'cat/x.png is a pipe or a device'
    yield 'device', lambda p: (p/'dog/x.jpg').symlink_to('/dev/zero'), 'dog/x.jpg is a pipe or a device'
    yield 'endless file', endless, 'dog/x.png has 1,099,511,627,776 bytes'

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes with names')
@pytest.mark.parametrize('make,says', [pytest.param(m, s, id=n) for n,m,s in traps()])
def test_traps_in_a_folder(make, says, tmp_path):
    p = folder(tmp_path/'pets')
    make(p)
    with within(20), pytest.raises((ValueError, OSError), match=says): load(p)

@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes with names')
def test_a_path_that_never_ends(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for o in (tmp_path/'pipe', '/dev/zero'):
        with within(20), pytest.raises(ValueError, match=f'{o} is a pipe or a device'): load(o)
        with within(20), pytest.raises(ValueError, match='pipe or a device'): D.read_idx(o)
    root = little_mnist(tmp_path/'root')
    labels = root/'MNIST/raw/t10k-labels-idx1-ubyte'
    labels.unlink()
    labels.symlink_to('/dev/zero')
    with within(20), pytest.raises(ValueError, match='t10k-labels-idx1-ubyte is a pipe or a device'):
        load('MNIST', root)
    assert labels.is_symlink()

def test_pipes_that_are_no_images_are_passed_over(tmp_path):
    p = folder(tmp_path/'pets')
    name = load(p).split_hash
    os.mkfifo(p/'cat/notes')
    (p/'dog/zero.txt').symlink_to('/dev/zero')
    with within(20): assert load(p).split_hash==name

def tar_with(path, name='cat/big.png', mode='w:xz', size=None, data=b'', pax=None):
    "The archive of a small folder and one more member, whose header may lie."
    src = folder(path.parent/'src/pets', 3)
    with tarfile.open(path, mode) as t:
        t.add(src, 'pets')
        m = tarfile.TarInfo(name)
        m.size = len(data) if size is None else size
        if pax: m.pax_headers = pax
        t.addfile(m, io.BytesIO(data)) if size is None else t.fileobj.write(m.tobuf())
    return path

class Zeros(io.RawIOBase):
    "So many zeros, without the memory."
    def __init__(self, n): self.n = n
    def readable(self): return True
    def readinto(self, b):
        k = min(len(b), self.n)
        b[:k] = bytes(k)
        self.n -= k
        return k

def test_absurd_sizes_in_a_tar(tmp_path):
    "A terabyte that the header claims, 300 MB of zeros in 50 kB, a note of 300 MB before a file."
    for size in (1<<32, 1<<40):
        with within(20), pytest.raises(ValueError, match=rf'claims.tar.*{size:,} bytes'):
            load(tar_with(tmp_path/'claims.tar', mode='w', size=size))
    with within(60), pytest.raises(ValueError, match='claims.tar.*readme.*1,099,511,627,776 bytes'):
        load(tar_with(tmp_path/'claims.tar', 'readme', 'w', 1<<40))
    arc = tmp_path/'zeros.tar.gz'
    members = [('dog/0.png', tarfile.REGTYPE),
               ('dog/1.png', tarfile.XHDTYPE),
               ('dog/2.png', tarfile.GNUTYPE_LONGNAME)]
    for name,kind in members:
        with gzip.open(arc, 'wb', compresslevel=1) as f:
            m = tarfile.TarInfo(name)
            m.size,m.type = 300<<20,kind
            f.write(m.tobuf(tarfile.GNU_FORMAT))
            shutil.copyfileobj(Zeros(300<<20), f, 1<<20)
        with within(60), pytest.raises(ValueError, match='zeros.tar.gz'): load(arc)
    assert listing(D.cache_home())==[]

def test_a_sparse_file_in_a_tar(tmp_path):
    "GNU tar keeps a terabyte of nothing in 512 bytes."
    m = tarfile.TarInfo('pets/cat/huge.png')
    b = bytearray(m.tobuf(tarfile.GNU_FORMAT))
    b[156:157] = tarfile.GNUTYPE_SPARSE
    b[483:495] = b'\x80'+(1<<40).to_bytes(11, 'big')
    b[386:410] = b'%011o\0%011o\0' % (0, 0)
    b[148:156] = b' '*8
    b[148:156] = b'%06o\0 ' % sum(b)
    (tmp_path/'sparse.tar').write_bytes(bytes(b)+bytes(1024))
    with within(20), pytest.raises(ValueError, match='sparse.tar/pets/cat/huge.png has 1,099,511,627,776 bytes'):
        load(tmp_path/'sparse.tar')

def test_absurd_sizes_in_a_zip(tmp_path):
    arc = pack(folder(tmp_path/'pets'), 'zip')
    with zipfile.ZipFile(arc, 'a', zipfile.ZIP_DEFLATED, compresslevel=1) as z, z.open('cat/big.png', 'w') as f:
        shutil.copyfileobj(Zeros(300<<20), f, 1<<20)
    with within(20), pytest.raises(ValueError, match='pets.zip/cat/big.png has 314,572,800 bytes.*Leave it out'):
        load(arc)

def test_more_pixels_than_memory(tmp_path, monkeypatch):
    p = folder(tmp_path/'pets')
    monkeypatch.setattr(D, '_room', lambda: 2000)
    for o in (p, pack(p, 'zip')):
        with pytest.raises(ValueError, match='more than 2,000 bytes of pixels.*`size`.*from_dataset'): load(o)
    assert load(p, size=4).size==(4, 4) and D._room.__name__=='<lambda>'
    monkeypatch.undo()
    assert 1<<28<D._room()<1<<50

def test_a_picture_of_too_many_pixels(tmp_path):
    p = folder(tmp_path/'pets')
    Image.new('1', (9000, 9000)).save(p/'cat/bomb.png')
    assert (p/'cat/bomb.png').stat().st_size<100_000
    with within(20), pytest.raises(ValueError, match='bomb.png has 9000 x 9000 pixels'): load(p, size=8)

# Pictures as they are

def png16(x):
    "`x`, uint16 [H, W, 3], as a PNG of 48 bits a pixel."
    def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
    h,w,_ = x.shape
    head = struct.pack('>IIBBBBB', w, h, 16, 2, 0, 0, 0)
    rows = b''.join(b'\0'+o.astype('>u2').tobytes() for o in x)
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', head)+chunk(b'IDAT', zlib.compress(rows))+chunk(b'IEND', b'')

def tiff16(x):
    "The same as a TIFF."
    h,w,_ = x.shape
    tags = [(256, 3, 1, w), (257, 3, 1, h), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, h), (279, 4, 1, 6*h*w)]
    head = struct.pack('<2sHIH', b'II', 42, 8, 9)+b''.join(struct.pack('<HHII', *o) for o in tags)
    return head+struct.pack('<I3H', 0, 16, 16, 16)+x.astype('<u2').tobytes()

def deep():
    "Colours of 16 bits in four ways."
    x = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    yield 'png',png16(x)
    yield 'ppm',b'P6\n8 8\n65535\n'+x.astype('>u2').tobytes()
    yield 'ppm',b'P3\n8 8\n65535\n'+' '.join(map(str, x.flatten())).encode()
    yield 'tiff',tiff16(x)

@pytest.mark.parametrize('ext,content', [*deep()], ids=['png', 'ppm', 'plain', 'tiff'])
def test_16_bits_a_channel(ext, content, tmp_path):
    "Pillow opens them, and cuts them to 8 bits without a word."
    p = folder(tmp_path/'pets')
    (p/f'cat/deep.{ext}').write_bytes(content)
    assert Image.open(p/f'cat/deep.{ext}').mode=='RGB'
    with pytest.raises(ValueError, match=f'deep.{ext} has pixels of mode RGB with 16 bits.*8 bits'): load(p)

def test_8_bits_of_every_kind(tmp_path):
    p = folder(tmp_path/'pets')
    x = np.asarray(Image.open(p/'cat/000.png'))
    for ext in ('png', 'ppm', 'bmp', 'tiff'):
        for o in sorted((p/'cat').iterdir()):
            shutil.move(o, tmp_path/'old')
            Image.open(tmp_path/'old').save(o.with_suffix(f'.{ext}'))
        raw = D._read(p)
        assert raw.rest[0][0].permute(1, 2, 0).numpy().tolist()==x.tolist()
    (p/'cat/000.tiff').write_bytes(b'P6\n8 8\n100\n'+bytes(192))
    assert D._read(p).rest[0][0].sum()==0

@pytest.mark.parametrize('ext', ['jpg', 'png'])
def test_rotated_by_the_camera(ext, tmp_path):
    "As a viewer shows it."
    p = folder(tmp_path/'pets', shape=(8, 12, 3))
    up = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12).repeat(3).reshape(8, 12, 3)*2)
    exif = Image.Exif()
    exif[0x0112] = 6
    up.rotate(90, expand=True).save(p/f'cat/turned.{ext}', exif=exif, quality=100)
    raw = D._read(p)
    x = raw.rest[0][12].permute(1, 2, 0).numpy().astype(int)
    assert x.shape==(8, 12, 3) and np.abs(x-np.asarray(up)).max()<=(12 if ext=='jpg' else 0)

@pytest.mark.skipif(sys.platform!='linux', reason='file names are text here')
def test_names_that_are_not_utf8(tmp_path):
    "Latin-1, as old archives have it: loaded, and each name can be printed."
    p = folder(tmp_path/'pets', classes=('cat', 'dog'))
    want = load(p)
    os.rename(p/'dog', os.fsencode(p)+b'/caf\xe9')
    os.rename(p/'cat', p/'b')
    os.rename(os.fsencode(p)+b'/caf\xe9/003.png', os.fsencode(p)+b'/caf\xe9/003\xff.png')
    d = load(p)
    assert d.classes==['b', 'caf\\xe9'] and disjoint(d) and len(d.train)==len(want.train)
    ' '.join([repr(d), *d.classes]).encode()
    with tarfile.open(tmp_path/'pets.tar', 'w') as t: t.add(p, 'pets')
    assert load(tmp_path/'pets.tar').split_hash==d.split_hash and load(tmp_path/'pets.tar').classes==d.classes
    bad = os.fsencode(p)+b'/caf\xe9/001.png'
    with open(bad, 'wb') as f: f.write(b'no image')
    with pytest.raises(ValueError, match='001.png cannot be read as an image') as e: load(p)
    str(e.value).encode()
    pets = Path(os.fsdecode(os.fsencode(tmp_path)+b'/p\xe9ts'))
    os.rename(p, pets)
    with pytest.raises(ValueError, match='001.png cannot be read as an image') as e: load(pets)
    str(e.value).encode()
    os.unlink(os.fsencode(tmp_path)+b'/p\xe9ts/caf\xe9/001.png')
    assert load(pets).name=='p\\xe9ts'

# idx files that do not fit

def test_idx_files_without_labels(tmp_path):
    root = little_mnist(tmp_path)
    write_idx(root/'MNIST/raw/train-labels-idx1-ubyte', np.zeros(0))
    with pytest.raises(ValueError, match='train-labels-idx1-ubyte has shape .*0.*hold something.*Delete'):
        load('MNIST', root)
    write_idx(root/'MNIST/raw/train-images-idx3-ubyte', np.zeros((0, 28, 28)))
    with pytest.raises(ValueError, match='hold something'): load('MNIST', root)

def test_idx_images_of_another_size(tmp_path):
    root = little_mnist(tmp_path)
    write_idx(root/'MNIST/raw/t10k-images-idx3-ubyte', noise(20, (20, 28)).numpy())
    says = 't10k-images-idx3-ubyte has images of 20 x 28, but .*train-images-idx3-ubyte has 28 x 28.*Delete'
    with pytest.raises(ValueError, match=says): load('MNIST', root)
    write_idx(root/'MNIST/raw/t10k-images-idx3-ubyte', np.zeros((20, 0, 28)))
    with pytest.raises(ValueError, match=r't10k-images-idx3-ubyte \[20, 0, 28\]'): load('MNIST', root)

def test_an_idx_header_that_promises_a_terabyte(tmp_path):
    p = tmp_path/'huge-ubyte'
    p.write_bytes(struct.pack('>HBB3I', 0, 8, 3, 1<<20, 1<<10, 1<<10))
    os.truncate(p, 1<<40) # a hole, on the disk 16 bytes
    with within(20), pytest.raises(ValueError, match='huge-ubyte has 1,099,511,627,776 bytes'): D.read_idx(p)

# Paths, and what a kill leaves

def test_home(tmp_path, monkeypatch):
    "`~` in every path."
    monkeypatch.setenv('HOME', str(tmp_path))
    folder(tmp_path/'pets')
    little_mnist(tmp_path/'root')
    write_idx(tmp_path/'a-ubyte', np.arange(3))
    assert load('~/pets').name=='pets' and load('MNIST', '~/root', valid=.2).name=='MNIST'
    assert D.read_idx('~/a-ubyte').tolist()==[0, 1, 2]
    monkeypatch.setenv('SNNKIT_DATA', '~/root')
    assert load('MNIST', valid=.2).name=='MNIST'
    for f in (load, D.read_idx, D.data_root):
        with pytest.raises(ValueError, match='~nobody-here'): f('~nobody-here/pets')

def test_leftovers_of_a_kill_are_removed(tmp_path):
    "What was left long ago, but not what another process is writing now."
    home = D.cache_home()/'decoded'
    home.mkdir(parents=True)
    old,new,other = home/'.pets-00.safetensors.123',home/'.pets-01.safetensors.124',home/'pets-02.safetensors'
    for o in (old, new, other): o.write_bytes(b'half')
    for o in (old, other): os.utime(o, (time.time()-7200,)*2)
    load(pack(folder(tmp_path/'pets'), 'zip'))
    assert not old.exists() and new.exists() and other.exists() and len(list(home.glob('pets-*')))==2

# Arguments of the wrong kind

odd = dict(
    none=None, text='x', bytes=b'x', true=True, minus=-1, nan=float('nan'), inf=float('inf'), huge=10**30,
    empty=[], dict={}, object=object(), type=int, func=len,
    nothing=torch.zeros(0), floats=torch.zeros(2, 3), far=torch.full((4, 1, 2, 2), 9.),
    complex=1j, array=np.array(['a']), strings=['a', 'b'], pair=(1, 2), mixed=[None, 1], scalar=torch.tensor(3.))

def small(): return Images(noise(12), torch.arange(12)%2)

calls = dict(
    Images=(Images, dict(x=noise(4), y=torch.arange(4), signed=False)),
    Trains=(Trains, dict(x=trains()[0], y=trains()[1])),
    show_images=(D.show_images, dict(x=noise(2), titles=None, ncol=2, scale=.5)),
    batches=(lambda **kw: next(iter(batches(**kw))), dict(dataset=small(), batch_size=2)),
    Shuffle=(lambda **kw: list(Shuffle(**kw)), dict(ds=small(), seed=1, epoch=0, skip=0)),
    Augmented=(Augmented, dict(ds=small(), augment=lambda o: o, seed=1)),
    erased=(D.erased, dict(size=8, padding=1)),
    varied=(D.varied, dict(size=8, padding=1)),
    crop_flip=(crop_flip, dict(size=8, padding=1, flip=True)),
    turned=(turned, dict(x=noise(1), moves=[(0., 0., 0.)])),
    jitter=(D.jitter, dict(limits=(1., 2.), generator=None)),
    shift_rotate=(shift_rotate, dict(degrees=1., shift=1.)),
    stratified=(stratified, dict(y=torch.arange(40)%2, part=.1, seed=1)),
    fingerprints=(fingerprints, dict(x=noise(2))),
    unseen=(D.unseen, dict(keys=[b'a'], seen=[b'b'])),
    name_split=(lambda a: D.name_split(a), dict(a=small())),
    subset=(subset, dict(y=torch.arange(40)%2, part=8)),
    evenly=(D.evenly, dict(images=small(), n=3)),
    split=(split, dict(raw=Raw('a', ['a', 'b'], (noise(40), torch.arange(40)%2)), cut=stratified, signed=None,
                       part=None)),
    check_fold=(D.check_fold, dict(fold=0, folds=2)),
    kfold=(kfold, dict(y=torch.arange(40)%2, fold=0, folds=2, seed=1)),
    data_root=(D.data_root, dict(root=None)),
    read_idx=(D.read_idx, dict(path='no-such-file')),
    named=(D.named, dict(name='mnist')),
    Data=(Data, dict(name='a', classes=['a', 'b'], train=small(), valid=small(), test=small())),
    load=(load, dict(name='digits', root=None, valid=.1, seed=1, fold=None, folds=5, size=None, signed=None,
                     augment=None, part=200)),
    from_tensors=(from_tensors, dict(x=noise(40), y=torch.arange(40)%2, name='a', classes=None, test=None, events=None,
                                     signed=None, valid=.1)),
    from_dataset=(from_dataset, dict(dataset=Made(), test=None, name=None, classes=None, events=None, signed=None,
                                     in_memory=False, seed=1)),
    collate_time=(D.collate_time, dict(samples=[(torch.zeros(2, 1), 0)])))

@pytest.mark.parametrize('name', calls)
def test_arguments_of_the_wrong_kind(name):
    "One argument after the other is odd: an answer, or a ValueError (of a path, an OSError) that says what is allowed."
    f,good = calls[name]
    f(**good) if name!='read_idx' else None
    for k in good:
        for kind,o in odd.items():
            if k in ('augment', 'cut') and callable(o): continue # a function, which may fail in its own way
            try: f(**good | {k: o})
            except ValueError as e: assert '`' in str(e) or ', but ' in str(e), f'{k}={kind}: {e}'
            except OSError as e: assert str(e)
            except Exception as e: pytest.fail(f'{name}({k}={kind}): {type(e).__name__}: {e}')
    plt.close('all')

def test_no_public_function_is_left_out():
    skipped = {'Samples', 'Raw', 'Batched', 'augmentations', 'in_parts', 'Lazy'} # no arguments, or those of another
    assert set(D.__all__)-skipped<=set(calls)

def test_true_is_no_number():
    y = torch.arange(40)%2
    wrong = [
        lambda: load(seed=True),
        lambda: load(valid=True),
        lambda: load(fold=True),
        lambda: load(part=True),
        lambda: load(size=True),
        lambda: kfold(y, 0, True),
        lambda: stratified(y, .1, True),
        lambda: Shuffle(small(), True),
        lambda: Shuffle(small(), skip=True),
        lambda: D.evenly(small(), True),
        lambda: batches(small(), True),
        lambda: crop_flip(8, True),
        lambda: shift_rotate(True),
        lambda: Augmented(small(), len, True)]
    for call in wrong:
        with pytest.raises(ValueError, match='is True'): call()

def test_numbers_of_numpy():
    "As good as Python's, to the last bit."
    a = load(valid=np.float64(.2), seed=np.int64(3), part=np.int32(100), size=np.int16(9), augment='shift')
    b = load(valid=.2, seed=3, part=100, size=9, augment='shift')
    assert a.split_hash==b.split_hash and a.train[:][0].equal(b.train[:][0])
    folded = load(fold=np.int64(1), folds=np.uint8(3), size=np.array([9, 8]))
    assert folded.split_hash==load(fold=1, folds=3, size=(9, 8)).split_hash
    assert list(Shuffle(small(), np.int64(5), np.int64(2), np.uint8(3)))==list(Shuffle(small(), 5, 2, 3))
    assert D.evenly(small(), np.int64(4)).indices==D.evenly(small(), 4).indices
    two = [Augmented(small(), shift_rotate(np.float64(20), np.float32(1)), o) for o in (5, np.int64(5))]
    assert two[0][:][0].equal(two[1][:][0])
