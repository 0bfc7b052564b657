"The notebooks in a real JupyterLab, driven through Chromium."
import json,os,re,secrets,shutil,socket,subprocess,sys,time
from urllib.error import HTTPError,URLError
from urllib.request import urlopen
import pytest
from fastcore.nbio import mk_cell,new_nb,read_nb,write_nb
from common import files,project_copy,share_kernels
from snnkit.explorers import NetworkExplorer,as_mnist,handwriting,strokes_of,styles

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

@pytest.fixture(scope='module')
def playing(env, home, browser):
    "A page that `make play` has opened in a copy of the project, once its explorers are there; and the copy's files"
    port,token = free_port(),secrets.token_urlsafe()
    args = ['--no-browser', f'--port={port}', '--ServerApp.port_retries=0', '--allow-root']
    with project_copy() as d, open(home/'play.log', 'w') as log:
        share_kernels(d/'snnkit')
        before = files(d, *folders)
        cmd = [sys.executable, str(d/'tools/play.py'), *args, '--LabApp.expose_app_in_browser=True']
        own = {'PYTHONPATH': str(d), 'JUPYTER_TOKEN': token}
        start = time.monotonic()
        p = subprocess.Popen(cmd, env=env | own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(f'http://127.0.0.1:{port}', p, home/'play.log')
            page = browser.new_context(viewport=dict(width=1280, height=800), has_touch=True).new_page()
            page.goto(f'http://127.0.0.1:{port}/?token={token}')
            page.locator('img.widget-image').first.wait_for(timeout=60_000)
            first = time.monotonic()-start
            top = page.locator('.EncoderExplorer .noUi-handle').first.bounding_box()
            page.wait_for_selector('#loading', state='detached', timeout=120_000)
            yield page,dict(files=(d, before), seconds=first, top=top)
        finally:
            p.terminate()
            try: p.wait(20)
            except subprocess.TimeoutExpired: p.kill()

folders = 'nbs','tools','snnkit','results'
drawn = """o => o.querySelector('[data-drawn]').dataset.drawn ==
    [...o.querySelector('.snnkit-pad input').value].reduce((sum, c) => sum+c.charCodeAt(0), 0)"""
code_seen = """[...document.querySelectorAll('.jp-InputArea, .jp-Placeholder, .jp-InputPrompt')]
    .filter(o => o.offsetParent && !o.closest('.jp-MarkdownCell')).length"""
failed = """[...jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type == 'code')
    .flatMap(c => c.outputs.toJSON()).filter(o => o.output_type == 'error')"""

def test_play_opens_a_page_without_code(playing):
    "And leaves the project as it was, but for a folder that git ignores"
    page,info = playing
    assert info['seconds'] < 60 and info['top']['y'] < 600
    assert page.evaluate(code_seen) == 0 and page.evaluate(failed) == []
    words = page.locator('.jp-Notebook').inner_text()
    assert not re.search(r'import |snnkit|Explorer\(|Run [aA]ll', words)
    d,before = info['files']
    after = files(d, *folders)
    assert {k for k in before | after if before.get(k) != after.get(k) and '__pycache__' not in k} == set()
    links = re.findall(r'\]\((\S+\.ipynb)\)', ''.join(o.source for o in read_nb(d/'out/play/play.ipynb').cells))
    assert links and all((d/'out/play'/o).exists() for o in links)

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

    def slider(self, label): return self.at.locator('.widget-slider').filter(has_text=label).first

    def handle(self, label): return self.slider(label).locator('.noUi-handle').first

    def drag(self, label, by):
        self.handle(label).scroll_into_view_if_needed()
        box = self.handle(label).bounding_box()
        x,y = box['x']+box['width']/2,box['y']+box['height']/2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x+by, y, steps=3)
        self.page.mouse.up()

    def draw(self, strokes):
        "Move the mouse over the pad, whose sides count 1000"
        pad = self.at.locator('canvas')
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        mouse,side = self.page.mouse,box['width']/1000
        for stroke in strokes:
            where = [(box['x']+side*x, box['y']+side*y) for x,y in stroke.tolist()]
            mouse.move(*where[0])
            mouse.down()
            for o in where[1:]: mouse.move(*o)
            mouse.up()

    def press(self, name): self.at.locator('button', has_text=name).click()

    def rest(self):
        "Return when all that was drawn on the pad has been read"
        self.page.wait_for_function(drawn, arg=self.at.element_handle(), timeout=20_000)

    @property
    def text(self): return self.at.locator('.snnkit-pad input').input_value()

    @property
    def answer(self): return re.search(r'answer: (\w+)', self.at.inner_text())[1]

sliders = dict(EncoderExplorer='time steps', NeuronExplorer='threshold', GradientExplorer='leak',
               NetworkExplorer='intensity', ConversionExplorer='time steps', FieldsExplorer='intensity',
               EconomyExplorer='time steps')
pads = 'NetworkExplorer','ConversionExplorer','FieldsExplorer'

@pytest.mark.parametrize('kind', sliders)
def test_sliders_move_the_picture(playing, kind):
    page,_ = playing
    e = Shown(page, kind)
    label = sliders[kind]
    e.handle(label).focus(timeout=20_000)
    e.changes(lambda: page.keyboard.press('ArrowLeft'))
    e.changes(lambda: e.drag(label, -40))

def is_whole(e, width):
    "Does the picture of the explorer lie on a page of this width?"
    e.at.scroll_into_view_if_needed()
    box = e.at.locator('img.widget-image').bounding_box()
    return 0 <= box['x'] and box['x']+box['width'] <= width

