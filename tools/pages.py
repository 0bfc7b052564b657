"""What the docs site for reading here gets beyond smalldocs. A page may be opened from a file and without a network:
search needs no server, formulas are MathML, and nothing is asked of another host.

(The published site is Quarto's. There `html-math-method: mathml` makes the formulas, and Quarto's own search fetches
its index, so it works over HTTP alone.)"""
import html,json,re
from functools import cache
from pathlib import Path
from shutil import copyfile,rmtree
from latex2mathml.converter import convert

assets = Path(__file__).parent/'site'
box = '''<div class="site-search" role="search">
<input id="site-search" type="search" class="form-control form-control-sm" placeholder="Search  ( / )"
 autocomplete="off" role="combobox" aria-label="Search" aria-autocomplete="list" aria-expanded="false"
 aria-controls="site-results">
<div id="site-results" role="listbox" aria-label="Results" hidden></div></div>'''

# What latex2mathml 3.81 leaves to browsers: \overline is as short as an accent, a prime is made small twice, := falls
# apart, and \! is a name that only old browsers know
mends = {r'<mo accent="true">&#x02015;</mo>': '<mo stretchy="true">&#x203E;</mo>',
         r'<msup>(<m[io]>[^<]*</m[io]>)<mi>&#x02032;</mi></msup>':
             r'<mrow>\1<mo lspace="0" rspace="0">&#x02032;</mo></mrow>',
         r'<m[io]>(?::|&#x0003A;)</m[io]><mo>&#x0003D;</mo>': '<mo>&#x2254;</mo>',
         '"negativethinmathspace"': '"-0.167em"'}

@cache
def mathml(tex, display):
    "The formula `tex` as MathML"
    tex = re.sub(r'\\Big\)_', r'{\\Big)}_', tex) # or the subscript shrinks the parenthesis
    made = convert(tex, display='block' if display else 'inline')
    for found,mended in mends.items(): made = re.sub(found, mended, made)
    return made

formula = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)

def with_formulas(page):
    "The HTML `page` with its formulas as MathML, in place of TeX that KaTeX from another host would set"
    page = re.sub(r'<(link|script) [^>]*katex[^>]*>(</script>)?', '', page)
    def made(m): return f'<span class="math {m[1]}">{mathml(html.unescape(m[2]), m[1]=="display")}</span>'
    return formula.sub(made, page)

def with_search(page, up):
    "The HTML `page`, from which `up` leads to the site's root, with the site's own search in place of smalldocs'"
    page = re.sub(r'<script src="[^"]*fuse\.min\.js"></script>', '', page)
    page = re.sub(r'<button class="navbar-toggler".*?</button>', '', page, flags=re.S) # it hid nothing but the search
    page = re.sub(r'<div class="collapse navbar-collapse".*?(?=</div></nav>)', lambda _: box, page, flags=re.S)
    mine = f'<link rel="stylesheet" href="{up}site_libs/site.css"><script src="{up}site_libs/search.js" defer></script>'
    return page.replace('</head>', f'{mine}</head>', 1)

def with_contents(page):
    "The HTML `page` with its list of contents also above the text, where a narrow screen has no room beside it"
    listed = re.search(r'<nav id="TOC".*?</h2>(.*?)</nav>', page, re.S)
    if not listed: return page
    links = re.sub(r' (id|class|data-scroll-target)="[^"]*"', '', listed[1])
    folded = f'<details class="site-contents"><summary>On this page</summary>{links}</details>'
    return re.sub(r'(</header>)(?!.*</header>)', lambda m: m[1] + folded, page, count=1, flags=re.S)

def with_badges(page):
    "The HTML `page` with words in place of Colab's picture, which lies on Colab's host"
    return re.sub(r'<img [^>]*colab-badge\.svg[^>]*>', '<span class="site-badge">Open in Colab</span>', page)

def write_index(out):
    "Make of smalldocs' search index in the folder `out` a script; a section is (address, page, heading, text)"
    def plain(text): return re.sub(r'^Open in Colab | source$', '', text)
    found = json.loads((out/'search.json').read_text(encoding='utf-8'))
    sections = [(o['href'], o['title'], o['section'], plain(o['text'])) for o in found]
    lines = ',\n'.join(json.dumps(o, ensure_ascii=False) for o in sections)
    (out/'search-index.js').write_text(f'window.siteSections = [\n{lines}];\n', encoding='utf-8')
    (out/'search.json').unlink()

def finish(out):
    "Make the site that smalldocs built in the folder `out` one that needs neither a server nor a network"
    for page in out.rglob('*.html'):
        up = '../'*(len(page.relative_to(out).parts)-1)
        text = with_formulas(page.read_text(encoding='utf-8'))
        page.write_text(with_badges(with_contents(with_search(text, up))), encoding='utf-8')
    for o in ('site.css', 'search.js'): copyfile(assets/o, out/'site_libs'/o)
    rmtree(out/'site_libs/fuse')
    write_index(out)

# What a browser asks for by itself: not the links that a reader follows
asked = re.compile(r'<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc="((?:https?:)?//[^"]+)"'
                   r'|<link\b[^>]*?\bhref="((?:https?:)?//[^"]+)"'
                   r'|(?:@import\s*|url\(\s*)(?:url\()?["\']?((?:https?:)?//[^"\')\s]+)')

def strangers(out):
    "What the site in the folder `out` would ask of another host, as (file, address)"
    for o in sorted(p for kind in ('*.html', '*.css') for p in out.rglob(kind)):
        for found in asked.findall(o.read_text(encoding='utf-8')): yield o.relative_to(out).as_posix(),''.join(found)
