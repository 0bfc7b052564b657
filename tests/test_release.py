"Whoever cites the package or reads what is new finds the version that is installed."
import re
import pytest,yaml
from packaging.version import Version
from snnkit import __version__
from common import root

log = (root/'CHANGELOG.md').read_text(encoding='utf-8')
heads = re.findall(r'^## (.+)$', log, re.M)
sections = [re.fullmatch(r'\[(Unreleased|\d+\.\d+\.\d+)\](?: - (unreleased|\d{4}-\d{2}-\d{2}))?', o) for o in heads]
kinds = {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}

def test_citation():
    "It has what the format needs, and names this version"
    cff = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    assert {'cff-version', 'message', 'title', 'authors', 'type', 'version', 'license'} <= cff.keys()
    assert cff['cff-version'] == '1.2.0' and cff['type'] == 'software'
    assert cff['authors'] == [{'name': 'The snnkit founders'}]
    assert str(cff['version']) == __version__

def test_changes_of_this_version_come_first():
    assert all(sections), heads
    names = [o[1] for o in sections]
    assert names[:2] == ['Unreleased', __version__]
    assert names[1:] == sorted(names[1:], key=Version, reverse=True)

def test_every_version_but_the_newest_has_a_date():
    dates = [o[2] for o in sections]
    assert dates[0] is None and dates[1] and all(re.match(r'\d{4}-', o) for o in dates[2:])

def test_changes_are_sorted_by_kind():
    assert set(re.findall(r'^### (.+)$', log, re.M)) <= kinds

@pytest.mark.parametrize('version', [o[1] for o in sections if o])
def test_every_version_has_a_link(version): assert re.search(rf'^\[{re.escape(version)}\]: https://', log, re.M)
