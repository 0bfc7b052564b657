"The zoo: networks as good as their records say, and files that are refused once a bit has changed."
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest,torch
from torch.utils.data import Subset
from snnkit import trained
from snnkit.data import batches, load
from snnkit.store import Store, config_of, key, unpack
from snnkit.trained import digests, file_name, find, load_pretrained, load_trained

results = Path(__file__).parents[1]/'results'
each = pytest.mark.parametrize('name', digests)

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture
def server(monkeypatch):
    "The zoo of this clone behind HTTP"
    at = ThreadingHTTPServer(('localhost', 0), partial(Quiet, directory=find('mnist').parent))
    threading.Thread(target=at.serve_forever, daemon=True).start()
    monkeypatch.setattr(trained, 'address', f'http://localhost:{at.server_port}')
    yield at
    at.shutdown()
    at.server_close()

@each
def test_a_network_answers_as_its_record_says(name, real_data):
    net,_,_,about = load_trained(find(name))
    record = Store(results).read()[key(config_of(about))]
    assert record['test_accuracy']==about['found']['test_accuracy']
    some = Subset(load(about['images']['name'], real_data).test, range(2000))
    with torch.no_grad(): right = torch.cat([net(x).argmax(1)==y for x,y in batches(some, 250)])
    assert right.float().mean()>.9 and (right!=unpack(record)[:2000]).sum()<=1 # other processors round otherwise

@each
@pytest.mark.parametrize('place', [0, .5, -1])
def test_a_changed_byte_is_refused(name, place, tmp_path):
    raw = bytearray(find(name).read_bytes())
    raw[int(place*len(raw)) if place>0 else place] ^= 1
    (tmp_path/file_name(name)).write_bytes(raw)
    with pytest.raises(ValueError, match='SHA-256'): load_pretrained(name, tmp_path)

def test_a_missing_file_is_fetched_once(server, tmp_path):
    file = find('mnist', tmp_path/'new')
    assert file.read_bytes()==find('mnist').read_bytes() and [*file.parent.iterdir()]==[file]
    server.shutdown()
    assert find('mnist', tmp_path/'new')==file

def test_what_was_fetched_must_be_the_known_file(server, tmp_path, monkeypatch):
    monkeypatch.setitem(digests, 'mnist', '0'*64)
    with pytest.raises(FileNotFoundError, match='the download failed'): find('mnist', tmp_path)
    assert not [*tmp_path.iterdir()]

def test_without_a_network_it_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, 'address', 'http://localhost:9')
    with pytest.raises(FileNotFoundError, match='let `home` name a folder'): find('mnist', tmp_path)
