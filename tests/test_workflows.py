"GitHub's workflows: well formed, on the Pythons that the project supports, with no more rights than they need."
import re,shutil
from configparser import ConfigParser
import pytest,yaml
from nbdev.config import get_config
from packaging.specifiers import SpecifierSet
from common import bin_,root

class Strict(yaml.SafeLoader):
    "A loader that refuses a key given twice, as GitHub does"
    def construct_mapping(self, node, deep=False):
        keys = [k.value for k,_ in node.value]
        assert len(keys) == len(set(keys)), f'a key stands twice: {keys}'
        return super().construct_mapping(node, deep)

files = sorted((root/'.github/workflows').glob('*.y*ml'))
flows = {p.name: yaml.load(p.read_text(encoding='utf-8'), Strict) for p in files}
jobs = [pytest.param(f, f['jobs'][n], id=f'{name} {n}') for name,f in flows.items() for n in f['jobs']]
cfg = get_config(root)

def pythons():
    "The versions that settings.ini names"
    ini = ConfigParser()
    ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']['pythons'].split()

def test_there_are_two(): assert set(flows) == {'test.yml', 'deploy.yml'}

def test_pythons_are_those_supported():
    supported = SpecifierSet(re.search(r'^requires-python = "(.+)"$', (root/'pyproject.toml').read_text(), re.M)[1])
    assert flows['test.yml']['jobs']['test']['strategy']['matrix']['python'] == pythons()
    minor = [int(o.removeprefix('3.')) for o in pythons()]
    assert minor == list(range(minor[0], minor[-1]+1)), 'without gaps'
    assert all(o in supported for o in pythons()) and f'3.{minor[0]-1}' not in supported

def test_bounds_are_tested_at_both_ends():
    "The lowest releases on the oldest Python, the newest on the newest, and Colab's on its own"
    ends = {o['releases']: o['python'] for o in flows['test.yml']['jobs']['bounds']['strategy']['matrix']['include']}
    assert ends == dict(lowest=pythons()[0], newest=pythons()[-1], colab='3.12')

def test_site_is_made_with_a_supported_python():
    steps = flows['deploy.yml']['jobs']['build']['steps']
    used = [s['with']['python-version'] for s in steps if 'setup-python' in s.get('uses', '')]
    assert len(used) == 1 and used[0] in pythons()

@pytest.mark.parametrize('flow, job', jobs)
def test_job_is_bounded(flow, job):
    assert job['timeout-minutes'] <= 90 and job['runs-on'] == 'ubuntu-latest'
    assert flow['permissions'] == {'contents': 'read'} and 'group' in flow['concurrency']
    deploys = any('deploy-pages' in s.get('uses', '') for s in job['steps'])
    assert job.get('permissions', {}) == ({'pages': 'write', 'id-token': 'write'} if deploys else {})

@pytest.mark.parametrize('flow, job', jobs)
def test_steps(flow, job):
    for s in job['steps']:
        assert ('uses' in s) != ('run' in s)
        if 'uses' in s: assert re.fullmatch(r'(actions|quarto-dev)/[\w-]+(/[\w-]+)?@v\d+', s['uses'])

def test_commands_exist():
    targets = set(re.findall(r'^([a-z]+):', (root/'Makefile').read_text(), re.M))
    runs = [s['run'] for f in flows.values() for j in f['jobs'].values() for s in j['steps'] if 'run' in s]
    made = {t for o in runs if o.startswith('make ') for t in re.findall(r"make (\w+)|'([a-z]+)'", o) for t in t if t}
    assert made == {'bounds', 'chromium', 'test', 'units'} <= targets
    assert 'nbdev-docs' in runs and shutil.which('nbdev-docs', path=bin_)

def test_site_is_what_nbdev_makes():
    steps = flows['deploy.yml']['jobs']['build']['steps']
    assert [s['with']['path'] for s in steps if 'upload-pages-artifact' in s.get('uses', '')] == [cfg.doc_path.name]
    for f in flows.values(): assert f[True]['push']['branches'] == [cfg.branch] # YAML takes `on` for true

forms = [p for p in sorted((root/'.github/ISSUE_TEMPLATE').glob('*.yml')) if p.name != 'config.yml']

@pytest.mark.parametrize('path', forms, ids=lambda p: p.stem)
def test_issue_form(path):
    "As GitHub wants it: a name, a description, and fields with an id and a label"
    form = yaml.load(path.read_text(encoding='utf-8'), Strict)
    assert form['name'] and form['description'] and len(form['body'])>1
    ids = [o['id'] for o in form['body']]
    assert len(ids) == len(set(ids))
    for o in form['body']: assert o['type'] in ('textarea', 'input', 'dropdown') and o['attributes']['label']
    assert any(o.get('validations', {}).get('required') for o in form['body'])

def test_hooks_are_local():
    "Nothing is fetched from elsewhere, and what the hooks call is here"
    repos = yaml.load((root/'.pre-commit-config.yaml').read_text(encoding='utf-8'), Strict)['repos']
    assert [o['repo'] for o in repos] == ['local']
    for o in repos[0]['hooks']:
        for word in o['entry'].split():
            if word.startswith('.venv/bin/'): assert shutil.which(word.removeprefix('.venv/bin/'), path=bin_)
            elif word.endswith('.py'): assert (root/word).exists()
