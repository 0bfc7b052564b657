"""Does a record come out again? Draws records at random, or takes those that took the least time, runs them again and
compares. On the kind of processor and with the versions that made a record its numbers must come out bit by bit,
elsewhere nearly. `tools/repeat.py --n 5 --seed 1 --data ../data` draws five and finds the data sets in that folder."""
from random import Random
from tempfile import TemporaryDirectory
from fastcore.script import call_parse
from snnkit.experiments import Store,config_of,run,steady
from snnkit.store import describe,provenance
from common import report,root

metrics = 'history', 'best_epoch', 'valid_accuracy', 'test_accuracy', 'right'
near = .03 # of the images

def cheapest(records, n):
    "The `n` of `records` that took the least time"
    return sorted(records, key=lambda r: r['seconds'])[:n]

def is_here(record):
    "Was `record` made on this kind of processor, by these versions?"
    with steady(1): here = provenance()
    computed = record.get('mode', 'numba') # older records do not say it
    return computed==here['mode'] and all(here[o]==record[o] for o in ('cpu', 'torch', 'numpy'))

def differs(record, again):
    "What did not come out as in `record`, by name"
    found = [o for o in ('split', 'parameters') if again[o]!=record[o]]
    if is_here(record): return found + [o for o in metrics if again[o]!=record[o]]
    return found + ['test_accuracy']*(abs(again['test_accuracy']-record['test_accuracy'])>=near)

def repeat(record, folder, data=None):
    "Run `record` again, with a store in `folder`; gives what differs"
    return differs(record, run(config_of(record), Store(folder), root=data, fresh=True, quiet=True))

@call_parse
def main(n:int=5,          # So many records
         seed:int=0,       # Of the draw
         least:bool=False, # Those that took the least time, and no draw?
         data:str=None):   # Folder of the data sets
    records = list(Store(root/'results').read().values())
    some = cheapest(records, n) if least else Random(seed).sample(records, n)
    wrong = []
    for r in some:
        with TemporaryDirectory() as d: found = repeat(r, d, data)
        name = f"{r['config']['data']}, {describe(config_of(r))}, seed {r['config']['seed']}"
        outcome = '; '.join(found) or 'the same'
        where = '' if is_here(r) else ' (of another machine)'
        print(f"{name}: test {r['test_accuracy']:.2%}, {outcome}{where}", flush=True)
        wrong += [f'{name}: {o}' for o in found]
    report(wrong, 'A record must come out again.')
