"""Writes the networks of the zoo, by runs of the results store, into zoo/, as float16. Prints the digests that
16_trained has to name. Weights of a run are kept in the cache, so that what was trained once is written in a moment."""
from dataclasses import replace
from fastcore.script import call_parse
from snnkit.core import cache_home
from snnkit.experiments import Store,data_for,its_twin,key,run
from snnkit.studies import accurate,base_for
from snnkit.trained import file_name,keep
from common import root

networks = { # name: data, seed that did best on validation images
    'mnist': ('MNIST', 42),
    'fashion': ('FashionMNIST', 42),
    'cifar10-jpeg': ('CIFAR10-JPEG', 43)}

@call_parse
def main(*names:str): # of networks; all if none
    "Write networks of the zoo"
    (root/'zoo').mkdir(exist_ok=True)
    for name in names or networks:
        data,seed = networks[name]
        config = replace(accurate(base_for(data, part=None))['converted'], seed=seed, half=True)
        weights = cache_home()/'made'/f'{key(config)}.safetensors'
        weights.parent.mkdir(parents=True, exist_ok=True)
        store,file = Store(root/'results'),f'accurate-{data}'
        record = run(config, store, file, weights=weights)
        before = run(replace(config, **its_twin(config)), store, file)
        digest = keep(record, weights, data_for(config), root/'zoo'/file_name(name), before)
        print(f'{name}: test {record["test_accuracy"]:.2%}, valid {record["valid_accuracy"]:.2%}, {digest}')
