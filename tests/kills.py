"""Kill a training again and again, resume it each time, and compare the bits with those of one left alone:
`python tests/kills.py --n 100`. A process of its own trains `small_training.py`; SIGKILL comes at random moments,
before, in and between writes."""
import argparse, random, signal, subprocess, sys, tempfile, time
from pathlib import Path
from snnkit.training import read_tensors

script = Path(__file__).with_name('small_training.py')
names = ['checkpoint.safetensors', 'model.safetensors']

def start(out, epochs):
    command = [sys.executable, script, out, str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def finish(out, epochs):
    "Train to the end: what it printed, and the seconds from the moment it was ready."
    p = start(out, epochs)
    assert p.stdout.readline()=='ready\n', p.stdout.read()
    t = time.monotonic()
    text = p.communicate(timeout=3000)[0]
    assert p.returncode==0, text
    return text, time.monotonic()-t

def written(folder):
    "What a training has left, but for its lock."
    return sorted(o.name for o in folder.iterdir() if o.name!='.lock')

def assert_same_training(a, b):
    "The files of two trainings hold the same bits: weights, best weights, optimizer, history."
    for name in names:
        (t,m),(t2,m2) = read_tensors(a/name),read_tensors(b/name)
        assert t.keys()==t2.keys() and all(t[k].equal(t2[k]) for k in t) and m==m2, f'{name} differs'

def kill(out, n, epochs, took, seed=0):
    "Kill the training in `out` up to `n` times, before it can be done: how often it was, and how often in mid-write."
    moments,hit,torn = random.Random(seed), 0, 0
    for i in range(n):
        p = start(out, epochs)
        assert p.stdout.readline()=='ready\n', p.stdout.read()
        time.sleep(moments.uniform(0, took/n))
        p.send_signal(signal.SIGKILL)
        text = p.communicate(timeout=300)[0]
        assert p.returncode in (0, -signal.SIGKILL), text     # a resume that is refused would be another code
        hit += p.returncode==-signal.SIGKILL
        torn += any(o.startswith('.') for o in written(out))
        if 'done' in text: break
    if i>=n-1 or took<.1: return hit, torn
    # the machine was faster than when its time was taken: anew, at earlier moments
    for o in out.iterdir(): o.unlink()
    return kill(out, n, epochs, took/2, seed)

def main(n, seed=0):
    "Of `n` kills: how many came, and whether the end is the same."
    epochs = max(6, n)
    with tempfile.TemporaryDirectory() as tmp:
        whole,killed = Path(tmp)/'whole',Path(tmp)/'killed'
        killed.mkdir()
        _,took = finish(whole, epochs)
        print(f'left alone: {took:.0f} s for {epochs} epochs', flush=True)
        hit,torn = kill(killed, n, epochs, took, seed)
        finish(killed, epochs)
        assert written(killed)==names, written(killed)
        assert_same_training(whole, killed)
    print(f'{hit} kills, {torn} of them in the middle of a write: the same bits')
    return hit

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--n', type=int, default=100, help='kills')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    sys.exit(main(args.n, args.seed)<args.n-1)
