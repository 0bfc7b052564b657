"The notebooks in a real JupyterLab, driven through Chromium."
import json,os,secrets,shutil,socket,subprocess,sys,time
from urllib.error import HTTPError,URLError
from urllib.request import urlopen
import pytest
from fastcore.nbio import mk_cell,new_nb,write_nb
from common import project_copy,share_kernels

pytestmark = pytest.mark.browser
flags = '''--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync'''.split()

def missing(what):
    "Without `what` there is no test; where everything has to be there, that is a failure"
    (pytest.fail if os.environ.get('CI') == 'true' else pytest.skip)(f'needs {what}')

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A home directory for Jupyter, its kernels and the browser, so that they leave the user's alone"
    d = tmp_path_factory.mktemp('home')
    settings = d/'.jupyter/lab/user-settings/@jupyterlab'
    whole = {'windowingMode': 'none'} # all cells on the page, not only those in view
    quiet = {'fetchNews': 'false', 'checkForUpdates': False}
    for name,conf in {'notebook-extension/tracker': whole, 'apputils-extension/notification': quiet}.items():
        (settings/name).parent.mkdir(parents=True)
        (settings/f'{name}.jupyterlab-settings').write_text(json.dumps(conf))
    return d

@pytest.fixture(scope='module')
def env(home):
    "The environment of Jupyter and the browser"
    private = ('JUPYTER', 'IPYTHON', 'XDG_', 'IN_TEST', 'MPL') # would lead elsewhere than `home`, or turn widgets off
    return {k:v for k,v in os.environ.items() if not k.startswith(private)} | {'HOME': str(home)}

@pytest.fixture(scope='module')
def server(env, home):
    "Address and token of a JupyterLab on a copy of the notebooks; without the token nobody else on the machine gets in"
    try: import jupyterlab
    except ImportError: missing('jupyterlab')
    port = free_port()
    url,token = f'http://127.0.0.1:{port}',secrets.token_urlsafe()
    args = dict(ip='127.0.0.1', port=port, port_retries=0, open_browser=False, allow_root=True)
    args = [f'--ServerApp.{k}={v}' for k,v in args.items()] + ['--LabApp.expose_app_in_browser=True']
    with project_copy() as d, open(home/'server.log', 'w') as log:
        share_kernels(d/'snnkit')
        cmd = [sys.executable, '-m', 'jupyterlab', f"--ServerApp.root_dir={d/'nbs'}", *args]
        own = {'PYTHONPATH': str(d), 'JUPYTER_TOKEN': token}
        p = subprocess.Popen(cmd, env=env | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(url, p, home/'server.log')
            yield url,token,d/'nbs'
        finally:
            p.terminate() # which ends its kernels too
            try: p.wait(20)
            except subprocess.TimeoutExpired: p.kill()

def wait_for(url, process, log, seconds=60):
    "Return when the server `process` answers at `url`"
    for _ in range(seconds*5):
        assert process.poll() is None, f'JupyterLab ended:\n{log.read_text()}'
        try: return urlopen(f'{url}/api')
        except URLError: time.sleep(.2)
    pytest.fail(f'no answer from JupyterLab:\n{log.read_text()}')

@pytest.fixture(scope='module')
def browser(env):
    "A Chromium without a window"
    try: from playwright.sync_api import sync_playwright
    except ImportError: missing('playwright')
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not exe: missing('Chromium')
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=exe, args=flags, env=env)
        yield chromium
        chromium.close()

class Lab:
    "JupyterLab in a browser, from which tests open notebooks"
    def __init__(self, server, browser, pics):
        self.server,self.token,self.folder = server
        self.browser,self.pics = browser,pics

    def open(self, name, width=1200, height=1600):
        "A page with nothing but the notebook `name`, its kernel ready"
        page = self.browser.new_page(viewport=dict(width=width, height=height))
        page.goto(f'{self.server}/doc/tree/{name}?reset&token={self.token}')
        page.wait_for_function('window.jupyterapp?.shell.currentWidget?.content?.model?.cells?.length', timeout=60_000)
        idle = 'jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == "idle"'
        page.wait_for_function(idle, timeout=60_000)
        return page

    def run_all(self, page, seconds=300):
        "Run every cell on `page`; the code cells as `{source, count, outputs}`, once all have ended or one has failed"
        page.evaluate('{ jupyterapp.commands.execute("notebook:run-all-cells") }') # not its promise: see below
        cells = '''[...jupyterapp.shell.currentWidget.content.model.cells]
            .filter(c => c.type == 'code' && c.sharedModel.source.trim())
            .map(c => ({source: c.sharedModel.source, count: c.executionCount, outputs: c.outputs.toJSON()}))'''
        ended = f'''() => {{
            const cells = {cells};
            const idle = jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle';
            const failed = cells.some(c => c.outputs.some(o => o.output_type == 'error'));
            return idle && (failed || cells.every(c => c.count)) }}'''
        page.wait_for_function(ended, timeout=seconds*1000)
        return page.evaluate(cells)

    def picture(self, page, name):
        "Keep a picture of `page`; pytest shows where if the test fails"
        page.screenshot(path=self.pics/f'{name}.png')
        print('picture of the page:', self.pics/f'{name}.png')

@pytest.fixture
def lab(server, browser, tmp_path):
    lab = Lab(server, browser, tmp_path)
    yield lab
    for o in browser.contexts: o.close()

def status(url):
    "What the server says to a request for `url`"
    try: return urlopen(url).status
    except HTTPError as e: return e.code

