"The types of the public functions, as a type checker reads them where snnkit is installed."
import subprocess,sys
from common import root

def check(*args):
    mypy = [sys.executable, '-m', 'mypy', *map(str, args)]
    return subprocess.run(mypy, cwd=root, capture_output=True, text=True)

def test_public_types():
    "A user's program is right, and each mistake that it says it has is found."
    p = check()
    assert p.returncode == 0, p.stdout + p.stderr

def test_a_mistake_is_found(tmp_path):
    "The same program with one more mistake, which nothing announces, fails."
    wrong = tmp_path/'typed.py'
    wrong.write_text((root/'tests/typed.py').read_text() + "\nfit(mine, data, epochs='two')\n")
    p = check('--config-file', root/'pyproject.toml', wrong)
    assert p.returncode == 1 and 'Found 1 error' in p.stdout
    assert 'Argument "epochs" to "fit" has incompatible type "str"; expected "int"' in p.stdout
