"Hands setuptools the packages that it finds and the lists that settings.ini keeps; every static fact is in pyproject.toml."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser()
cfg.read(Path(__file__).parent/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
def lines(key): return [o for o in cfg[key].splitlines() if o.strip()]

stages = {'1': 'Planning', '2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
setup(
    packages=[*find_packages(include=['snnkit', 'snnkit.*']), 'snnkit.results'],
    install_requires=lines('requirements'),
    extras_require={k.removesuffix('_requirements'): lines(k) for k in cfg if k.endswith('_requirements')},
    classifiers=[f"Development Status :: {cfg['status']} - {stages[cfg['status']]}",
                 f"Intended Audience :: {cfg['audience']}",
                 *(f'Programming Language :: Python :: {o}' for o in ('3', *cfg['pythons'].split()))])