def test_server_asks_for_its_token(server):
    url,token,_ = server
    assert status(f'{url}/api/contents') == status(f'{url}/api/contents?token=wrong') == 403
    assert status(f'{url}/api/contents?token={token}') == 200

training = """from snnkit.all import *
data = load('digits', part=300)
runs = {name: fit(net, data, epochs=2) for name,net in dict(SNN=lenet(num_steps=4), ANN=twin(lenet())).items()}
plot_history({name: run.history for name,run in runs.items()});"""

def wait_for_pictures(page, n):
    "Return when `page` shows `n` pictures"
    shown = '[...document.querySelectorAll(".jp-RenderedImage img")].filter(o => o.naturalWidth > 0).length'
    page.wait_for_function(f'{shown} == {n}', timeout=10_000)

def test_a_training_draws_its_curve(lab):
    "As on the home page, with fewer images"
    kernel = dict(display_name='python3', language='python', name='python3')
    write_nb(new_nb([mk_cell(training)], dict(kernelspec=kernel)), lab.folder/'training.ipynb')
    page = lab.open('training.ipynb')
    cells = lab.run_all(page)
    lab.picture(page, 'training')
    assert errors(cells) == [] and all(c['count'] for c in cells)
    drawn = sum('image/png' in o.get('data', {}) for c in cells for o in c['outputs'])
    assert drawn == 3 # the picture, and the curve that each training drew as it went
    wait_for_pictures(page, drawn)

def errors(cells):
    outputs = [(c['source'], o) for c in cells for o in c['outputs']]
    return [(source, o['ename'], o['evalue']) for source,o in outputs if o['output_type'] == 'error']

def test_lesson_runs(lab):
    page = lab.open('walkthrough/1_baseline.ipynb', height=9000) # all of it in one view
    cells = lab.run_all(page)
    drawn = sum('image/png' in o.get('data', {}) for c in cells for o in c['outputs'])
    assert errors(cells) == [] and drawn
    for width in (1280, 800):
        page.set_viewport_size(dict(width=width, height=9000))
        wait_for_pictures(page, drawn)
        boxes = [o.bounding_box() for o in page.locator('.jp-RenderedImage img').all()]
        assert all(0<=b['x'] and b['x']+b['width']<=width for b in boxes), f'a picture is cut at a width of {width}'
        lab.picture(page, f'lesson-{width}')

class Shown:
    "An explorer on a page"
    def __init__(self, page, kind): self.page,self.at = page,page.locator(f'.{kind}').first

    def changes(self, act):
        "Does its picture change, within ten seconds, when `act` is done?"
        picture = self.at.locator('img.widget-image').element_handle()
        old = picture.get_attribute('src')
        act()
        is_new = '([o, old]) => o.src != old && o.naturalWidth > 0'
        self.page.wait_for_function(is_new, arg=[picture, old], timeout=10_000)

    def handle(self, label):
        slider = self.at.locator('.widget-slider').filter(has_text=label)
        return slider.locator('.noUi-handle').first

    def drag(self, label, by):
        self.handle(label).scroll_into_view_if_needed()
        box = self.handle(label).bounding_box()
        x,y = box['x']+box['width']/2,box['y']+box['height']/2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x+by, y, steps=3)
        self.page.mouse.up()

    def draw(self, *points):
        "Move the pen over the pad, in its pixels"
        pad = self.at.locator('canvas')
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        where = [(box['x']+6*x, box['y']+6*y) for x,y in points]
        self.page.mouse.move(*where[0])
        self.page.mouse.down()
        for o in where[1:]: self.page.mouse.move(*o, steps=8)
        self.page.mouse.up()

sliders = dict(EncoderExplorer='time steps', NeuronExplorer='threshold', GradientExplorer='leak',
               NetworkExplorer='intensity', ConversionExplorer='time steps', FieldsExplorer='intensity')
readers = dict(NetworkExplorer='answer: {},', ConversionExplorer='answer: {},', FieldsExplorer='answer: {}')

def is_whole(e, width):
    "Does the picture of the explorer lie on a page of this width?"
    e.at.scroll_into_view_if_needed()
    box = e.at.locator('img.widget-image').bounding_box()
    return 0 <= box['x'] and box['x']+box['width'] <= width

def test_explorers_answer(lab):
    "On the page to play with, which has nothing else"
    page = lab.open('play.ipynb', 1280, 900)
    assert errors(lab.run_all(page)) == []
    shown = {k: Shown(page, k) for k in sliders}
    for k,label in sliders.items():
        e = shown[k]
        e.handle(label).focus(timeout=20_000)
        e.changes(lambda: page.keyboard.press('ArrowLeft'))
        e.changes(lambda: e.drag(label, -40))
    e = shown['EncoderExplorer']
    e.changes(lambda: e.at.locator('select').nth(1).select_option('latency'))
    says = '([o, want]) => o.textContent.includes(want)'
    for k,answer in readers.items():
        e = shown[k]
        e.handle(sliders[k]).focus()
        e.changes(lambda: page.keyboard.press('End'))
        for digit,strokes in {1: [(14, 4), (13.5, 24)], 7: [(7, 5), (20, 5), (12, 24)]}.items():
            e.changes(lambda: e.draw(*strokes))
            page.wait_for_function(says, arg=[e.at.element_handle(), answer.format(digit)], timeout=10_000)
            lab.picture(page, f'{k}-drawn-{digit}')
            e.changes(lambda: e.at.locator('button', has_text='clear').click())
    for width in (1280, 800):
        page.set_viewport_size(dict(width=width, height=900))
        for k,e in shown.items():
            assert is_whole(e, width), f'the picture of {k} is cut at a width of {width}'
            lab.picture(page, f'{k}-{width}')
