"The docs site in Chromium, from a server and from a file: search, formulas, sliders, and the home page's first screen."
import os,subprocess,sys
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler,ThreadingHTTPServer
from threading import Thread
import pytest
from filelock import FileLock
from common import root
from test_browser import browser,env,home,missing # noqa: F401 (fixtures)

pytestmark = pytest.mark.browser

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of the site; if `make test` has not built it, the first of the processes that run tests does, for all"
    if made := os.environ.get('SNNKIT_SITE'): return (root/made).resolve(strict=True)
    try: import smalldocs,latex2mathml # noqa: F401
    except ImportError: missing('smalldocs and latex2mathml')
    own = tmp_path_factory.getbasetemp()
    out = (own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own)/'docs_site'
    with FileLock(f'{out}.lock'):
        if not out.exists(): build(out)
    return out

def build(out):
    cmd = [sys.executable, root/'tools/docs.py', '--out', out]
    made = subprocess.run(cmd, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr

class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@contextmanager
def served(folder):
    "The address of a server for `folder`, on a port that was free"
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try: yield f'http://127.0.0.1:{server.server_port}'
        finally: server.shutdown()

@pytest.fixture(scope='module', params=['server', 'file'])
def address(request, site):
    if request.param == 'file': yield site.as_uri()
    else:
        with served(site) as url: yield url

@pytest.fixture
def page(browser, address):
    "A page that may ask the site and nobody else, and may not complain"
    page = browser.new_page(viewport=dict(width=1280, height=800))
    wrong = []
    page.on('console', lambda o: o.type == 'error' and wrong.append(o.text))
    page.on('pageerror', lambda o: wrong.append(str(o)))
    page.on('requestfailed', lambda o: wrong.append(f'no answer for {o.url}'))
    page.on('request', lambda o: o.url.startswith((address, 'data:')) or wrong.append(f'another host: {o.url}'))
    yield page
    page.close()
    assert wrong == []

def look_up(page, words):
    "Type `words` into the search, with the keyboard alone; the results"
    page.keyboard.press('/')
    page.keyboard.type(words)
    results = page.locator('#site-results a')
    results.first.wait_for(timeout=10_000)
    return results

@pytest.mark.parametrize('width', [1280, 800])
def test_search_by_keyboard(page, address, width):
    page.set_viewport_size(dict(width=width, height=800))
    page.goto(f'{address}/network/neuron.html')
    first = look_up(page, 'rheobase').first
    box = page.locator('#site-results').bounding_box()
    assert 0 <= box['x'] and box['x']+box['width'] <= width
    assert 'rheobase' in first.locator('.site-text').inner_text() and first.locator('mark').count()
    page.keyboard.press('ArrowDown')
    chosen = page.locator('#site-results a[aria-selected=true]')
    assert chosen.count() == 1 and chosen.get_attribute('id') == 'site-result-1'
    page.keyboard.press('Escape')
    assert not page.locator('#site-results').is_visible()

@pytest.mark.parametrize('words, title, where', [
    ('lif', 'lif', 'network/spikebp.html#lif'),                               # a function
    ('error increment', '', ''),                                               # prose
    ('surrogate gradients', 'Surrogate gradients', 'network/spikebp.html#')])  # a heading
def test_search_opens_what_it_found(page, address, words, title, where):
    page.goto(f'{address}/play.html')
    first = look_up(page, words).first
    assert title in first.locator('b').inner_text()
    page.keyboard.press('Enter')
    page.wait_for_url(f'{address}/{where}**' if where else lambda url: 'play.html' not in url)
    text = page.locator('main').inner_text().lower()
    assert all(o in text for o in words.split())

def test_search_that_finds_nothing(page, address):
    page.goto(f'{address}/index.html')
    page.keyboard.press('/')
    page.keyboard.type('zzzq')
    page.locator('.site-none', has_text='zzzq').wait_for(timeout=10_000)

def test_formulas(page, address):
    "Each has a size, none is left as TeX, and none is cut"
    page.goto(f'{address}/network/spikebp.html')
    page.evaluate('document.fonts.ready')
    sizes = page.evaluate('''[...document.querySelectorAll('main math')].map(o => {
        const box = o.getBoundingClientRect();
        return [Math.min(box.width, box.height), box.right] })''')
    assert len(sizes) > 20 and min(o for o,_ in sizes) > 3
    text = page.locator('main').inner_text()
    assert '\\(' not in text and '\\frac' not in text
    assert page.evaluate('document.fonts.check("16px STIX Two Math")')
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')

def test_sliders_move_the_pictures(page, address):
    page.goto(f'{address}/play.html')
    figures = page.locator('figure.frames')
    assert figures.count() >= 5
    for figure in figures.all():
        slider,seen = figure.locator('input'),figure.locator('img:visible')
        old,told = seen.get_attribute('src'),figure.locator('output').inner_text()
        slider.focus()
        at_end = slider.input_value() == slider.get_attribute('max')
        page.keyboard.press('ArrowLeft' if at_end else 'ArrowRight')
        assert seen.count() == 1 and seen.get_attribute('src') != old
        assert figure.locator('output').inner_text() != told
        assert seen.evaluate('o => o.naturalWidth') > 300

def test_pictures_stay_without_scripts(browser, address):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f'{address}/play.html')
    for figure in page.locator('figure.frames').all():
        assert figure.locator('img:visible').count() == 1 and not figure.locator('input').is_visible()
    page.close()

def test_home_shows_a_result_at_once(page, address):
    "In the first screen: what the kit is, how accurate, at which cost, and how to start"
    page.goto(f'{address}/index.html')
    for o in ('main p:has-text("research kit")', 'main table', '#start h2', '#start li'):
        box = page.locator(o).first.bounding_box()
        assert 0 <= box['y'] and box['y']+box['height'] <= 800, f'{o} is not in the first screen'
    assert page.locator('main table').first.locator('tbody tr').count() == 3

@pytest.mark.parametrize('width', [1280, 800])
def test_contents(page, address, width):
    page.set_viewport_size(dict(width=width, height=900))
    page.goto(f'{address}/network/encoding.html')
    if width == 800: page.locator('.site-contents summary').click()
    contents = page.locator('#TOC' if width == 1280 else '.site-contents')
    link = contents.get_by_role('link').nth(1)
    anchor = link.get_attribute('href').partition('#')[2]
    link.click()
    page.wait_for_url(f'**/encoding.html#{anchor}')
    top = f'document.getElementById("{anchor}").getBoundingClientRect().top'
    page.wait_for_function(f'0 <= {top} && {top} < 300', timeout=10_000)

def test_sidebar_on_a_narrow_screen(page, address):
    page.set_viewport_size(dict(width=800, height=900))
    page.goto(f'{address}/network/encoding.html')
    page.locator('.quarto-btn-toggle').first.click()
    first = page.locator('#quarto-sidebar').get_by_role('link').first
    assert first.bounding_box()['y'] >= page.locator('#quarto-header').bounding_box()['height'], 'beneath the header'
    link = page.locator('#quarto-sidebar').get_by_role('link', name='Layers')
    link.click()
    page.wait_for_url('**/network/layers.html')
