"""Trains the networks that come with the package, by runs of the results store, and writes their weights to
snnkit/weights, as float16. Prints the digests that 05_models has to name."""
import hashlib
from dataclasses import replace
from tempfile import TemporaryDirectory
from fastcore.script import call_parse
from snnkit.experiments import Config,Store,its_twin,run
from snnkit.studies import base_for,converted,unsupervised
from snnkit.training import read_tensors,write_tensors
from common import root

digits = Config(data='digits', augment='shift', epochs=30, num_steps=20, calibrate=True, schedule='warm_cosine')
whole = base_for('MNIST', part=None)
qcfs = converted(whole)['QCFS']
networks = { # kind and what it was trained on: file of its record, run
    'lenet-snn-digits': ('pretrained-digits', digits),
    'lenet-ann-digits': ('pretrained-digits', replace(digits, ann=True)),
    'lenet-qcfs-MNIST': ('rivals-MNIST', replace(qcfs, **its_twin(qcfs))),
    'stdp-MNIST': ('rivals-MNIST', unsupervised(whole)[400])}

@call_parse
def main(*names:str): # of networks: lenet-snn-digits, lenet-ann-digits, lenet-qcfs-MNIST, stdp-MNIST; all if none
    "Train networks of the package"
    for name in names or networks:
        file,config = networks[name]
        with TemporaryDirectory() as tmp:
            record = run(config, Store(root/'results'), file, weights=f'{tmp}/weights')
            tensors,meta = read_tensors(f'{tmp}/weights')
        place = root/f'snnkit/weights/{name}.safetensors'
        place.parent.mkdir(exist_ok=True)
        write_tensors(place, {k: v.half() if v.is_floating_point() else v for k,v in tensors.items()}, meta)
        accuracy = f'test {record["test_accuracy"]:.2%}, valid {record["valid_accuracy"]:.2%}'
        written = place.read_bytes()
        print(f'{name}: {accuracy}, {len(written):,} bytes, {hashlib.sha256(written).hexdigest()}')