scrolled = """o => [o, ...o.querySelectorAll('*')].filter(x => {
    const s = getComputedStyle(x), bar = v => v == 'auto' || v == 'scroll';
    return x.offsetParent && (bar(s.overflowX) && x.scrollWidth > x.clientWidth+1
        || bar(s.overflowY) && x.scrollHeight > x.clientHeight+1) }).map(x => x.className)"""

@pytest.mark.parametrize('width', [1280, 800])
def test_explorers_fit_the_page(playing, width, tmp_path):
    "No picture is cut, nothing scrolls, and a pad stands beside its picture, with the answer above"
    page,_ = playing
    page.set_viewport_size(dict(width=width, height=800))
    for k in (*sliders, 'TrainExplorer'):
        e = Shown(page, k)
        assert is_whole(e, width), f'the picture of {k} is cut at a width of {width}'
        assert e.at.evaluate(scrolled) == [], f'{k} scrolls at a width of {width}'
        e.at.screenshot(path=tmp_path/f'{k}-{width}.png')
        if k not in pads: continue
        pad,picture = (e.at.locator(o).bounding_box() for o in ('canvas', 'img.widget-image'))
        assert pad['x']+pad['width'] <= picture['x'] and pad['y'] < picture['y']+picture['height']
        assert e.at.get_by_text(re.compile('^answer: ')).first.bounding_box()['y'] < picture['y']
    page.set_viewport_size(dict(width=1280, height=800))

def test_what_has_no_effect_is_grey(playing):
    page,_ = playing
    e = Shown(page, 'NeuronExplorer')
    grey = e.slider('step on').locator('[disabled]')
    assert grey.count() > 0
    e.at.locator('select').first.select_option('step')
    grey.first.wait_for(state='detached', timeout=10_000)
    assert grey.count() == 0

@pytest.mark.parametrize('kind,label', [('NetworkExplorer', 'shown up to step'), ('EncoderExplorer', 'time steps')])
def test_play_shows_step_by_step(playing, kind, label):
    page,_ = playing
    e = Shown(page, kind)
    value,button = e.slider(label).locator('.widget-readout'),e.at.locator('.widget-play button').first
    old = value.inner_text()
    e.changes(button.click)
    e.changes(lambda: None) # and goes on
    button.click()
    assert value.inner_text() != old

def test_a_network_learns_on_the_page(playing):
    "And its sliders answer meanwhile; after a pause nothing moves"
    page,_ = playing
    e = Shown(page, 'TrainExplorer')
    seen = lambda: int(re.search(r'after ([\d,]+) images', e.at.inner_text())[1].replace(',', ''))
    assert seen() == 0
    e.changes(lambda: e.press('start'))
    e.changes(lambda: None)
    e.handle('leak').focus()
    e.changes(lambda: page.keyboard.press('ArrowLeft'))
    e.press('pause')
    e.at.locator('button', has_text='start').wait_for(timeout=10_000)
    still = """o => { const n = o.textContent.match(/after ([\\d,]+) images/)[1], was = o.was;
        o.was = n;
        return n == was }"""
    page.wait_for_function(still, arg=e.at.element_handle(), polling=1500, timeout=20_000) # the last slice has ended
    assert 0 < (n := seen()) < 6400
    page.wait_for_timeout(500)
    assert seen() == n
    e.press('reset')
    e.at.get_by_text('after 0 images').wait_for(timeout=10_000)

def test_pad_takes_clicks_fingers_and_undo(playing):
    page,_ = playing
    e = Shown(page, 'NetworkExplorer')
    pad = e.at.locator('canvas')
    pad.scroll_into_view_if_needed()
    e.changes(lambda: pad.click(position=dict(x=90, y=45)))
    assert e.text == '500,250'
    lit = 'o => o.getContext("2d").getImageData(200, 100, 1, 1).data[0]'
    assert pad.evaluate(lit) == 255 # the dot is seen
    e.rest()
    pad.tap(position=dict(x=45, y=135))
    assert e.text == '500,250;250,750'
    e.rest()
    e.press('undo')
    assert e.text == '500,250'
    pad.dispatch_event('pointerdown', dict(button=2))
    assert e.text == '500,250'
    e.rest()
    e.changes(lambda: e.press('clear'))
    assert e.text == '' and pad.evaluate(lit) == 0

@pytest.mark.parametrize('kind', pads)
def test_drawn_digits_are_read(playing, kind):
    page,_ = playing
    e = Shown(page, kind)
    e.handle(sliders[kind]).focus()
    page.keyboard.press('End')
    for digit in '17':
        e.changes(lambda: e.draw(handwriting[digit]))
        e.rest()
        assert e.answer == digit
        e.press('clear')
        e.rest()

def test_ten_styles_of_ten_digits(playing):
    "By mouse, at least nine of ten right in each style; Python alone, given the same strokes, has the same answers"
    page,_ = playing
    e,alone,right = Shown(page, 'NetworkExplorer'),NetworkExplorer(),{}
    alone.pad.write(handwriting['0'])
    alone.held = True # it looks, and needs no picture
    for style,write in styles.items():
        read = {}
        for digit,o in handwriting.items():
            e.at.locator('button', has_text='clear').evaluate('o => o.click()')
            e.draw(write(o))
            e.rest()
            drawn,read[digit] = as_mnist(strokes_of(e.text)),e.answer
            assert (drawn-as_mnist(write(o))).abs().mean() < .02, (style, digit)
            alone.pad.field.value = e.text
            assert read[digit] == str(alone.look(**alone.values).answer), (style, digit)
        print(style, *read.values())
        right[style] = sum(k == v for k,v in read.items())
    assert min(right.values()) >= 9, right
