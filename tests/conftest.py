"Where the tests find the real data sets, without which they skip and say so; and how many tests run at a time."
import gc,os
from pathlib import Path
import pytest,torch

gc.disable() # until all modules are there: what they hold stays, and is not looked through again and again

def pytest_collection_finish():
    gc.freeze()
    gc.enable()

def pytest_unconfigure(): gc.unfreeze() # or libraries take what stays for lost

@pytest.fixture(autouse=True)
def same_weights():
    "Networks that a test draws without a seed are the same in every run, so that no test fails once in a hundred"
    torch.manual_seed(0)

@pytest.fixture(scope='session')
def real_data():
    "MNIST and FashionMNIST in torchvision's layout: `SNNKIT_DATA`, else ../shared/data beside the repository."
    env = os.environ.get('SNNKIT_DATA')
    root = Path(env).expanduser() if env else Path(__file__).resolve().parents[2]/'shared/data'
    file = 'MNIST/raw/train-images-idx3-ubyte'
    if not (root/file).is_file():
        pytest.skip(f'the real MNIST is not in {root}: let SNNKIT_DATA name a folder that has {file}')
    return root

def pytest_xdist_auto_num_workers():
    "One more than there are processors, as some tests wait for a browser or for a process to start"
    return (os.cpu_count() or 1) + 1
